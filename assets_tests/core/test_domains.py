"""Spatial domains where the truth is planted, and where the input is odd."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
import scanpy as sc
from sklearn.metrics import adjusted_rand_score

from pathassets.core import graph, manifold
from pathassets.core.domains import by_size, spatial_domains
from pathassets.errors import Reason
from pathassets.recipes import DomainOptions

SIDE = 24


def _slide(noise, seed=0, dim=32):
    """Four thick bands on a square map; features around their band's centre."""
    rng = np.random.default_rng(seed)
    row, col = np.divmod(np.arange(SIDE * SIDE), SIDE)
    truth = row // 6
    centres = rng.normal(size=(4, dim))
    features = (centres[truth] + noise * rng.normal(size=(SIDE * SIDE, dim))).astype(np.float32)
    return features, truth, graph.ring_graph(row, col)


def _ari(truth, variant):
    return adjusted_rand_score(truth, variant.labels)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_planted_domains_are_found(noise):
    features, truth, tiles = _slide(noise)
    result = spatial_domains(features, tiles, DomainOptions(variants=("leiden",)), with_umap=False)
    assert result.reason is None
    assert _ari(truth, result.variants["leiden"]) == 1.0
    assert result.variants["leiden"].pieces == {0: 1, 1: 1, 2: 1, 3: 1}
    assert min(result.variants["leiden"].contiguity.values()) > 0.8


def test_smoothing_wins_where_single_tiles_say_little():
    features, truth, tiles = _slide(3.0)
    variants = spatial_domains(features, tiles, DomainOptions(), with_umap=False).variants
    assert _ari(truth, variants["utag"]) > 0.7
    assert _ari(truth, variants["utag"]) > _ari(truth, variants["leiden"]) + 0.3
    np.testing.assert_allclose(variants["utag"].features, graph.smooth(tiles, features))


def test_two_runs_give_the_same_numbers():
    features, _, tiles = _slide(1.0)
    one, two = (spatial_domains(features, tiles, DomainOptions()) for _ in range(2))
    for name in ("leiden", "utag"):
        np.testing.assert_array_equal(one.variants[name].labels, two.variants[name].labels)
        np.testing.assert_array_equal(one.variants[name].pca, two.variants[name].pca)
    np.testing.assert_array_equal(one.umap, two.umap)
    assert one.umap.shape == (SIDE * SIDE, 2)
    assert np.isfinite(one.umap).all()


def test_the_chain_is_scanpys():
    features, _, tiles = _slide(1.0, seed=4)
    data = anndata.AnnData(features.copy())
    sc.pp.scale(data)
    sc.pp.pca(data, n_comps=20, random_state=0)
    sc.pp.neighbors(data, n_neighbors=15, use_rep="X_pca", random_state=0)
    sc.tl.leiden(data, resolution=1.0, flavor="igraph", n_iterations=2, directed=False, random_state=0)
    options = DomainOptions(variants=("leiden",), n_pcs=20, resolution=1.0)
    ours = spatial_domains(features, tiles, options, with_umap=False).variants["leiden"]
    np.testing.assert_allclose(manifold.scale(features), data.X, atol=2e-5)
    np.testing.assert_allclose(ours.pca, data.obsm["X_pca"], atol=2e-3)
    np.testing.assert_allclose(ours.neighbours.toarray(), data.obsp["connectivities"].toarray(), atol=1e-3)
    assert len(ours.sizes) == 4
    assert adjusted_rand_score(data.obs["leiden"], ours.labels) == 1.0


def test_tutorial_preset_is_the_smoothed_variant_alone():
    features, truth, tiles = _slide(2.0)
    found = spatial_domains(features, tiles, DomainOptions(preset="tutorial"), with_umap=False).variants
    same = spatial_domains(features, tiles, DomainOptions(variants=("utag",), resolution=0.2), with_umap=False).variants
    assert list(found) == ["utag"]
    np.testing.assert_array_equal(found["utag"].labels, same["utag"].labels)
    assert _ari(truth, found["utag"]) > 0.6


