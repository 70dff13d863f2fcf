"""The cohort map and its mosaic: a sample of what is current, made once, and without a slide that was forgotten."""

from __future__ import annotations

import json
import shutil

import numpy as np
import polars as pl
import pytest

from pathassets.config import Study
from pathassets.core import cohort_map as core
from pathassets.figures.cohort_pictures import read_mosaic, write_mosaic
from pathassets.steps import cohort_map
from pathassets.steps.cohort_map import load_cohort_map, make_cohort_map
from pathassets.steps.forget import forget
from pathassets.steps.session import Session
from pathassets.store import layout
from pathassets.store.arrays import read_embeddings


@pytest.fixture
def session(finished, tmp_path) -> Session:
    shutil.copytree(finished.study.home, tmp_path / "home")
    return Session(Study(tmp_path / "home"))


def rows(session: Session) -> pl.DataFrame:
    return session.tables.scan("cohort_map").collect()


def test_every_good_tile_is_there_while_slides_are_small(session, finished):
    recipe = session.study.recipes[0]
    made = make_cohort_map(session, recipe)
    embeddings = finished.table("embeddings")
    n_good = embeddings["n_tiles"][0] - embeddings["n_bad_tiles"][0]
    assert made.n_tiles == rows(session).height == min(n_good, core.TILES_PER_SLIDE)
    assert rows(session)["embeddings_digest"].unique().to_list() == [embeddings["digest"][0]]
    assert np.isfinite(rows(session).select("x", "y").to_numpy()).all()


def test_a_map_that_is_current_is_left_as_it_is(session, monkeypatch):
    recipe = session.study.recipes[0]
    made = make_cohort_map(session, recipe)
    monkeypatch.setattr(core, "layout", lambda *_, **__: pytest.fail("it was laid out again"))
    assert make_cohort_map(session, recipe) == made
    assert load_cohort_map(session, recipe) == made


def test_of_a_large_slide_a_part_is_drawn_and_bad_tiles_never(session, finished, monkeypatch):
    monkeypatch.setattr(core, "TILES_PER_SLIDE", 5)
    row = finished.table("embeddings").row(0, named=True)
    whole = read_embeddings(session.root, session.tables.scan("embeddings").collect()["uri"][0])
    order = core.sampled_rows(finished.slide_id, row["n_tiles"], cohort_map.SEED)
    bad = {int(order[0]), int(order[2])}

    class Damaged:
        n_tiles, dim = whole.n_tiles, whole.dim

        def rows(self, start, stop):
            found = whole.rows(start, stop).copy()
            found[[tile - start for tile in bad if start <= tile < stop]] = np.nan
            return found

    ids, vectors = cohort_map._sample_slide(Damaged(), finished.slide_id, 5)
    assert len(ids) == 5
    assert not bad & set(ids.tolist())
    assert list(ids) == sorted(ids)
    np.testing.assert_array_equal(vectors, whole.read()[ids])


def test_a_slide_whose_arrays_are_damaged_is_left_out_and_named(session, finished):
    group = session.root.key_of(session.tables.scan("embeddings").collect()["uri"][0])
    session.root.delete(layout.marker_key(group))
    made = make_cohort_map(session, session.study.recipes[0])
    assert made.left_out == (finished.slide_id,)
    assert made.n_tiles == rows(session).height == 0
    assert write_mosaic(session, session.study.recipes[0]) is None


def test_the_mosaic_shows_the_tiles_own_pixels(session):
    import io

    from PIL import Image

    recipe = session.study.recipes[0]
    make_cohort_map(session, recipe)
    made = write_mosaic(session, recipe)
    assert made is not None
    assert read_mosaic(session, recipe.key) == made
    assert made.unread == 0
    assert sum(n for *_, n in made.cells) == rows(session).height
    picture = np.asarray(Image.open(io.BytesIO(made.picture)).convert("RGB")).astype(float)
    side = picture.shape[0] // made.shape[0]
    row, column, slide_id, tile_id, _ = made.cells[0]
    tile = session.tables.read("tiles", slide_id, recipe.tiling.name).filter(tile_id=tile_id).row(0, named=True)
    with session.open_slide(slide_id) as slide:
        pixels = slide.read(tile["x_px"], tile["y_px"], tile["width_px"], tile["height_px"], (side, side))
    shown = picture[row * side : (row + 1) * side, column * side : (column + 1) * side]
    assert np.abs(shown - pixels).mean() < 12, "but for the compression"


def test_a_mosaic_that_is_there_is_not_made_again_unless_tiles_are_missing(session, finished, monkeypatch):
    recipe = session.study.recipes[0]
    make_cohort_map(session, recipe)
    path = session.slide_row(finished.slide_id)["path"]
    shutil.move(path, f"{path}.away")
    try:
        blind = write_mosaic(session, recipe)
    finally:
        shutil.move(f"{path}.away", path)
    assert blind is not None
    assert blind.unread == len(blind.cells), "its file was away"
    whole = write_mosaic(session, recipe)
    assert whole is not None
    assert whole.unread == 0
    monkeypatch.setattr("pathassets.figures.cohort_pictures.mosaic", lambda _: pytest.fail("made again"))
    assert write_mosaic(session, recipe) == whole


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"cells": 1}', b"\xff\xfe"])
def test_a_damaged_mosaic_counts_for_none(session, data):
    session.root.put(layout.mosaic_key(session.study.recipes[0].key), data)
    assert read_mosaic(session, session.study.recipes[0].key) is None


def test_nothing_of_a_forgotten_slide_can_be_seen(session, finished):
    recipe = session.study.recipes[0]
    make_cohort_map(session, recipe)
    write_mosaic(session, recipe)
    other = layout.mosaic_key("other/recipe")
    session.root.put(other, json.dumps({"cells": [[0, 0, "somebody-00000000", 1, 1]]}).encode())
    forget(session, finished.slide_id)
    assert rows(session).height == 0
    assert read_mosaic(session, recipe.key) is None
    assert session.root.exists(other), "of a mosaic without it nothing is taken"
