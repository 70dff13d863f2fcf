"""Cells of a map: every tile is counted once, and the one that is shown is in the middle of its cell."""

from __future__ import annotations

import numpy as np
import pytest

from pathassets.core.mosaic import MAX_CELLS, MIN_CELLS, mosaic


def test_each_cell_shows_the_tile_nearest_to_its_middle():
    xy = np.random.default_rng(0).uniform(0, 10, size=(3000, 2))
    found = mosaic(xy)
    assert found.count.sum() == 3000
    assert len(set(zip(found.row.tolist(), found.column.tolist(), strict=True))) == len(found.tile)
    for row, column, tile in zip(found.row, found.column, found.tile, strict=True):
        middle = found.origin[0] + (column + 0.5) * found.step, found.origin[1] - (row + 0.5) * found.step
        off = np.abs(xy - middle).max(axis=1)
        inside = np.flatnonzero(off <= found.step / 2 - 1e-9)
        assert tile in np.flatnonzero(off <= found.step / 2 + 1e-9)
        nearest = inside[((xy[inside] - middle) ** 2).sum(axis=1).argmin()]
        assert ((xy[tile] - middle) ** 2).sum() == pytest.approx(((xy[nearest] - middle) ** 2).sum())


def test_up_is_up():
    xy = np.array([[0.0, 0.0], [0.0, 10.0], [10.0, 0.0], [10.0, 10.0]])
    found = mosaic(xy)
    place = {
        int(tile): (int(row), int(column))
        for row, column, tile in zip(found.row, found.column, found.tile, strict=True)
    }
    last = MIN_CELLS - 1
    assert place == {0: (last, 0), 1: (0, 0), 2: (last, last), 3: (0, last)}


def test_one_far_tile_does_not_rule_the_map():
    xy = np.vstack([np.random.default_rng(0).uniform(0, 1, size=(2000, 2)), [[1e6, 1e6]]])
    found = mosaic(xy)
    assert len(found.tile) > 200, "the others are spread over the grid"
    assert found.count.sum() == 2001


@pytest.mark.parametrize("n", [1, 2, 5, 400, 20_000])
def test_any_number_of_tiles_has_cells(n):
    found = mosaic(np.random.default_rng(n).normal(size=(n, 2)))
    assert found.count.sum() == n
    assert 1 <= max(found.shape) <= MAX_CELLS
    assert (found.row < found.shape[0]).all()
    assert (found.column < found.shape[1]).all()


@pytest.mark.parametrize(
    "xy", [np.zeros((7, 2)), np.column_stack([np.arange(9.0), np.zeros(9)])], ids=["point", "line"]
)
def test_maps_without_an_extent_have_cells(xy):
    found = mosaic(xy)
    assert found.count.sum() == len(xy)
    assert found.shape[0] == 1