def test_domains_are_numbered_by_size():
    assert by_size(np.array([7, 3, 3, 9, 9, 9])).tolist() == [2, 1, 1, 0, 0, 0]
    assert by_size(np.array([5, 2, 5, 2])).tolist() == [0, 1, 0, 1]
    features, _, tiles = _slide(1.0)
    for variant in spatial_domains(features, tiles, DomainOptions(), with_umap=False).variants.values():
        sizes = list(variant.sizes.values())
        assert list(variant.sizes) == list(range(len(sizes)))
        assert sizes == sorted(sizes, reverse=True)
        assert sum(sizes) == SIDE * SIDE


def test_drawings_with_replacement_do_not_shatter_the_graph():
    """Each band has 30 distinct rows, drawn again and again: among all rows, neighbours are copies of each other."""
    features, truth, tiles = _slide(0.5)
    pool = np.array([np.flatnonzero(truth == t)[:30] for t in range(4)])
    drawn = pool[truth, np.random.default_rng(0).integers(0, 30, len(truth))]
    found = spatial_domains(features[drawn], tiles, DomainOptions(variants=("leiden",))).variants["leiden"]
    assert _ari(truth, found) == 1.0
    assert found.neighbours.shape == (len(np.unique(drawn)),) * 2
    np.testing.assert_array_equal(found.distinct, found.distinct[[list(drawn).index(d) for d in drawn]])


def test_many_equal_blank_tiles_are_one_domain_of_their_own():
    features, truth, tiles = _slide(0.5)
    features[truth == 1] = 0.25
    found = spatial_domains(features, tiles, DomainOptions(variants=("leiden",)), with_umap=False).variants["leiden"]
    assert _ari(truth, found) == 1.0


def test_a_constant_slide_is_one_domain():
    _, _, tiles = _slide(0)
    result = spatial_domains(np.full((SIDE * SIDE, 8), 0.1, np.float16), tiles, DomainOptions())
    assert [v.sizes for v in result.variants.values()] == [{0: SIDE * SIDE}] * 2
    assert result.reason is None


@pytest.mark.parametrize("n", [0, 1, 15])
def test_too_few_tiles_are_one_domain_and_say_so(n):
    features = np.random.default_rng(0).normal(size=(n, 8)).astype(np.float32)
    result = spatial_domains(features, graph.radius_graph(np.arange(n), np.zeros(n), 1), DomainOptions())
    assert result.reason == Reason.TOO_FEW_TILES
    assert set(result.variants) == {"leiden", "utag"}
    assert all((v.labels == 0).all() and len(v.labels) == n for v in result.variants.values())
    assert result.umap.shape == (n, 2)


@pytest.mark.parametrize("dim", [1, 2, 300])
def test_few_tiles_and_odd_widths_work(dim):
    features = np.random.default_rng(0).normal(size=(17, dim)).astype(np.float32)
    result = spatial_domains(features, graph.radius_graph(np.arange(17), np.zeros(17), 1), DomainOptions())
    assert result.reason is None
    assert all(sum(v.sizes.values()) == 17 for v in result.variants.values())
    assert np.isfinite(result.umap).all()


def test_bad_rows_and_foreign_graphs_are_refused():
    features, _, tiles = _slide(0.3)
    with pytest.raises(ValueError, match="belong together"):
        spatial_domains(features[1:], tiles, DomainOptions())
    features[3, 3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        spatial_domains(features, tiles, DomainOptions())


def test_constant_columns_do_not_become_noise():
    features, _, _ = _slide(0.3)
    features[:, 5] = 0.1
    features[::2, 6], features[1::2, 6] = 0.1, np.nextafter(np.float32(0.1), np.float32(1))
    scaled = manifold.scale(features)
    assert (scaled[:, 5:7] == 0).all()
    np.testing.assert_allclose(scaled[:, 7].std(ddof=1), 1, rtol=1e-4)
