"""Rectangles from tiles: shared by the readers that decode tiles themselves.

Belongs here: laying tiles side by side, the edge of the picture, pixels that do not lie where they should. Does not belong:
decoding, byte ranges.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pathassets.slides.reader import Pixels

WHITE = 255
_COLOURS = 3
# as many threads as machines have are not further ahead of each other than that
_MIN_KEPT_BYTES = 64 * 2**20


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


def bytes_to_keep(tile_hw: tuple[int, int], width: int, height: int) -> int:
    """Bytes of decoded tiles that a pass in grid order comes back to: the rows of tiles that one row of rectangles lies on.

    Args:
        tile_hw: Height and width of tiles in px.
        width: Of the picture in px.
        height: Of the rectangles in px.
    """
    # it may begin within a tile; and threads that read ahead are in the next row already
    rows = -(-height // tile_hw[0]) + 2
    return max(_MIN_KEPT_BYTES, rows * tile_hw[0] * -(-width // tile_hw[1]) * tile_hw[1] * _COLOURS)


def caught_up(
    read: Callable[[int, int, int, int], Pixels],
    size: tuple[int, int],
    rectangle: tuple[int, int, int, int],
    lag: float,
) -> Pixels:
    """A rectangle of a picture whose pixels lie `lag` px before their places: uint8 RGB, (height, width, 3), white outside.

    By cubic interpolation, which keeps what linear would blur. Beyond the picture's edge its last pixels go on.

    Args:
        read: Gives pixels of the picture as they are, for left, top, width, height within it.
        size: (width, height) of the picture in px.
        rectangle: Left, top, width, height in px; may lie outside.
        lag: In px, at least 0 and below 1, along x and y.
    """
    from PIL import Image

    left, top, width, height = rectangle
    x0, x1 = max(left, 0), min(left + width, size[0])
    y0, y1 = max(top, 0), min(top + height, size[1])
    out = np.full((height, width, 3), WHITE, np.uint8)
    if x0 >= x1 or y0 >= y1:
        return out
    # four pixels make one: one before it, two behind
    a0, a1, b0, b1 = max(x0 - 1, 0), min(x1 + 2, size[0]), max(y0 - 1, 0), min(y1 + 2, size[1])
    pixels = read(a0, b0, a1 - a0, b1 - b0)
    missing = ((b0 - y0 + 1, y1 + 2 - b1), (a0 - x0 + 1, x1 + 2 - a1), (0, 0))
    pixels = np.pad(pixels, missing, mode="edge") if np.any(missing) else pixels
    box = (1 + lag, 1 + lag, 1 + lag + x1 - x0, 1 + lag + y1 - y0)
    inner = Image.fromarray(pixels).resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC, box=box)
    out[y0 - top : y1 - top, x0 - left : x1 - left] = np.asarray(inner)
    return out
