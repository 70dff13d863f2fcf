"""Weights: finding the file, knowing its hash, reading it without running code, and loading it whole or not at all.

Belongs here: files of weights and state dicts. Does not belong: architectures, preprocessing.
Never random weights in silence, never a pickle that may hold code, never a network access that nobody asked for.
"""

from __future__ import annotations

import hashlib
import json
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pathassets.encoders import hub
from pathassets.encoders.card import Card, EncoderCard
from pathassets.encoders.registry import TIMM_PREFIX, canonical, get_card
from pathassets.encoders.zoo import UNUSED
from pathassets.errors import EncoderError, Reason

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

# Checkpoints of training runs wrap the weights; these are the names that are in use.
WRAPPERS = ("state_dict", "model", "teacher", "model_state_dict")
KEYS_SHOWN = 5
HASH_CHUNK = 1 << 22


class Layout(Protocol):
    """What reading a file of weights takes to know of its encoder; see `EncoderSpec`."""

    @property
    def card(self) -> Card:
        """Its card."""

    @property
    def rename(self) -> Callable[[dict[str, torch.Tensor], torch.nn.Module], dict[str, torch.Tensor]] | None:
        """Turns a checkpoint's keys into the network's, where files of another layout are common."""

    @property
    def heads(self) -> tuple[str, ...]:
        """Prefixes of weights that a file may hold and an encoder has no use for."""


def weights_digest(
    name: str,
    *,
    weights: str | Path | None = None,
    random_weights: bool = False,
    encoder_kwargs: Mapping[str, Any] | None = None,
    download: bool = False,
) -> str:
    """What identifies an encoder's weights, found without building the network.

    Args:
        name: The encoder.
        weights: A local file; None = the card's own source.
        random_weights: Untrained weights.
        encoder_kwargs: Arguments of the network; they enter the digest of random weights.
        download: Fetch them from the hub when they are not here; else nothing outside this machine is asked.

    Returns:
        SHA-256 of the file, or `random-<hash>`.

    Raises:
        EncoderError: `weights_missing` when the file is neither there nor in the hub's cache.
    """
    if random_weights:
        return random_digest(name, encoder_kwargs or {})
    return file_sha256(weights_file(name, weights=weights, encoder_kwargs=encoder_kwargs, download=download))


def weights_file(
    name: str,
    *,
    weights: str | Path | None = None,
    encoder_kwargs: Mapping[str, Any] | None = None,
    download: bool = False,
) -> Path:
    """The file of an encoder's weights, found without building the network; see `weights_digest`.

    Raises:
        EncoderError: `weights_missing` when it is neither there nor in the hub's cache.
    """
    if weights is not None:
        return local_file(weights, name)
    return find_weights(_card_without_timm(name) or get_card(name, encoder_kwargs), download=download)


def random_digest(name: str, encoder_kwargs: Mapping[str, Any]) -> str:
    """Identity of untrained weights: they follow from the name, the arguments and the libraries that draw them."""
    bare = canonical(name).removeprefix(TIMM_PREFIX)
    parts = [bare, dict(encoder_kwargs), version("torch"), version("timm")]
    return "random-" + hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def random_seed(name: str) -> int:
    """Seed of an encoder's untrained weights: the same name gives the same network everywhere."""
    return seed_of(canonical(name).removeprefix(TIMM_PREFIX))


