from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from shapely.geometry import Polygon

from pathassets.core import palette
from pathassets.figures import shares, slide_view
from pathassets.figures.interactive import Layer


def tiles(n_rows: int = 3, n_cols: int = 4, size: int = 100) -> pl.DataFrame:
    rows = [(r, c) for r in range(n_rows) for c in range(n_cols)]
    return pl.DataFrame(
        {
            "tile_id": range(len(rows)),
            "grid_row": [r for r, _ in rows],
            "grid_col": [c for _, c in rows],
            "x_px": [c * size for _, c in rows],
            "y_px": [r * size for r, _ in rows],
            "size_px": size,
            "width_px": size,
            "height_px": size,
        }
    )


def test_a_layer_lies_where_its_tiles_are_in_um():
    figure = slide_view.slide_view(tiles(), Layer("x", np.arange(12.0)), (1000, 800), 0.5)
    layer = figure.data[0]
    assert (layer.x0, layer.dx, layer.y0, layer.dy) == (25, 50, 25, 50)
    assert np.asarray(layer.z)[1, 2] == 6
    assert tuple(figure.layout.xaxis.range) == (0, 600)
    assert tuple(figure.layout.yaxis.range) == (400, 0)


def test_colours_themselves_are_drawn_as_they_are_and_missing_tiles_not_at_all():
    colours = np.full((12, 3), 10.0)
    colours[5] = np.nan
    figure = slide_view.slide_view(tiles(), Layer("rgb", colours, kind="rgb"), (1000, 800), None, opacity=0.4)
    picture = figure.data[0]
    assert (picture.type, picture.opacity, picture.x0, picture.dx) == ("image", 0.4, 50, 100)
    cells = np.asarray(picture.z)
    assert cells[0, 0].tolist() == [10, 10, 10, 1]
    assert cells[1, 1].tolist() == [0, 0, 0, 0]


def test_outlines_selection_and_the_tile_that_is_looked_at():
    piece = Polygon([(0, 0), (400, 0), (400, 300), (0, 300)], [[(100, 100), (200, 100), (200, 200), (100, 200)]])
    selected = np.zeros(12, bool)
    selected[7] = True
    figure = slide_view.slide_view(tiles(), None, (1000, 800), 0.5, pieces=[piece], selected=selected, marked=6)
    _, veil, outline, mark = figure.data
    assert np.nansum(np.asarray(veil.z)) == 11
    assert np.isnan(np.asarray(veil.z)[1, 3]), "tile 7 keeps its colour"
    assert max(value for value in outline.x if value is not None) == 200
    assert list(outline.x).count(None) == 2, "the hole has an outline too"
    assert outline.line.color == palette.TISSUE_OUTLINE
    assert (min(mark.x), max(mark.x), min(mark.y), max(mark.y)) == (100, 150, 50, 100)


def test_a_slide_without_tiles_has_its_outline():
    assert len(slide_view.slide_view(tiles().clear(), None, (1000, 800), 0.5).data) == 1


def test_the_map_has_the_colours_of_the_slide():
    values = np.arange(12.0) % 3
    layer = Layer("d", values, kind="domain", names={0: "a"})
    on_slide = slide_view.slide_view(tiles(), layer, (1000, 800), 0.5).data[0]
    xy = np.random.default_rng(1).normal(size=(12, 2))
    xy[2] = np.nan
    faint, points, ring = slide_view.tile_map(xy, layer, marked=4).data
    assert (len(faint.x), len(ring.x)) == (0, 1)
    assert points.marker.colorscale == on_slide.colorscale
    assert (points.marker.cmin, points.marker.cmax) == (on_slide.zmin, on_slide.zmax)
    flat = np.asarray(on_slide.z).ravel()
    assert np.asarray(points.marker.color) == pytest.approx(np.delete(flat, 2))


@pytest.mark.parametrize("marked", [None, 2])
def test_a_tile_without_a_place_is_not_marked(marked: int | None):
    xy = np.zeros((12, 2))
    xy[2] = np.nan
    assert [len(trace.x) for trace in slide_view.tile_map(xy, None, marked=marked).data] == [0, 11]


def test_tiles_that_the_layer_hides_are_faint_on_the_map():
    values = np.arange(12.0)
    values[:5] = np.nan
    faint, points = slide_view.tile_map(np.zeros((12, 2)), Layer("x", values)).data
    assert (len(faint.x), len(points.x)) == (5, 7)
    assert faint.marker.color == palette.NO_DOMAIN_COLOUR
    assert np.isfinite(np.asarray(points.marker.color)).all()


def test_names_are_no_markup():
    figure = slide_view.slide_view(tiles(), Layer("<b>x</b>%{z}", np.arange(12.0)), (1000, 800), 0.5)
    assert "<b>x" not in str(figure.to_json())


def test_shares_of_equal_labels_count_together_and_a_label_has_one_colour():
    frame = pl.DataFrame(
        {
            "slide_id": ["a", "a", "a", "b", "b"],
            "label": ["fat", "fat", "muscle", "muscle", "fat"],
            "share": [0.2, 0.1, 0.7, 0.6, 0.4],
        }
    )
    figure = shares.label_shares(frame)
    bars = {bar.name: dict(zip(bar.y, bar.x, strict=True)) for bar in figure.data}
    assert bars["fat"] == pytest.approx({"a": 30, "b": 40})
    assert bars["muscle"] == pytest.approx({"a": 70, "b": 60})
    assert [bar.name for bar in figure.data] == ["muscle", "fat"], "the commonest first"
    assert len({bar.marker.color for bar in figure.data}) == 2


def test_bars_of_one_slide_leave_room_for_all_labels():
    frame = pl.DataFrame({"slide_id": "a", "label": [f"l{i}" for i in range(12)], "share": [1 / 12] * 12})
    assert shares.label_shares(frame).layout.height >= 12 * shares.LABEL_PX


def test_rare_labels_are_one():
    frame = pl.DataFrame({"slide_id": "a", "label": [f"l{i:02d}" for i in range(30)], "share": [1 / 30] * 30})
    figure = shares.label_shares(frame)
    assert len(figure.data) == shares.MAX_LABELS + 1
    assert figure.data[-1].name == shares.OTHER
    assert sum(float(bar.x[0]) for bar in figure.data) == pytest.approx(100)
