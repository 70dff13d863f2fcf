"""Slides as points: a cohort's slide vectors laid out in two dimensions.

Belongs here: PCA and UMAP of a few to some thousands of vectors. Does not belong: how slide vectors come about.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pathassets.core import manifold

# UMAP of fewer different slides than this draws its own noise.
UMAP_MIN_SLIDES = 10
UMAP_NEIGHBORS = 15
UMAP_MIN_DIST = 0.1


def layout(vectors: NDArray[np.floating], *, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Positions of slides by `pca`, always, and by `umap` where at least ten of them differ.

    Equal slides get equal positions. Columns are centred, not scaled, and each axis points to where its largest loading
    is positive, so that a map does not flip when it is made again.

    Args:
        vectors: (n, d), finite, n >= 0.
        seed: For UMAP.

    Returns:
        method -> (n, 2) float32.

    Raises:
        ValueError: Not a finite matrix.
    """
    rows: NDArray[np.float64] = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(f"slide vectors must be a finite matrix, got {rows.shape}")
    found = {"pca": pca_layout(rows)}
    first, same = manifold.distinct_rows(rows)
    if len(first) >= UMAP_MIN_SLIDES:
        graph = manifold.neighbours(rows[first].astype(np.float32), UMAP_NEIGHBORS, seed)
        found["umap"] = manifold.umap(graph, seed, UMAP_MIN_DIST)[same]
    return found


def pca_layout(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    """The first two principal components of `vectors` (n, d) as (n, 2); zeros where there are none."""
    n, dim = vectors.shape
    flat = np.zeros((n, 2), dtype=np.float32)
    if n < 2 or dim < 1:
        return flat
    centred = vectors - vectors.mean(axis=0)
    left, size, loadings = np.linalg.svd(centred, full_matrices=False)
    k = min(2, len(size))
    largest = np.abs(loadings[:k]).argmax(axis=1)
    signs = np.sign(loadings[np.arange(k), largest])
    # Below rounding the directions are arbitrary: slides that are all alike lie on one point.
    kept = size[:k] > size[0] * 1e-10 if size[0] > 1e-12 * np.abs(vectors).max(initial=0.0) else np.zeros(k, dtype=bool)
    flat[:, :k] = left[:, :k] * (size[:k] * np.where(signs == 0, 1.0, signs) * kept)
    return flat
