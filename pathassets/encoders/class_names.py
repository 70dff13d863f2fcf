"""What a classifier's classes are called: in the weights' own metadata, or in `config.json` beside them.

Belongs here: reading names. Does not belong: networks. Loads no torch, because every run asks.

safetensors' metadata holds text: `classes` as JSON, or separated by commas. `config.json` is that of timm (`label_names`) or of
transformers (`id2label`), or has a list `classes`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pathassets.encoders.weights import weights_file
from pathassets.errors import EncoderError

CONFIG = "config.json"
MAX_CONFIG_BYTES = 4_000_000
KEYS = ("classes", "class_names", "label_names", "id2label")


def class_names(
    name: str, *, weights: str | Path | None = None, encoder_kwargs: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """Names of an encoder's classes, in the order of its logits; none where nobody says them.

    Args:
        name: The encoder.
        weights: A local file; None = the card's own source, where it is here already.
        encoder_kwargs: Arguments of the network.
    """
    try:
        path = weights_file(name, weights=weights, encoder_kwargs=encoder_kwargs)
    except EncoderError:
        return ()
    return _names(_metadata(path)) or _names(_config(path.with_name(CONFIG)))


def _metadata(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="np") as file:
            told = file.metadata() or {}
    except (SafetensorError, OSError):
        return None
    return {key: _parsed(told[key]) for key in KEYS if key in told}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return [part.strip() for part in text.split(",")]


def _config(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            return None
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    inner = told.get("pretrained_cfg")
    return {**inner, **told} if isinstance(inner, dict) else told


def _names(told: Any) -> tuple[str, ...]:
    """The first list of different names among what is told."""
    for key in KEYS:
        found = told.get(key) if isinstance(told, dict) else None
        if isinstance(found, dict) and all(place.isdecimal() for place in found):
            found = [found[place] for place in sorted(found, key=int)]
        if isinstance(found, list) and found and all(isinstance(name, str) and name for name in found):
            return tuple(found) if len(set(found)) == len(found) else ()
    return ()