def seed_of(text: str) -> int:
    """A seed, the same for the same text everywhere."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def untrained(seed: int, build: Callable[[], T]) -> T:
    """What `build` makes of random numbers, the same for a seed; nobody else's random numbers are touched."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file; asked again for an unchanged file (size, modification time), it is not read again."""
    stat = path.stat()
    return _sha256(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    total = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(HASH_CHUNK):
            total.update(chunk)
    return total.hexdigest()


def local_file(weights: str | Path, name: str) -> Path:
    """The user's own file of weights; of a folder, the safetensors in it.

    Raises:
        EncoderError: `weights_missing` when it is not there.
    """
    path = Path(weights).expanduser()
    if path.is_dir():
        path = next((path / file for file in hub.HUB_FILES if (path / file).is_file()), path / hub.HUB_FILES[0])
    if not path.is_file():
        raise hub.missing(f"the weights of {name} are not at {path}", "Correct the path in `weights`.")
    return path


def locate_weights(card: Card) -> Path | None:
    """Where the card's own weights are on this machine, without reading them; None when they are not here."""
    if card.ships:
        path = Path(__file__).parent / str(card.file)
        return path if path.is_file() else None
    return hub.cached(card)


def find_weights(card: Card, *, download: bool) -> Path:
    """The card's own weights: shipped with the package, in a cache, or (if allowed) downloaded.

    Raises:
        EncoderError: `weights_missing` with what to do; `weights_mismatch` when the file is not the card's.
    """
    path = locate_weights(card)
    if path is None:
        path = _fetched(card, download=download)
    if card.sha256 is not None and not file_sha256(path).startswith(card.sha256):
        found, wanted = file_sha256(path)[:12], card.sha256[:12]
        raise EncoderError(
            f"{path} is not the file that the card of {card.name} describes: its SHA-256 is {found}…, not {wanted}…",
            reason=Reason.WEIGHTS_MISMATCH,
            remedy="Fetch it again; or name it in `weights` if it is yours and meant to differ.",
        )
    return path


def _fetched(card: Card, *, download: bool) -> Path:
    if card.hub_id is None and card.url is None:
        if card.file is not None:
            raise hub.missing(f"{card.name}: {card.file} is not in the package", "Install pathassets again.")
        raise hub.missing(f"{card.name} has no public weights", hub.own_file(card))
    if not download:
        where = card.hub_id or card.url
        raise hub.missing(f"the weights of {card.name} ({where}) are not in the hub's cache", hub.own_file(card))
    return hub.fetched(card)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file or of a pickle that holds nothing but tensors.

    Raises:
        EncoderError: `weights_mismatch` when the file is broken or would have to run code.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors" or not _is_torch_file(path):
            return load_file(path)
        # DINO, MAE and others save their arguments beside the weights: names and values, no code.
        with torch.serialization.safe_globals([Namespace]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise _unreadable(path, _no_weights_at_all(path) or f"it is no safetensors file: {error}") from error
    except Exception as error:  # torch raises whatever its unpickler meets
        raise _unreadable(path, _why_not_torch(error)) from error
    return _unwrapped(path, loaded)


def _no_weights_at_all(path: Path) -> str:
    """What a failed download has left in the place of weights; empty when it is nothing of the kind."""
    with path.open("rb") as file:
        head = file.read(256).lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS; the weights themselves were not fetched (`git lfs pull`)"
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, as a download that needs a login leaves it"
    return "" if head else "it is empty"


def _why_not_torch(error: Exception) -> str:
    """An archive whose end is missing lacks its list of contents, which lies there."""
    if "central directory" in str(error):
        return "it is cut off, or damaged: copy it again"
    return f"it holds more than tensors ({type(error).__name__})"


def _is_torch_file(path: Path) -> bool:
    """Zip archives and pickles start so; a safetensors file starts with the length of its header."""
    with path.open("rb") as file:
        head = file.read(4)
    return head[:2] == b"PK" or head[:1] == b"\x80"


def _unwrapped(path: Path, loaded: Any) -> dict[str, torch.Tensor]:
    import torch

    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not any(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise _unreadable(path, "there is no table of tensors in it")
    return {str(key).removeprefix("module."): value for key, value in loaded.items() if isinstance(value, torch.Tensor)}


def load_strict(model: torch.nn.Module, state: dict[str, torch.Tensor], spec: Layout, path: Path) -> list[str]:
    """Puts `state` into `model`: every weight of the network must be in the file, in its shape.

    Args:
        model: The network, changed in place.
        state: The file's tensors.
        spec: Its encoder; classifier weights (`heads`) may be in the file without a place in the network.
        path: For messages.

    Returns:
        Names of classifier weights that were dropped.

    Raises:
        EncoderError: `weights_mismatch`, with what is missing, left over or of another shape.
    """
    wanted = model.state_dict()
    if spec.rename is not None and mismatch(wanted, _counted(_without_heads(state, wanted, spec), wanted)):
        state = _renamed(state, model, spec, path)
    fitting = _counted(_without_heads(state, wanted, spec), wanted)
    problems = mismatch(wanted, fitting)
    if problems:
        raise EncoderError(
            f"{path} does not fit {spec.card.name}: {'; '.join(problems)}",
            reason=Reason.WEIGHTS_MISMATCH,
            remedy="Check that the file belongs to this architecture and that `encoder_kwargs` are those it was trained with.",
        )
    broken = [key for key, value in fitting.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise EncoderError(
            f"{path} holds values that are no numbers ({_some(broken)})",
            reason=Reason.NON_FINITE,
            remedy="The file is damaged, or its training has diverged: fetch it again, or take an earlier checkpoint.",
        )
    model.load_state_dict(fitting, strict=True)
    return sorted(key.removeprefix(UNUSED) for key in set(state) - set(fitting))


def _renamed(
    state: dict[str, torch.Tensor], model: torch.nn.Module, spec: Layout, path: Path
) -> dict[str, torch.Tensor]:
    """The file's tensors under the network's names; a file that is of another layout altogether is told by its own names."""
    assert spec.rename is not None
    try:
        return spec.rename(state, model)
    except (KeyError, ValueError, IndexError, RuntimeError, StopIteration) as error:
        raise EncoderError(
            f"{path} does not fit {spec.card.name}: it is not laid out as {spec.card.key_map or 'the network'}; "
            f"it holds {_some(list(state))}",
            reason=Reason.WEIGHTS_MISMATCH,
            remedy="Check that the file belongs to this encoder.",
        ) from error


def _counted(state: dict[str, Any], wanted: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Files from before torch counted batches lack the counters, which nothing but training reads."""
    return {**{key: wanted[key] for key in wanted if key.endswith(".num_batches_tracked")}, **state}


def _without_heads(state: dict[str, Any], wanted: Mapping[str, Any], spec: Layout) -> dict[str, Any]:
    """The tensors that must find a place in the network."""
    heads = (*spec.heads, UNUSED)
    return {key: value for key, value in state.items() if key in wanted or not key.startswith(heads)}


def mismatch(wanted: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> list[str]:
    """What of a network's tensors is missing in a file's, what is left over and what has another shape; none = they fit."""
    missing = [key for key in wanted if key not in state]
    extra = [key for key in state if key not in wanted]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    groups = (("missing", missing), ("not of this network", extra), ("of another shape", shapes))
    return [f"{len(keys)} {what} ({_some(keys)})" for what, keys in groups if keys]


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:KEYS_SHOWN]) + (", …" if len(keys) > KEYS_SHOWN else "")


def _card_without_timm(name: str) -> EncoderCard | None:
    """A timm name with a weight tag says where its weights are by timm's convention: no need to load timm for a hash."""
    bare = name.removeprefix(TIMM_PREFIX)
    if not name.startswith(TIMM_PREFIX) or "." not in bare:
        return None
    card = EncoderCard(name=name, dim=1, input_px=1, description="", hub_id=f"timm/{bare}")
    return card if hub.cached(card) else None


def _unreadable(path: Path, why: str) -> EncoderError:
    return EncoderError(
        f"{path} cannot be read as weights: {why}",
        reason=Reason.WEIGHTS_MISMATCH,
        remedy="Use a safetensors file, or a checkpoint that holds tensors only.",
    )
