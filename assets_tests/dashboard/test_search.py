from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from dash import no_update

from pathassets.config import Study
from pathassets.dashboard import search
from pathassets.dashboard.catalog import Catalog, UnknownNameError
from pathassets.dashboard.layers import Layers
from pathassets.dashboard.pages import search as page
from pathassets.dashboard.parts import Context
from pathassets.dashboard.pixels import SlidePool
from pathassets.store.arrays import read_embeddings

from .conftest import VIEW, Finished


def all_vectors(catalog: Catalog) -> dict[tuple[str, int], np.ndarray]:
    found = {}
    for row in catalog.embeddings_rows(VIEW):
        for i, vector in enumerate(read_embeddings(catalog.session.root, row["uri"]).read().astype(np.float64)):
            found[row["slide_id"], i] = vector / np.linalg.norm(vector)
    return found


def test_similar_tiles_are_those_with_the_highest_cosine(catalog: Catalog, finished: Finished, monkeypatch):
    monkeypatch.setattr(search, "ROWS", 7)  # many blocks, the last one short
    vectors = all_vectors(catalog)
    asked = (finished.first, 4)
    cosines = {tile: float(vector @ vectors[asked]) for tile, vector in vectors.items() if tile != asked}
    best = sorted(cosines, key=lambda tile: -cosines[tile])[:10]
    vector = search.tile_vector(catalog, *asked[:1], VIEW, asked[1])
    found = search.similar_tiles(catalog, VIEW, vector, 10, but=asked)
    assert [hit.score for hit in found.hits] == pytest.approx([cosines[tile] for tile in best], abs=1e-4)
    assert {(hit.slide_id, hit.tile_id) for hit in found.hits} <= set(cosines)
    assert found.n_tiles == len(vectors)
    assert found.n_slides == 3


def test_a_search_in_lots_finds_what_one_search_finds(catalog: Catalog, finished: Finished, monkeypatch):
    context = Context(catalog, Layers(catalog), SlidePool(catalog.session))
    for asked in ({"slide": finished.first, "tile": "4"}, {"text": "fat cells"}):
        query = {**asked, "recipe": VIEW}
        monkeypatch.setattr(page, "LOT_SECONDS", -1.0)  # a slide at a time
        told, found = [], search.Found()
        shown, state = page.go_on(context, {"query": query, "found": asdict(found)})
        while state is not None:
            told.append(str(shown))
            shown, state = page.go_on(context, {"query": query, "found": json.loads(json.dumps(state))})
        assert [f"{n} of 3 slides" in text for n, text in enumerate(told, 1)] == [True, True]
        assert "of 3 slides;" not in str(shown), "it is over"
        monkeypatch.setattr(page, "LOT_SECONDS", 1e9)
        whole = page._result(context, VIEW, query, None)[0]
        assert str(shown[-1]) == str(whole[-1])


def test_what_is_published_between_two_lots_is_neither_counted_twice_nor_missed(
    catalog: Catalog, finished: Finished, monkeypatch
):
    vector = search.tile_vector(catalog, finished.first, VIEW, 4)
    rows = sorted(catalog.embeddings_rows(VIEW), key=lambda row: row["slide_id"])
    now = rows[1:]
    monkeypatch.setattr(catalog, "embeddings_rows", lambda recipe: now)
    found = search.similar_tiles(catalog, VIEW, vector, 10, seconds=-1.0)
    assert (found.n_slides, found.n_rest) == (1, 1)
    now = rows  # a slide that comes before the one that was compared
    found = search.similar_tiles(catalog, VIEW, vector, 10, before=found)
    assert (found.n_slides, found.n_rest) == (2, 0)
    assert len({(hit.slide_id, hit.tile_id) for hit in found.hits}) == len(found.hits)


