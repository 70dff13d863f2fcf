"""Loading: a name, and perhaps a file, to an encoder that runs.

Belongs here: putting card, network, weights, device and precision together. Does not belong: any of these alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathassets.encoders import hub
from pathassets.encoders.device import resolve_devices
from pathassets.encoders.licences import tell_terms
from pathassets.encoders.precision import Precision, is_good_at_bf16, resolve_precision
from pathassets.encoders.registry import EncoderSpec, get_card, get_spec, no_text_tower
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
    weights_digest,
)
from pathassets.errors import EncoderError, Reason, TextTowerError

if TYPE_CHECKING:
    import torch

    from pathassets.encoders.encoder import Encoder
    from pathassets.encoders.outputs import Asked
    from pathassets.encoders.text.tower import TextTower

NAMES_SHOWN = 4

log = logging.getLogger(__name__)


def load_encoder(
    name: str = "demo-vlm",
    *,
    weights: str | Path | None = None,
    random_weights: bool = False,
    tokenizer: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    include_preds: bool = False,
    dense: bool = False,
    **encoder_kwargs: Any,
) -> Encoder:
    """An encoder: `load_encoder("timm/resnet18")(images)` turns uint8 (n, h, w, 3) into float32 (n, dim).

    Args:
        name: A named encoder, or any timm model as `timm/<name>`.
        weights: A local file (safetensors, or a checkpoint of tensors); None = the card's own source.
        random_weights: Untrained weights, the same for the same name; nothing they give means anything.
        tokenizer: A local file for the text tower, or its folder; None = beside `weights`, or in the hub's cache. It is
            looked for when the first text comes: tiles need none.
        device: `auto`, `cuda`, `cuda:1`, `mps` or `cpu`; of several (`cuda:0,cuda:1`) the encoder is on the first, and
            computes in what suits all of them.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        include_preds: Keep the classifier, so that `outputs(images)` gives class probabilities too.
        dense: `outputs(images)` gives the patch tokens, or the last map, too.
        **encoder_kwargs: `mean`, `std`, `interpolation`, `antialias`, `resize`, `crop` override the card's preprocessing;
            `layers` (names of modules) and `layer_pool` (`avg`, `max`, `none`) take features of inner layers, side by side;
            `text_kwargs` are sizes of the text tower; all others are the network's own arguments (`pad_type="same"`).

    Raises:
        EncoderError: The encoder, its weights or the device cannot be had; the message says what to do.
    """
    from pathassets.encoders.encoder import Encoder
    from pathassets.encoders.outputs import Asked

    if "encoder_kwargs" in encoder_kwargs:
        raise EncoderError(
            "`encoder_kwargs` is a line of pathassets.toml",
            reason=Reason.CONFIG_INVALID,
            remedy=f"In Python its entries are arguments themselves: load_encoder({name!r}, resize=224).",
        )
    if weights is not None and random_weights:
        raise EncoderError(
            f"{name}: weights from {weights}, and random ones, cannot both be meant",
            reason=Reason.CONFIG_INVALID,
            remedy="Leave out one of `weights` and `random_weights`.",
        )
    devices = resolve_devices(device)
    spec = get_spec(name, encoder_kwargs)
    # A program in a file computes in what it was saved in.
    how: Precision = "fp32" if spec.opens is not None else resolve_precision(precision, *devices)
    ask = Asked(spec, include_preds=include_preds, dense=dense)
    dropped: list[str] = []
    path = None if random_weights else _weights_file(name, spec, weights)
    if path is None:
        network, sha256 = untrained(random_seed(name), lambda: ask.build(None)), random_digest(name, encoder_kwargs)
        log.warning("%s has random weights: its embeddings mean nothing", spec.card.name)
    else:
        network, sha256, dropped = _trained(ask, path)
    return Encoder(
        spec.card,
        ask.finished(network),
        device=devices[0],
        precision=how,
        weights_sha256=sha256,
        dropped=dropped,
        devices=devices,
        layout=ask.layout,
        text=_text(spec, tokenizer, path, beside=weights),
    )


def _text(spec: EncoderSpec, tokenizer: str | Path | None, path: Path | None, *, beside: str | Path | None) -> Any:
    """The text tower, which is read when it is asked for; None where there is none, or the network has it."""
    tower = spec.text
    if tower is None:
        return None
    from pathassets.encoders.text.tokenizer import find_tokenizer
    from pathassets.encoders.text.tower import WhenAsked, read_tower

    folder = Path(beside).expanduser() if beside is not None else None

    def read() -> TextTower:
        file = find_tokenizer(spec.card, tower, named=tokenizer, beside=folder)
        return read_tower(spec.card, tower, file, path)

    return WhenAsked(read)


def words_digest(
    name: str,
    *,
    weights: str | Path | None = None,
    tokenizer: str | Path | None = None,
    encoder_kwargs: Mapping[str, Any] | None = None,
) -> str | None:
    """What identifies how an encoder cuts words up, found without building anything.

    Returns:
        SHA-256 of the tokenizer's file; None where the network needs none.

    Raises:
        TextTowerError: Words cannot be embedded here.
    """
    from pathassets.encoders.text.tokenizer import check_libraries, find_tokenizer

    spec = get_spec(name, encoder_kwargs)
    if not spec.card.has_text:
        raise no_text_tower(spec.card)
    if spec.text is None:
        return None
    beside = Path(weights).expanduser() if weights is not None else None
    path = find_tokenizer(spec.card, spec.text, named=tokenizer, beside=beside)
    check_libraries(spec.text, path)
    return file_sha256(path)


def check_tokenizer(name: str, tokenizer: str | Path) -> None:
    """Refuses a tokenizer that is not the one of an encoder's text tower.

    Raises:
        TextTowerError: `tokenizer_missing`, `tokenizer_mismatch`; `text_tower_missing` when the encoder reads no words.
    """
    from pathassets.encoders.text.tokenizer import Tokenizer, find_tokenizer

    spec = get_spec(name)
    if spec.text is None and spec.card.has_text:
        raise TextTowerError(
            f"{spec.card.name} cuts words up by itself and takes no tokenizer",
            reason=Reason.CONFIG_INVALID,
            remedy="Leave out --tokenizer.",
        )
    if spec.text is None:
        raise no_text_tower(spec.card)
    Tokenizer(find_tokenizer(spec.card, spec.text, named=tokenizer, beside=None), spec.text)


def words_are_here(name: str, **how: Any) -> bool:
    """Whether words could be embedded now, as far as can be told without the weights; arguments as for `words_digest`."""
    try:
        words_digest(name, **how)
    except TextTowerError:
        return False
    return True


def _weights_file(name: str, spec: EncoderSpec, weights: str | Path | None) -> Path:
    tell_terms(spec.card)
    return local_file(weights, name) if weights is not None else find_weights(spec.card, download=True)


def _trained(ask: Asked, path: Path) -> tuple[torch.nn.Module, str, list[str]]:
    """The network with its weights, their hash, and what of the file it had no use for."""
    spec = ask.spec
    if spec.opens is not None:
        return spec.opens(path), file_sha256(path), []
    state = read_state(path)
    network = ask.build(state)
    dropped = load_strict(network, state, spec, path)
    if dropped:
        shown = ", ".join(dropped[:NAMES_SHOWN]) + (", …" if len(dropped) > NAMES_SHOWN else "")
        log.info("%s: left out %d tensors that an encoder does not need: %s", spec.card.name, len(dropped), shown)
    return network, file_sha256(path), dropped


def weights_are_here(name: str, *, weights: str | None = None, encoder_kwargs: Mapping[str, Any] | None = None) -> bool:
    """Whether an encoder could be loaded now, without the network; looks for the file and does not read it."""
    try:
        if weights is not None:
            return local_file(weights, name).is_file()
        return locate_weights(get_card(name, encoder_kwargs)) is not None
    except EncoderError:
        return False


def check_access(
    name: str,
    *,
    weights: str | Path | None = None,
    random_weights: bool = False,
    encoder_kwargs: Mapping[str, Any] | None = None,
) -> str:
    """Whether a run would get its weights: hashes what is here, and asks the hub about what is not, without fetching it.

    Returns:
        In words: the beginning of the weights' hash, or who would give them; and the licence.

    Raises:
        EncoderError: `weights_missing` with what to do, before a night's run finds out.
    """
    card = get_card(name, encoder_kwargs)
    if random_weights or weights is not None or locate_weights(card) is not None:
        digest = weights_digest(name, weights=weights, random_weights=random_weights, encoder_kwargs=encoder_kwargs)
        found = digest[:16]
    else:
        found = hub.access(card)
    return found if random_weights else f"{found}; {card.terms}"


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
