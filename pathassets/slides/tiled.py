"""Rectangles from tiles: shared by the readers that decode tiles themselves.

Belongs here: laying tiles side by side, the edge of the picture. Does not belong: decoding, byte ranges.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pathassets.slides.reader import Pixels

WHITE = 255


def mosaic(
    tile: Callable[[int, int], Pixels],
    tile_hw: tuple[int, int],
    size: tuple[int, int],
    rectangle: tuple[int, int, int, int],
) -> Pixels:
    """A rectangle of a tiled picture: uint8 RGB, (height, width, 3), white outside.

    Args:
        tile: Gives the tile of a row and a column of tiles; it may be larger than the rest of the picture there.
        tile_hw: Height and width of tiles in px.
        size: (width, height) of the picture in px.
        rectangle: Left, top, width, height in px; may lie outside.
    """
    left, top, width, height = rectangle
    x0, x1 = max(left, 0), min(left + width, size[0])
    y0, y1 = max(top, 0), min(top + height, size[1])
    inside = x1 - x0 == width and y1 - y0 == height
    out = np.empty((height, width, 3), np.uint8) if inside else np.full((height, width, 3), WHITE, np.uint8)
    if x0 >= x1 or y0 >= y1:
        return out
    tile_h, tile_w = tile_hw
    for row in range(y0 // tile_h, -(-y1 // tile_h)):
        ty = row * tile_h
        above, below = max(y0, ty), min(y1, ty + tile_h)
        for column in range(x0 // tile_w, -(-x1 // tile_w)):
            tx = column * tile_w
            a, b = max(x0, tx), min(x1, tx + tile_w)
            out[above - top : below - top, a - left : b - left] = tile(row, column)[
                above - ty : below - ty, a - tx : b - tx
            ]
    return out