@pytest.mark.parametrize("asked", [None, {}, {"query": 1, "found": {}}, {"query": {}, "found": {"hits": [1]}}])
def test_a_lot_that_no_page_asks_for_ends(catalog: Catalog, asked: object):
    context = Context(catalog, Layers(catalog), SlidePool(catalog.session))
    assert page.go_on(context, asked) == (no_update, None)


def test_a_tile_is_most_like_itself(catalog: Catalog, finished: Finished):
    vector = search.tile_vector(catalog, finished.second, VIEW, 2)
    hit = search.similar_tiles(catalog, VIEW, vector, 1).hits[0]
    assert (hit.slide_id, hit.tile_id) == (finished.second, 2)
    assert hit.score == pytest.approx(1, abs=1e-5)
    assert {hit.slide_id for hit in search.similar_tiles(catalog, VIEW, vector, 5, only=finished.first).hits} == {
        finished.first
    }


def test_more_than_there_are_gives_all_there_are(catalog: Catalog, finished: Finished):
    vector = search.tile_vector(catalog, finished.first, VIEW, 0)
    found = search.similar_tiles(catalog, VIEW, vector, 10**6)
    assert len(found.hits) == found.n_tiles
    assert [hit.score for hit in found.hits] == sorted((hit.score for hit in found.hits), reverse=True)


@pytest.mark.parametrize(("slide", "tile"), [("first", -1), ("first", 10**9), ("half", 0), ("broken", 0)])
def test_a_tile_without_an_embedding_is_named(catalog: Catalog, finished: Finished, slide: str, tile: int):
    with pytest.raises(UnknownNameError):
        search.tile_vector(catalog, getattr(finished, slide), VIEW, tile)


def test_embeddings_that_cannot_be_read_are_told_and_the_others_searched(finished: Finished, tmp_path):
    shutil.copytree(finished.study.home, tmp_path / "copy")
    catalog = Catalog(Study(tmp_path / "copy"))
    vector = search.tile_vector(catalog, finished.first, VIEW, 0)
    shutil.rmtree(catalog.embeddings_row(finished.second, VIEW)["uri"])
    found = search.similar_tiles(catalog, VIEW, vector, 5)
    assert found.skipped == [finished.second]
    assert found.n_slides == 2
    assert len(found.hits) == 5


def test_a_term_gives_the_tiles_of_its_highest_probability(catalog: Catalog):
    found = search.top_of_term(catalog, VIEW, "adipose", 6)
    sql = "SELECT max(probability) AS p, count(*) AS n FROM results.text_scores WHERE recipe = ? AND term = 'adipose'"
    top = catalog.frame(sql, VIEW)
    assert found.hits[0].score == pytest.approx(top["p"][0])
    assert found.n_tiles == top["n"][0]
    assert search.top_of_term(catalog, VIEW, "' OR 1=1 --", 6).hits == []


def test_words_that_are_a_term_give_what_the_term_gives(catalog: Catalog):
    """By cosine, so that the order is the stored cosine's."""
    found = search.top_of_words(catalog, VIEW, "  adipose ", 8)
    sql = "SELECT cosine FROM results.text_scores WHERE recipe = ? AND term = 'adipose' ORDER BY cosine DESC LIMIT 8"
    assert [hit.score for hit in found.hits] == pytest.approx(catalog.frame(sql, VIEW)["cosine"].to_list(), abs=2e-3)
    assert found.unknown_words == []
    assert search.top_of_words(catalog, VIEW, "xqzzvk", 3).unknown_words == ["xqzzvk"]


def test_a_recipe_that_cannot_read_words_is_refused(catalog: Catalog):
    with pytest.raises(UnknownNameError):
        search.top_of_words(catalog, "small/none", "fat", 3)


def test_similar_slides_leave_out_the_slide_itself(catalog: Catalog, finished: Finished):
    found = search.similar_slides(catalog, VIEW, finished.first, 10)
    assert {slide for slide, _ in found} == {finished.second, finished.gone}
    assert found[0][1] >= found[1][1]
    assert search.similar_slides(catalog, VIEW, finished.half, 10) == []
