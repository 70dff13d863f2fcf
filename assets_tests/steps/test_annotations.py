"""Tissue drawn in QuPath: what counts, what is mended, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from shapely import Point, box, to_geojson
from shapely.geometry import MultiPolygon, Polygon

from pathassets.core.pieces import mask_from_shape
from pathassets.errors import Reason, SlideError
from pathassets.steps.annotations import read_tissue


def feature(shape, name=None, kind="annotation"):
    properties = {"objectType": kind}
    if name is not None:
        properties["classification"] = {"name": name, "color": [1, 2, 3]}
    return {"type": "Feature", "geometry": json.loads(to_geojson(shape)), "properties": properties}


@pytest.fixture
def drawn(tmp_path):
    def write(value):
        path = tmp_path / "drawn.geojson"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return write


def test_a_collection_a_list_and_a_single_feature_are_read(drawn):
    one = feature(box(0, 0, 10, 10))
    for value in ({"type": "FeatureCollection", "features": [one]}, [one], one):
        assert read_tissue(drawn(value), (0, 0)).equals(box(0, 0, 10, 10))


def test_tissue_counts_where_it_is_named_and_everything_where_nothing_is(drawn):
    tissue, other = feature(box(0, 0, 10, 10), "Tissue"), feature(box(20, 0, 30, 10), "Domain 1")
    assert read_tissue(drawn([tissue, other]), (0, 0)).area == 100
    assert read_tissue(drawn([other, feature(box(40, 0, 50, 10))]), (0, 0)).area == 200


def test_tiles_detections_and_points_never_count(drawn):
    kinds = [feature(box(0, 0, 10, 10), kind=kind) for kind in ("tile", "detection", "cell")]
    assert read_tissue(drawn([*kinds, feature(Point(1, 1)), feature(box(50, 0, 60, 10))]), (0, 0)).bounds[0] == 50
    with pytest.raises(SlideError, match="no area"):
        read_tissue(drawn(kinds), (0, 0))


def test_outlines_that_cross_themselves_are_mended_and_overlaps_count_once(drawn):
    bow = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    assert not bow.is_valid
    mended = read_tissue(drawn([feature(bow)]), (0, 0))
    assert mended.is_valid
    assert mended.area == 50
    assert read_tissue(drawn([feature(box(0, 0, 10, 10)), feature(box(5, 0, 15, 10))]), (0, 0)).area == 150


def test_a_picture_that_begins_elsewhere_is_moved(drawn):
    assert read_tissue(drawn([feature(box(0, 0, 10, 10))]), (100, 40)).bounds == (100, 40, 110, 50)


@pytest.mark.parametrize(
    "value",
    [
        "", "no json", "[]", "{}", "null", "7", '"text"', '{"type": "FeatureCollection"}', '[{"type": "Feature"}]',
        '[{"type": "Feature", "geometry": null}]', "[" * 100_000,
        '[{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [NaN, 1], [1, 1], [0, 0]]]}}]',
        '[{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1e999, 1], [1, 1], [0, 0]]]}}]',
        '[{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[["a", 0], [1, 1], [1, 0]]]}}]',
        '[{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": 7}}]',
        '[{"type": "Feature", "geometry": {"type": "Polygon"}}]',
        '[{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}}]',
    ],
)  # fmt: skip
def test_what_is_no_drawing_is_refused(drawn, value):
    with pytest.raises(SlideError) as refused:
        read_tissue(drawn(value), (0, 0))
    assert refused.value.reason is Reason.MASK_UNREADABLE
    assert "QuPath" in refused.value.remedy


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SlideError):
        read_tissue(tmp_path / "nothing.geojson", (0, 0))


def test_a_mask_has_the_pixels_whose_centre_lies_inside():
    mask = mask_from_shape(box(20, 10, 60, 30), (100, 50), (5, 10)).mask
    expected = np.zeros((5, 10), bool)
    expected[1:3, 2:6] = True
    np.testing.assert_array_equal(mask, expected)


def test_holes_are_left_out_and_islands_in_them_are_not():
    ring = Polygon(box(0, 0, 90, 90).exterior, [box(20, 20, 70, 70).exterior])
    mask = mask_from_shape(MultiPolygon([box(40, 40, 50, 50), ring]), (100, 100), (10, 10)).mask
    assert mask[4, 4]
    assert not mask[3, 3]
    assert mask[1, 1]
    assert mask.sum() == 81 - 25 + 1


def test_what_lies_outside_the_slide_is_cut_off_however_far():
    mask = mask_from_shape(box(-1e30, 50, 1e30, 1e30), (100, 100), (10, 10)).mask
    np.testing.assert_array_equal(mask.any(axis=1), np.arange(10) >= 5)
    assert not mask_from_shape(box(200, 200, 300, 300), (100, 100), (10, 10)).mask.any()
