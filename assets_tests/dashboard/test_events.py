"""What a slide's page does when something is chosen; and when a browser sends what no page of ours would."""

from __future__ import annotations

import numpy as np
import pytest
from dash import no_update

from pathassets.dashboard.app import _tell
from pathassets.dashboard.catalog import Catalog, UnknownNameError
from pathassets.dashboard.layers import Layers
from pathassets.dashboard.pages import slide_events
from pathassets.dashboard.pages.slide_events import Events
from pathassets.dashboard.parts import Context
from pathassets.dashboard.pixels import SlidePool

from .conftest import VIEW, Finished

EVERYWHERE = {"on": "map", "corners": [[-1e3, -1e3], [1e3, -1e3], [1e3, 1e3], [-1e3, 1e3]]}


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """What a browser's question was triggered by: nothing in particular."""
    asked = type("Ctx", (), {"triggered_id": None})
    monkeypatch.setattr(slide_events, "ctx", asked)
    return asked


@pytest.fixture(scope="module")
def events(catalog: Catalog) -> Events:
    return Events(Context(catalog, Layers(catalog), SlidePool(catalog.session)))


@pytest.fixture
def facts(finished: Finished) -> dict:
    return {"slide": finished.first, "mpp": 0.5}


def picture(events: Events, facts: dict, **changed: object):
    values = {"view": VIEW, "key": "domain:leiden", "scale": "cividis", "least": 0, "outline": ["tissue"], "lasso": None,
              "tile": None, "piece": "all", "opacity": 60, "method": "umap", "slide": facts, **changed}  # fmt: skip
    return events.picture(**values)


def test_the_picture_is_in_um_and_has_what_is_asked_for(events: Events, facts: dict):
    figure, about = picture(events, facts, opacity=35)
    assert figure.data[0].opacity == 0.35
    assert figure.data[0].dx == 112, "tiles of 112 px at 1 µm/px"
    assert "tiles that look alike" in about
    without, _ = picture(events, facts, outline=[])
    assert len(without.data[-1].x) == 0


def test_a_limit_hides_tiles_and_says_from_where(events: Events, facts: dict):
    shown, _ = picture(events, facts, key="term:adipose")
    cut, about = picture(events, facts, key="term:adipose", least=50)
    assert about.endswith("hidden below 0.5")
    before, after = (np.asarray(figure.data[0].z) for figure in (shown, cut))
    assert np.isfinite(after).sum() == (before >= 0.5).sum() < np.isfinite(before).sum()


def test_all_that_was_drawn_around_is_counted(events: Events, catalog: Catalog, facts: dict):
    told = str(events.selection(EVERYWHERE, VIEW, "umap", "all", facts))
    sql = "SELECT count(DISTINCT tile_id) AS n FROM results.domains WHERE slide_id = ?"
    assert f"{catalog.frame(sql, facts['slide'])['n'][0]:,} tiles selected" in told
    assert "mm²" in told
    assert events.selection(None, VIEW, "umap", "all", facts) == []


def test_one_piece_of_tissue_alone(events: Events, catalog: Catalog, facts: dict):
    tiles = catalog.tiles(facts["slide"], "small")
    piece = int(tiles["tissue_id"].drop_nulls().mode()[0])
    of_it = (tiles["tissue_id"] == piece).fill_null(False)
    for key in ("domain:leiden", "term:adipose", "column:eosin"):
        shown, _ = picture(events, facts, key=key, piece=str(piece))
        assert np.isfinite(np.asarray(shown.data[0].z, dtype=float)).sum() <= of_it.sum()
        none, _ = picture(events, facts, key=key, piece="999")
        assert not np.isfinite(np.asarray(none.data[0].z, dtype=float)).any()
    assert f"{int(of_it.sum()):,} tiles selected" in str(events.selection(EVERYWHERE, VIEW, "umap", str(piece), facts))
    assert "0 tiles selected" in str(events.selection(EVERYWHERE, VIEW, "umap", "999", facts))
    assert len(picture(events, facts, piece="999")[0].data[-1].x) == 0, "nor an outline"
    everything, other = (picture(events, facts, key="column:eosin", piece=p)[0].data[0] for p in ("all", str(piece)))
    assert (everything.zmin, everything.zmax) == (other.zmin, other.zmax)


def test_no_layer_leaves_the_slide_alone(events: Events, facts: dict):
    figure, about = picture(events, facts, key="none")
    assert about == ""
    assert figure.data[0].opacity == 0, "what answers the mouse, and nothing that is seen"
    options, chosen = events.menu(VIEW, "none", facts)
    assert (options[-1]["value"], chosen) == ("none", "none")


@pytest.mark.parametrize("lasso", [[["a", 1]] * 3, [1, 2, 3], [[1, float("nan")]] * 3, [[1, 2, 3]] * 3, "abc", {}, 7])
@pytest.mark.parametrize("on", ["map", "slide", 3])
def test_a_line_that_is_none_takes_nothing(events: Events, facts: dict, lasso: object, on: object):
    assert not events.map(
        VIEW, "pca", "cividis", 0, "umap", None, "all", {"on": on, "corners": lasso}, facts
    ).layout.selections
    assert not events.map(VIEW, "pca", "cividis", 0, "umap", None, "all", lasso, facts).layout.selections


