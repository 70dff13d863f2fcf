"""Weights: finding the file, knowing its hash, reading it without running code, and loading it whole or not at all.

Belongs here: files of weights and state dicts. Does not belong: architectures, preprocessing.
Never random weights in silence, never a pickle that may hold code, never a network access that nobody asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathassets.encoders.card import EncoderCard
from pathassets.encoders.registry import TIMM_PREFIX, EncoderSpec, get_card
from pathassets.errors import EncoderError, Reason

if TYPE_CHECKING:
    import torch

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
# Checkpoints of training runs wrap the weights; these are the names that are in use.
WRAPPERS = ("state_dict", "model", "teacher", "model_state_dict")
KEYS_SHOWN = 5
HASH_CHUNK = 1 << 22
HUB_SECONDS = 10.0


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
    if weights is not None:
        return file_sha256(local_file(weights, name))
    return file_sha256(find_weights(_card_without_timm(name) or get_card(name, encoder_kwargs), download=download))


def random_digest(name: str, encoder_kwargs: Mapping[str, Any]) -> str:
    """Identity of untrained weights: they follow from the name, the arguments and the libraries that draw them."""
    bare = name.removeprefix(TIMM_PREFIX)
    parts = [bare, dict(encoder_kwargs), version("torch"), version("timm")]
    return "random-" + hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def random_seed(name: str) -> int:
    """Seed of an encoder's untrained weights: the same name gives the same network everywhere."""
    return int(hashlib.sha256(name.removeprefix(TIMM_PREFIX).encode()).hexdigest()[:8], 16)


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
        path = next((path / file for file in HUB_FILES if (path / file).is_file()), path / HUB_FILES[0])
    if not path.is_file():
        raise _missing(f"the weights of {name} are not at {path}", "Correct the path in `weights`.")
    return path


def find_weights(card: EncoderCard, *, download: bool) -> Path:
    """The card's own weights: shipped with the package, in the hub's cache, or (if allowed) downloaded.

    Raises:
        EncoderError: `weights_missing` with what to do; `weights_mismatch` when the file is not the card's.
    """
    if card.hub_id is None:
        if card.file is None:
            raise _missing(f"{card.name} has no public weights", _own_file(card))
        path = Path(__file__).parent / card.file
        if not path.is_file():
            raise _missing(f"{card.name}: {path} is not there", "Install pathassets again.")
    else:
        path = _from_hub(card, download=download)
    if card.sha256 is not None and file_sha256(path) != card.sha256:
        found, wanted = file_sha256(path)[:12], card.sha256[:12]
        raise EncoderError(
            f"{path} is not the file that the card of {card.name} describes: its SHA-256 is {found}…, not {wanted}…",
            reason=Reason.WEIGHTS_MISMATCH,
            remedy="Fetch it again; or name it in `weights` if it is yours and meant to differ.",
        )
    return path


def _from_hub(card: EncoderCard, *, download: bool) -> Path:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    files = (card.file,) if card.file else HUB_FILES
    cached = next((path for path in (_cached(card, file) for file in files) if path is not None), None)
    if cached is not None:
        return cached
    if not download or HF_HUB_OFFLINE:
        raise _missing(f"the weights of {card.name} ({card.hub_id}) are not in the hub's cache", _own_file(card))
    return _downloaded(card, files)


def _downloaded(card: EncoderCard, files: tuple[str, ...]) -> Path:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import GatedRepoError

    repository = str(card.hub_id)
    try:
        # Asked first: without a network this says so at once, where a download tries again for most of a minute.
        there = {file.rfilename for file in HfApi().model_info(repository, timeout=HUB_SECONDS).siblings or ()}
        file = next((file for file in files if file in there), None)
        if file is not None:
            return Path(hf_hub_download(repository, file))
    except GatedRepoError as error:
        fix = f"Accept its terms at https://huggingface.co/{repository}, then `hf auth login`."
        raise _missing(f"{repository} is gated and this account has no access", fix) from error
    except Exception as error:  # no network fails in a dozen ways, with one remedy
        raise _missing(f"{repository} cannot be fetched: {type(error).__name__}", _own_file(card)) from error
    raise _missing(f"{repository} holds none of {', '.join(files)}", _own_file(card))


def _cached(card: EncoderCard, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(str(card.hub_id), file)
    return Path(found) if isinstance(found, str) else None


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
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise _unreadable(path, f"it is no safetensors file: {error}") from error
    except Exception as error:  # torch raises whatever its unpickler meets
        raise _unreadable(path, f"it holds more than tensors, or is broken ({type(error).__name__})") from error
    return _unwrapped(path, loaded)


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


def load_strict(model: torch.nn.Module, state: dict[str, torch.Tensor], spec: EncoderSpec, path: Path) -> list[str]:
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
    if _mismatch(wanted, _without_heads(state, wanted, spec)) and spec.rename is not None:
        state = spec.rename(state, model)
    fitting = _without_heads(state, wanted, spec)
    problems = _mismatch(wanted, fitting)
    if problems:
        raise EncoderError(
            f"{path} does not fit {spec.card.name}: {'; '.join(problems)}",
            reason=Reason.WEIGHTS_MISMATCH,
            remedy="Check that the file belongs to this architecture and that `encoder_kwargs` are those it was trained with.",
        )
    model.load_state_dict(fitting, strict=True)
    return sorted(set(state) - set(fitting))


def _without_heads(state: dict[str, Any], wanted: Mapping[str, Any], spec: EncoderSpec) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key in wanted or not key.startswith(spec.heads or ("\0",))}


def _mismatch(wanted: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> list[str]:
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
    return card if any(_cached(card, file) for file in HUB_FILES) else None


def _own_file(card: EncoderCard) -> str:
    hub = f"Fetch them once with `hf download {card.hub_id}`, or name" if card.hub_id else "Name"
    return f'{hub} a local file with `weights = "FILE"` in the recipe; for a trial take `--random-weights`.'


def _missing(message: str, remedy: str) -> EncoderError:
    return EncoderError(message, reason=Reason.WEIGHTS_MISSING, remedy=remedy)


def _unreadable(path: Path, why: str) -> EncoderError:
    return EncoderError(
        f"{path} cannot be read as weights: {why}",
        reason=Reason.WEIGHTS_MISMATCH,
        remedy="Use a safetensors file, or a checkpoint that holds tensors only.",
    )
