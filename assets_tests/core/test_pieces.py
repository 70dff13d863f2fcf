"""Pieces: areas of known shapes, holes, agreement of polygons and labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from pathassets.core.pieces import NO_PIECE, fill_holes, mask_from_image, tissue_pieces
from pathassets.recipes import TissueOptions

ALL = TissueOptions(min_area_mm2=0, min_hole_mm2=0)


def _disc(shape: tuple[int, int], y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.hypot(rows - y, columns - x) <= radius


def _inside(piece, shape: tuple[int, int], scale_x: float, scale_y: float) -> np.ndarray:
    """Mask pixels whose centre the polygon covers."""
    from shapely import contains_xy

    rows, columns = np.indices(shape)
    return contains_xy(piece.geometry, (columns + 0.5) * scale_x, (rows + 0.5) * scale_y)


def test_area_of_a_square_in_mm2():
    mask = np.zeros((100, 120), bool)
    mask[20:70, 30:90] = True
    pieces, labels = tissue_pieces(mask, 0.25, 32.0, 32.0, ALL)
    expected = (50 * 8 / 1000) * (60 * 8 / 1000)
    assert len(pieces) == 1
    assert pieces[0].area_mm2 == pytest.approx(expected, rel=0.001)
    assert pieces[0].geometry.bounds == (30 * 32, 20 * 32, 90 * 32, 70 * 32)
    assert (labels == np.where(mask, 0, NO_PIECE)).all()


def test_area_of_a_disc_with_a_hole():
    mask = _disc((400, 400), 200, 200, 150) & ~_disc((400, 400), 210, 190, 60)
    (piece,), labels = tissue_pieces(mask, 0.5, 16.0, 16.0, ALL)
    expected = math.pi * (150**2 - 60**2) * (8 / 1000) ** 2
    assert piece.area_mm2 == pytest.approx(expected, rel=0.01)
    assert len(piece.geometry.interiors) == 1
    assert piece.geometry.interiors[0].centroid.x == pytest.approx(190.5 * 16, abs=8)
    assert labels[210, 190] == NO_PIECE


def test_pieces_are_ordered_by_area():
    mask = _disc((200, 600), 100, 80, 30) | _disc((200, 600), 100, 300, 70) | _disc((200, 600), 100, 520, 50)
    pieces, labels = tissue_pieces(mask, 0.5, 16.0, 16.0, ALL)
    assert [piece.tissue_id for piece in pieces] == [0, 1, 2]
    assert np.all(np.diff([piece.area_mm2 for piece in pieces]) < 0)
    assert (labels[100, 300], labels[100, 520], labels[100, 80]) == (0, 1, 2)


def test_equal_pieces_come_in_reading_order():
    mask = np.zeros((50, 50), bool)
    mask[5:15, 30:40] = mask[5:15, 5:15] = mask[30:40, 5:15] = True
    _, labels = tissue_pieces(mask, 0.5, 16.0, 16.0, ALL)
    assert (labels[10, 10], labels[10, 35], labels[35, 10]) == (0, 1, 2)


def test_small_pieces_are_dropped_and_small_holes_filled_in_both():
    mask = _disc((300, 300), 150, 150, 100)
    mask &= ~_disc((300, 300), 150, 120, 5) & ~_disc((300, 300), 150, 190, 20)
    mask |= _disc((300, 300), 20, 20, 4)
    pixel = (8 / 1000) ** 2
    options = TissueOptions(min_area_mm2=100 * pixel, min_hole_mm2=200 * pixel)
    pieces, labels = tissue_pieces(mask, 0.5, 16.0, 16.0, options)
    assert len(pieces) == 1
    assert len(pieces[0].geometry.interiors) == 1
    assert labels[20, 20] == NO_PIECE
    assert labels[150, 120] == 0
    assert labels[150, 190] == NO_PIECE


def test_a_gap_at_the_border_is_no_hole():
    mask = np.ones((50, 50), bool)
    mask[0:3, 20:23] = False
    mask[30:33, 30:33] = False
    filled = fill_holes(mask, 1000)
    assert not filled[1, 21]
    assert filled[31, 31]


@pytest.mark.parametrize("thin_walls", [False, True])
@pytest.mark.parametrize("least", [0, 1, 7, 20, 60])
def test_holes_are_filled_alike_in_strips_and_at_once(monkeypatch, least, thin_walls):
    """Snakes of gaps go through many strips; their true size decides."""
    mask = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(300, 40)), (2, 0.6)) > -0.3
    gaps, n = ndimage.label(~mask, structure=np.ones((3, 3)) if not thin_walls else None)
    border = np.unique(np.concatenate([gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]]))
    small = (np.bincount(gaps.ravel()) < least) & ~np.isin(np.arange(n + 1), border)
    small[0] = False
    monkeypatch.setattr("pathassets.core.strips.STRIP_PIXELS", 1)
    monkeypatch.setattr("pathassets.core.strips.LEAST_REACHES", 1)
    assert (fill_holes(mask, least, thin_walls) == (mask | small[gaps])).all()


@pytest.mark.parametrize("seed", range(12))
def test_polygons_and_labels_agree_on_any_mask(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(20, 120, 2))
    noise = ndimage.gaussian_filter(rng.normal(size=shape), float(rng.uniform(0.7, 4)))
    mask = noise > np.quantile(noise, float(rng.uniform(0.2, 0.8)))
    scale_x, scale_y = 31.37, 31.92
    pixel_mm2 = scale_x * scale_y * (0.2527 / 1000) ** 2
    options = TissueOptions(
        min_area_mm2=float(rng.choice([0, 4, 30])) * pixel_mm2, min_hole_mm2=float(rng.choice([0, 6])) * pixel_mm2
    )
    pieces, labels = tissue_pieces(mask, 0.2527, scale_x, scale_y, options)
    assert labels.max() == len(pieces) - 1
    for piece in pieces:
        assert piece.geometry.geom_type == "Polygon"
        assert piece.geometry.is_valid
        mine = labels == piece.tissue_id
        # tracing through the middle between pixel centres keeps every centre on its side, simplifying a few not
        differ = np.count_nonzero(_inside(piece, shape, scale_x, scale_y) ^ mine)
        border = np.count_nonzero(mine & ~ndimage.binary_erosion(mine))
        assert differ <= 0.03 * border
        assert piece.area_mm2 == pytest.approx(mine.sum() * pixel_mm2, abs=0.51 * border * pixel_mm2)
        left, top, right, bottom = piece.geometry.bounds
        assert left >= 0
        assert top >= 0
        assert right <= shape[1] * scale_x + 1e-6
        assert bottom <= shape[0] * scale_y + 1e-6


def test_pieces_cover_every_pixel_of_the_labels_once():
    rng = np.random.default_rng(5)
    mask = ndimage.gaussian_filter(rng.normal(size=(90, 90)), 2) > 0
    pieces, labels = tissue_pieces(mask, 0.5, 16.0, 16.0, ALL)
    count = sum(_inside(piece, mask.shape, 16.0, 16.0).astype(int) for piece in pieces)
    assert np.mean((count == 1) == (labels >= 0)) > 0.995
    assert count.max() == 1


def test_pieces_touching_at_a_corner_are_two():
    mask = np.zeros((40, 40), bool)
    mask[5:20, 5:20] = mask[20:35, 20:35] = True
    pieces, _ = tissue_pieces(mask, 0.5, 16.0, 16.0, ALL)
    assert len(pieces) == 2
    assert pieces[0].geometry.intersection(pieces[1].geometry).area == 0


def test_outlines_are_not_heavier_than_needed():
    mask = np.zeros((500, 500), bool)
    mask[50:450, 50:450] = True
    (piece,), _ = tissue_pieces(mask, 0.5, 16.0, 16.0, ALL)
    assert len(piece.geometry.exterior.coords) <= 9


def test_nothing_gives_nothing():
    pieces, labels = tissue_pieces(np.zeros((30, 20), bool), 0.5, 16.0, 16.0)
    assert pieces == []
    assert (labels == NO_PIECE).all()
    assert labels.dtype == np.int32


def test_everything_is_one_piece_with_the_slide_as_outline():
    (piece,), labels = tissue_pieces(np.ones((371, 278), bool), 0.499, 2220 / 278, 2967 / 371)
    assert piece.geometry.bounds == pytest.approx((0, 0, 2220, 2967))
    assert (labels == 0).all()


def test_a_single_field_of_view_is_not_emptied_by_the_least_area():
    pieces, _ = tissue_pieces(np.ones((16, 16), bool), 0.5, 16.0, 16.0, TissueOptions(min_area_mm2=1.0))
    assert len(pieces) == 1
    assert pieces[0].area_mm2 < 0.02


def test_a_users_mask_of_any_size_and_kind():
    image = np.zeros((100, 200), np.uint8)
    image[10:60, 20:120] = 7
    found = mask_from_image(image)
    assert found.method == "file"
    assert found.metrics["tissue_share"] == pytest.approx(0.25)
    assert (found.mask == (image > 0)).all()
    half = mask_from_image(image, (50, 100)).mask
    assert (half == (image[1::2, 1::2] > 0)).all()
    assert mask_from_image(image, (300, 400)).mask.mean() == pytest.approx(0.25, abs=0.01)
    colours = np.zeros((100, 200, 3), np.uint8)
    colours[10:60, 20:120, 2] = 1
    assert (mask_from_image(colours).mask == found.mask).all()
    transparent = np.full((100, 200, 4), 255, np.uint8)
    transparent[..., 3] = image
    assert (mask_from_image(transparent).mask == found.mask).all()
    assert (mask_from_image(image / 7.0).mask == found.mask).all()


def test_a_huge_mask_is_reduced(monkeypatch):
    monkeypatch.setattr("pathassets.core.pieces.MAX_MASK_PIXELS", 10_000)
    image = np.zeros((1000, 500), bool)
    image[:500] = True
    reduced = mask_from_image(image).mask
    assert reduced.size <= 10_200
    assert reduced.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("bad", [np.zeros(5), np.zeros((0, 5)), np.zeros((2, 2, 2, 2))])
def test_what_is_no_picture_is_refused(bad):
    with pytest.raises(ValueError, match="mask"):
        mask_from_image(bad)
