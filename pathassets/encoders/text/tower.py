"""A text tower at work: tokenizer and network together, read from their files when the first text comes.

Belongs here: loading both, strictly; texts to vectors. Does not belong: finding weights, what `terms` are made of.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pathassets.encoders.card import EncoderCard
from pathassets.encoders.text.layouts import translate
from pathassets.encoders.text.networks import TextNetwork, build
from pathassets.encoders.text.spec import TowerSpec
from pathassets.encoders.text.tokenizer import Tokenizer
from pathassets.encoders.weights import mismatch, read_state, seed_of, untrained
from pathassets.errors import Reason, TextTowerError

UNTRAINED = "text tower of random weights"


class TextTower:
    """Texts to vectors in the space of an encoder's tiles.

    Args:
        network: Numbers of tokens to a vector.
        tokenizer: Texts to numbers of tokens.
    """

    def __init__(self, network: TextNetwork, tokenizer: Tokenizer) -> None:
        self.network, self.tokenizer = network, tokenizer

    @property
    def logit_scale(self) -> float:
        """Factor on cosines before a softmax over terms, as it was learned."""
        return float(self.network.logit_scale.exp())

    @property
    def logit_bias(self) -> float | None:
        """What was added before a sigmoid, where it was trained with one; a softmax over terms is the same without."""
        bias = getattr(self.network, "logit_bias", None)
        return None if bias is None else float(bias)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts to float32 (k, dim), not scaled to length one."""
        with torch.inference_mode():
            return torch.stack([self.network(torch.tensor(self.tokenizer(text), dtype=torch.long)) for text in texts])

    def unknown_words(self, text: str) -> list[str]:
        """Words of `text` of which a part is no token."""
        return self.tokenizer.unknown_words(text)


class WhenAsked:
    """A text tower that is read at the first question, once, whoever asks."""

    def __init__(self, read: Callable[[], TextTower]) -> None:
        self._read, self._lock = read, threading.Lock()
        self._tower: TextTower | None = None

    def __call__(self) -> TextTower:
        """The tower.

        Raises:
            TextTowerError: It, its tokenizer or a library cannot be had.
        """
        with self._lock:
            if self._tower is None:
                self._tower = self._read()
            return self._tower


def read_tower(card: EncoderCard, spec: TowerSpec, tokenizer: Path, weights: Path | None) -> TextTower:
    """The tower from its files.

    Args:
        card: The encoder.
        spec: Its tower.
        tokenizer: The tokenizer's file.
        weights: The file that holds pictures' and words' side; None = untrained weights, the same for the same tower.

    Raises:
        TextTowerError: `tokenizer_mismatch`, `text_tower_missing`; `weights_mismatch` when the words' side of the file is not
            this tower's, with what is missing, left over or of another shape.
    """
    cutter = Tokenizer(tokenizer, spec)
    if weights is None:
        seed = seed_of(f"{UNTRAINED} {card.name}")
        return TextTower(untrained(seed, lambda: build(spec, card.dim)), cutter)
    network = build(spec, card.dim)
    _fill(network, card, spec, weights)
    return TextTower(network, cutter)


def _fill(network: TextNetwork, card: EncoderCard, spec: TowerSpec, weights: Path) -> None:
    try:
        state = translate(read_state(weights), spec.keys, bias=spec.bias)
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        raise _refused(card, weights, f"it is not laid out as {spec.keys}") from error
    problems = mismatch(network.state_dict(), state)
    if problems:
        raise _refused(card, weights, "; ".join(problems))
    network.load_state_dict(state, strict=True)
    scale = network.logit_scale.exp()
    if not (torch.isfinite(scale) and scale > 0):
        raise _refused(card, weights, f"its logit scale is {float(scale)}")


def _refused(card: EncoderCard, weights: Path, why: str) -> TextTowerError:
    return TextTowerError(
        f"{weights} does not fit the text tower of {card.name}: {why}",
        reason=Reason.WEIGHTS_MISMATCH,
        remedy="Name a file that holds the words' side too, as its authors publish it; without words: `terms = []` in [text].",
    )
