"""Loading: a name, and perhaps a file, to an encoder that runs.

Belongs here: putting card, network, weights, device and precision together. Does not belong: any of these alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathassets.encoders.device import resolve_devices
from pathassets.encoders.precision import is_good_at_bf16, resolve_precision
from pathassets.encoders.registry import EncoderSpec, get_spec
from pathassets.encoders.weights import (
    file_sha256,
    find_weights,
    load_strict,
    local_file,
    random_digest,
    random_seed,
    read_state,
    weights_digest,
)
from pathassets.errors import EncoderError

if TYPE_CHECKING:
    import torch

    from pathassets.encoders.encoder import Encoder

log = logging.getLogger(__name__)


def load_encoder(
    name: str = "demo-vlm",
    *,
    weights: str | Path | None = None,
    random_weights: bool = False,
    device: str = "auto",
    precision: str = "auto",
    **encoder_kwargs: Any,
) -> Encoder:
    """An encoder: `load_encoder("timm/resnet18")(images)` turns uint8 (n, h, w, 3) into float32 (n, dim).

    Args:
        name: A named encoder, or any timm model as `timm/<name>`.
        weights: A local file (safetensors, or a checkpoint of tensors); None = the card's own source.
        random_weights: Untrained weights, the same for the same name; nothing they give means anything.
        device: `auto`, `cuda`, `cuda:1`, `mps` or `cpu`; of several (`cuda:0,cuda:1`) the encoder is on the first, and
            computes in what suits all of them.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        **encoder_kwargs: `mean`, `std`, `interpolation`, `resize`, `crop` override the card's preprocessing;
            all others are the network's own arguments (`pad_type="same"`).

    Raises:
        EncoderError: The encoder, its weights or the device cannot be had; the message says what to do.
    """
    from pathassets.encoders.encoder import Encoder

    devices = resolve_devices(device)
    how = resolve_precision(precision, *devices)
    spec = get_spec(name, encoder_kwargs)
    if random_weights:
        network, sha256, dropped = _random_network(name, spec), random_digest(name, encoder_kwargs), []
        log.warning("%s has random weights: its embeddings mean nothing", spec.card.name)
    else:
        path = local_file(weights, name) if weights is not None else find_weights(spec.card, download=True)
        network = spec.build()
        dropped = load_strict(network, read_state(path), spec, path)
        sha256 = file_sha256(path)
    if dropped:
        log.info("%s: left out %s, which only a classifier needs", spec.card.name, ", ".join(dropped))
    return Encoder(
        spec.card, network, device=devices[0], precision=how, weights_sha256=sha256, dropped=dropped, devices=devices
    )


def weights_are_here(name: str, *, weights: str | None = None, encoder_kwargs: Mapping[str, Any] | None = None) -> bool:
    """Whether an encoder could be loaded now, without the network."""
    try:
        weights_digest(name, weights=weights, encoder_kwargs=encoder_kwargs)
    except EncoderError:
        return False
    return True


def check_device(names: str) -> str:
    """What `names` stand for on this machine, in words: `cuda:0 (NVIDIA A100, bf16), cuda:1 (NVIDIA A100, bf16)`.

    Raises:
        EncoderError: `device_missing` when one is not there.
    """
    return ", ".join(_in_words(device) for device in resolve_devices(names))


def _in_words(device: str) -> str:
    import torch

    precision = "bf16" if is_good_at_bf16(device) else "fp32"
    model = f"{torch.cuda.get_device_name(device)}, " if device.startswith("cuda") else ""
    return f"{device} ({model}{precision})"


def _random_network(name: str, spec: EncoderSpec) -> torch.nn.Module:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed(name))
        return spec.build()
