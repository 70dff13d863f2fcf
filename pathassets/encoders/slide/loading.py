"""Loading a slide encoder: a name, or a file, to a network that runs; and what identifies its weights.

Belongs here: putting card, network, weights and device together. Does not belong: any of these alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathassets.encoders import hub
from pathassets.encoders.card import Card
from pathassets.encoders.device import resolve_devices
from pathassets.encoders.licences import tell_terms
from pathassets.encoders.slide.card import SlideCard
from pathassets.encoders.slide.zoo import entries, get_slide_card
from pathassets.encoders.weights import (
    file_sha256,
    find_weights,
    load_strict,
    local_file,
    locate_weights,
    random_digest,
    random_seed,
    read_state,
    untrained,
)
from pathassets.recipes import is_file

if TYPE_CHECKING:
    import torch

    from pathassets.encoders.slide.encoder import SlideEncoder


@dataclass(frozen=True)
class _Layout:
    """What reading its file takes to know of a slide encoder; checkpoints are in our networks' names."""

    card: Card
    heads: tuple[str, ...]
    rename: Callable[[dict[str, torch.Tensor], torch.nn.Module], dict[str, torch.Tensor]] | None = None


def load_slide_encoder(
    name: str | Path,
    *,
    weights: str | Path | None = None,
    random_weights: bool = False,
    device: str = "auto",
    **kwargs: Any,
) -> SlideEncoder:
    """A slide encoder: `load_slide_encoder("chief", weights="CHIEF_pretraining.pth")(features)` gives float32 (dim,).

    Args:
        name: A named slide encoder, or a file that `pathassets train-abmil` wrote.
        weights: A local file (safetensors, or a checkpoint of tensors); None = the card's own source.
        random_weights: Untrained weights, the same for the same name; nothing they give means anything.
        device: `auto`, `cuda`, `cuda:1`, `mps` or `cpu`; of several, the first.
        **kwargs: The network's own arguments, as `depth = 2`.

    Raises:
        EncoderError: The encoder, its weights or the device cannot be had; the message says what to do.
    """
    from pathassets.encoders.slide.encoder import SlideEncoder
    from pathassets.encoders.slide.networks import build

    card = get_slide_card(name)
    card.check_runs()
    place = resolve_devices(device)[0]
    if random_weights and not is_file(str(name)):
        network = untrained(random_seed(card.name), lambda: build(card, kwargs))
        sha256 = slide_weights_digest(name, random_weights=True)
    else:
        tell_terms(card)
        path = _file(card, name, weights, download=True)
        network = build(card, kwargs)
        load_strict(network, read_state(path), _Layout(card, tuple(_heads(card))), path)
        sha256 = file_sha256(path)
    return SlideEncoder(card, network, device=place, weights_sha256=sha256)


def slide_weights_digest(
    name: str | Path, *, weights: str | Path | None = None, random_weights: bool = False, download: bool = False
) -> str:
    """What identifies a slide encoder's weights: SHA-256 of the file, or `random-<hash>`.

    Args:
        name: A named slide encoder, or a file that `pathassets train-abmil` wrote.
        weights: A local file; None = the card's own source.
        random_weights: Untrained weights, where it is no file.
        download: Fetch them from the hub when they are not here; else nothing outside this machine is asked.

    Raises:
        EncoderError: `weights_missing`, `weights_mismatch` or `encoder_unknown`, with what to do.
    """
    card = get_slide_card(name)
    card.check_runs()
    if random_weights and not is_file(str(name)):
        return random_digest(card.name, {})
    return file_sha256(_file(card, name, weights, download=download))


def slide_weights_are_here(card: SlideCard) -> bool:
    """Whether a named slide encoder could be loaded now, without the network and without a file of one's own."""
    return not card.missing and locate_weights(card) is not None


def check_slide_access(name: str | Path, *, weights: str | None = None, random_weights: bool = False) -> str:
    """Whether a run would get the weights of a slide encoder: hashes what is here, asks the hub about what is not.

    Returns:
        In words: the beginning of the weights' hash, or who would give them; and the licence.

    Raises:
        EncoderError: With what to do, before a night's run finds out.
    """
    card = get_slide_card(name)
    card.check_runs()
    if weights is None and not random_weights and not is_file(str(name)) and locate_weights(card) is None:
        return f"{hub.access(card)}; {card.terms}"
    found = slide_weights_digest(name, weights=weights, random_weights=random_weights)[:16]
    return found if random_weights else f"{found}; {card.terms}"


def _file(card: SlideCard, name: str | Path, weights: str | Path | None, *, download: bool) -> Path:
    if is_file(str(name)):
        return Path(name)
    return local_file(weights, card.name) if weights is not None else find_weights(card, download=download)


def _heads(card: SlideCard) -> list[str]:
    heads: list[str] = entries().get(card.name, {}).get("heads", [])
    return heads
