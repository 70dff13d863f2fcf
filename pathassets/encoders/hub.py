"""Where published weights are: the hub's cache, the hub, torch's cache for torchvision's own.

Belongs here: looking, asking for access, fetching. Does not belong: hashes, reading files (`weights`).
Nothing outside this machine is asked unless the caller says so.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pathassets.encoders.card import Card
from pathassets.errors import EncoderError, Reason

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
HUB_SECONDS = 10.0

log = logging.getLogger(__name__)


def cached(card: Card) -> Path | None:
    """The card's file in the hub's cache, or in torch's; None when it is not there."""
    if card.hub_id is None:
        return _torch_file(card, download=False)
    return next((path for path in (cached_file(card.hub_id, file) for file in _files(card)) if path is not None), None)


def cached_file(repository: str, file: str) -> Path | None:
    """One file of a repository in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None


def fetched(card: Card) -> Path:
    """The card's file, downloaded; its licence is told first.

    Raises:
        EncoderError: `weights_missing`, with what to do: no network, no access, no such file.
    """
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        raise missing(f"the weights of {card.name} ({card.hub_id or card.url}) are not in the cache", own_file(card))
    log.warning("%s: fetching weights from %s, under %s", card.name, card.hub_id or card.url, card.terms)
    if card.hub_id is None:
        return _torch_fetched(card)
    file = _file_there(card)
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(card.hub_id, file))
    except Exception as error:
        raise _refusal(card, error) from error


def access(card: Card) -> str:
    """Whether the weights can be had, without fetching them: asks the hub, with the account that is logged in.

    Returns:
        In words, what is there.

    Raises:
        EncoderError: `weights_missing`, with what to do.
    """
    from huggingface_hub import HfApi

    path = cached(card)
    if path is not None:
        return f"in the cache: {path}"
    if card.hub_id is None:
        raise missing(f"{card.name} has no weights on the hub", own_file(card))
    file = _file_there(card)
    try:
        HfApi().auth_check(card.hub_id)
    except Exception as error:
        raise _refusal(card, error) from error
    return f"{card.hub_id} gives {file}; it is fetched when the run starts"


def _file_there(card: Card) -> str:
    """The file's name in the repository. Asked first: without a network this fails at once, a download tries for a minute."""
    from huggingface_hub import HfApi

    try:
        there = {file.rfilename for file in HfApi().model_info(str(card.hub_id), timeout=HUB_SECONDS).siblings or ()}
    except Exception as error:
        raise _refusal(card, error) from error
    file = next((file for file in _files(card) if file in there), None)
    if file is None:
        raise missing(f"{card.hub_id} holds none of {', '.join(_files(card))}", own_file(card))
    return file


def _refusal(card: Card, error: Exception) -> EncoderError:
    """No access and no network fail in a dozen ways, with two remedies."""
    from huggingface_hub.errors import GatedRepoError

    if isinstance(error, GatedRepoError):
        fix = f"Accept its terms at https://huggingface.co/{card.hub_id}, then `hf auth login`."
        return missing(f"{card.hub_id} is gated and this account has no access", fix)
    return missing(f"{card.hub_id} cannot be fetched: {type(error).__name__}", own_file(card))


def _files(card: Card) -> tuple[str, ...]:
    return (card.file,) if card.file else HUB_FILES


def _torch_file(card: Card, *, download: bool) -> Path | None:
    if card.url is None:
        return None
    from pathassets.encoders.torchvision_models import cached_file as torch_file

    return torch_file(card.url, download=download)


def _torch_fetched(card: Card) -> Path:
    try:
        path = _torch_file(card, download=True)
    except Exception as error:
        raise missing(f"{card.url} cannot be fetched: {type(error).__name__}", own_file(card)) from error
    if path is None:
        raise missing(f"{card.name} has no public weights", own_file(card))
    return path


def own_file(card: Card) -> str:
    """How a user brings the weights."""
    if card.hub_id:
        gate = f"Accept the terms at https://huggingface.co/{card.hub_id} and `hf auth login`. " if card.gated else ""
        start = f"{gate}Fetch them once with `hf download {card.hub_id}`, or name"
    else:
        start = f"Get them from {card.link} and name" if card.link else "Name"
    trial = "; for a trial take `--random-weights`" if card.can_be_untrained else ""
    return f"{start} a local file with {card.own_weights}{trial}."


def missing(message: str, remedy: str) -> EncoderError:
    """The error for weights that are not here."""
    return EncoderError(message, reason=Reason.WEIGHTS_MISSING, remedy=remedy)
