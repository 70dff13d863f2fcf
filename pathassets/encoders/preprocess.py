"""Preprocessing: uint8 tiles to what a network wants, on the network's own device, as its card says.

Belongs here: resize, crop, scale. Does not belong: reading tiles, the card's numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pathassets.encoders.card import EncoderCard


class Preprocess:
    """A card's preprocessing on one device.

    Args:
        card: Sizes, interpolation, mean and standard deviation.
        device: Where the tiles are.
        dtype: What the network computes in.
    """

    def __init__(self, card: EncoderCard, device: str, dtype: torch.dtype) -> None:
        self.card, self.dtype = card, dtype
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (card.mean, card.std))
        # (x / 255 - mean) / std as one multiplication and one addition
        self._scale = (1 / (255 * std)).float().view(1, 3, 1, 1).to(device)
        self._shift = (-mean / std).float().view(1, 3, 1, 1).to(device)

    def __call__(self, tiles: Tensor) -> Tensor:
        """Tiles to network input.

        Args:
            tiles: uint8 RGB (n, h, w, 3).

        Returns:
            (n, 3, input_px, input_px), channels last in memory, which is how the tiles came.
        """
        images = tiles.permute(0, 3, 1, 2).float()
        images = self._fitted(images)
        return torch.addcmul(self._shift, images, self._scale).to(self.dtype)

    def _fitted(self, images: Tensor) -> Tensor:
        edge = self.card.input_px
        height, width = images.shape[-2:]
        if (height, width) == (edge, edge) and self.card.resize_px == edge:
            return images
        if self.card.crop == "squash":
            return self._resized(images, edge, edge)
        share = self.card.resize_px / min(height, width)
        return _center(self._resized(images, round(height * share), round(width * share)), edge)

    def _resized(self, images: Tensor, height: int, width: int) -> Tensor:
        if images.shape[-2:] == (height, width):
            return images
        how = self.card.interpolation
        if how == "nearest":
            return functional.interpolate(images, (height, width), mode="nearest-exact")
        smooth = functional.interpolate(images, (height, width), mode=how, antialias=True, align_corners=False)
        # Whole grey levels, as the image libraries that networks were trained with give them.
        return smooth.round_().clamp_(0, 255)


def _center(images: Tensor, edge: int) -> Tensor:
    top, left = ((side - edge) // 2 for side in images.shape[-2:])
    return images[..., top : top + edge, left : left + edge]
