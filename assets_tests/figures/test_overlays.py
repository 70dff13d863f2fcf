"""Small pictures: the right pixels get the right colours."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
import pytest
from PIL import Image
from shapely.geometry import MultiPolygon, Polygon, box

from pathassets.core import palette
from pathassets.core.geometry import tile_size
from pathassets.core.tiling import grid_tiles
from pathassets.figures import overlays
from pathassets.recipes import Tiling

LEVEL0 = (4000, 3000)
WHITE = np.full((300, 400, 3), 255, np.uint8)


def _tiles(level0=LEVEL0, mpp=1.0, **options):
    tiling = Tiling(tile_px=400, mpp=mpp, **options)
    return grid_tiles(*level0, tile_size(tiling, 1.0, None, [level0]), None)


def _pixels(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).astype(int)


def test_a_tile_covers_exactly_the_pixels_it_covers_on_the_slide():
    tiles = _tiles()
    found = overlays.tile_at(tiles, LEVEL0, (400, 300))
    for tile_id, x, y in tiles.select("tile_id", "x_px", "y_px").iter_rows():
        rows, cols = np.nonzero(found == tile_id)
        assert (cols.min(), cols.max() + 1, rows.min(), rows.max() + 1) == (x / 10, x / 10 + 40, y / 10, y / 10 + 40)
    assert (found[280:] == -1).all()


def test_neighbouring_tiles_leave_no_gap_at_any_scale():
    tiles = _tiles(mpp=1.0037)
    for width in (37, 113, 399, 512):
        found = overlays.tile_at(tiles, LEVEL0, (width, round(width * 0.75)))
        rows, cols = np.nonzero(found >= 0)
        assert (found[: rows.max() + 1, : cols.max() + 1] >= 0).all()
        centre_x = (cols + 0.5) * LEVEL0[0] / width
        left = tiles["x_px"].to_numpy()[found[rows, cols]]
        # Tiles are 401 px, their step 401.48: half a pixel of the slide belongs to the nearer tile.
        assert (centre_x >= left - 1).all()
        assert (centre_x <= left + 402).all()


def test_tiles_that_stand_apart_do_not_grow():
    tiles = _tiles(stride_px=800)
    found = overlays.tile_at(tiles, LEVEL0, (400, 300))
    assert (found[:40, :40] == 0).all()
    assert (found[:40, 40:80] == -1).all()


def test_overlapping_tiles_share_the_slide_by_their_centres():
    tiles = _tiles(overlap=0.5)
    found = overlays.tile_at(tiles, LEVEL0, (400, 300))
    sizes = np.bincount(found[found >= 0], minlength=len(tiles))
    assert (sizes == 400).all()
    first = tiles.row(0, named=True)
    assert found[20, 20] == first["tile_id"]
    assert (np.argwhere(found == 0).min(axis=0) == (10, 10)).all()


def test_domains_have_their_colours_where_their_tiles_are():
    tiles = _tiles()
    labels = (tiles["x_px"] >= 2000).cast(int).to_numpy().copy()
    labels[-1] = -1
    pixels = _pixels(overlays.domains(WHITE, tiles, labels, LEVEL0, {0: "muscularis", 1: None}))
    assert pixels.shape[0] > 300
    for (row, col), domain in {(100, 50): 0, (100, 350): 1}.items():
        expected = 255 * (1 - overlays.COVER) + overlays.COVER * np.array(palette.rgb(palette.domain_colour(domain)))
        np.testing.assert_allclose(pixels[row, col], expected, atol=12)
    np.testing.assert_allclose(pixels[260, 380], 255, atol=6)
    assert pixels[300:].min() < 200


def test_scores_run_along_the_scale_and_unknown_ones_stay_grey():
    tiles = _tiles()
    values = tiles["x_px"].to_numpy().astype(float)
    values[tiles["y_px"].to_numpy() == 800] = np.nan
    pixels = _pixels(overlays.scores(WHITE, tiles, values, LEVEL0, "a term", limits=(0.0, 3600.0)))
    low, high = pixels[20, 20], pixels[20, 380]
    assert low[2] > low[0] + 30
    assert high[0] > high[2] + 60
    np.testing.assert_allclose(pixels[100, 200], 255, atol=6)


def test_percentile_limits_ignore_outliers_and_gaps():
    values = np.concatenate([np.linspace(0, 1, 1000), [1e9, np.nan]])
    low, high = overlays.robust_limits(values)
    assert 0 <= low < 0.02
    assert 0.98 < high <= 1
    assert overlays.robust_limits(np.array([np.nan])) == (0.0, 1.0)


def test_tissue_and_holes_are_outlined_at_their_place():
    piece = Polygon(box(1000, 500, 3000, 2500).exterior, [box(1500, 1000, 2500, 2000).exterior])
    pixels = _pixels(overlays.tissue(WHITE, [MultiPolygon([piece])], LEVEL0))
    outline, hole = pixels[150, 99:102], pixels[150, 149:152]
    assert min(abs(p - palette.rgb(palette.TISSUE_OUTLINE)).sum() for p in outline) < 120
    assert min(abs(p - palette.rgb(palette.HOLE_OUTLINE)).sum() for p in hole) < 120
    for inside in ((150, 125), (150, 200), (20, 20)):
        np.testing.assert_allclose(pixels[inside], 255, atol=10)


@pytest.mark.parametrize("names", [None, {0: "<b>&\n" * 50, 1: "粘膜 \u202e", 2: None}])
def test_any_names_and_many_domains_fit_the_bound(names):
    tiles = _tiles()
    labels = np.arange(len(tiles)) % 60
    encoded = overlays.domains(
        np.random.default_rng(0).integers(0, 255, (900, 1200, 3), dtype=np.uint8), tiles, labels, LEVEL0, names
    )
    assert len(encoded) <= 60_000


def test_slides_without_tiles_and_thin_slides_are_drawn():
    empty = _tiles().clear()
    assert _pixels(overlays.domains(WHITE, empty, [], LEVEL0)).shape[1] == 400
    assert _pixels(overlays.scores(WHITE, empty, [], LEVEL0, "x")).shape[1] == 400
    thin = np.full((3, 900, 3), 200, np.uint8)
    assert _pixels(overlays.tissue(thin, [], (90000, 300))).shape == (2, 512, 3)
    one = pl.concat([_tiles().head(1)])
    assert (overlays.tile_at(one, LEVEL0, (400, 300)) == 0).sum() == 1600


def test_tiles_of_a_real_slide_lie_at_their_place_on_its_thumbnail(data_dir):
    import openslide

    with openslide.OpenSlide(data_dir / "slides" / "molluscum_HE_skin.tif") as slide:
        rgb = np.asarray(slide.get_thumbnail((800, 800)).convert("RGB"))
        level0 = slide.dimensions
    tiles = grid_tiles(*level0, tile_size(Tiling(tile_px=256, mpp=1.0), 0.5, None, [level0]), None)
    found = overlays.tile_at(tiles, level0, (rgb.shape[1], rgb.shape[0]))
    for tile_id in range(0, len(tiles), 97):
        x, y, w, h = tiles.select("x_px", "y_px", "width_px", "height_px").row(tile_id)
        rows, cols = np.nonzero(found == tile_id)
        scale = level0[0] / rgb.shape[1]
        assert abs(cols.mean() + 0.5 - (x + w / 2) / scale) < 1
        assert abs(rows.mean() + 0.5 - (y + h / 2) / scale) < 1
    assert len(overlays.thumbnail(rgb)) <= 60_000
