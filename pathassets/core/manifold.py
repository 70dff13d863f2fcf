"""Feature space: scaling, PCA, neighbours, Leiden, UMAP; the calls of scanpy that several analyses share.

Belongs here: rows of features in, coordinates and labels out, the same on every run. Does not belong: the plane of
the slide (`graph`), what clusters mean (`domains`).

Every random draw has a seed, and neighbours are exact (brute force in blocks, O(n²) time, O(n) memory: 100,000 rows
of 50 components take some 25 s on two cores). The approximate search that scanpy turns to above 8,192 rows depends
on the number of threads. scanpy is imported on first use: it costs seconds (see `compiled`).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, csr_matrix

from pathassets.core.compiled import import_umap

if TYPE_CHECKING:
    from anndata import AnnData

# A column that varies less than this share of its largest value is constant but for rounding (float32 keeps 6e-8).
CONSTANT = 1e-6
# Rows worked on at once where float64 copies are made.
BLOCK_ROWS = 8192


def scale(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Centres columns and divides by their standard deviation (n - 1), as `scanpy.pp.scale`; a float32 copy.

    Constant columns become zeros instead of amplified rounding.
    """
    mean, std, constant = _column_stats(features)
    scaled = np.empty(features.shape, dtype=np.float32)
    for rows in _row_blocks(len(features)):
        scaled[rows] = (features[rows].astype(np.float64) - mean) / std
    scaled[:, constant] = 0.0
    return scaled


def _row_blocks(n: int) -> list[slice]:
    return [slice(start, start + BLOCK_ROWS) for start in range(0, n, BLOCK_ROWS)]


def _column_stats(features: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Mean, standard deviation (1 where constant) and whether a column is constant, in float64."""
    n, blocks = len(features), _row_blocks(len(features))
    mean = sum(features[b].sum(axis=0, dtype=np.float64) for b in blocks) / n
    squares = sum(((features[b].astype(np.float64) - mean) ** 2).sum(axis=0) for b in blocks)
    low, high = features.min(axis=0).astype(np.float64), features.max(axis=0).astype(np.float64)
    constant = (high - low) <= CONSTANT * np.maximum(abs(low), abs(high))
    return mean, np.where(constant, 1.0, np.sqrt(squares / max(n - 1, 1))), constant


def pca(scaled: NDArray[np.float32], n_pcs: int, seed: int) -> NDArray[np.float32]:
    """Principal components of centred columns (n, k) through scanpy; k = `n_pcs`, or fewer for few rows or columns."""
    import scanpy

    varying = scaled[:, np.ptp(scaled, axis=0) > 0]
    most = min(len(varying) - 1, varying.shape[1])
    if most < 1:
        return np.zeros((len(scaled), 1), dtype=np.float32)
    k = min(n_pcs, most)
    solver = "arpack" if k < min(varying.shape) else "full"
    return np.asarray(scanpy.pp.pca(varying, n_comps=k, svd_solver=solver, random_state=seed), dtype=np.float32)


def neighbours(points: NDArray[np.float32], n_neighbors: int, seed: int) -> AnnData:
    """The weighted neighbour graph of UMAP over `points` (n, k), by scanpy with an exact search.

    Args:
        points: At least 3 rows, no two of them equal (`distinct_rows`): fifteen copies of one row would be each
            other's only neighbours and fall apart from the rest.
        n_neighbors: As scanpy counts, the point itself included; fewer when there are fewer points.
        seed: Recorded; an exact search draws nothing.

    Returns:
        An AnnData with `points` as X and the graph in `obsp["connectivities"]`.
    """
    import anndata
    import pandas as pd
    import scanpy

    import_umap()
    index = pd.RangeIndex(len(points)).astype(str)
    data = anndata.AnnData(points, obs=pd.DataFrame(index=index))
    k = max(2, min(n_neighbors, len(points) - 1))
    scanpy.pp.neighbors(data, n_neighbors=k, use_rep="X", transformer=_ExactSearch(k), random_state=seed)
    return data


class _ExactSearch:
    """Exact neighbours in the form scanpy asks of its `transformer`.

    A point is left out of its own list, and scanpy puts it back at distance 0: scikit-learn's own transformer finds
    a point some 1e-7 away from itself by rounding, which UMAP then takes for the distance to its nearest neighbour.
    """

    def __init__(self, n_neighbors: int) -> None:
        self.n_neighbors = n_neighbors

    def get_params(self, deep: bool = True) -> dict[str, int]:
        """What scanpy reads the number of neighbours from, the point itself included."""
        return {"n_neighbors": self.n_neighbors}

    def fit_transform(self, points: NDArray[np.float32]) -> csr_matrix:
        """Distances (n, n), n_neighbors - 1 entries a row, nearest first."""
        from sklearn.neighbors import NearestNeighbors

        others = self.n_neighbors - 1
        distance, index = NearestNeighbors(algorithm="brute").fit(points).kneighbors(n_neighbors=others)
        starts = np.arange(0, index.size + 1, others)
        # A matrix, not an array: scanpy calls a method that sparse arrays do not have.
        return csr_matrix((distance.ravel(), index.ravel(), starts), shape=(len(points), len(points)))


def leiden(data: AnnData, resolution: float, seed: int) -> NDArray[np.int32]:
    """Leiden communities of the graph in `data` (Traag et al. 2019; igraph's implementation, two iterations)."""
    import scanpy

    options = {"flavor": "igraph", "n_iterations": 2, "directed": False}
    scanpy.tl.leiden(data, resolution=resolution, random_state=seed, **options)
    return np.asarray(data.obs["leiden"], dtype=np.int32)


def umap(data: AnnData, seed: int, min_dist: float = 0.5) -> NDArray[np.float32]:
    """UMAP (McInnes et al. 2018) of the graph in `data`: (n, 2), single-threaded, as its seed asks."""
    import scanpy

    import_umap()
    scanpy.tl.umap(data, min_dist=min_dist, random_state=seed)
    return np.asarray(data.obsm["X_umap"], dtype=np.float32)


def connectivities(data: AnnData) -> csr_array:
    """The graph in `data` as a plain sparse matrix."""
    return csr_array(data.obsp["connectivities"])


def distinct_rows(features: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First occurrence of every distinct row, in order, and for each row which of those it equals."""
    seen: dict[bytes, int] = {}
    first: list[int] = []
    same = np.empty(len(features), dtype=np.intp)
    for i, row in enumerate(features):
        # Adding zero turns -0.0 into 0.0; the digest stands for the row so that no second copy of all rows is held.
        key = hashlib.blake2b((row + 0).tobytes(), digest_size=16).digest()
        same[i] = seen.setdefault(key, len(seen))
        if same[i] == len(first):
            first.append(i)
    return np.asarray(first, dtype=np.intp), same
