"""The grid of tiles over a slide, and how much tissue each holds.

Belongs here: positions, shares, which piece a tile belongs to. Does not belong: resolutions (`geometry.py`), pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pathassets.core.geometry import TileSize

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Shares are compared with the limit after rounding errors of about 1e-12.
SHARE_TOLERANCE = 1e-9


def grid_tiles(
    width_px: int,
    height_px: int,
    size: TileSize,
    labels: NDArray[np.int32] | None,
    min_tissue: float = 0.5,
    edge: Literal["drop", "pad"] = "drop",
) -> pl.DataFrame:
    """Tiles of a slide that hold enough tissue.

    The grid is anchored at level 0's origin: column k starts at `round(k * stride)`, so that it depends on no tissue mask and
    rounding does not add up. Shares are exact: each pixel of `labels` is taken as the rectangle of the slide that it
    covers.

    Args:
        width_px: Level-0 width.
        height_px: Level-0 height.
        size: Tile and stride in level-0 pixels.
        labels: int32 (h, w), the piece of each pixel of the tissue picture, negative where there is none; any size.
            None, or labels without a gap, mean that the slide as a whole is wanted: every tile of the grid is kept.
        min_tissue: Least share of the tile's area that is tissue; 0 keeps every tile that touches tissue at all.
        edge: `drop` leaves out tiles that cross the slide's right or bottom border; `pad` keeps those that start inside;
            what lies outside counts as no tissue.

    Returns:
        One row per tile in row-major order of the grid: `tile_id` Int32 0..n-1, `x_px`, `y_px` Int32 (top left), `width_px`,
        `height_px`, `size_px` Int32 (`size_px` is the width), `grid_col`, `grid_row` Int32, `tissue_id` Int32
        (the piece with most area in the tile, the lower id when equal), `tissue_share` Float32 (of all pieces together).
    """
    if labels is None:
        labels = np.zeros((1, 1), np.int32)
    x = _starts(width_px, size.stride_hw[1], size.size_hw[1], edge)
    y = _starts(height_px, size.stride_hw[0], size.size_hw[0], edge)
    tissue = labels >= 0
    # Tile edges in pixels of the tissue picture; what lies outside the slide is cut off.
    across = _in_cells(x, size.size_hw[1], width_px, labels.shape[1])
    down = _in_cells(y, size.size_hw[0], height_px, labels.shape[0])
    tile_cells = size.size_hw[0] * size.size_hw[1] * labels.size / max(width_px * height_px, 1)
    share = _box_sums(tissue, down, across) / tile_cells
    least = 0.0 if tissue.all() else min_tissue
    keep = (share > SHARE_TOLERANCE) & (share >= least - SHARE_TOLERANCE)
    piece = _largest_piece(labels, down, across)
    rows, columns = np.nonzero(keep)
    return _frame(x[columns], y[rows], size, columns, rows, piece[rows, columns], share[rows, columns])


def _starts(length: int, stride: float, size: int, edge: str) -> Ints:
    """First level-0 pixel of each grid column (or row)."""
    last = length - size if edge == "drop" else length - 1
    if last < 0 or length < 1:
        return np.zeros(0, np.int64)
    starts = np.rint(np.arange(int(last / stride) + 2) * stride).astype(np.int64)
    return starts[starts <= last]


def _in_cells(starts: Ints, size: int, length: int, cells: int) -> tuple[Floats, Floats]:
    scale = cells / max(length, 1)
    ends = np.minimum(starts + size, length)
    return starts.astype(np.float64) * scale, ends.astype(np.float64) * scale


def _box_sums(values: NDArray[np.bool_], rows: tuple[Floats, Floats], columns: tuple[Floats, Floats]) -> Floats:
    """Area of `values` in every rectangle of a grid of row and column intervals, in cells, fractions of cells included.

    The integral of a picture of rectangles is linear inside each cell, so that interpolating cumulative sums is exact.
    """
    bands = _interval_sums(values, rows)
    return _interval_sums(bands.T, columns).T


def _interval_sums(values: NDArray[np.bool_] | Floats, intervals: tuple[Floats, Floats]) -> Floats:
    """Sums along axis 0 between fractional positions: (n, m) and k intervals to (k, m)."""
    # Counts of pixels fit 32 bits and take half the memory, which counts on large pictures.
    total = np.zeros((values.shape[0] + 1, values.shape[1]), np.int32 if values.dtype == bool else np.float64)
    np.cumsum(values, axis=0, out=total[1:])
    return _at(total, intervals[1]) - _at(total, intervals[0])


def _at(total: NDArray[np.int32] | Floats, position: Floats) -> Floats:
    below = np.minimum(position.astype(np.int64), total.shape[0] - 2)
    part = (position - below)[:, None]
    return np.asarray(total[below] * (1 - part) + total[below + 1] * part)


def _largest_piece(
    labels: NDArray[np.int32], rows: tuple[Floats, Floats], columns: tuple[Floats, Floats]
) -> NDArray[np.int32]:
    """Id of the piece with most area in each tile, -1 where there is none; each piece is looked for in its own box only."""
    from scipy import ndimage

    best = np.zeros((rows[0].size, columns[0].size))
    winner = np.full(best.shape, -1, np.int32)
    for piece, box in enumerate(ndimage.find_objects(labels + 1)):
        if box is None:
            continue
        tiles = (_touching(rows, box[0]), _touching(columns, box[1]))
        if tiles[0].start >= tiles[0].stop or tiles[1].start >= tiles[1].stop:
            continue
        inside = [_within(edges, t, b) for edges, t, b in zip((rows, columns), tiles, box, strict=True)]
        area = _box_sums(labels[box] == piece, inside[0], inside[1])
        more = area > best[tiles] + SHARE_TOLERANCE
        best[tiles][more] = area[more]
        winner[tiles][more] = piece
    return winner


def _within(intervals: tuple[Floats, Floats], tiles: slice, box: slice) -> tuple[Floats, Floats]:
    """The intervals of `tiles`, cut to `box` and counted from its start."""
    starts, ends = (np.clip(edges[tiles], box.start, box.stop) - float(box.start) for edges in intervals)
    return starts, ends


def _touching(intervals: tuple[Floats, Floats], box: slice) -> slice:
    """The tiles (starts and ends both ascend) that overlap the pixels of `box`."""
    first = int(np.searchsorted(intervals[1], box.start, side="right"))
    return slice(first, int(np.searchsorted(intervals[0], box.stop, side="left")))


def _frame(
    x: Ints, y: Ints, size: TileSize, columns: Ints, rows: Ints, piece: NDArray[np.int32], share: Floats
) -> pl.DataFrame:
    import polars as pl

    n = x.size
    height, width = size.size_hw
    values = {
        "tile_id": np.arange(n), "x_px": x, "y_px": y,
        "width_px": np.full(n, width), "height_px": np.full(n, height), "size_px": np.full(n, width),
        "grid_col": columns, "grid_row": rows, "tissue_id": piece,
    }  # fmt: skip
    frame = {name: np.asarray(column, np.int32) for name, column in values.items()}
    return pl.DataFrame({**frame, "tissue_share": np.minimum(share, 1.0).astype(np.float32)})
