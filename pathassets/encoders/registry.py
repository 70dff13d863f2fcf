"""Which encoders there are: cards by name, without loading torch for any of them.

Belongs here: names, cards, where a family lives, plug-ins. Does not belong: building networks, weights.
A family is a module (or any object) with `card()` and `build()`: the package's own, the entries of `zoo.toml`, and those found
through the entry point group `pathassets.encoders`, loaded on first use. Any timm model is reached as `timm/<name>`, torchvision's
ImageNet networks as `<name>_imagenet` or `<name>`, a network in a file as `exported`, one that was trained with DINOv2 as `dinov2`.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from pathassets.encoders import zoo
from pathassets.encoders.card import EncoderCard
from pathassets.encoders.text.spec import TowerSpec
from pathassets.errors import EncoderError, Reason, TextTowerError, UnknownEncoderError

if TYPE_CHECKING:
    import torch

ENTRY_POINT_GROUP = "pathassets.encoders"
TIMM_PREFIX = "timm/"
BUILTIN = ("pathassets.encoders.demo_vlm",)
# These change what the tiles look like to the network.
PREPROCESSING = ("mean", "std", "interpolation", "antialias", "resize", "crop")
# These choose what of the network's activations becomes a vector; everything else in `encoder_kwargs` is the network's own.
LAYERS = ("layers", "layer_pool")
# These are the text tower's.
TEXT = "text_kwargs"

Kwargs = Mapping[str, Any]


class Family(Protocol):
    """What a module offers that brings an encoder; `rename` and `heads` (see `EncoderSpec`) if it likes."""

    def card(self) -> EncoderCard:
        """The encoder's card; must not import torch."""

    def build(self, **kwargs: Any) -> torch.nn.Module:
        """The network with untrained weights: `encode_image` or a call turns normalised (n, 3, h, w) into (n, dim)."""


@dataclass(frozen=True)
class Classifier:
    """The classifying end of a network.

    Attributes:
        layers: Names of the modules that turn the vector into one number for each class; of several the mean counts.
        n_classes: Classes of the network's own weights; 0 = it has none.
        build: The whole network for so many classes, with untrained weights.
        side: Edge of the map that is flattened before the classifier; 1 where it is a vector.
    """

    layers: tuple[str, ...]
    n_classes: int
    build: Callable[[int], torch.nn.Module]
    side: int = 1


@dataclass(frozen=True)
class EncoderSpec:
    """A card, how to build its network, and how to read weight files of other layouts.

    Attributes:
        card: The card, with the user's preprocessing in it.
        build: Gives the network with untrained weights.
        rename: Turns a checkpoint's keys into the network's, where files of another layout are common.
        heads: Prefixes of weights that a file may hold and an encoder has no use for.
        opens: Gives the network of a file, where the file is the network.
        layered: Whether the vectors are those of inner layers.
        wrap: Puts something around the network when it has its weights.
        classifier: Its classifying end, for those who ask for it; None = it has none.
        text: The text tower, where it is not a part of the network (`encode_text`).
    """

    card: EncoderCard
    build: Callable[[], torch.nn.Module]
    rename: Callable[[dict[str, torch.Tensor], torch.nn.Module], dict[str, torch.Tensor]] | None = None
    heads: tuple[str, ...] = ()
    opens: Callable[[Path], torch.nn.Module] | None = None
    layered: bool = False
    wrap: Callable[[torch.nn.Module], torch.nn.Module] = lambda network: network
    classifier: Classifier | None = None
    text: TowerSpec | None = None


def list_cards() -> list[EncoderCard]:
    """Cards of all named encoders, by name (timm models have cards too, but are not listed: there are hundreds)."""
    return [card for _, card in sorted((name, family.card()) for name, family in _families().items())]


def get_card(name: str, encoder_kwargs: Kwargs | None = None) -> EncoderCard:
    """The card of an encoder, with the preprocessing that `encoder_kwargs` asks for.

    Raises:
        UnknownEncoderError: No encoder has this name; the nearest names are given.
    """
    return get_spec(name, encoder_kwargs).card


def has_text(name: str) -> bool:
    """Whether an encoder has a text tower; answered without torch."""
    card = named_card(name)
    return card is not None and card.has_text


def knows_words(name: str) -> bool:
    """Whether an encoder has a text tower, or was trained with words and should have one; answered without torch."""
    card = named_card(name)
    return card is not None and (card.has_text or card.vision_language)


