"""Checkpoints of self-supervised training: which of the tensors are the encoder.

Belongs here: DINO's and DINOv2's teacher, the online branch of SimCLR and MoCo. Does not belong: layouts of published encoders
(`keymaps`). Training saves an encoder beside heads, momentum copies and queues; those are kept as `UNUSED`, to be accounted for.
"""

from __future__ import annotations

import re

from torch import Tensor

from pathassets.encoders.zoo import UNUSED

State = dict[str, Tensor]

# What frameworks put before the encoder's names; the first that occurs is the branch that is used.
BRANCHES = (
    "teacher.backbone.", "momentum_encoder.", "backbone.", "encoder_q.", "base_encoder.", "online_encoder.", "model.",
    "encoder.",
)  # fmt: skip
WRAPPED = r"^(?:module\.|_orig_mod\.)+"
HEADS = r"^(head|dino_head|ibot_head|projector|projection_head|projection|predictor|prototypes|fc|linear|queue|queue_ptr)(\.|$)"
CHUNKED = r"^blocks\.\d+\.(?=\d+\.)"
"""DINOv2 saves blocks in chunks; a block keeps its own number within."""


def encoder_of(state: State, wanted: set[str]) -> State:
    """The encoder's tensors, under the names that timm's networks have.

    Args:
        state: All tensors of the checkpoint.
        wanted: Names of the network; none of them is taken for a training head.

    Returns:
        The encoder's tensors, and all others under `UNUSED`.
    """
    named = {re.sub(WRAPPED, "", key): value for key, value in state.items()}
    branch = next((branch for branch in BRANCHES if any(key.startswith(branch) for key in named)), "")
    # an EfficientNet's blocks have two numbers of their own
    chunked = None if any(re.match(CHUNKED, name) for name in wanted) else CHUNKED
    found: State = {}
    for key, value in named.items():
        name = key.removeprefix(branch)
        name = re.sub(chunked, "blocks.", name) if chunked else name
        name = name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")
        spare = not key.startswith(branch) or (re.match(HEADS, name) and name not in wanted)
        found[UNUSED + key if spare else name] = value
    return found
