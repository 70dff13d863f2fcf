"""Slide maps of any number of slides."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pathassets.core import palette
from pathassets.figures.interactive import page
from pathassets.figures.maps import group_colours, slide_map
from pathassets.figures.mosaic import cohort_points
from pathassets.figures.named_map import SIDE_PX, named_map

TEXT = {"slide_id": pl.String, "method": pl.String}


def _points(n, methods=("pca", "umap")):
    rng = np.random.default_rng(0)
    ids = ["<b>x</b>" if i == 0 else f"slide-{i}" for i in range(n)]
    frames = [
        pl.DataFrame(
            {"slide_id": ids, "method": [m] * n, "x": rng.normal(size=n), "y": rng.normal(size=n)},
            schema_overrides=TEXT,
        )
        for m in methods
    ]
    return pl.concat(frames).with_columns(
        cohort=pl.Series([None if i % 4 == 3 else "ab"[i % 2] for i in range(n)] * len(methods))
    )


def test_one_method_is_shown_at_a_time():
    figure = slide_map(_points(8), "map")
    assert [t.visible for t in figure.data] == [True, False]
    assert [b.args[0]["visible"] for b in figure.layout.updatemenus[0].buttons] == [[True, False], [False, True]]
    np.testing.assert_allclose(figure.data[0].x, _points(8)["x"].head(8))


def test_groups_have_colours_and_none_has_its_own():
    figure = slide_map(_points(8), "map", colour_by="cohort")
    assert {t.name: t.marker.color for t in figure.data} == {
        "a": palette.domain_colour(0), "b": palette.domain_colour(1), "none": palette.NO_DOMAIN_COLOUR,
    }  # fmt: skip
    assert sum(len(t.x) for t in figure.data) == 16


def test_a_value_has_one_colour_on_every_map():
    points = _points(8).with_columns(tile_id=0)
    colours = group_colours(pl.Series(["a", "b", "c", None]))
    fewer = points.filter(pl.col("cohort") != "a")
    for figure in (slide_map(fewer, "", "cohort", colours), cohort_points(fewer, "cohort", colours)):
        assert {trace.marker.color for trace in figure.data if trace.name == "b"} == {colours["b"]}
    backwards = slide_map(points.reverse(), "", "cohort")
    forwards = cohort_points(points, "cohort")
    for name in ("a", "b", "none"):
        seen = {trace.marker.color for figure in (backwards, forwards) for trace in figure.data if trace.name == name}
        assert len(seen) == 1, name


def test_numbers_have_a_scale():
    points = _points(8, ["pca"]).with_columns(tile_id=0, share=pl.Series([0.0, 10.0, None, 30.0] * 2))
    for figure in (slide_map(points, "", "share"), cohort_points(points, "share")):
        [trace] = figure.data
        assert (trace.marker.cmin, trace.marker.cmax) == (0, 30)
        assert trace.marker.colorbar.title.text == "share"
    assert "30" in slide_map(points, "", "share").data[0].hovertext[3]


def test_names_do_not_lie_over_each_other():
    points = pl.DataFrame(
        {
            "slide_id": ["a_long_name-1", "a_long_name-2", "far-3"],
            "method": "pca",
            "x": [0.0, 0.001, 1.0],
            "y": [0.0, 0.001, 1.0],
        }
    )
    trace = slide_map(points, "").data[0]
    assert trace.text == ("a_long_name-1", "", "far-3")
    assert trace.hovertext[1] == "a_long_name-2"
    assert trace.customdata[1] == "a_long_name-2", "a click on it is answered"


def test_ids_stay_text():
    assert "&lt;b&gt;x" in slide_map(_points(3), "map").data[0].text[0]
    assert "<b>x" not in page(slide_map(_points(3), "<b>x"), "map")


@pytest.mark.parametrize("n", [0, 1, 2, 40])
def test_any_number_of_slides_makes_a_small_picture(n):
    encoded = named_map(_points(n), "pca")[0]
    assert len(encoded) < 60_000
    pixels = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).astype(int)
    near_accent = (abs(pixels - palette.rgb(palette.ACCENT)).sum(axis=2) < 60).sum()
    assert (near_accent > 20) == (n > 0)
    assert slide_map(_points(n), "map") is not None


def test_equal_slides_lie_in_the_middle():
    points = pl.DataFrame({"slide_id": ["a"], "method": ["pca"], "x": [7.0], "y": [-3.0]})
    pixels = np.asarray(Image.open(io.BytesIO(named_map(points, "pca")[0])).convert("RGB")).astype(int)
    assert abs(pixels[SIDE_PX // 2, SIDE_PX // 2] - palette.rgb(palette.ACCENT)).sum() < 60
