"""Sizes and resolutions: what a tiling means on a slide."""

from __future__ import annotations

import pytest

from pathassets.core.geometry import area_mm2, best_level, level_downsamples, tile_size
from pathassets.errors import Reason, SlideError
from pathassets.recipes import Tiling

LEVELS = [(40_000, 30_000), (10_000, 7_500), (2_500, 1_875)]


def test_half_a_micron_on_a_40x_slide_is_twice_the_pixels():
    size = tile_size(Tiling(tile_px=224, mpp=0.5), 0.25, 40, LEVELS)
    assert (size.size_hw, size.out_hw, size.stride_hw, size.upsampling) == ((448, 448), (224, 224), (448, 448), 1.0)


def test_power_follows_the_slide_s_own_objective():
    assert tile_size(Tiling(tile_px=256, power=20), 0.2325, 40, LEVELS).size_hw == (512, 512)
    assert tile_size(Tiling(tile_px=256, power=20), 0.25, None, LEVELS).size_hw == (512, 512)


def test_micrometres_and_magnifications_as_slideflow_writes_them():
    assert tile_size(Tiling(tile_px=299, tile_um=302), 0.5, 20, LEVELS).size_hw == (604, 604)
    assert tile_size(Tiling(tile_px=299, tile_um="10x"), 0.5, 20, LEVELS).size_hw == (598, 598)


def test_native_tiles_are_cut_as_they_are():
    assert tile_size(Tiling(tile_px=(100, 200)), 0.33, None, LEVELS).size_hw == (100, 200)


def test_a_level_is_read_at_its_exact_scale():
    assert tile_size(Tiling(tile_px=256, level=1), 0.25, 40, LEVELS).size_hw == (1024, 1024)
    with pytest.raises(SlideError) as caught:
        tile_size(Tiling(tile_px=256, level=3), 0.25, 40, LEVELS)
    assert caught.value.reason is Reason.LEVEL_MISSING


def test_upsampling_is_allowed_up_to_twice_and_said():
    assert tile_size(Tiling(mpp=0.5), 0.69, None, LEVELS).upsampling == pytest.approx(1.38)
    assert tile_size(Tiling(mpp=0.5), 0.504, None, LEVELS).upsampling == 1.0
    assert tile_size(Tiling(mpp=0.5), 1.0, None, LEVELS).upsampling == pytest.approx(2.0)
    with pytest.raises(SlideError) as caught:
        tile_size(Tiling(mpp=0.5), 1.1, None, LEVELS)
    assert caught.value.reason is Reason.RESOLUTION_TOO_COARSE


def test_the_grid_step_is_exact_so_that_rounding_does_not_add_up():
    size = tile_size(Tiling(tile_px=224, mpp=0.5, overlap=0.5), 0.499, 20, LEVELS)
    assert size.stride_hw[0] == pytest.approx(112 * 0.5 / 0.499)


def test_levels_come_from_sizes_and_the_finer_one_is_taken():
    odd = [(1001, 1001), (501, 501), (126, 126)]
    assert level_downsamples(odd)[1] == pytest.approx(1001 / 501)
    assert [best_level(LEVELS, d) for d in (0.5, 1, 3.9, 4.0, 15, 16, 400)] == [0, 0, 0, 1, 1, 2, 2]


def test_area():
    assert area_mm2(4_000_000, 0.5) == pytest.approx(1.0)