def canonical(name: str) -> str:
    """Our name for what another framework, a paper or the hub calls `name`, however it is written; any other name as it is."""
    if name in _families() or name.startswith(TIMM_PREFIX):
        return name
    return zoo.aliases().get(name) or _spellings().get(spelling(name), name)


def spelling(name: str) -> str:
    """A name without what people write in different ways: capitals, hyphens, underscores, spaces."""
    return re.sub(r"[\s_-]+", "", name.casefold())


def named_card(name: str) -> EncoderCard | None:
    """The card of a named encoder, however its name is written; None for others, such as timm's. Answered without torch."""
    family = _families().get(canonical(name))
    return family.card() if family is not None else None


def get_spec(name: str, encoder_kwargs: Kwargs | None = None) -> EncoderSpec:
    """The card of an encoder and how to build it.

    Raises:
        UnknownEncoderError: No encoder has this name; the nearest names are given.
        EncoderError: An argument is impossible.
    """
    if not isinstance(name, str) or not name:
        raise unknown(str(name), [*_families()])
    kwargs = dict(encoder_kwargs or {})
    overrides = {key: kwargs.pop(key) for key in PREPROCESSING if key in kwargs}
    layers = {key: kwargs.pop(key) for key in LAYERS if key in kwargs}
    spec = _spec(canonical(name), kwargs)
    spec = replace(spec, card=override_card(spec.card, overrides))
    if not layers:
        return spec
    from pathassets.encoders.layers import with_layers

    return with_layers(spec, layers.get("layers"), layers.get("layer_pool", "avg"))


def _spec(name: str, kwargs: dict[str, Any]) -> EncoderSpec:
    family = _families().get(name)
    if family is not None:
        return _of_family(family, kwargs)
    from pathassets.encoders import dinov2, exported, timm_models, torchvision_models

    for own in (exported, dinov2):
        if name == own.NAME:
            return own.spec(kwargs)
    name = torchvision_models.elsewhere(name) or name
    known = None if name.startswith(TIMM_PREFIX) else torchvision_models.known(name)
    if known:
        return torchvision_models.spec(known, kwargs)
    spec = None if torchvision_models.is_said(name) else timm_models.spec(name.removeprefix(TIMM_PREFIX), kwargs)
    if spec is None:
        raise unknown(name, [*_families(), *zoo.aliases(), *timm_models.names()])
    return spec


def _of_family(family: Family, kwargs: dict[str, Any]) -> EncoderSpec:
    card = family.card()
    if isinstance(family, zoo.ZooEncoder) and "img_size" in kwargs:
        card = replace(card, input_px=int(kwargs["img_size"]), resize=0)
    tower = family.text if isinstance(family, zoo.ZooEncoder) else None
    if tower is not None:
        tower = tower.narrowed(kwargs.pop(TEXT, {}))
        card = replace(card, context=tower.context)
    return EncoderSpec(
        card=card,
        build=lambda: family.build(**kwargs),
        rename=getattr(family, "rename", None),
        heads=tuple(getattr(family, "heads", ())),
        text=tower,
    )


def override_card(card: EncoderCard, overrides: Kwargs) -> EncoderCard:
    """`card` with other preprocessing; `resize = true` is the network's own input size.

    Raises:
        EncoderError: `config_invalid` when a value is impossible.
    """
    fields: dict[str, Any] = {
        key: _rgb(key, value) if key in ("mean", "std") else value for key, value in overrides.items()
    }
    if fields.get("interpolation", card.interpolation) not in ("bilinear", "bicubic", "nearest"):
        raise _invalid(f"interpolation {fields['interpolation']!r} is not bilinear, bicubic or nearest")
    if fields.get("crop", card.crop) not in ("center", "squash"):
        raise _invalid(f"crop {fields['crop']!r} is not center or squash")
    if not isinstance(fields.get("antialias", True), bool):
        raise _invalid("antialias is true or false")
    if "resize" in fields:
        fields["resize"] = _edge(fields["resize"])
    try:
        return replace(card, **fields)
    except ValueError as error:
        raise _invalid(str(error)) from error


def _rgb(key: str, values: Any) -> tuple[float, ...]:
    """Mean or spread of red, green and blue; those of 0..255 would make vectors that look like any and mean nothing."""
    try:
        numbers = tuple(map(float, values))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(0 <= number <= 1 for number in numbers) or (key == "std" and not all(numbers)):
        raise _invalid(f"{key} {values!r} is not three numbers: red, green, blue, of pixels in 0..1")
    return numbers


