"""Which tiles lie next to each other, and what that says about labels: sparse graphs over one slide's tiles.

Belongs here: graphs in the plane of the slide, smoothing over them (UTAG), contiguity. Does not belong: neighbours
in feature space (`manifold`), clustering (`domains`).
A graph is a symmetric CSR matrix of ones, n x n, with the tile itself among its neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from pathassets.recipes import DomainOptions

if TYPE_CHECKING:
    import polars as pl

# Tile k starts at round(k * stride): two neighbours can be 1 px further apart, on each axis, than their size says.
ROUNDING_PX = 1.5
# Columns smoothed at once: bounds the float64 copy.
SMOOTH_COLUMNS = 128


def radius_graph(x_px: ArrayLike, y_px: ArrayLike, radius_px: float) -> csr_array:
    """Joins tiles whose corners are at most `radius_px` apart, self included.

    Source: UTAG (Kim et al., Nat Methods 2022), whose `max_dist` this is.
    """
    return _graph(_points(x_px, y_px), radius_px, 2.0)


def ring_graph(grid_row: ArrayLike, grid_col: ArrayLike, rings: int = 1) -> csr_array:
    """Joins each tile with the `rings` squares of tiles around it (8 tiles for one ring), self included."""
    return _graph(_points(grid_col, grid_row), rings + 0.5, np.inf)


def tile_graph(tiles: pl.DataFrame, options: DomainOptions) -> csr_array:
    """The graph over `tiles` that `options` asks for, in the frame's order.

    `radius_tiles` counts tile widths, on the vertical axis heights; `rings` count rows and columns of the grid.

    Args:
        tiles: `x_px`, `y_px`, `width_px`, `height_px` (level-0 px), `grid_row`, `grid_col`, see `tiling.grid_tiles`.
        options: `graph`, `radius_tiles`, `rings` are read.
    """
    if options.graph == "rings":
        return ring_graph(tiles["grid_row"].to_numpy(), tiles["grid_col"].to_numpy(), options.rings)
    if tiles.is_empty():
        return radius_graph([], [], 1.0)
    width, height = int(tiles["width_px"][0]), int(tiles["height_px"][0])
    squeeze = width / height
    rounding = ROUNDING_PX * max(1.0, squeeze)
    x, y = tiles["x_px"].to_numpy(), tiles["y_px"].to_numpy() * squeeze
    return radius_graph(x, y, options.radius_tiles * width + rounding)


def _points(x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    return np.column_stack([np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)]).reshape(-1, 2)


def _graph(points: NDArray[np.float64], radius: float, norm: float) -> csr_array:
    n = len(points)
    pairs = cKDTree(points).query_pairs(radius, p=norm, output_type="ndarray") if n else np.empty((0, 2), dtype=int)
    own = np.arange(n)
    rows = np.concatenate([pairs[:, 0], pairs[:, 1], own])
    cols = np.concatenate([pairs[:, 1], pairs[:, 0], own])
    graph = coo_array((np.ones(rows.size, dtype=np.float32), (rows, cols)), shape=(n, n)).tocsr()
    graph.sort_indices()
    return graph


def row_normalise(graph: csr_array) -> csr_array:
    """`graph` (n, n) with rows that sum to one, float64."""
    degree = _degree(graph)
    weights = graph.astype(np.float64)
    weights.data /= np.repeat(degree, np.diff(graph.indptr))
    return weights


def _degree(graph: csr_array) -> NDArray[np.float64]:
    degree = np.asarray(graph.sum(axis=1, dtype=np.float64)).ravel()
    if degree.size and degree.min() <= 0:
        raise ValueError("a tile without any neighbour, not even itself: build the graph with self loops")
    return degree


def smooth(graph: csr_array, features: NDArray[np.floating]) -> NDArray[np.floating]:
    """Mean of each tile's features over its neighbours and itself: A X, where the rows of A sum to one.

    Source: UTAG (Kim et al., Nat Methods 2022), message passing with `l1_norm`. Neighbours are summed in float64 and
    divided once, so that a constant field comes back as exactly the same numbers.

    Args:
        graph: Neighbours (n, n), normalised or not.
        features: (n, d), finite.

    Returns:
        (n, d), float32 (float64 for float64 features).
    """
    dtype = np.float64 if features.dtype == np.float64 else np.float32
    sums, degree = graph.astype(np.float64), _degree(graph)[:, None]
    result = np.empty(features.shape, dtype=dtype)
    for start in range(0, features.shape[1], SMOOTH_COLUMNS):
        block = slice(start, start + SMOOTH_COLUMNS)
        result[:, block] = (sums @ features[:, block].astype(np.float64)) / degree
    return result


def _pairs(graph: csr_array) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Both directions of every pair of different tiles."""
    rows = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    other = rows != graph.indices
    return rows[other], graph.indices[other]


def contiguity(graph: csr_array, labels: ArrayLike) -> dict[int, float]:
    """For every domain the share of its tiles' neighbours that belong to it too, 0 to 1.

    1.0 where a domain's tiles have no neighbours at all: nothing beside them is different.
    """
    of = np.asarray(labels)
    rows, cols = _pairs(graph)
    own, same = of[rows], of[rows] == of[cols]
    return {int(d): float(same[own == d].mean()) if (own == d).any() else 1.0 for d in np.unique(of)}


def pieces(graph: csr_array, labels: ArrayLike) -> dict[int, int]:
    """For every domain the number of connected pieces it falls into."""
    of = np.asarray(labels)
    rows, cols = _pairs(graph)
    same = of[rows] == of[cols]
    inside = coo_array((np.ones(same.sum(), dtype=np.int8), (rows[same], cols[same])), shape=graph.shape)
    _, piece = connected_components(inside, directed=False)
    return {int(d): int(np.unique(piece[of == d]).size) for d in np.unique(of)}
