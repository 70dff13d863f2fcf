"""What is known of each text tower, from `towers.toml`.

Belongs here: reading that table; a tower's facts and what a card says of them. Does not belong: networks, tokenizers. Loads no torch.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pathassets.errors import EncoderError, Reason

TABLE = Path(__file__).with_name("towers.toml")
# What may be made smaller to try a tower out; its own weights fit it as it is.
SIZES = ("width", "layers", "heads", "vocab", "context", "places")
POOLED = {
    "end": "the vector of the last token",
    "appended": "a class token after all others",
    "last": "the last of all places",
    "first": "the vector of the first token",
    "pooler": "BERT's pooled first token",
}
HEADS = {"linear": "a linear layer", "biased": "a linear layer", "mlp": "two layers", "none": ""}


@dataclass(frozen=True, kw_only=True)
class TowerSpec:
    """A text tower in numbers; what they mean stands at the head of `towers.toml`."""

    name: str
    net: Literal["transformer", "bert"]
    width: int
    layers: int
    heads: int
    vocab: int
    context: int
    pool: Literal["end", "appended", "last", "first", "pooler"]
    head: Literal["linear", "biased", "mlp", "none"]
    keys: str
    begin: tuple[str, ...]
    end: tuple[str, ...]
    files: tuple[str, ...]
    templates: tuple[str, ...]
    params: float
    source: str
    evidence: Literal["V", "S"] = "V"
    ratio: float = 4.0
    act: Literal["gelu", "quick_gelu", "gelu_tanh"] = "gelu"
    eps: float = 1e-5
    inner: bool = False
    places: int = 0
    ids: tuple[int, ...] = ()
    pad: int = 0
    offset: int = 0
    canonical: bool = False
    bias: bool = False
    hubs: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of the table of positions."""
        return self.places or self.context

    @property
    def libraries(self) -> tuple[str, ...]:
        """Packages that it needs besides torch and timm, tokenizers left out."""
        return ("transformers",) if self.net == "bert" else ()

    @property
    def in_words(self) -> str:
        """For the card."""
        kind = "BERT" if self.net == "bert" else "transformer"
        parts = (f"{kind} of {self.layers} layers and width {self.width}", POOLED[self.pool], HEADS[self.head])
        return ", ".join(filter(None, parts))

    def narrowed(self, sizes: Mapping[str, Any]) -> TowerSpec:
        """The same tower in other sizes.

        Raises:
            EncoderError: `config_invalid` for anything but a size.
        """
        if not sizes:
            return self
        wrong = [key for key, value in sizes.items() if key not in SIZES or not isinstance(value, int) or value < 1]
        if wrong:
            raise EncoderError(
                f"text_kwargs cannot set {wrong[0]!r} to {sizes[wrong[0]]!r}",
                reason=Reason.CONFIG_INVALID,
                remedy=f"It takes whole numbers for {', '.join(SIZES)}.",
            )
        # Numbers of tokens are those of the whole vocabulary.
        return replace(self, ids=() if "vocab" in sizes else self.ids, **sizes)


@cache
def towers() -> dict[str, TowerSpec]:
    """All towers of the table, by name."""
    tables = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return {name: _tower(name, tables) for name in tables["towers"]}


def _tower(name: str, tables: Mapping[str, Any]) -> TowerSpec:
    entry = _whole(name, tables["towers"])
    entry["templates"] = tables["templates"][entry["templates"]]
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return TowerSpec(name=name, **values)


def _whole(name: str, entries: Mapping[str, Any]) -> dict[str, Any]:
    entry = dict(entries[name])
    like = entry.pop("like", None)
    return {**_whole(like, entries), **entry} if like else entry
