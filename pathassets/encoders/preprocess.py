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
        self._scale, self._shift = (1 / (255 * std)).float().to(device), (-mean / std).float().to(device)

    def __call__(self, tiles: Tensor) -> Tensor:
        """Tiles to network input.

        Args:
            tiles: uint8 RGB (n, h, w, 3).

        Returns:
            (n, 3, input_px, input_px), channels last in memory, which is how the tiles came.
        """
        images = tiles if self._fits(tiles) else self._fitted(tiles.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self._normalised(images.contiguous()).permute(0, 3, 1, 2)

    def _fits(self, tiles: Tensor) -> bool:
        edge = self.card.input_px
        return tiles.shape[1:3] == (edge, edge) and self.card.resize_px == edge

    def _normalised(self, images: Tensor) -> Tensor:
        """(n, h, w, 3) in the network's type.

        By rows of pixels, which take half the time of channels; on a CPU one picture at a time, which its cache can hold.
        """
        rows = images.flatten(2)
        scale, shift = (values.repeat(images.shape[2]) for values in (self._scale, self._shift))
        wanted = torch.empty(rows.shape, dtype=self.dtype, device=rows.device)
        at_once = 1 if rows.device.type == "cpu" else max(1, len(rows))
        numbers = torch.empty((at_once, *rows.shape[1:]), device=rows.device)
        for part, target in zip(rows.split(at_once), wanted.split(at_once), strict=True):
            numbers.copy_(part)
            target.copy_(torch.addcmul(shift, numbers, scale, out=numbers))
        return wanted.view(images.shape)

    def _fitted(self, images: Tensor) -> Tensor:
        edge = self.card.input_px
        height, width = images.shape[-2:]
        if self.card.crop == "squash":
            return self._resized(images, edge, edge)
        return _center(self._resized(images, *_shorter_edge(height, width, self.card.resize_px)), edge)

    def _resized(self, images: Tensor, height: int, width: int) -> Tensor:
        if images.shape[-2:] == (height, width):
            return images
        how = self.card.interpolation
        if how == "nearest":
            return functional.interpolate(images, (height, width), mode="nearest-exact")
        if not self.card.antialias:
            return _whole_levels(images.float(), (height, width), how, antialias=False)
        if images.device.type == "cpu":  # torch's own copy of Pillow's arithmetic
            return functional.interpolate(images, (height, width), mode=how, antialias=True, align_corners=False)
        # Pillow's two passes, which round after each
        across = _whole_levels(images.float(), (images.shape[-2], width), how, antialias=True)
        return _whole_levels(across, (height, width), how, antialias=True)


def _whole_levels(images: Tensor, hw: tuple[int, int], how: str, *, antialias: bool) -> Tensor:
    """Resized, in whole grey levels, as the image libraries that networks were trained with give them."""
    smooth = functional.interpolate(images, hw, mode=how, antialias=antialias, align_corners=False)
    return smooth.round_().clamp_(0, 255)


def _shorter_edge(height: int, width: int, edge: int) -> tuple[int, int]:
    """The size whose shorter edge is `edge`; the longer one is rounded down, as torchvision does."""
    if height <= width:
        return edge, int(edge * width / height)
    return int(edge * height / width), edge


def _center(images: Tensor, edge: int) -> Tensor:
    """The middle square; halves are rounded to even, as torchvision does."""
    top, left = (round((side - edge) / 2) for side in images.shape[-2:])
    return images[..., top : top + edge, left : left + edge]
