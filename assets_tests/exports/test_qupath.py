"""GeoJSON as QuPath opens it: pixels of level 0, classes with colours, domains merged."""

from __future__ import annotations

import json
import uuid

import pytest
import shapely
from shapely.geometry import shape

from pathassets.core import palette
from pathassets.exports.qupath import export_features, export_tissue


@pytest.fixture
def exported(made, target):
    export_tissue(made.session, made.slide_id, target)
    export_features(made.session, made.features, target)
    return {key: json.loads((target.path / key).read_text()) for key in target.written}


def test_every_feature_is_an_object_that_qupath_knows(exported, made):
    stem = f"{made.part}/{made.slide_id}"
    names = [f"{made.slide_id}.tissue.geojson", *(f"{stem}.{what}.geojson" for what in ("tiles", "leiden", "utag"))]
    assert list(exported) == names
    ids = []
    for collection in exported.values():
        assert collection["type"] == "FeatureCollection"
        for feature in collection["features"]:
            assert feature["type"] == "Feature"
            assert feature["properties"]["objectType"] in ("annotation", "tile")
            assert shape(feature["geometry"]).is_valid
            classification = feature["properties"].get("classification")
            assert classification is None or all(0 <= part <= 255 for part in classification["color"])
            ids.append(str(uuid.UUID(feature["id"])))
    assert len(ids) == len(set(ids)), "QuPath tells objects apart by their id"


def test_tissue_is_where_the_table_says(exported, made):
    found = [shape(feature["geometry"]) for feature in exported[f"{made.slide_id}.tissue.geojson"]["features"]]
    told = [shapely.from_geojson(text) for text in made.table("tissues", made.slide_id)["geometry"]]
    assert len(found) == len(told) > 0
    for one, other in zip(found, told, strict=True):
        assert one.symmetric_difference(other).area < 1e-3 * other.area


def test_tiles_are_squares_with_class_and_measurements(exported, made):
    tiles = made.table("tiles", made.slide_id).sort("tile_id")
    features = exported[f"{made.part}/{made.slide_id}.tiles.geojson"]["features"]
    assert len(features) == len(tiles)
    for feature, tile in zip(features, tiles.iter_rows(named=True), strict=True):
        x, y, size = tile["x_px"], tile["y_px"], tile["width_px"]
        assert shape(feature["geometry"]).bounds == (x, y, x + size, y + size)
        measured = feature["properties"]["measurements"]
        assert measured["sharpness"] == pytest.approx(tile["sharpness"])
        assert "text: ../evil/term" in measured


def test_domains_are_merged_and_cover_their_tiles(exported, made):
    domains, tiles = made.table("domains"), made.table("tiles", made.slide_id)
    for variant in ("leiden", "utag"):
        of = domains.filter(domains["variant"] == variant).join(tiles, on="tile_id")
        features = exported[f"{made.part}/{made.slide_id}.{variant}.geojson"]["features"]
        assert len(features) == of["domain"].n_unique()
        shapes = [shape(feature["geometry"]) for feature in features]
        cell = tiles["width_px"][0] * tiles["height_px"][0]
        for number, (feature, merged) in enumerate(zip(features, shapes, strict=True)):
            mine = of.filter(of["domain"] == number)
            assert merged.area == pytest.approx(len(mine) * cell, rel=0.01)
            for x, y in mine.select("x_px", "y_px").iter_rows():
                assert merged.contains(shapely.Point(x + 10, y + 10))
            properties = feature["properties"]
            assert properties["measurements"]["tiles"] == len(mine)
            assert properties["classification"]["color"] == list(palette.rgb(palette.domain_colour(number)))
            assert str(number) in properties["classification"]["name"]
        overlap = sum(shape.area for shape in shapes) - shapely.union_all(shapes).area
        assert overlap < 1


def test_the_file_says_what_made_it(exported, made):
    for collection in exported.values():
        assert collection["pathassets"]["slide_id"] == made.slide_id
        assert collection["pathassets"]["origin_px"] == [0, 0]
    assert collection["pathassets"]["embeddings_digest"] == made.features.row["digest"]


def test_a_slide_of_which_a_part_was_scanned_begins_at_that_part(made, target, monkeypatch):
    monkeypatch.setattr("pathassets.exports.qupath.origin", lambda session, slide_id: (100, 40))
    export_tissue(made.session, made.slide_id, target)
    collection = json.loads((target.path / target.written[0]).read_text())
    told = shapely.from_geojson(made.table("tissues", made.slide_id)["geometry"][0])
    found = shape(collection["features"][0]["geometry"])
    assert found.bounds == pytest.approx(
        [told.bounds[0] - 100, told.bounds[1] - 40, told.bounds[2] - 100, told.bounds[3] - 40], abs=0.01
    )
    assert collection["pathassets"]["origin_px"] == [100, 40]


def test_a_drawing_comes_back_to_where_it_was_on_such_a_slide(made, target, monkeypatch):
    from pathassets.steps.annotations import read_tissue

    monkeypatch.setattr("pathassets.exports.qupath.origin", lambda session, slide_id: (100, 40))
    export_tissue(made.session, made.slide_id, target)
    back = read_tissue(target.path / target.written[0], (100, 40))
    told = shapely.union_all([shapely.from_geojson(text) for text in made.table("tissues", made.slide_id)["geometry"]])
    assert back.symmetric_difference(told).area < 1e-3 * told.area


def test_where_a_picture_begins_is_asked_of_the_slide_only_where_a_part_may_have_been_scanned(made, monkeypatch):
    from contextlib import contextmanager
    from types import SimpleNamespace

    from pathassets.exports.qupath import origin
    from pathassets.steps.session import Session

    @contextmanager
    def opened(session, slide_id):
        yield SimpleNamespace(info=SimpleNamespace(bounds=(7, 9, 100, 100)))

    monkeypatch.setattr(Session, "open_slide", opened)
    assert origin(made.session, made.slide_id) == (0, 0), "a plain TIFF"
    row = made.session.slide_row(made.slide_id)
    monkeypatch.setattr(Session, "slide_row", lambda session, slide_id: {**row, "vendor": "mirax"})
    assert origin(made.session, made.slide_id) == (7, 9)
