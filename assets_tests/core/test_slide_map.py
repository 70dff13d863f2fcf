"""Layouts of few, many, equal and odd slides."""

from __future__ import annotations

import numpy as np
import pytest

from pathassets.core.slide_map import layout


@pytest.mark.parametrize("n", [0, 1, 2, 3, 9])
@pytest.mark.parametrize("dim", [1, 2, 64])
def test_few_slides_have_a_pca_and_no_umap(n, dim):
    found = layout(np.random.default_rng(0).normal(size=(n, dim)))
    assert list(found) == ["pca"]
    assert found["pca"].shape == (n, 2)
    assert np.isfinite(found["pca"]).all()


def test_pca_keeps_distances_of_points_on_a_plane():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(8, 2))
    basis, _ = np.linalg.qr(rng.normal(size=(50, 2)))
    placed = layout(flat @ basis.T + 3)["pca"]
    apart = [np.linalg.norm(p[:, None] - p[None], axis=-1) for p in (placed, flat)]
    np.testing.assert_allclose(apart[0], apart[1], atol=1e-5)


def test_axes_do_not_flip_when_the_order_of_slides_changes():
    vectors = np.random.default_rng(1).normal(size=(7, 20))
    order = np.array([4, 2, 6, 0, 1, 5, 3])
    np.testing.assert_allclose(layout(vectors[order])["pca"], layout(vectors)["pca"][order], atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 12])
def test_equal_slides_lie_on_one_point(n):
    found = layout(np.full((n, 5), 0.1))
    assert list(found) == ["pca"]
    np.testing.assert_array_equal(found["pca"], 0)


def test_enough_slides_get_a_umap_that_is_the_same_each_time():
    rng = np.random.default_rng(2)
    vectors = np.vstack([rng.normal(size=(6, 16)), rng.normal(size=(6, 16)) + 20])
    vectors = np.vstack([vectors, vectors[:1]])
    one, two = layout(vectors), layout(vectors)
    assert one["umap"].shape == (13, 2)
    for method in ("pca", "umap"):
        np.testing.assert_array_equal(one[method], two[method])
        np.testing.assert_allclose(one[method][0], one[method][12], atol=1e-5)
    assert np.isfinite(one["umap"]).all()


def test_vectors_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="finite"):
        layout(np.array([[1.0, np.nan]]))
