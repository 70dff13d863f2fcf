"""Tiles: positions do not drift, shares are exact, ids are in grid order."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from pathassets.core.geometry import TileSize, tile_size
from pathassets.core.tiling import grid_tiles
from pathassets.recipes import Tiling

SCHEMA = {
    "tile_id": pl.Int32, "x_px": pl.Int32, "y_px": pl.Int32, "width_px": pl.Int32, "height_px": pl.Int32,
    "size_px": pl.Int32, "grid_col": pl.Int32, "grid_row": pl.Int32, "tissue_id": pl.Int32, "tissue_share": pl.Float32,
}  # fmt: skip


def _size(height: int, width: int, stride_y: float, stride_x: float) -> TileSize:
    return TileSize((height, width), (height, width), (stride_y, stride_x), 0.5, 1.0)


def _brute(labels, width_px, height_px, x, y, width, height):
    """Area of each piece in a tile, from the overlap of every pixel's rectangle with the tile's."""
    h, w = labels.shape
    over_y = np.clip(
        np.minimum((np.arange(h) + 1) * height_px / h, y + height) - np.maximum(np.arange(h) * height_px / h, y),
        0,
        None,
    )
    over_x = np.clip(
        np.minimum((np.arange(w) + 1) * width_px / w, x + width) - np.maximum(np.arange(w) * width_px / w, x), 0, None
    )
    area = np.outer(over_y, over_x)
    return {int(piece): float(area[labels == piece].sum()) for piece in np.unique(labels) if piece >= 0}


@pytest.mark.parametrize("seed", range(25))
def test_shares_and_pieces_are_those_of_counting_every_pixel(seed):
    rng = np.random.default_rng(seed)
    width_px, height_px = (int(n) for n in rng.integers(50, 400, 2))
    labels = rng.integers(-1, 4, tuple(int(n) for n in rng.integers(3, 40, 2))).astype(np.int32)
    labels = np.kron(labels, np.ones((2, 3), np.int32))
    height, width = (int(n) for n in rng.integers(5, 60, 2))
    size = _size(height, width, float(rng.uniform(3, 70)), float(rng.uniform(3, 70)))
    edge = ("drop", "pad")[seed % 2]
    tiles = grid_tiles(width_px, height_px, size, labels, 0.0, edge)
    every = {(int(t["x_px"]), int(t["y_px"])): t for t in tiles.iter_rows(named=True)}
    for k in range(200):
        x, row = round(k % 20 * size.stride_hw[1]), round(k // 20 * size.stride_hw[0])
        inside = (
            x + width <= width_px and row + height <= height_px if edge == "drop" else x < width_px and row < height_px
        )
        areas = _brute(labels, width_px, height_px, x, row, width, height) if inside else {}
        share = sum(areas.values()) / (width * height)
        if share < 1e-7:
            assert (x, row) not in every
            continue
        tile = every[x, row]
        assert tile["tissue_share"] == pytest.approx(share, abs=1e-6)
        assert areas[tile["tissue_id"]] == pytest.approx(max(areas.values()), abs=1e-6 * width * height)


def test_columns_are_as_promised_and_ids_in_reading_order():
    labels = np.full((40, 40), -1, np.int32)
    labels[5:35, 5:35] = 0
    tiles = grid_tiles(4000, 4000, _size(100, 100, 100.0, 100.0), labels, 0.5)
    assert dict(tiles.schema) == SCHEMA
    assert tiles["tile_id"].to_list() == list(range(900))
    order = tiles["grid_row"].to_numpy().astype(int) * 1000 + tiles["grid_col"].to_numpy()
    assert (np.diff(order) > 0).all()
    assert (tiles["x_px"] == tiles["grid_col"] * 100).all()
    assert (tiles["y_px"] == tiles["grid_row"] * 100).all()
    assert tiles["x_px"].min() == 500
    assert tiles["x_px"].max() == 3400


def test_positions_do_not_drift_over_a_slide():
    size = tile_size(Tiling(tile_px=224, mpp=0.5), 0.2527, 40.0, [(200_000, 1000)])
    tiles = grid_tiles(200_000, 1000, size, None)
    stride = 224 * 0.5 / 0.2527
    column = tiles["grid_col"].to_numpy()
    assert column.max() == int((200_000 - size.size_hw[1]) / stride)
    assert np.abs(tiles["x_px"].to_numpy() - column * stride).max() <= 0.5
    gaps = np.diff(np.unique(tiles["x_px"].to_numpy()))
    assert set(gaps.tolist()) == {int(stride), int(stride) + 1}


def test_the_grid_depends_on_no_mask():
    size = _size(60, 60, 45.5, 45.5)
    rng = np.random.default_rng(0)
    all_tiles = grid_tiles(2000, 1500, size, None).select("x_px", "y_px", "grid_col", "grid_row")
    labels = np.where(rng.random((30, 40)) < 0.3, 0, -1).astype(np.int32)
    some = grid_tiles(2000, 1500, size, labels, 0.2).select("x_px", "y_px", "grid_col", "grid_row")
    assert 0 < len(some) < len(all_tiles)
    assert some.join(all_tiles, on=some.columns, how="semi").height == len(some)


def test_dropped_tiles_cross_the_border_and_padded_ones_start_inside():
    dropped = grid_tiles(1000, 700, _size(300, 300, 300.0, 300.0), None, edge="drop")
    padded = grid_tiles(1000, 700, _size(300, 300, 300.0, 300.0), None, edge="pad")
    assert (len(dropped), len(padded)) == (6, 12)
    assert (dropped["tissue_share"] == 1).all()
    corner = padded.filter((pl.col("x_px") == 900) & (pl.col("y_px") == 600))
    assert corner["tissue_share"].item() == pytest.approx(100 * 100 / 300**2)
    assert (padded["x_px"] >= 0).all()


def test_outside_of_the_slide_is_no_tissue():
    labels = np.zeros((70, 100), np.int32)
    labels[0, 0] = -1
    padded = grid_tiles(1000, 700, _size(300, 300, 300.0, 300.0), labels, 0.5, edge="pad")
    assert set(zip(padded["grid_col"].to_list(), padded["grid_row"].to_list(), strict=True)) == {
        (c, r) for c in range(3) for r in range(2)
    }


def test_a_slide_wanted_as_a_whole_keeps_every_tile():
    whole = np.zeros((7, 10), np.int32)
    padded = grid_tiles(1000, 700, _size(300, 300, 300.0, 300.0), whole, 0.9, edge="pad")
    assert padded.equals(grid_tiles(1000, 700, _size(300, 300, 300.0, 300.0), None, 0.9, edge="pad"))
    assert len(padded) == 12
    assert (padded["tissue_id"] == 0).all()


def test_least_share_is_met_exactly():
    labels = np.full((10, 10), -1, np.int32)
    labels[:, :5] = 0
    tile = _size(100, 100, 100.0, 100.0)
    assert len(grid_tiles(100, 100, tile, labels, 0.5)) == 1
    assert len(grid_tiles(100, 100, tile, labels, 0.501)) == 0
    # thirds are not exact in binary, and three of them must still be enough for one
    third = np.zeros((3, 7), np.int32)
    third[0, 0] = -1
    assert len(grid_tiles(700, 300, _size(100, 100, 100.0, 100.0), third, 1.0)) == 20


def test_no_least_share_keeps_all_that_touches_tissue():
    labels = np.full((100, 100), -1, np.int32)
    labels[55, 55] = 3
    tiles = grid_tiles(10_000, 10_000, _size(1000, 1000, 1000.0, 1000.0), labels, 0.0)
    assert tiles.select("x_px", "y_px", "tissue_id").rows() == [(5000, 5000, 3)]
    assert tiles["tissue_share"].item() == pytest.approx(0.01)


def test_a_tile_belongs_to_the_piece_with_most_area():
    labels = np.full((10, 30), -1, np.int32)
    labels[:, :3], labels[:, 4:10], labels[:, 10:14], labels[:, 26:] = 0, 1, 2, 3
    tiles = grid_tiles(300, 100, _size(100, 100, 100.0, 100.0), labels, 0.1)
    assert tiles["tissue_id"].to_list() == [1, 2, 3]
    assert tiles["tissue_share"].to_list() == pytest.approx([0.9, 0.4, 0.4])


def test_a_slide_smaller_than_a_tile_has_none():
    for shape in ((16, 16), (0, 0), (223, 5000)):
        tiles = grid_tiles(shape[1], shape[0], _size(224, 224, 224.0, 224.0), np.zeros((2, 2), np.int32))
        assert dict(tiles.schema) == SCHEMA
        assert len(tiles) == 0
    assert len(grid_tiles(16, 16, _size(224, 224, 224.0, 224.0), None, edge="pad")) == 1


def test_no_tissue_gives_no_tile():
    tiles = grid_tiles(5000, 5000, _size(224, 224, 224.0, 224.0), np.full((50, 50), -1, np.int32), 0.0)
    assert len(tiles) == 0
    assert dict(tiles.schema) == SCHEMA


def test_very_large_slides_do_not_overflow():
    labels = np.zeros((100, 100), np.int32)
    labels[0, 0] = -1
    tiles = grid_tiles(200_000, 200_000, _size(224, 224, 224.0, 224.0), labels, 0.5)
    assert len(tiles) == 892**2 - 81
    assert tiles["x_px"].max() == 891 * 224
    assert tiles["tissue_share"].max() == 1.0
    assert tiles["tissue_share"].min() >= 0.5


def test_oblong_tiles_have_their_own_width_and_height():
    size = tile_size(Tiling(tile_px=(100, 300), mpp=1.0, overlap=0.5), 0.5, None, [(3000, 3000)])
    tiles = grid_tiles(3000, 3000, size, None)
    assert (tiles["height_px"] == 200).all()
    assert (tiles["width_px"] == 600).all()
    assert (tiles["size_px"] == tiles["width_px"]).all()
    assert np.unique(tiles["y_px"].to_numpy())[1] == 100
    assert np.unique(tiles["x_px"].to_numpy())[1] == 300
