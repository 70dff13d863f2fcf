"""Statistics on cells, against the same computed pixel by pixel."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from pathassets.core.cells import Cells, box_sum, entropy_bits

SHAPES = [(1, 1), (2, 7), (60, 90), (61, 92), (200, 35)]


@pytest.fixture(autouse=True)
def small_strips(monkeypatch):
    monkeypatch.setattr("pathassets.core.strips.STRIP_PIXELS", 500)


def _cell_of(shape: tuple[int, int], edge: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.indices(shape)
    return rows // edge, columns // edge


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("edge", [1, 2, 3, 8])
def test_sums_and_the_way_back(shape, edge):
    cells = Cells(shape, edge, 3)
    values = np.random.default_rng(0).integers(-50, 1000, shape).astype(np.int16)
    expected = np.zeros(cells.shape)
    np.add.at(expected, _cell_of(shape, edge), values)
    assert (cells.sums(values) == expected).all()
    assert (cells.sums(lambda rows: values[rows]) == expected).all()
    assert (cells.spread(expected) == expected[_cell_of(shape, edge)]).all()
    some = values > 300
    assert (cells.within(some, expected > 500) == (some & (expected > 500)[_cell_of(shape, edge)])).all()


def test_cells_are_about_24_um_and_smaller_on_small_pictures():
    assert {mpp: Cells.over((5000, 5000), mpp).edge for mpp in (1.0, 4.0, 8.0, 16.0, 64.0)} == {
        1.0: 26, 4.0: 6, 8.0: 3, 16.0: 1, 64.0: 1
    }  # fmt: skip
    assert Cells.over((5000, 70), 8.0).edge == 2
    assert Cells.over((1, 1), 8.0).edge == 1


@pytest.mark.parametrize("mpp", [1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 13.0, 16.0])
def test_neighbourhoods_have_the_wanted_width(mpp):
    cells = Cells.over((10_000, 10_000), mpp)
    width = cells.window * cells.edge * mpp
    # a square has a standard deviation of its edge by the root of 12
    assert 27 < width / 12**0.5 < 41


@pytest.mark.parametrize("size", [1, 3, 5])
def test_box_sums_have_nothing_beyond_the_border(size):
    values = np.random.default_rng(0).random((12, 17), dtype=np.float32)
    expected = ndimage.uniform_filter(values.astype(float), size, mode="constant") * size**2
    assert box_sum(values, size) == pytest.approx(expected)
    assert Cells((12, 17), 1, size).around(values) == pytest.approx(expected)


@pytest.mark.parametrize("edge", [1, 3, 4])
def test_a_slope_is_blended_into_itself(edge):
    cells = Cells((60, 47), edge, 3)
    rows, columns = np.indices(cells.picture)
    slope = 3.0 * rows - 2.0 * columns
    # 47 columns leave a narrow last cell, whose middle lies elsewhere
    count = cells.sums(np.ones(cells.picture))
    blended = cells.blended(cells.sums(slope) / count, slice(12, 60))
    inner = np.s_[: -2 * edge, edge : -2 * edge]
    assert blended.shape == (48, 47)
    assert blended[inner] == pytest.approx(slope[12:][inner], abs=1e-3)


def _picture(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    values = (300 + 40 * np.indices(shape)[0] + rng.normal(0, 80, shape)).astype(np.int16)
    return values, ndimage.gaussian_filter(rng.normal(size=shape), 6) > -0.02


def _local(values: np.ndarray, valid: np.ndarray, width: int) -> np.ndarray:
    weight = ndimage.uniform_filter(valid.astype(float), width, mode="constant") + 1e-9
    return ndimage.uniform_filter(np.where(valid, values, 0).astype(float), width, mode="constant") / weight


def test_means_and_roughness_are_those_of_the_pixels_around():
    values, valid = _picture((150, 150))
    cells = Cells(values.shape, 3, 5)
    mean = _local(values, valid, 15)
    rough = _local(np.abs(values - mean), valid, 15)
    middles = np.s_[1::3, 1::3]
    known = cells.sums(valid) > 0
    assert cells.mean_around(values, valid)[known] == pytest.approx(mean[middles][known], rel=1e-4)
    assert cells.roughness(values, valid)[known] == pytest.approx(rough[middles][known], rel=0.05)


def test_a_slope_without_grain_is_not_rough():
    rows, columns = np.indices((120, 120))
    slope = (100 + 30 * rows + 10 * columns).astype(np.int16)
    cells = Cells(slope.shape, 3, 5)
    inner = cells.roughness(slope, np.ones(slope.shape, bool))[5:-5, 5:-5]
    assert inner.max() < 1.0


def test_whole_cells_and_their_pixels_are_the_same_place():
    values, _ = _picture((61, 92))
    cells = Cells(values.shape, 3, 5)
    where = np.random.default_rng(0).random(cells.shape) > 0.4
    pixels = cells.spread(where)
    assert cells.mean_around(values, where) == pytest.approx(cells.mean_around(values, pixels), rel=1e-5)
    assert cells.roughness(values, where) == pytest.approx(cells.roughness(values, pixels), rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (40, 60), (57, 83)])
@pytest.mark.parametrize("mpp", [4.0, 8.0, 30.0])
def test_entropy_is_that_of_the_levels_around(shape, mpp):
    levels = np.random.default_rng(0).integers(0, 9, shape, dtype=np.uint8)
    levels[:, : shape[1] // 2] = 3
    bits, grains = entropy_bits(levels, mpp)
    assert bits.shape == grains.shape
    for row, column in product(range(grains.shape[0]), (0, grains.shape[1] // 2, grains.shape[1] - 1)):
        near = levels[
            max(0, row - 1) * grains.edge : (row + 2) * grains.edge,
            max(0, column - 1) * grains.edge : (column + 2) * grains.edge,
        ]
        share = np.bincount(near.ravel()) / near.size
        share = share[share > 0]
        assert bits[row, column] == pytest.approx(-(share * np.log2(share)).sum(), abs=1e-4)
