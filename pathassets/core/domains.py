"""Spatial domains: tiles of one slide grouped by what they look like, with or without their neighbourhood.

Belongs here: the chain scale -> PCA -> neighbours -> Leiden and its two variants. Does not belong: the graphs
themselves (`graph`, `manifold`), names for domains (`similarity`), files.

The seed in the options fixes PCA, neighbours, Leiden and UMAP; two runs on one machine give the same labels.
Domain ids order domains by size within one slide and variant; between slides they mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from pathassets.core import graph as tile_graphs
from pathassets.core import manifold
from pathassets.errors import Reason
from pathassets.recipes import DomainOptions

if TYPE_CHECKING:
    from anndata import AnnData

# A row that this share of all tiles has exactly is no chance: blank or padded tiles, a domain of their own.
REPEATED_SHARE = 0.01
# Fewer points than this make no neighbour graph that could be laid out.
SMALLEST_GRAPH = 5


@dataclass(frozen=True)
class DomainVariant:
    """One way of grouping a slide's tiles.

    Attributes:
        labels: (n,) int32, 0 is the largest domain.
        sizes: Tiles of each domain.
        contiguity: For each domain the share of its tiles' neighbours that belong to it.
        pieces: For each domain the number of connected pieces.
        pca: (n, k) float32: what was clustered.
        neighbours: Weighted graph in feature space between distinct rows; None where nothing was clustered.
        distinct: (n,) which row of `neighbours` a tile is.
        features: (n, d) float32 smoothed features for `utag`; None for `leiden`, whose features the caller has.
    """

    labels: NDArray[np.int32]
    sizes: dict[int, int]
    contiguity: dict[int, float]
    pieces: dict[int, int]
    pca: NDArray[np.float32]
    neighbours: csr_array | None
    distinct: NDArray[np.intp]
    features: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class DomainResult:
    """Spatial domains of one slide.

    Attributes:
        variants: `leiden` and/or `utag`.
        umap: (n, 2) float32 of the first variant's features; PCA's first two components where tiles are too few.
        reason: `too_few_tiles` when the slide was not clustered; None when all is well.
    """

    variants: dict[str, DomainVariant] = field(default_factory=dict)
    umap: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 2), dtype=np.float32))
    reason: Reason | None = None


@dataclass(frozen=True)
class _Clustered:
    """Labels with what they came from; `graph` is None where nothing was clustered."""

    labels: NDArray[np.int32]
    pca: NDArray[np.float32]
    distinct: NDArray[np.intp]
    graph: AnnData | None


def spatial_domains(
    features: NDArray[np.floating], graph: csr_array, options: DomainOptions, *, with_umap: bool = True
) -> DomainResult:
    """Groups tiles into domains: scale -> PCA -> neighbours -> Leiden, on the features as they are and smoothed (UTAG).

    Sources: UTAG (Kim et al., Nat Methods 2022) for smoothing before the chain; the chain and its constants are
    scanpy's. Smoothing helps where single tiles say little and blurs borders where they say much: look at both.
    Memory is about three times the features in float32; time grows with n² (see `manifold`).

    Args:
        features: (n, d), finite: the caller leaves bad tiles out.
        graph: Neighbours in the plane of the slide (n, n), see `graph.tile_graph`.
        options: Variants, resolution, components, neighbours, seed, least number of tiles.
        with_umap: Whether the slide's UMAP is wanted.

    Raises:
        ValueError: Features that are not finite, or a graph of another size.
    """
    features = np.asarray(features)
    _check(features, graph)
    if len(features) < options.min_tiles:
        single: dict[str, DomainVariant] = {name: _one_domain(features, graph) for name in options.variants}
        return DomainResult(single, np.zeros((len(features), 2), dtype=np.float32), Reason.TOO_FEW_TILES)
    variants: dict[str, DomainVariant] = {}
    layout = np.zeros((len(features), 2), dtype=np.float32)
    for position, name in enumerate(options.variants):
        used = tile_graphs.smooth(graph, features) if name == "utag" else features
        found = _cluster(used, options)
        variants[name] = _variant(found, graph, used.astype(np.float32) if name == "utag" else None)
        if with_umap and position == 0:
            layout = _layout(found, options.seed)
    return DomainResult(variants, layout)


def _check(features: NDArray[np.floating], graph: csr_array) -> None:
    if features.ndim != 2 or graph.shape != (len(features), len(features)):
        raise ValueError(f"features {features.shape} and graph {graph.shape} do not belong together")
    if not np.isfinite(features).all():
        raise ValueError("features hold values that are not finite: leave out the tiles that could not be embedded")


def _cluster(features: NDArray[np.floating], options: DomainOptions) -> _Clustered:
    first, distinct = manifold.distinct_rows(features)
    points = manifold.pca(manifold.scale(features), options.n_pcs, options.seed)
    if len(first) < max(options.min_tiles, SMALLEST_GRAPH):
        # So few different rows are their own domains: a constant field is one, a noise-free drawing one per class.
        return _Clustered(by_size(distinct), points, distinct, None)
    found = manifold.neighbours(points[first], options.n_neighbors, options.seed)
    labels = manifold.leiden(found, options.resolution, options.seed)[distinct]
    return _Clustered(by_size(_set_apart(labels, distinct, options)), points, distinct, found)


def _set_apart(labels: NDArray[np.int32], distinct: NDArray[np.intp], options: DomainOptions) -> NDArray[np.int32]:
    """Gives rows that very many tiles share a domain of their own.

    Among distinct rows such a group is a single point and would be handed to whatever lies nearest. Where most
    distinct rows are repeated like that, the repeats say nothing and labels stay as they are.
    """
    copies = np.bincount(distinct)
    many = np.flatnonzero(copies >= max(2 * options.n_neighbors, REPEATED_SHARE * len(distinct)))
    if not 0 < many.size <= REPEATED_SHARE * copies.size + 1:
        return labels
    apart = labels.copy()
    for offset, row in enumerate(many):
        apart[distinct == row] = labels.max() + 1 + offset
    return apart


def by_size(labels: NDArray[np.integer]) -> NDArray[np.int32]:
    """Labels renumbered 0..k-1 by decreasing size, equal sizes by their first tile."""
    _, first, inverse, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), dtype=np.int32)
    rank[np.lexsort((first, -counts))] = np.arange(len(counts))
    return rank[inverse]


def _variant(found: _Clustered, graph: csr_array, features: NDArray[np.float32] | None) -> DomainVariant:
    ids, counts = np.unique(found.labels, return_counts=True)
    return DomainVariant(
        labels=found.labels,
        sizes={int(i): int(c) for i, c in zip(ids, counts, strict=True)},
        contiguity=tile_graphs.contiguity(graph, found.labels),
        pieces=tile_graphs.pieces(graph, found.labels),
        pca=found.pca,
        neighbours=None if found.graph is None else manifold.connectivities(found.graph),
        distinct=found.distinct,
        features=features,
    )


def _one_domain(features: NDArray[np.floating], graph: csr_array) -> DomainVariant:
    n = len(features)
    nothing = _Clustered(np.zeros(n, dtype=np.int32), np.zeros((n, 1), dtype=np.float32), np.arange(n), None)
    return _variant(nothing, graph, None)


def _layout(found: _Clustered, seed: int) -> NDArray[np.float32]:
    if found.graph is not None:
        return manifold.umap(found.graph, seed)[found.distinct]
    flat = np.zeros((len(found.pca), 2), dtype=np.float32)
    flat[:, : min(2, found.pca.shape[1])] = found.pca[:, :2]
    return flat
