"""A network of one's own trained with DINOv2: the training's YAML says which one it is, its teacher checkpoint has the weights.

Belongs here: what of that file decides the network and its input. Does not belong: names of tensors (`selfsup`), timm's
networks (`timm_models`), published encoders that were trained so (`zoo`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pathassets.encoders.card import IMAGENET_MEAN, IMAGENET_STD
from pathassets.encoders.registry import EncoderSpec
from pathassets.errors import EncoderError, Reason

NAME = "dinov2"
ARCHITECTURES = {
    "vit_small": ("small", 384),
    "vit_base": ("base", 768),
    "vit_large": ("large", 1024),
    "vit_giant2": ("giant", 1536),
}
"""timm's word for the size, and the width."""
# What a line means that a YAML lacks: DINOv2's own ssl_default_config.yaml.
DEFAULTS: dict[str, Any] = {
    "arch": "vit_large", "patch_size": 16, "layerscale": 1e-5, "ffn_layer": "mlp", "num_register_tokens": 0, "qkv_bias": True,
}  # fmt: skip
CROP_PX = 224
GATED = ("swiglu", "swiglufused")
_MAX_BYTES = 1 << 20


def spec(kwargs: dict[str, Any]) -> EncoderSpec:
    """The encoder that `config`, the path of the training's YAML, describes; other arguments are the network's own.

    Raises:
        EncoderError: `config_invalid` when the file is not given, is none of DINOv2's, or describes a network that is not here.
    """
    from pathassets.encoders import timm_models

    told = _settings(kwargs.pop("config", None))
    student = {**DEFAULTS, **_part(told, "student")}
    crop_px = _part(told, "crops").get("global_crops_size", CROP_PX)
    name, arguments = _network(student, crop_px)
    found = timm_models.spec(name, {**arguments, **kwargs})
    assert found is not None  # timm has all of ARCHITECTURES
    card = replace(
        found.card,
        name=NAME,
        description="A network of your own, trained with DINOv2.",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        interpolation="bicubic",
        pooling="class token",
        training="DINOv2",
        licence="your own",
        commercial_use=None,
        hub_id=None,
        file=None,
        citation="Oquab 2023, arXiv:2304.07193",
        link="https://github.com/facebookresearch/dinov2",
        source="the training's YAML",
    )
    return replace(found, card=card)


def _settings(path: Any) -> dict[str, Any]:
    if not path:
        raise _invalid(
            "dinov2 needs the training's YAML", 'Set encoder_kwargs = {config = "config.yaml"}, and `weights`.'
        )
    file = Path(str(path)).expanduser()
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError("it is larger than any")
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        line = (str(error).splitlines() or [""])[0]
        raise _invalid(
            f"{file} cannot be read as DINOv2's YAML: {line}", "Name the config.yaml of its training."
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get("student"), dict):
        raise _invalid(f"{file} has no `student`: it is no YAML of DINOv2", "Name the config.yaml of its training.")
    return found


def _part(told: dict[str, Any], name: str) -> dict[str, Any]:
    part = told.get(name)
    return {key: value for key, value in part.items() if value is not None} if isinstance(part, dict) else {}


def _network(student: dict[str, Any], crop_px: Any) -> tuple[str, dict[str, Any]]:
    """timm's name and arguments."""
    from timm.layers.mlp import Mlp, SwiGLUPacked
    from torch import nn

    known, registers, ffn = (
        ARCHITECTURES.get(str(student["arch"])),
        student["num_register_tokens"],
        student["ffn_layer"],
    )
    if known is None or ffn not in ("mlp", *GATED):
        raise _invalid(
            f"the training's YAML says arch {student['arch']!r}, ffn_layer {ffn!r}; here are {', '.join(ARCHITECTURES)} "
            f"with mlp, {' or '.join(GATED)}",
            'Save the network with torch.export.save, then encoder = "exported".',
        )
    size, width = known
    arguments: dict[str, Any] = {
        "img_size": crop_px, "patch_size": student["patch_size"], "qkv_bias": student["qkv_bias"],
        "init_values": student["layerscale"] or None,
    }  # fmt: skip
    if ffn in GATED:
        arguments |= {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": _gated_ratio(width)}
    else:
        arguments |= {"mlp_layer": Mlp, "act_layer": nn.GELU, "mlp_ratio": 4.0}
    if registers:
        arguments["reg_tokens"] = registers
    return f"vit_{size}_patch14{'_reg4' if registers else ''}_dinov2", arguments


def _gated_ratio(width: int) -> float:
    """A gated MLP is two thirds as wide, in steps of eight, and its two halves lie side by side (DINOv2's SwiGLUFFNFused)."""
    hidden = (int(4 * width * 2 / 3) + 7) // 8 * 8
    return (2 * hidden + 0.5) / width  # timm cuts off what is behind the point


def _invalid(message: str, remedy: str) -> EncoderError:
    return EncoderError(message, reason=Reason.CONFIG_INVALID, remedy=remedy)
