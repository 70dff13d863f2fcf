"""The interactive overlay: cells at their place, menus, and names that try to break out."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from pathassets.core import palette
from pathassets.core.geometry import tile_size
from pathassets.core.tiling import grid_tiles
from pathassets.figures import interactive
from pathassets.figures.interactive import Layer, page, slide_overlay
from pathassets.recipes import Tiling

LEVEL0 = (4000, 3000)
RGB = np.full((300, 400, 3), 220, np.uint8)
HOSTILE = "</script><script>alert(1)</script> %{x} <img src=x onerror=y> \"'&"


def _tiles(**options):
    tiles = grid_tiles(*LEVEL0, tile_size(Tiling(tile_px=400, mpp=1.0, **options), 1.0, None, [LEVEL0]), None)
    return tiles.filter((tiles["grid_row"] + tiles["grid_col"]) % 3 != 0)


def _figure(tiles, name="utag", title="slide"):
    labels = np.arange(len(tiles)) % 5
    layers = [
        Layer(name, labels, "domain", {0: name}),
        Layer(f"{name} score", np.linspace(0, 1, len(tiles)), limits=(0, 1)),
    ]
    return slide_overlay(RGB, tiles, layers, LEVEL0, 0.5, title)


def _centres(trace, cells):
    rows, cols = np.nonzero(cells)
    return trace.x0 + cols * trace.dx, trace.y0 + rows * trace.dy


@pytest.mark.parametrize("options", [{}, {"overlap": 0.5}])
def test_cells_lie_at_their_tiles_centres_in_um(options):
    tiles = _tiles(**options)
    trace = _figure(tiles).data[1]
    x, y = _centres(trace, np.isfinite(trace.z))
    expected = ((tiles[a] + tiles[s] / 2).to_numpy() * 0.5 for a, s in (("x_px", "width_px"), ("y_px", "height_px")))
    for found, wanted in zip((x, y), expected, strict=True):
        np.testing.assert_allclose(found, wanted)
    np.testing.assert_allclose(trace.z[np.isfinite(trace.z)], np.linspace(0, 1, len(tiles)), rtol=1e-6)


def test_the_picture_spans_the_slide():
    figure = _figure(_tiles())
    background = figure.layout.images[0]
    assert (background.x, background.y, background.sizex, background.sizey) == (0, 0, 2000, 1500)
    assert list(figure.layout.yaxis.range) == [1500, 0]
    assert background.source.startswith("data:image/webp;base64,")


def test_hover_knows_tile_and_values():
    tiles = _tiles()
    hover = _figure(tiles).data[-1]
    shown = np.isfinite(hover.z)
    np.testing.assert_array_equal(hover.customdata[shown][:, 0], tiles["tile_id"])
    np.testing.assert_array_equal(hover.customdata[shown][:, 1:3], tiles.select("x_px", "y_px").to_numpy())
    np.testing.assert_array_equal(hover.customdata[shown][:, 3], np.arange(len(tiles)) % 5)
    assert "customdata[4]" in hover.hovertemplate


def test_domains_have_the_palettes_colours_largest_on_top():
    trace = _figure(_tiles()).data[0]
    for domain in range(5):
        share = (-domain - trace.zmin) / (trace.zmax - trace.zmin)
        colour = next(
            c
            for (low, c), (high, _) in zip(trace.colorscale[::2], trace.colorscale[1::2], strict=True)
            if low <= share < high
        )
        assert colour == palette.domain_colour(domain)
    assert trace.colorbar.tickvals[0] == 0


def test_menus_switch_layers_and_leave_the_hover_alone():
    figure = _figure(_tiles())
    layers, opacity = figure.layout.updatemenus
    assert [b.label for b in layers.buttons] == ["utag", "utag score"]
    assert [b.args[0]["visible"] for b in layers.buttons] == [[True, False], [False, True]]
    assert all(list(b.args[1]) == [0, 1] for b in (*layers.buttons, *opacity.buttons))
    assert len(figure.data) == 3


def test_hostile_names_stay_text():
    text = page(_figure(_tiles(), HOSTILE, HOSTILE), HOSTILE)
    assert text.count("</script>") == len(re.findall(r"<script[ >]", text))
    assert "alert(1)</script>" not in text
    assert "<img" not in text
    assert re.search(r"<title>[^<]*</title>", text)
    plotly = json.dumps(_figure(_tiles(), HOSTILE, HOSTILE).to_plotly_json(), default=str)
    assert "<script" not in plotly
    assert "%{x}" not in plotly


def test_the_page_names_one_script_beside_it_and_is_small():
    text = page(_figure(_tiles()), "slide")
    assert re.findall(r'<script[^>]*src="([^"]*)"', text) == [interactive.PLOTLY_FILE]
    assert "http" not in re.sub(r"http://www\.w3\.org[^\"]*", "", text)
    assert len(text) < 100_000


def test_the_same_figure_is_the_same_page():
    assert page(_figure(_tiles()), "slide") == page(_figure(_tiles()), "slide")


def test_plotlys_script_is_at_hand():
    assert "plotly.js v" in interactive.plotly_script()[:500]


def test_slides_without_tiles_or_resolution_work():
    empty = _tiles().clear()
    figure = slide_overlay(RGB, empty, [Layer("x", []), Layer("d", [], "domain")], LEVEL0, None, "slide")
    assert figure.layout.xaxis.title.text == "px"
    assert not np.isfinite(figure.data[0].z).any()
    assert "plotly" in page(figure, "slide")


def test_large_slides_list_fewer_values_on_hover(monkeypatch):
    monkeypatch.setattr(interactive, "HOVER_VALUES", 10)
    tiles = _tiles()
    layers = [Layer(f"term {i}", np.zeros(len(tiles))) for i in range(9)]
    hover = slide_overlay(RGB, tiles, layers, LEVEL0, 0.5, "slide").data[-1]
    assert hover.customdata.shape[2] == 3 + 2


def test_a_page_has_no_button_that_sends_its_figure_away():
    from plotly.graph_objects import Figure

    text = interactive.page(Figure(), "x")
    assert "plotly.com" not in text
    assert '"modeBarButtons": [["zoom2d"' in text
