"""Tiles of a cohort as points: a sample of every slide's tiles laid out together.

Belongs here: which tiles stand for a slide, their layout by PCA and UMAP. Does not belong: slides as points (`slide_map`),
pictures (`mosaic`), reading embeddings.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from pathassets.core import manifold
from pathassets.core.slide_map import pca_layout

# A sample shows what kinds of tissue there are; neighbours are exact, so that time grows with the square of its size.
TILES_PER_SLIDE = 500
MAX_TILES = 20_000
# UMAP of fewer different tiles than this draws its own noise.
UMAP_MIN_TILES = 50
# scanpy's tutorial takes 50 components and 15 neighbours; with 0.1 instead of 0.5 kinds of tissue lie closer together.
N_PCS, NEIGHBORS, MIN_DIST = 50, 15, 0.1


def tiles_per_slide(n_slides: int) -> int:
    """How many tiles stand for each of `n_slides` slides: the same for all, so that a large slide does not rule the map."""
    return max(1, min(TILES_PER_SLIDE, MAX_TILES // max(n_slides, 1)))


def sampled_rows(slide_id: str, n_tiles: int, seed: int) -> NDArray[np.intp]:
    """All tiles of a slide in the order in which they are drawn; the same whatever other slides there are."""
    return np.random.default_rng([seed, zlib.crc32(slide_id.encode())]).permutation(n_tiles).astype(np.intp)


def layout(features: NDArray[np.floating], *, seed: int = 0) -> tuple[str, NDArray[np.float32]]:
    """Positions of tiles: scaled, 50 principal components, exact neighbours, UMAP; equal tiles get equal positions.

    Args:
        features: (n, d), finite.
        seed: For PCA and UMAP.

    Returns:
        The method, `umap` or, for fewer than 50 different tiles, `pca`; and (n, 2) float32.

    Raises:
        ValueError: Not a finite matrix.
    """
    if features.ndim != 2 or not np.isfinite(features).all():
        raise ValueError(f"features must be a finite matrix, got {features.shape}")
    first, same = manifold.distinct_rows(features)
    if len(first) < UMAP_MIN_TILES:
        return "pca", pca_layout(np.asarray(features, dtype=np.float64))
    components = manifold.pca(manifold.scale(features[first]), N_PCS, seed)
    # Rows that differ may agree in the components that are kept.
    kept, again = manifold.distinct_rows(components)
    if len(kept) < UMAP_MIN_TILES:
        return "pca", pca_layout(np.asarray(features, dtype=np.float64))
    graph = manifold.neighbours(components[kept], NEIGHBORS, seed)
    return "umap", manifold.umap(graph, seed, MIN_DIST)[again][same]