def _edge(resize: Any) -> int:
    if resize is True:
        return 0
    if not isinstance(resize, int) or resize is False:
        raise _invalid(f"resize {resize!r} is neither a number of pixels nor true, the network's input size")
    return resize


def unknown(name: str, candidates: list[str]) -> UnknownEncoderError:
    """The error for a name that no card has, with the nearest ones; known ones that cannot be built are said to be so."""
    bare = name.removeprefix(TIMM_PREFIX)
    if bare in broken_plugins():
        raise broken_plugins()[bare]
    why = zoo.not_here().get(bare.lower())
    if why is not None:
        return UnknownEncoderError(
            f"{name!r} cannot be built here: {why}",
            reason=Reason.ENCODER_UNKNOWN,
            remedy='Save it with torch.export.save where it runs, then `encoder = "exported"` with `weights = "FILE"`.',
        )
    slide = _as_slide_encoder(bare)
    if slide is not None:
        return slide
    close = difflib.get_close_matches(bare.lower(), candidates, n=9, cutoff=0.5)
    near = list(dict.fromkeys(map(canonical, close)))[:3]  # a name and its other spellings are one
    hint = f"Did you mean {', '.join(near)}? " if near else ""
    return UnknownEncoderError(
        f"no encoder is called {name!r}",
        reason=Reason.ENCODER_UNKNOWN,
        remedy=f"{hint}`pathassets encoders` lists the named ones; any timm model is `timm/<name>`.",
    )


def _as_slide_encoder(name: str) -> UnknownEncoderError | None:
    """The error for a slide encoder's name in a tile encoder's place; None when it is no such name."""
    from pathassets.encoders.slide.zoo import find_slide_card

    card = find_slide_card(name)
    if card is None:
        return None
    take = f"Name it beside the encoder of its tiles: --encoder {card.takes[0]} --slide-encoder {card.name}."
    return UnknownEncoderError(
        f"{card.name} is a slide encoder" + (f", and cannot run here: {card.missing}" if card.missing else ""),
        reason=Reason.ENCODER_UNKNOWN,
        remedy=card.instead if card.missing else take,
    )


@cache
def _spellings() -> dict[str, str]:
    """Names, other frameworks' names and repositories of the hub, as `spelling` has them, to ours."""
    found: dict[str, str] = {}
    for name in _families():
        found[spelling(name)] = name
    for other, name in zoo.aliases().items():
        found.setdefault(spelling(other), name)
    for name, family in _families().items():
        found.setdefault(spelling(family.card().hub_id or name), name)
    return found


@cache
def _families() -> dict[str, Family]:
    families = [cast(Family, importlib.import_module(module)) for module in BUILTIN]
    found: dict[str, Family] = {family.card().name: family for family in families}
    found |= zoo.encoders()
    for point, family in _plugins().items():
        if isinstance(family, EncoderError):
            continue  # it costs those who name it, and nobody else
        name = family.card().name
        if name in found:
            raise _invalid(f"two encoders are called {name!r}; the second comes from the entry point {point!r}")
        found[name] = family
    return found


def broken_plugins() -> dict[str, EncoderError]:
    """Why plug-ins cannot be used, by the names of their entry points."""
    return {point: family for point, family in _plugins().items() if isinstance(family, EncoderError)}


def _plugins() -> dict[str, Family | EncoderError]:
    found: dict[str, Family | EncoderError] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            found[point.name] = _load(point)
        except EncoderError as error:
            found[point.name] = error
    return found


def _load(point: Any) -> Family:
    try:
        family: Family = point.load()
        family.card()
    except Exception as error:  # a plug-in may fail in any way; its name is what its user needs
        raise EncoderError(
            f"the encoder plug-in {point.name!r} ({point.value}) cannot be loaded: {error}",
            reason=Reason.ENCODER_FAILED,
            remedy="Update or uninstall the package that brings it.",
        ) from error
    return family


def no_text_tower(card: EncoderCard) -> TextTowerError:
    """The error for words where no text tower is; of an encoder that was trained with words, with the reason."""
    why = f": {card.text}" if card.text else ""
    take = f"Take {card.text_encoder}" if card.text_encoder else "Take an encoder that reads words, such as demo-vlm"
    return TextTowerError(
        f"{card.name} has no text tower{why}",
        reason=Reason.TEXT_TOWER_MISSING,
        remedy=f"{take}, or leave out the words: `terms = []` in [text].",
    )


def _invalid(message: str) -> EncoderError:
    return EncoderError(message, reason=Reason.CONFIG_INVALID, remedy="Correct `encoder_kwargs` of the recipe.")
