"""In which number format an encoder runs, and how far that is from fp32.

Belongs here: the policy and its measure. Does not belong: what happens when outputs are not finite (`engine/`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pathassets.errors import EncoderError, Reason

if TYPE_CHECKING:
    import numpy as np
    import torch

Precision = Literal["fp32", "bf16", "fp16"]
POLICIES = ("auto", "fp32", "bf16", "fp16")
# Ampere (8.0) is the first CUDA generation with bf16 units; on Turing (7.5) bf16 is emulated and slower than fp32.
BF16_COMPUTE_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class Agreement:
    """How near a reduced precision comes to fp32 on the same tiles.

    Attributes:
        cosine: Smallest cosine between a tile's two embeddings.
        max_rel_error: Largest length of the difference as a share of the fp32 embedding's length.
        n_tiles: Tiles compared.
    """

    cosine: float
    max_rel_error: float
    n_tiles: int


def resolve_precision(policy: str, *devices: str) -> Precision:
    """The precision that `policy` means: `auto` takes bf16 where all of `devices` compute in it.

    Raises:
        EncoderError: `config_invalid` for an unknown policy.
    """
    if policy not in POLICIES:
        raise EncoderError(
            f"precision {policy!r} is not known",
            reason=Reason.CONFIG_INVALID,
            remedy=f"Use one of {', '.join(POLICIES)}.",
        )
    if policy == "auto":
        return "bf16" if all(map(is_good_at_bf16, devices)) else "fp32"
    return policy  # type: ignore[return-value]


def is_good_at_bf16(device: str) -> bool:
    """Whether `device` multiplies in bf16: CUDA from Ampere on, CPUs with AMX or AVX-512 BF16."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(torch.device(device)) >= BF16_COMPUTE_CAPABILITY
    if device != "cpu":
        return False
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))


def torch_dtype(precision: Precision) -> torch.dtype:
    """torch's type of a precision."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def compare(reduced: np.ndarray, reference: np.ndarray) -> Agreement:
    """Agreement of two (n, dim) arrays of embeddings of the same tiles; rows of zeros in both agree."""
    import numpy as np

    a, b = reduced.astype(np.float64), reference.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    product = lengths[0] * lengths[1]
    both_zero = (lengths[0] == 0) & (lengths[1] == 0)
    cosines = np.where(both_zero, 1.0, (a * b).sum(axis=1) / np.where(product == 0, 1.0, product))
    errors = np.linalg.norm(a - b, axis=1) / np.where(lengths[1] == 0, 1.0, lengths[1])
    return Agreement(float(cosines.min()), float(errors.max()), len(a))
