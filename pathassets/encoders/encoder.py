"""Encoder: tiles to vectors and words to vectors, on one device, in one precision.

Belongs here: running a loaded network. Does not belong: finding its weights (`loading`), slides, streams (`engine/`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pathassets.encoders.card import EncoderCard
from pathassets.encoders.precision import Agreement, Precision, compare, torch_dtype
from pathassets.encoders.preprocess import Preprocess
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
    ) -> None:
        self.card, self.device, self.precision = card, device, precision
        self.weights_sha256, self.dropped = weights_sha256, tuple(dropped)
        self._master = master.eval().requires_grad_(False)
        self._network = _placed(self._master, device, precision)
        self._preprocess = Preprocess(card, device, torch_dtype(precision))
        self._reference: Encoder | None = None

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.card.dim

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
        """Factor on cosines before a softmax over terms.

        Raises:
            EncoderError: `encoder_failed` where there is no text tower.
        """
        self._require_text()
        return float(self.card.logit_scale or 1.0)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Embeds tiles.

        Args:
            images: uint8 RGB (n, h, w, 3), any n; one tile (h, w, 3) is taken as n = 1.

        Returns:
            float32 (n, dim).

        Raises:
            EncoderError: `encoder_failed` when the array is no batch of RGB tiles.
        """
        images = checked(images)
        batches = (np.array(images[k : k + CALL_BATCH]) for k in range(0, len(images), CALL_BATCH))
        parts = [self.encode(torch.from_numpy(batch).to(self.device)).cpu().numpy() for batch in batches]
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)

    def encode(self, tiles: Tensor) -> Tensor:
        """One forward pass, without copies between devices.

        Args:
            tiles: uint8 RGB (n, h, w, 3) on the encoder's device.

        Returns:
            float32 (n, dim) on the same device.
        """
        with torch.inference_mode():
            features = encode_image(self._network, self._preprocess(tiles))
        if features.shape != (len(tiles), self.dim):
            raise EncoderError(
                f"{self.card.name} gave {tuple(features.shape)} for {len(tiles)} tiles; its card says {self.dim} numbers each",
                reason=Reason.ENCODER_FAILED,
                remedy="Correct the card, or the pooling of the network.",
            )
        return features.float()

    def at(self, precision: Precision) -> Encoder:
        """The same encoder in another precision; weights are shared where they can be."""
        if precision == self.precision:
            return self
        if precision == "fp32":
            self._reference = self._reference or self._sibling(self.device, "fp32")
            return self._reference
        return self._sibling(self.device, precision)

    def agreement(self, images: np.ndarray) -> Agreement:
        """How near this precision comes to fp32 on these tiles, uint8 (n, h, w, 3)."""
        if self.precision == "fp32":
            return Agreement(1.0, 0.0, len(images))
        try:
            reference = self.at("fp32")(images)
        except torch.OutOfMemoryError:  # the device cannot hold a second copy of the weights: the CPU can
            self._reference = None
            reference = self._sibling("cpu", "fp32")(images)
        return compare(self(images), reference)

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Texts as they are (templates are the caller's) to unit vectors in the tiles' space: float32 (k, dim).

        Computed in fp32 on the CPU, so that a term's vector is the same on every device.

        Raises:
            EncoderError: `encoder_failed` where there is no text tower.
        """
        self._require_text()
        with torch.inference_mode():
            vectors: Tensor = self._master.encode_text(list(texts))  # type: ignore[operator]
        return nn.functional.normalize(vectors.float(), dim=1).numpy()

    def unknown_words(self, text: str) -> list[str]:
        """Words of `text` that the text tower cannot know; empty where the network does not tell.

        Raises:
            EncoderError: `encoder_failed` where there is no text tower.
        """
        self._require_text()
        tell = getattr(self._master, "unknown_words", None)
        return list(tell(text)) if callable(tell) else []

    def __repr__(self) -> str:
        return f"Encoder({self.card.name!r}, dim={self.dim}, device={self.device!r}, precision={self.precision!r})"

    def _sibling(self, device: str, precision: Precision) -> Encoder:
        return Encoder(
            self.card,
            self._master,
            device=device,
            precision=precision,
            weights_sha256=self.weights_sha256,
            dropped=self.dropped,
        )

    def _require_text(self) -> None:
        if not self.has_text:
            raise EncoderError(
                f"{self.card.name} has no text tower",
                reason=Reason.ENCODER_FAILED,
                remedy="Use a vision-language encoder, such as demo-vlm, or leave out the text terms.",
            )


def encode_image(network: nn.Module, inputs: Tensor) -> Tensor:
    """Normalised (n, 3, h, w) to (n, dim): a network's `encode_image` where it has one, else the network itself."""
    encode = getattr(network, "encode_image", network)
    return encode(inputs)


def checked(images: np.ndarray) -> np.ndarray:
    """`images` as a uint8 RGB batch.

    Raises:
        EncoderError: `encoder_failed` when it is none.
    """
    images = np.asarray(images)
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise EncoderError(
            f"an encoder takes uint8 RGB tiles of shape (n, h, w, 3), not {images.dtype} {images.shape}",
            reason=Reason.ENCODER_FAILED,
            remedy="Pass tiles as they are read, values 0 to 255; the encoder normalises them itself.",
        )
    return images


def _placed(master: nn.Module, device: str, precision: Precision) -> nn.Module:
    """The network where and how it runs; the CPU's fp32 network is the master itself."""
    if device == "cpu" and precision == "fp32":
        return master.to(memory_format=torch.channels_last)
    if device.startswith("cuda") and precision == "fp32":
        torch.backends.cudnn.allow_tf32 = False  # torch's default rounds fp32 convolutions to 10 bits
    # Channels last halves the time of bf16 convolutions and changes nothing for transformers.
    network = copy.deepcopy(master).to(device=device, dtype=torch_dtype(precision))
    return network.to(memory_format=torch.channels_last)
