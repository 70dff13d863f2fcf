"""One interactive overlay per slide: tiles over the slide's picture, in Plotly, with a menu of what they show.

Belongs here: the figure and the page around it. Does not belong: reading slides or tables, small fixed pictures
(`overlays`), colours (`core/palette`).
Names of slides and terms come from users: everything that Plotly or a browser would read as markup is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pathassets.core import palette
from pathassets.figures import images, overlays

if TYPE_CHECKING:
    import polars as pl
    from plotly.graph_objects import Figure, Heatmap, Image

PLOTLY_FILE = "plotly.min.js"
"""Plotly's script, shared by all pages of a folder; `plotly_script` gives its text."""

BACKGROUND_SIDE = 1600
BACKGROUND_BYTES = 600_000
OPACITIES = (0.0, 0.3, 0.6, 1.0)
OPACITY = 0.6
# So many layers at most are listed when the mouse is on a tile, and fewer where they would make the page too large.
HOVER_LAYERS = 24
HOVER_VALUES = 2_000_000
# Every button is named: of its own accord Plotly adds one that sends the chart, with all its data, to its makers' cloud.
PLOT_CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "modeBarButtons": [["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
    "plotlyServerURL": "",
}
MODEBAR = {"bgcolor": "rgba(255,255,255,0.85)", "color": "#5f6670", "activecolor": palette.ACCENT}
"""Buttons that neither hide pixels nor are lost on them."""
SCALE_BARS_UM = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


@dataclass(frozen=True)
class Layer:
    """One thing that tiles can show.

    Attributes:
        name: Shown in the menu and on hover.
        values: (n,) a number or a domain per tile; not finite, or a domain below 0, is not drawn. For `rgb` (n, 3), 0 to 255.
        kind: `domain` for labels with a colour each, `score` for a number on a scale, `rgb` for colours themselves.
        names: For domains, what they are called.
        limits: For scores, the ends of the scale; None = 1st and 99th percentile.
        scale: For scores, Plotly's name of the colours from low to high.
    """

    name: str
    values: ArrayLike
    kind: Literal["domain", "score", "rgb"] = "score"
    names: Mapping[int, str | None] | None = None
    limits: tuple[float, float] | None = None
    scale: str = palette.SEQUENTIAL_SCALE


def slide_overlay(
    rgb: NDArray[np.uint8],
    tiles: pl.DataFrame,
    layers: Sequence[Layer],
    level0: tuple[int, int],
    mpp: float | None,
    title: str,
) -> Figure:
    """The figure: the slide below, one layer of tiles at a time above, a menu for the layer and one for its opacity.

    Args:
        rgb: Thumbnail of the whole slide.
        tiles: `tile_id`, `x_px`, `y_px`, `width_px`, `height_px`, `grid_row`, `grid_col`; one row per value of a layer.
        layers: At least one; the first is shown.
        level0: Width and height of the slide in level-0 px.
        mpp: µm per level-0 px; None = axes in px.
        title: Above the figure, for instance the slide's id.
    """
    from plotly.graph_objects import Figure

    unit = mpp or 1.0
    grid = Grid(tiles, unit)
    figure = Figure([layer_trace(grid, layer, visible=i == 0) for i, layer in enumerate(layers)])
    listed = min(HOVER_LAYERS, max(2, HOVER_VALUES // (grid.shape[0] * grid.shape[1])))
    figure.add_trace(hover_trace(grid, tiles, layers[:listed]))
    extent = level0[0] * unit, level0[1] * unit
    figure.add_layout_image(_background(rgb, extent))
    figure.update_layout(**_layout(title, extent, "µm" if mpp else "px", layers))
    if mpp:
        _add_scale_bar(figure, extent)
    return figure


def page(figure: Figure, title: str, script: str = PLOTLY_FILE) -> str:
    """A whole HTML page around `figure` that loads Plotly from `script`, an address beside the page."""
    body = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id="figure",  # a drawn one would make every page a new file
        default_height="92vh",
        config={**PLOT_CONFIG, "scrollZoom": True, "responsive": True},
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(images.plain(title, 200))}</title>"
        f'<script src="{html.escape(script, quote=True)}"></script></head>\n'
        f'<body style="margin:0;background:#fff">{body}</body></html>\n'
    )


def plotly_script() -> str:
    """The text of `PLOTLY_FILE` (4 MB), to be written once beside the pages."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def safe(text: str) -> str:
    """`text` as Plotly shows it letter by letter: no tags, no entities, no `%{...}` of its templates."""
    return html.escape(images.plain(text, 80), quote=False).replace("%{", "%&#123;")


class Grid:
    """Tiles of one slide as cells of a regular grid in µm (or px)."""

    def __init__(self, tiles: pl.DataFrame, unit: float) -> None:
        row, col = tiles["grid_row"].to_numpy().astype(np.int64), tiles["grid_col"].to_numpy().astype(np.int64)
        self.row, self.col = (index - (index.min() if len(tiles) else 0) for index in (row, col))
        self.shape = (int(self.row.max(initial=0)) + 1, int(self.col.max(initial=0)) + 1)
        dx = overlays.grid_step(tiles, "grid_col", "x_px", "width_px")
        dy = overlays.grid_step(tiles, "grid_row", "y_px", "height_px")
        x0, y0 = (_first_centre(tiles, start, size) for start, size in (("x_px", "width_px"), ("y_px", "height_px")))
        self.axes = {"x0": x0 * unit, "dx": dx * unit, "y0": y0 * unit, "dy": dy * unit}

    def image(self, values: ArrayLike) -> NDArray[np.float32]:
        """Values (n,) or (n, k) at their cells, NaN where there is no tile."""
        of = np.asarray(values, dtype=np.float32)
        cells = np.full((*self.shape, *of.shape[1:]), np.nan, dtype=np.float32)
        cells[self.row, self.col] = of
        return cells


def _first_centre(tiles: pl.DataFrame, start: str, size: str) -> float:
    """Centre of the first column (or row) of tiles in level-0 px."""
    return float((tiles[start] + tiles[size] / 2).min() or 0.0)  # type: ignore[arg-type]


def layer_trace(grid: Grid, layer: Layer, *, visible: bool = True) -> Heatmap | Image:
    """One layer's tiles at their places."""
    from plotly.graph_objects import Heatmap

    if layer.kind == "rgb":
        return _rgb_trace(grid, layer, visible=visible)
    values, style = coloured(layer)
    return Heatmap(
        z=grid.image(values), name=safe(layer.name), visible=visible, opacity=OPACITY, hoverinfo="skip",
        **grid.axes, **style,
    )  # fmt: skip


def coloured(layer: Layer) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """A number per tile (n,), NaN where nothing is drawn, and its scale: `zmin`, `zmax`, `colorscale`, `colorbar`."""
    values = np.asarray(layer.values, dtype=np.float64)
    if layer.kind == "score":
        return values, _score_style(values, layer)
    # Counted downwards, so that the legend, whose numbers rise, has the largest domain on top.
    return np.where(values >= 0, -values, np.nan), _domain_style(values, layer)


def _rgb_trace(grid: Grid, layer: Layer, *, visible: bool) -> Image:
    from plotly.graph_objects import Image

    cells = np.zeros((*grid.shape, 4), dtype=np.float32)
    colours = np.asarray(layer.values, dtype=np.float32)
    known = np.isfinite(colours).all(axis=1)
    cells[grid.row[known], grid.col[known]] = np.column_stack([colours[known], np.ones(known.sum())])
    return Image(
        z=cells, colormodel="rgba", name=safe(layer.name), visible=visible, opacity=OPACITY, hoverinfo="skip",
        **grid.axes,
    )  # fmt: skip


def _score_style(values: NDArray[np.float64], layer: Layer) -> dict[str, Any]:
    low, high = layer.limits or overlays.robust_limits(values)
    bar = {"title": {"text": safe(layer.name), "side": "right"}, "thickness": 14, "len": 0.7}
    return {"zmin": low, "zmax": max(high, low + 1e-9), "colorscale": layer.scale, "colorbar": bar}


def _domain_style(values: NDArray[np.float64], layer: Layer) -> dict[str, Any]:
    ids, counts = np.unique(values[np.isfinite(values) & (values >= 0)].astype(int), return_counts=True)
    k = int(ids.max(initial=0)) + 1
    steps = [(edge, palette.domain_colour(k - 1 - i)) for i in range(k) for edge in (i / k, (i + 1) / k)]
    texts = [
        safe(f"{overlays.domain_title(int(d), layer.names)} ({c / max(1, counts.sum()):.0%})")
        for d, c in zip(ids, counts, strict=True)
    ]
    bar = {"tickvals": (-ids).tolist(), "ticktext": texts, "thickness": 14, "len": min(1.0, 0.06 * k + 0.1),
           "title": {"text": safe(layer.name)}, "ticks": ""}  # fmt: skip
    return {"zmin": 0.5 - k, "zmax": 0.5, "colorscale": steps, "colorbar": bar}


def hover_trace(grid: Grid, tiles: pl.DataFrame, layers: Sequence[Layer]) -> Heatmap:
    """An unseen layer that answers the mouse with everything known of a tile, whatever layer is shown."""
    from plotly.graph_objects import Heatmap

    columns = [tiles["tile_id"].to_numpy(), tiles["x_px"].to_numpy(), tiles["y_px"].to_numpy()]
    columns += [np.asarray(layer.values, dtype=np.float64) for layer in layers]
    lines = ["<b>tile %{customdata[0]:d}</b>", "level-0 px: %{customdata[1]:d}, %{customdata[2]:d}"]
    lines += [
        f"{safe(layer.name)}: %{{customdata[{i}]:{'d' if layer.kind == 'domain' else '.3g'}}}"
        for i, layer in enumerate(layers, start=3)
    ]
    return Heatmap(
        z=grid.image(np.zeros(len(tiles))), customdata=grid.image(np.column_stack(columns)), opacity=0,
        showscale=False, hoverongaps=False, hovertemplate="<br>".join(lines) + "<extra></extra>", **grid.axes,
    )  # fmt: skip


def _background(rgb: NDArray[np.uint8], extent: tuple[float, float]) -> dict[str, Any]:
    source = images.data_uri(images.encode(images.shrink(rgb, BACKGROUND_SIDE), BACKGROUND_BYTES))
    return {"source": source, "xref": "x", "yref": "y", "x": 0, "y": 0, "sizex": extent[0], "sizey": extent[1],
            "sizing": "stretch", "layer": "below"}  # fmt: skip


def _layout(title: str, extent: tuple[float, float], unit: str, layers: Sequence[Layer]) -> dict[str, Any]:
    axis = {"showgrid": False, "zeroline": False, "title": {"text": unit}, "tickformat": ",d"}
    return {
        "title": {"text": safe(title), "x": 0.01, "font": {"size": 15}},
        "xaxis": {**axis, "range": [0, extent[0]], "constrain": "domain"},
        "yaxis": {**axis, "range": [extent[1], 0], "scaleanchor": "x", "constrain": "domain"},
        "plot_bgcolor": "white",
        "margin": {"l": 60, "r": 20, "t": 80, "b": 50},
        "dragmode": "pan",
        "updatemenus": [_layer_menu(layers), _opacity_menu(len(layers))],
    }


def _layer_menu(layers: Sequence[Layer]) -> dict[str, Any]:
    buttons = [
        {
            "label": safe(layer.name),
            "method": "restyle",
            "args": [{"visible": [i == j for j in range(len(layers))]}, list(range(len(layers)))],
        }
        for i, layer in enumerate(layers)
    ]
    return {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.01, "yanchor": "bottom", "showactive": True}


def _opacity_menu(n_layers: int) -> dict[str, Any]:
    buttons = [
        {"label": f"{opacity:.0%}", "method": "restyle", "args": [{"opacity": opacity}, list(range(n_layers))]}
        for opacity in OPACITIES
    ]
    return {"buttons": buttons, "type": "buttons", "direction": "right", "x": 1, "xanchor": "right", "y": 1.01,
            "yanchor": "bottom", "active": OPACITIES.index(OPACITY), "pad": {"l": 8}}  # fmt: skip


def _add_scale_bar(figure: Figure, extent: tuple[float, float]) -> None:
    """A bar of a round length, about a tenth of the slide's width, at its lower left."""
    length = max((bar for bar in SCALE_BARS_UM if bar <= extent[0] / 6), default=SCALE_BARS_UM[0])
    x, y = 0.03 * extent[0], 0.97 * extent[1]
    figure.add_shape(type="line", x0=x, x1=x + length, y0=y, y1=y, line={"color": "black", "width": 4})
    text = f"{length} µm" if length < 1000 else f"{length // 1000} mm"
    figure.add_annotation(
        x=x, y=y, text=text, showarrow=False, xanchor="left", yanchor="bottom", bgcolor="rgba(255,255,255,0.7)"
    )