def test_what_is_drawn_around_on_the_slide_is_pointed_out_on_the_map(
    events: Events, catalog: Catalog, facts: dict, asked
):
    tiles = catalog.tiles(facts["slide"], "small")
    middle = int(tiles["x_px"].median()) + 1
    left = {"on": "slide", "corners": [[0, 0], [middle, 0], [middle, 9000], [0, 9000]]}
    inside = (tiles["x_px"] + tiles["width_px"] / 2 < middle).to_numpy()
    assert 0 < inside.sum() < len(tiles)
    assert f"{inside.sum():,} tiles selected" in str(events.selection(left, VIEW, "umap", "all", facts))
    figure, _ = picture(events, facts, lasso=left)
    [line] = figure.layout.selections
    assert line.path == f"M0,0L{middle / 2:g},0L{middle / 2:g},4500L0,4500Z", "µm, as the axes are"
    asked.triggered_id = "slide-lasso"
    figure = events.map(VIEW, "domain:leiden", "cividis", 0, "umap", None, "all", left, facts)
    assert not figure.layout.selections
    assert sum(len(trace.selectedpoints) for trace in figure.data) == inside.sum()
    assert events.map(VIEW, "domain:leiden", "cividis", 0, "umap", None, "all", EVERYWHERE, facts) is no_update


def test_what_was_drawn_around_comes_back_as_a_line(events: Events, facts: dict):
    figure = events.map(VIEW, "domain:leiden", "cividis", 0, "umap", None, "all", EVERYWHERE, facts)
    [line] = figure.layout.selections
    assert line.path == "M-1000,-1000L1000,-1000L1000,1000L-1000,1000Z"
    for nothing in (None, [], [[0, 0], [1, 1]]):
        plain = events.map(VIEW, "domain:leiden", "cividis", 0, "umap", None, "all", nothing, facts)
        assert not plain.layout.selections


def test_a_click_takes_the_tile_below_it(events: Events, catalog: Catalog, facts: dict, asked):
    tile = catalog.tiles(facts["slide"], "small").row(9, named=True)
    middle = {"x": (tile["x_px"] + 100) * 0.5, "y": (tile["y_px"] + 120) * 0.5}
    asked.triggered_id = "slide-graph"
    assert events.click({"points": [middle]}, None, VIEW, "umap", facts) == tile["tile_id"]
    for odd in (None, {}, {"points": []}, {"points": [{"x": "a", "y": 1}]}):
        assert events.click(odd, None, VIEW, "umap", facts) is no_update
    asked.triggered_id = "slide-map"
    xy = Layers(catalog).places(facts["slide"], VIEW)[0].xy[9]
    assert events.click(None, {"points": [{"x": float(xy[0]), "y": float(xy[1])}]}, VIEW, "umap", facts) == 9


def test_a_tile_is_told_with_its_numbers_and_those_like_it(events: Events, facts: dict):
    text = str(events.card(3, VIEW, facts))
    assert "112 × 112 µm" in text
    assert "sharpness" in text
    assert "haematoxylin (optical density)" in text
    assert text.count("cosine 0.") + text.count("cosine 1.") >= slide_events.NEIGHBOURS
    assert "Click a tile" in str(events.card(None, VIEW, facts))


@pytest.mark.parametrize(
    "slide", ["", "../../etc", "none-00000000", "' OR 1=1 --", {"$ne": 1}, None, 7], ids=lambda value: repr(value)
)
def test_slides_that_there_are_not_are_said_in_words(events: Events, slide: object):
    facts = {"slide": slide, "mpp": 0.5}
    for act in (
        lambda: picture(events, facts),
        lambda: events.menu(VIEW, "pca", facts),
        lambda: events.card(1, VIEW, facts),
    ):
        with pytest.raises(UnknownNameError) as caught:
            act()
        assert caught.value.remedy


@pytest.mark.parametrize("view", ["x/y", "../..", "small/none", "", None])
def test_recipes_that_there_are_not_show_nothing(events: Events, facts: dict, view: str | None):
    figure, about = picture(events, facts, view=view)
    assert about == ""
    assert all(trace.type != "image" for trace in figure.data)
    assert events.map(view, "pca", "cividis", 0, "umap", None, "all", None, facts) is no_update


def test_a_failing_callback_says_so_above_the_page(monkeypatch: pytest.MonkeyPatch):
    said = {}
    monkeypatch.setattr("pathassets.dashboard.app.set_props", lambda where, props: said.update({where: str(props)}))
    assert _tell(ZeroDivisionError("/secret/path")) is no_update
    assert "ZeroDivisionError" in said["trouble"]
    assert "/secret" not in said["trouble"]
