"""Tiles of many slides as points: who is drawn, where they lie."""

from __future__ import annotations

import numpy as np
import pytest

from pathassets.core import cohort_map
from pathassets.core.cohort_map import layout, sampled_rows, tiles_per_slide


def test_every_slide_has_the_same_share_and_the_map_a_bound():
    assert tiles_per_slide(3) == cohort_map.TILES_PER_SLIDE
    assert tiles_per_slide(1000) * 1000 <= cohort_map.MAX_TILES
    assert tiles_per_slide(0) == cohort_map.TILES_PER_SLIDE
    assert tiles_per_slide(10**9) == 1


def test_what_is_drawn_depends_on_the_slide_alone():
    one = sampled_rows("a-00000000", 1000, 0)
    np.testing.assert_array_equal(one, sampled_rows("a-00000000", 1000, 0))
    assert sorted(one) == list(range(1000)), "all tiles, each once"
    assert (one != sampled_rows("b-00000000", 1000, 0)).any()
    assert (one != sampled_rows("a-00000000", 1000, 1)).any()


def test_kinds_of_tiles_lie_apart_and_the_same_each_time():
    rng = np.random.default_rng(0)
    kinds = np.repeat([0, 1, 2], 60)
    features = rng.normal(size=(180, 24)) + 8 * np.eye(24)[kinds]
    method, xy = layout(features)
    assert method == "umap"
    again = layout(features)[1]
    np.testing.assert_array_equal(xy, again)
    middles = np.array([xy[kinds == kind].mean(axis=0) for kind in range(3)])
    nearest = np.linalg.norm(xy[:, None] - middles[None], axis=2).argmin(axis=1)
    assert (nearest == kinds).mean() > 0.98


def test_equal_tiles_lie_on_one_point():
    rng = np.random.default_rng(1)
    features = np.vstack([rng.normal(size=(80, 8)), np.ones((40, 8))])
    _, xy = layout(features)
    assert np.ptp(xy[80:], axis=0).max() == 0
    assert np.isfinite(xy).all()


@pytest.mark.parametrize("n", [1, 2, 3, 49])
@pytest.mark.parametrize("dim", [1, 2, 64])
def test_few_tiles_have_a_pca(n, dim):
    method, xy = layout(np.random.default_rng(0).normal(size=(n, dim)).astype(np.float32))
    assert method == "pca"
    assert xy.shape == (n, 2)
    assert np.isfinite(xy).all()


def test_many_tiles_that_hardly_differ_are_laid_out():
    constant = np.ones((70, 5))
    constant[:, 0] += np.arange(70) * 1e-12
    assert np.isfinite(layout(constant)[1]).all()


def test_vectors_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="finite"):
        layout(np.array([[1.0, np.nan]]))
