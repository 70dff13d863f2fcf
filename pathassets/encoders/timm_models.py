"""Any timm model as an encoder: its card comes from timm's own configuration of its weights.

Belongs here: what is special about timm. Does not belong: the cards of pathology models that happen to be built on timm.
A tile is already the field of view that was asked for, so it is brought to the input size whole: timm's centre crop
(`crop_pct`), made for photographs, would throw away the tile's border.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pathassets.encoders.card import EncoderCard, Interpolation, Rgb
from pathassets.encoders.registry import TIMM_PREFIX, Classifier, EncoderSpec
from pathassets.encoders.zoo import UNUSED
from pathassets.errors import EncoderError, Reason

if TYPE_CHECKING:
    import torch
    from timm.models import PretrainedCfg

TIMM_LINK = "https://github.com/huggingface/pytorch-image-models"
# What loading decides: a network with a head is no encoder, and weights come through `weights.py` or not at all.
RESERVED = ("num_classes", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "features_only")


def names() -> list[str]:
    """All timm model names, without weight tags."""
    import timm

    return list(timm.list_models())


def spec(name: str, kwargs: Mapping[str, Any]) -> EncoderSpec | None:
    """The timm model `name` (`resnet18`, or `resnet18.a1_in1k` for certain weights); None when timm has none of that name.

    Raises:
        EncoderError: `config_invalid` or `encoder_failed` when timm cannot build it with these arguments.
    """
    from timm.models import is_model

    if not is_model(name):
        return None
    reserved = [key for key in RESERVED if key in kwargs]
    if reserved:
        raise EncoderError(
            f"{reserved[0]!r} cannot be set for timm/{name}",
            reason=Reason.CONFIG_INVALID,
            remedy="Leave it out of encoder_kwargs; local weights are given with `weights`.",
        )
    try:
        config = _config(name)
    except RuntimeError as error:
        raise EncoderError(
            f"timm/{name}: {error}",
            reason=Reason.ENCODER_UNKNOWN,
            remedy=f"timm knows the tags {', '.join(_tags(name))}.",
        ) from error
    frozen = tuple(sorted((key, _hashable(value)) for key, value in kwargs.items()))
    return EncoderSpec(
        card=_card(name, frozen),
        build=lambda: create(name, dict(kwargs)),
        rename=lambda state, model: _renamed(name, state, model),
        heads=_heads(config.classifier),
        classifier=_classifier(name, kwargs, config),
    )


@lru_cache(maxsize=64)
def _card(name: str, frozen: tuple[tuple[str, Any], ...]) -> EncoderCard:
    import torch

    config = _config(name)
    with torch.device("meta"):
        model = create(name, dict(frozen))
    size = _edge(dict(frozen).get("img_size", config.input_size[-1]))
    licence = (config.license or "unknown").lower()
    tag = f", weights {config.tag}" if config.tag else ""
    papers = config.paper_ids or ()
    return EncoderCard(
        name=f"{TIMM_PREFIX}{name}",
        family="timm",
        architecture=config.architecture or name,
        dim=_width(name, model, size),
        input_px=size,
        description=f"timm's {config.architecture}{tag}: a general vision model.",
        tile_px=0,
        mpp=None,
        mean=_rgb(config.mean),
        std=_rgb(config.std),
        interpolation=_interpolation(config.interpolation),
        pooling="the model's own",
        params_m=round(sum(p.numel() for p in model.parameters()) / 1e6, 3),
        licence=licence,
        commercial_use=True if licence in ("apache-2.0", "mit", "bsd-3-clause") else None,
        hub_id=config.hf_hub_id,
        file=config.hf_hub_filename,
        citation=papers if isinstance(papers, str) else ", ".join(papers),
        link=f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else TIMM_LINK,
        source="timm's pretrained_cfg",
    )


def _config(name: str) -> PretrainedCfg:
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name, allow_unregistered=False)
    assert config is not None  # what is not registered raises
    return config


def create(
    name: str, kwargs: Mapping[str, Any], asked: Mapping[str, Any] | None = None, *, n_classes: int = 0
) -> torch.nn.Module:
    """A network of timm, untrained, ready to be run.

    Args:
        name: timm's name.
        kwargs: Arguments of timm's model.
        asked: Those of them that the recipe has asked for; None = all.
        n_classes: Of its classifier; 0 = without one.

    Raises:
        EncoderError: `encoder_failed` when timm refuses the arguments.
    """
    import timm

    try:
        return timm.create_model(name, pretrained=False, num_classes=n_classes, **kwargs).eval()
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise EncoderError(
            f"timm cannot build {name} with {dict(kwargs if asked is None else asked) or 'its defaults'}: {error}",
            reason=Reason.ENCODER_FAILED,
            remedy="Correct `encoder_kwargs` of the recipe.",
        ) from error


def _width(name: str, model: torch.nn.Module, size: int) -> int:
    """Length of an embedding, by shape arithmetic alone (some models have more outputs than `num_features`)."""
    import torch

    with torch.no_grad():
        shape = tuple(model(torch.zeros(1, 3, size, size, device="meta")).shape)
    if len(shape) != 2:
        raise EncoderError(
            f"timm/{name} gives {len(shape)}-dimensional output {shape}, not one vector per tile",
            reason=Reason.ENCODER_FAILED,
            remedy="Leave `global_pool` at the model's default, or set it to 'token' or 'avg'.",
        )
    return int(shape[1])


def _renamed(name: str, state: dict[str, torch.Tensor], model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Training's wrapping taken off, then timm's own translation of older checkpoints (names, sizes of position embeddings)."""
    from timm.models import model_entrypoint

    from pathassets.encoders.selfsup import encoder_of

    module = sys.modules[model_entrypoint(name).__module__]
    translate = getattr(module, "checkpoint_filter_fn", None)
    found = encoder_of(state, set(model.state_dict()))
    unused = {key: value for key, value in found.items() if key.startswith(UNUSED)}
    used = {key: value for key, value in found.items() if key not in unused}
    return {**(translate(used, model) if translate is not None else used), **unused}


def _classifier(name: str, kwargs: Mapping[str, Any], config: PretrainedCfg) -> Classifier | None:
    layers = (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier or ())
    build = lambda n_classes: create(name, dict(kwargs), n_classes=n_classes)  # noqa: E731
    return Classifier(layers, config.num_classes, build) if layers else None


def _heads(classifier: str | tuple[str, ...] | None) -> tuple[str, ...]:
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    return tuple(f"{head}." for head in heads)


def _tags(name: str) -> list[str]:
    import timm

    return [full.partition(".")[2] for full in timm.list_pretrained(f"{name.partition('.')[0]}.*")]


def _interpolation(name: str) -> Interpolation:
    return name if name in ("bilinear", "bicubic", "nearest") else "bicubic"  # type: ignore[return-value]


def _rgb(values: Sequence[float]) -> Rgb:
    red, green, blue = values
    return red, green, blue


def _edge(size: Any) -> int:
    return int(max(size)) if isinstance(size, (tuple, list)) else int(size)


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, (list, tuple)) else value
