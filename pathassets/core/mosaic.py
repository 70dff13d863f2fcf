"""Mosaic: a map of tiles cut into square cells, one tile for each cell that has any.

Belongs here: which tile stands in which cell. Does not belong: laying tiles out (`cohort_map`), their pixels.

As Slideflow's `Mosaic` (Dolezal et al. 2024): a grid over the map whose far outliers are drawn in, one tile per cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Cells along the longer side: about four tiles for each cell, were they spread evenly.
TILES_PER_CELL = 4
MIN_CELLS, MAX_CELLS = 6, 40
# What lies beyond these percentiles, by more than a tenth of their distance, is drawn in to the edge.
PERCENTILES = (1.0, 99.0)
MARGIN = 0.1


@dataclass(frozen=True)
class Mosaic:
    """Cells that have tiles.

    Attributes:
        shape: Rows and columns of the grid.
        origin: x of its left and y of its upper edge in the map's coordinates, whose y grows upwards.
        step: Edge of a cell there.
        row: (k,) row of each cell, counted from the top.
        column: (k,) column of each cell.
        tile: (k,) the tile that stands there: the one nearest to the cell's middle.
        count: (k,) tiles that lie there.
    """

    shape: tuple[int, int]
    origin: tuple[float, float]
    step: float
    row: NDArray[np.intp]
    column: NDArray[np.intp]
    tile: NDArray[np.intp]
    count: NDArray[np.intp]


def mosaic(xy: NDArray[np.floating]) -> Mosaic:
    """Cuts the map `xy` (n, 2), n >= 1, finite, into cells."""
    places = _drawn_in(np.asarray(xy, dtype=np.float64))
    low, high = places.min(axis=0), places.max(axis=0)
    n_cells = int(np.clip(round((len(places) / TILES_PER_CELL) ** 0.5), MIN_CELLS, MAX_CELLS))
    step = float((high - low).max()) / n_cells or 1.0
    columns, rows = (max(1, min(n_cells, int(np.ceil(extent / step - 1e-9)))) for extent in high - low)
    column = np.clip(((places[:, 0] - low[0]) / step).astype(np.intp), 0, columns - 1)
    row = np.clip(((high[1] - places[:, 1]) / step).astype(np.intp), 0, rows - 1)
    middle = np.column_stack([low[0] + (column + 0.5) * step, high[1] - (row + 0.5) * step])
    off = ((places - middle) ** 2).sum(axis=1)
    cell = row * columns + column
    order = np.lexsort((np.arange(len(cell)), off, cell))
    cells, first, count = np.unique(cell[order], return_index=True, return_counts=True)
    tile = order[first]
    shape, origin = (rows, columns), (float(low[0]), float(high[1]))
    return Mosaic(shape, origin, step, cells // columns, cells % columns, tile, count.astype(np.intp))


def _drawn_in(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = np.percentile(xy, PERCENTILES, axis=0)
    margin = MARGIN * (high - low)
    return np.clip(xy, low - margin, high + margin)
