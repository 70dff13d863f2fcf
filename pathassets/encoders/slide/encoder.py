"""SlideEncoder: a slide's tiles to one vector.

Belongs here: running a loaded network, and what it is given. Does not belong: finding weights (`loading`), slides, tables.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pathassets.encoders.networks import is_out_of_memory
from pathassets.encoders.slide.card import SlideCard
from pathassets.encoders.slide.longnet import grid_cells
from pathassets.errors import EncoderError, Reason


class SlideEncoder:
    """A network over tiles with its card; computes in fp32.

    Args:
        card: What it is and whose tiles it takes.
        network: With its weights, on the CPU.
        device: `cpu`, `mps` or `cuda:<index>`.
        weights_sha256: Hash of the weights' file, or `random-<hash>`.
    """

    def __init__(self, card: SlideCard, network: nn.Module, *, device: str, weights_sha256: str) -> None:
        self.card, self.device, self.weights_sha256 = card, device, weights_sha256
        self._network = network.to(device).eval()

    @property
    def is_random(self) -> bool:
        """Whether the weights are untrained, so that the vectors mean nothing."""
        return self.weights_sha256.startswith("random-")

    def __call__(
        self,
        features: NDArray[np.floating],
        coordinates: NDArray[np.integer] | None = None,
        tile_width: float | None = None,
    ) -> NDArray[np.float32]:
        """The slide's vector.

        Args:
            features: Tiles' embeddings (n, dim_in), n of at least 1, in any order but for encoders that use positions: there in the
                order of the slide's grid.
            coordinates: Left and top edges of the tiles in level-0 pixels (n, 2), where the card says that it uses positions.
            tile_width: Width of a tile in level-0 pixels; need not be whole.

        Returns:
            float32 (dim,).

        Raises:
            EncoderError: `encoder_failed` when the arrays are not that; `out_of_memory`; `non_finite`.
            SlideError: `tiling_mismatch` when tiles lie outside the encoder's grid.
        """
        tiles = self._checked(features)
        cells = self._cells(len(tiles), coordinates, tile_width) if self.card.uses_positions else None
        vector = self._run(self._network, tiles, *(() if cells is None else (cells,)))
        if vector.shape != (self.card.dim,) or not np.isfinite(vector).all():
            raise EncoderError(
                f"{self.card.name} gave no vector of {self.card.dim} finite numbers for {len(tiles)} tiles",
                reason=Reason.NON_FINITE,
                remedy="Check the weights' file.",
            )
        return vector

    def attention(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Each tile's share of the vector, (n,) or (n, heads); every head's sum is 1.

        Raises:
            EncoderError: `encoder_failed` where tiles are not weighed by attention, or the array is not what it takes.
        """
        attend = getattr(self._network, "attention", None)
        if attend is None:
            raise EncoderError(
                f"{self.card.name} does not weigh tiles by one attention",
                reason=Reason.ENCODER_FAILED,
                remedy="Take chief, madeleine or a trained ABMIL.",
            )
        return self._run(attend, self._checked(features))

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """How likely each of the card's `classes` is, (classes,), sum 1.

        Raises:
            EncoderError: `encoder_failed` where it was not trained to tell classes apart.
        """
        logits = getattr(self._network, "logits", None)
        if logits is None or not self.card.classes:
            raise EncoderError(
                f"{self.card.name} tells no classes apart",
                reason=Reason.ENCODER_FAILED,
                remedy="Train an ABMIL on labels: `pathassets train-abmil`.",
            )
        return self._run(lambda tiles: logits(tiles).softmax(0), self._checked(features))

    def _run(self, function: Callable[..., Tensor], *arrays: Tensor) -> NDArray[np.float32]:
        try:
            with torch.inference_mode():
                found = function(*(array.to(self.device) for array in arrays))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise EncoderError(
                f"{self.card.name} needs more memory than {self.device} has for {len(arrays[0])} tiles",
                reason=Reason.OUT_OF_MEMORY,
                remedy="Free some, or let the study run on the CPU.",
            ) from error
        return found.float().cpu().numpy()

    def _checked(self, features: NDArray[np.floating]) -> Tensor:
        features = np.asarray(features)
        good = features.ndim == 2 and len(features) and features.shape[1] == self.card.dim_in
        if not good or not np.issubdtype(features.dtype, np.floating) or not np.isfinite(features).all():
            raise EncoderError(
                f"{self.card.name} takes finite embeddings of shape (n, {self.card.dim_in}), n of at least 1, "
                f"not {features.dtype} {features.shape}",
                reason=Reason.ENCODER_FAILED,
                remedy=f"Give it embeddings of {' or '.join(self.card.takes)}, without tiles that could not be read.",
            )
        return torch.from_numpy(np.ascontiguousarray(features))

    def _cells(self, n: int, coordinates: NDArray[np.integer] | None, tile_width: float | None) -> Tensor:
        if coordinates is None or np.shape(coordinates) != (n, 2) or not tile_width or not tile_width > 0:
            raise EncoderError(
                f"{self.card.name} must know where its {n} tiles lie: coordinates ({n}, 2) and a tile's width in level-0 pixels",
                reason=Reason.ENCODER_FAILED,
                remedy="Pass x_px and y_px of the tiles and their width at level 0.",
            )
        return torch.from_numpy(grid_cells(coordinates, tile_width))
