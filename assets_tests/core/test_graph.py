"""Tile graphs against dense definitions; smoothing against UTAG's formula written out."""

from __future__ import annotations

import numpy as np
import pytest

from pathassets.core import graph
from pathassets.core.geometry import tile_size
from pathassets.core.tiling import grid_tiles
from pathassets.recipes import DomainOptions, Tiling

RINGS = DomainOptions(graph="rings")


def _grid(rows, cols, stride=448.3):
    r, c = np.divmod(np.arange(rows * cols), cols)
    return np.rint(c * stride).astype(int), np.rint(r * stride).astype(int)


def _dense_utag(x, y, max_dist, features):
    """The paper's message passing, dense: neighbours within `max_dist`, self included, rows divided by their sum."""
    far = np.sqrt((x[:, None] - x) ** 2 + (y[:, None] - y) ** 2)
    adjacency = (far <= max_dist).astype(float)
    np.fill_diagonal(adjacency, 1.0)
    return (adjacency / adjacency.sum(axis=1, keepdims=True)) @ features


@pytest.mark.parametrize("radius", [400, 450, 640, 1000])
def test_radius_graph_and_smoothing_are_utags(radius):
    rng = np.random.default_rng(1)
    keep = rng.random(12 * 15) < 0.7
    x, y = (v[keep] for v in _grid(12, 15))
    features = rng.normal(size=(keep.sum(), 300))
    smoothed = graph.smooth(graph.radius_graph(x, y, radius), features)
    np.testing.assert_allclose(smoothed, _dense_utag(x, y, radius, features), rtol=1e-12, atol=1e-12)


def test_rows_sum_to_one_and_the_tile_is_its_own_neighbour():
    x, y = _grid(9, 9)
    weights = graph.row_normalise(graph.radius_graph(x, y, 700))
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-15)
    assert (weights.diagonal() > 0).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_constant_field_stays_exactly_constant(dtype):
    x, y = _grid(5, 5)
    value = np.asarray(0.1, dtype=dtype)
    smoothed = graph.smooth(graph.radius_graph(x, y, 700), np.full((25, 130), value))
    np.testing.assert_array_equal(smoothed, np.full((25, 130), value, dtype=smoothed.dtype))


def test_smoothing_takes_a_normalised_graph_as_well():
    x, y = _grid(6, 7)
    plain = graph.radius_graph(x, y, 700)
    features = np.random.default_rng(0).normal(size=(42, 5)).astype(np.float32)
    np.testing.assert_allclose(
        graph.smooth(graph.row_normalise(plain), features), graph.smooth(plain, features), rtol=1e-5
    )


def test_rings_count_tiles_around():
    row, col = np.divmod(np.arange(49), 7)
    for rings, inside in ((1, 9), (2, 25)):
        found = graph.ring_graph(row, col, rings)
        assert np.diff(found.indptr)[24] == inside
        near = (abs(row[:, None] - row) <= rings) & (abs(col[:, None] - col) <= rings)
        np.testing.assert_array_equal(found.toarray() > 0, near)


def _frame(rows, cols, tile_px, mpp):
    """Every tile of a bare slide; `mpp` is the tiling's, the slide has 1 µm/px."""
    tiling = Tiling(tile_px=tile_px, mpp=mpp)
    height, width = tiling.tile_hw
    extent = round(width * mpp * cols) + 2, round(height * mpp * rows) + 2
    tiles = grid_tiles(*extent, tile_size(tiling, 1.0, None, [extent]), None)
    assert tiles["grid_row"].max() == rows - 1
    assert tiles["grid_col"].max() == cols - 1
    return tiles


@pytest.mark.parametrize("mpp", [0.987, 1.0, 2.0013, 4.00771])
def test_one_ring_is_the_default_radius_on_any_rounded_grid(mpp):
    tiles = _frame(30, 20, 64, mpp)
    radius = graph.tile_graph(tiles, DomainOptions())
    rings = graph.tile_graph(tiles, RINGS)
    assert (radius != rings).nnz == 0
    assert np.diff(rings.indptr).max() == 9


@pytest.mark.parametrize("mpp", [0.987, 2.0013, 3.49])
def test_a_radius_of_one_tile_joins_the_four_nearest_despite_rounding(mpp):
    found = graph.tile_graph(_frame(30, 30, 64, mpp), DomainOptions(radius_tiles=1))
    assert (np.diff(found.indptr).reshape(30, 30)[1:-1, 1:-1] == 5).all()


@pytest.mark.parametrize("hw", [(300, 100), (100, 300)])
def test_tiles_that_are_not_square_have_neighbours_on_both_axes(hw):
    found = graph.tile_graph(_frame(5, 5, hw, 1.0), DomainOptions())
    assert np.diff(found.indptr)[12] == 9


def test_contiguity_and_pieces_of_a_small_map():
    labels = np.array([[0, 0, 1], [0, 0, 1], [1, 2, 2]])
    row, col = np.divmod(np.arange(9), 3)
    four = graph.radius_graph(col, row, 1)
    share = graph.contiguity(four, labels.ravel())
    assert share == pytest.approx({0: 8 / 12, 1: 2 / 7, 2: 2 / 5})
    assert graph.pieces(four, labels.ravel()) == {0: 1, 1: 2, 2: 1}


def test_lone_tiles_and_no_tiles():
    lone = graph.radius_graph([0, 5000], [0, 0], 10)
    assert graph.contiguity(lone, [0, 1]) == {0: 1.0, 1: 1.0}
    assert graph.pieces(lone, [0, 0]) == {0: 2}
    empty = graph.radius_graph([], [], 10)
    assert empty.shape == (0, 0)
    assert graph.contiguity(empty, []) == {}
    frame = _frame(2, 2, 64, 1.0).clear()
    assert graph.tile_graph(frame, DomainOptions()).shape == graph.tile_graph(frame, RINGS).shape == (0, 0)
    assert graph.smooth(empty, np.zeros((0, 3), np.float32)).shape == (0, 3)


def test_a_graph_without_self_loops_is_refused():
    lone = graph.radius_graph([0, 5000], [0, 0], 10)
    lone.setdiag(0)
    with pytest.raises(ValueError, match="self loops"):
        graph.smooth(lone, np.ones((2, 1), np.float32))
