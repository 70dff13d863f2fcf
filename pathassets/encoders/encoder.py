"""Encoder: tiles to vectors and words to vectors, on one device, in one precision.

Belongs here: running a loaded network. Does not belong: finding its weights (`loading`), slides, streams (`engine/`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pathassets.encoders.card import EncoderCard
from pathassets.encoders.networks import Networks, is_out_of_memory
from pathassets.encoders.outputs import Outputs, RowLayout
from pathassets.encoders.precision import Agreement, Precision, compare, torch_dtype
from pathassets.encoders.preprocess import Preprocess
from pathassets.encoders.registry import no_text_tower
from pathassets.errors import EncoderError, Reason

# One forward pass of `encoder(images)`; the engine brings its own batches.
CALL_BATCH = 16


class Encoder:
    """A network with its card.

    Args:
        card: What it is and how it wants its tiles.
        master: The network in fp32 on the CPU; it is kept, for the text tower and for comparison.
        device: `cpu`, `mps` or `cuda:<index>`.
        precision: What the image tower computes in.
        weights_sha256: Hash of the weights' file, or `random-<hash>`.
        dropped: Classifier weights of the file that the encoder has no use for.
        devices: Devices that may each be given a copy, the encoder's own among them; none = that one alone.
        layout: What the network's rows hold; None = vectors alone.
        text: Gives the text tower when it is first asked for; None = what of words there is, the network has.
    """

    def __init__(
        self,
        card: EncoderCard,
        master: nn.Module,
        *,
        device: str,
        precision: Precision,
        weights_sha256: str,
        dropped: Sequence[str] = (),
        devices: Sequence[str] = (),
        layout: RowLayout | None = None,
        text: Callable[[], Any] | None = None,
    ) -> None:
        self.card, self._text = card, text
        self.layout = layout or RowLayout(card.dim)
        self.weights_sha256, self.dropped = weights_sha256, tuple(dropped)
        self.devices = tuple(devices) or (device,)
        self._networks = Networks(master)
        self._place(device, precision, None)

    def _place(self, device: str, precision: Precision, compiled_for: int | None) -> None:
        self.device, self.precision, self.compiled_for = device, precision, compiled_for
        self._forward = self._networks.forward(device, precision, compiled_for)
        self._preprocess = Preprocess(self.card, device, torch_dtype(precision))

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.card.dim

    @property
    def _numbers(self) -> str:
        asked = f" and {self.layout.n_classes} classes" if self.layout.n_classes else ""
        return f"{self.dim} numbers{asked}"

    @property
    def is_random(self) -> bool:
        """Whether the weights are untrained, so that embeddings mean nothing."""
        return self.weights_sha256.startswith("random-")

    @property
    def has_text(self) -> bool:
        """Whether words can be embedded."""
        return self.card.has_text

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompt templates of the text tower; `{}` is the term."""
        return self.card.templates

    @property
    def logit_scale(self) -> float:
        """Factor on cosines before a softmax over terms: the weights' own, else the card's.

        Raises:
            TextTowerError: Words cannot be embedded here.
        """
        return float(getattr(self._reader(), "logit_scale", None) or self.card.logit_scale or 1.0)

    @property
    def logit_bias(self) -> float | None:
        """What is added to scaled cosines before a sigmoid; None where the encoder was trained with a softmax.

        Raises:
            TextTowerError: Words cannot be embedded here.
        """
        bias = getattr(self._reader(), "logit_bias", None)
        return None if bias is None else float(bias)

    def __call__(self, images: np.ndarray, preprocess: bool = True) -> np.ndarray:
        """Embeds tiles.

        Args:
            images: uint8 RGB (n, h, w, 3), any n; one tile (h, w, 3) is taken as n = 1. Without preprocessing: what the
                network sees, float (n, 3, h, w) of a size that it takes, normalised by the caller.
            preprocess: Whether the card's pipeline is applied.

        Returns:
            float32 (n, dim).

        Raises:
            EncoderError: `encoder_failed` when the array is no batch of RGB tiles, or of the network's inputs.
        """
        return self._rows_of(images, preprocess, self.dim)

    def outputs(self, images: np.ndarray, preprocess: bool = True) -> Outputs:
        """Embeds tiles and gives what else was asked for when the encoder was loaded; see `__call__`."""
        return Outputs.of(self._rows_of(images, preprocess, self.layout.width), self.layout)

    def _rows_of(self, images: np.ndarray, preprocess: bool, width: int) -> np.ndarray:
        """The beginnings of the images' rows: float32 (n, width)."""
        images = checked(images) if preprocess else inputs_checked(images)
        encode = self.encode if preprocess else self._rows
        step = min(CALL_BATCH, self.compiled_for or CALL_BATCH)
        batches = (np.array(images[k : k + step]) for k in range(0, len(images), step))
        parts = [encode(torch.from_numpy(batch).to(self.device))[:, :width].cpu().numpy() for batch in batches]
        return np.concatenate(parts) if parts else np.zeros((0, width), np.float32)

    def inputs(self, images: np.ndarray) -> np.ndarray:
        """What the network sees of tiles, uint8 RGB (n, h, w, 3): float32 (n, 3, input_px, input_px)."""
        tiles = torch.from_numpy(np.array(checked(images))).to(self.device)
        return self._preprocess(tiles).float().cpu().numpy()

    def encode(self, tiles: Tensor) -> Tensor:
        """One forward pass, without copies between devices.

        Args:
            tiles: uint8 RGB (n, h, w, 3) on the encoder's device.

        Returns:
            float32 (n, width) on the same device: rows as `layout` says, mostly the vectors alone.
        """
        with torch.inference_mode():
            return self._rows(self._preprocess(tiles))

    def _rows(self, inputs: Tensor) -> Tensor:
        with torch.inference_mode():
            features = self._forward(inputs.to(torch_dtype(self.precision)))
        if features.shape != (len(inputs), self.layout.width):
            raise EncoderError(
                f"{self.card.name} gave {tuple(features.shape)} for {len(inputs)} tiles; its card says {self._numbers} each",
                reason=Reason.ENCODER_FAILED,
                remedy="Correct the card, or the pooling of the network.",
            )
        return features.float()

    def at(self, precision: Precision, device: str | None = None, *, compiled_for: int | None = None) -> Encoder:
        """The same encoder in another precision or place; whoever asks for the same gets the same copy of the weights.

        Args:
            precision: What the image tower computes in.
            device: Where; None = where it is.
            compiled_for: Compiled at the first call, for batches of at most so many tiles; None = as it is.

        Raises:
            EncoderError: `out_of_memory` when the weights do not fit on the device.
        """
        wanted = (device or self.device, precision, compiled_for)
        if wanted == (self.device, self.precision, self.compiled_for):
            return self
        sibling = copy.copy(self)
        sibling._place(*wanted)
        return sibling

    def agreement(self, images: np.ndarray) -> Agreement:
        """How near this precision comes to fp32 on these tiles, uint8 (n, h, w, 3)."""
        if self.precision == "fp32" and self.compiled_for is None:
            return Agreement(1.0, 0.0, len(images))
        return compare(self(images), self._in_fp32(images))

    def _in_fp32(self, images: np.ndarray) -> np.ndarray:
        """The embeddings as they should be; where the device cannot hold a second copy of the weights, the CPU can."""
        try:
            return self.at("fp32")(images)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        self._networks.forget(self.device, "fp32")
        return self.at("fp32", "cpu")(images)

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Texts as they are (templates are the caller's) to unit vectors in the tiles' space: float32 (k, dim).

        Computed in fp32 on the CPU, so that a term's vector is the same on every device.

        Raises:
            TextTowerError: There is no text tower, or it, its tokenizer or a library cannot be had.
        """
        reader = self._reader()
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        with torch.inference_mode():
            vectors: Tensor = reader.encode_text(list(texts))
        return nn.functional.normalize(vectors.float(), dim=1).numpy()

    def unknown_words(self, text: str) -> list[str]:
        """Words of `text` that the text tower cannot know; empty where the network does not tell.

        Raises:
            TextTowerError: Words cannot be embedded here.
        """
        tell = getattr(self._reader(), "unknown_words", None)
        return list(tell(text)) if callable(tell) else []

    def __repr__(self) -> str:
        return f"Encoder({self.card.name!r}, dim={self.dim}, device={self.device!r}, precision={self.precision!r})"

    def _reader(self) -> Any:
        """What turns words into vectors: `encode_text`, and `logit_scale`, `logit_bias`, `unknown_words` if it likes."""
        if not self.has_text:
            raise no_text_tower(self.card)
        return self._text() if self._text is not None else self._networks.master


def checked(images: np.ndarray) -> np.ndarray:
    """`images` as a uint8 RGB batch.

    Raises:
        EncoderError: `encoder_failed` when it is none.
    """
    try:
        images = np.asarray(images)
        found = f"{images.dtype} {images.shape}"
    except ValueError:
        images, found = np.empty(0), "tiles of different sizes"
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape[1:] or images.dtype != np.uint8:
        raise EncoderError(
            f"an encoder takes uint8 RGB tiles of shape (n, h, w, 3), not {found}",
            reason=Reason.ENCODER_FAILED,
            remedy="Pass tiles as they are read, values 0 to 255; the encoder normalises them itself.",
        )
    return images


def inputs_checked(images: np.ndarray) -> np.ndarray:
    """`images` as a batch of what a network sees: float32 (n, 3, h, w).

    Raises:
        EncoderError: `encoder_failed` when it is none.
    """
    images = np.asarray(images)
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[1] != 3 or not np.issubdtype(images.dtype, np.floating):
        raise EncoderError(
            f"without preprocessing an encoder takes floats of shape (n, 3, h, w), not {images.dtype} {images.shape}",
            reason=Reason.ENCODER_FAILED,
            remedy="Normalise tiles as the card's pipeline says, or leave `preprocess` on.",
        )
    return images.astype(np.float32, copy=False)
