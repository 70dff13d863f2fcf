"""What lies over a slide's pixels, and the map of its tiles beside it, in one set of colours.

Belongs here: Plotly figures with axes in µm on the slide, and of tiles in feature space. Does not belong: the pixels
below (whoever shows the figure lays them there), a page of its own (`interactive`), reading tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pathassets.core import palette
from pathassets.figures import interactive
from pathassets.figures.interactive import Grid, Layer

if TYPE_CHECKING:
    import polars as pl
    from plotly.graph_objects import Figure, Heatmap, Scatter, Scattergl
    from shapely.geometry.base import BaseGeometry

# A quarter of what the mask itself can tell: close up, too, the line is where the tissue was found to end.
OUTLINE_TOLERANCE_PX = 4
VEIL_OPACITY = 0.8
# The whole slide is shown with room beside it, where the legend covers nothing.
LEGEND_ROOM = 1.2
SHARED_LAYOUT = {"modebar": interactive.MODEBAR, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "showlegend": False,
                 "font": {"family": "system-ui, sans-serif", "size": 12, "color": "#333333"}}  # fmt: skip


def slide_view(
    tiles: pl.DataFrame,
    layer: Layer | None,
    level0: tuple[int, int],
    mpp: float | None,
    *,
    opacity: float = interactive.OPACITY,
    pieces: Iterable[BaseGeometry] = (),
    selected: NDArray[np.bool_] | None = None,
    around: Sequence[tuple[float, float]] = (),
    marked: int | None = None,
) -> Figure:
    """The figure over a slide: one layer of tiles, outlines of tissue, what is selected, the tile that is looked at.

    Args:
        tiles: As for `interactive.slide_overlay`; may be empty.
        layer: What the tiles show; None = nothing.
        level0: Width and height of the slide in level-0 px.
        mpp: µm per level-0 px; None = axes in px.
        opacity: Of the layer, 0 to 1.
        pieces: Tissue in level-0 px.
        selected: (n,) tiles to point out: all others turn pale.
        around: Corners in level-0 px of the line that was drawn around tiles.
        marked: Row of the tile that is looked at.

    Returns:
        A figure whose plot fills it, with nothing drawn behind the traces.
    """
    from plotly.graph_objects import Figure

    unit = mpp or 1.0
    figure = Figure()
    if len(tiles):
        grid = Grid(tiles, unit)
        if layer is not None:
            figure.add_trace(interactive.layer_trace(grid, layer).update(opacity=opacity, **_legend(layer)))
        figure.add_trace(interactive.hover_trace(grid, tiles, [layer] if layer and layer.kind != "rgb" else []))
        if selected is not None and selected.any():
            figure.add_trace(_veil(grid, selected))
    figure.add_trace(_outlines(pieces, unit))
    if marked is not None:
        figure.add_trace(_mark(tiles.row(marked, named=True), unit))
    line = _lines_around([(x * unit, y * unit) for x, y in around])
    figure.update_layout(**_layout(level0[0] * unit, level0[1] * unit), **line)
    return figure


def tile_map(
    xy: NDArray[np.floating],
    layer: Layer | None,
    marked: int | None = None,
    method: str = "",
    around: Sequence[tuple[float, float]] = (),
    selected: NDArray[np.bool_] | None = None,
) -> Figure:
    """Tiles as points in feature space, coloured as on the slide; those that the layer does not show are faint.

    Args:
        xy: (n, 2).
        layer: The values of the same n tiles; None = all in one colour.
        marked: Row of the tile that is looked at.
        method: Named on the axes, as umap.
        around: Corners of the line that was drawn around points.
        selected: (n,) points to point out where no line says which: all others turn pale.
    """
    from plotly.graph_objects import Figure

    placed = np.isfinite(xy).all(axis=1)
    colours, drawn = _marker_colours(layer, len(xy))
    size = 4 if len(xy) > 3000 else 6
    faint = {"color": palette.NO_DOMAIN_COLOUR, "size": size}
    figure = Figure(_points(xy, placed & ~drawn, faint, selected))
    figure.add_trace(_points(xy, placed & drawn, {**colours, "size": size, "opacity": 0.8}, selected))
    if marked is not None and placed[marked]:
        ring = {"size": 16, "symbol": "circle-open", "color": "#000000", "line": {"width": 2}}
        figure.add_trace(_points(xy, np.arange(len(xy)) == marked, ring))
    axis = {"showticklabels": False, "zeroline": False, "showgrid": False, "showline": True, "mirror": True,
            "linecolor": "#cccccc"}  # fmt: skip
    name = interactive.safe(method)
    figure.update_layout(
        **SHARED_LAYOUT,
        xaxis={**axis, "title": {"text": f"{name} 1"}},
        yaxis={**axis, "title": {"text": f"{name} 2"}, "scaleanchor": "x"},
        margin={"l": 26, "r": 4, "t": 4, "b": 26},
        dragmode="lasso",
        **_lines_around(around),
    )
    return figure


def _lines_around(corners: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """A lasso as Plotly itself would have drawn it, so that the next one takes its place; and that one of before goes."""
    if len(corners) < 3:
        return {"selections": [], "selectionrevision": ""}
    path = "L".join(f"{x:.6g},{y:.6g}" for x, y in corners)
    line = {
        "type": "path",
        "path": f"M{path}Z",
        "xref": "x",
        "yref": "y",
        "line": {"color": "#333333", "width": 1, "dash": "dot"},
    }
    return {"selections": [line], "selectionrevision": path}


def _points(
    xy: NDArray[np.floating],
    shown: NDArray[np.bool_],
    marker: dict[str, Any],
    selected: NDArray[np.bool_] | None = None,
) -> Scattergl:
    from plotly.graph_objects import Scattergl

    colour = marker["color"]
    if isinstance(colour, np.ndarray):
        colour = colour[shown].tolist() if colour.dtype.kind == "U" else colour[shown]
    chosen = {} if selected is None else {"selectedpoints": np.flatnonzero(selected[shown]).tolist()}
    return Scattergl(
        x=xy[shown, 0], y=xy[shown, 1], mode="markers", hoverinfo="none", marker={**marker, "color": colour}, **chosen
    )


def _marker_colours(layer: Layer | None, n: int) -> tuple[dict[str, Any], NDArray[np.bool_]]:
    """The points' colours, and which of the n are drawn in them."""
    if layer is None:
        return {"color": palette.ACCENT}, np.ones(n, dtype=bool)
    if layer.kind == "rgb":
        colours = np.asarray(layer.values, dtype=np.float64)
        known = np.asarray(np.isfinite(colours).all(axis=1))
        names = [f"rgb({r},{g},{b})" for r, g, b in np.nan_to_num(colours).astype(int).tolist()]
        return {"color": np.array(names)}, known
    values, style = interactive.coloured(layer)
    scale = {"cmin": style["zmin"], "cmax": style["zmax"], "colorscale": style["colorscale"]}
    return {"color": values, **scale}, np.isfinite(values)


def _legend(layer: Layer) -> dict[str, Any]:
    """Where the legend stands: over the picture, so that the picture keeps its place when the layer changes."""
    if layer.kind == "rgb":
        return {}
    return {"colorbar": {"x": 0.995, "xanchor": "right", "y": 0.5, "bgcolor": "rgba(255,255,255,0.88)", "xpad": 8}}


def _veil(grid: Grid, selected: NDArray[np.bool_]) -> Heatmap:
    """What is not selected turns pale: a colour for what is would be some layer's colour too."""
    from plotly.graph_objects import Heatmap

    scale = [[0, "#ffffff"], [1, "#ffffff"]]
    return Heatmap(
        z=grid.image(np.where(selected, np.nan, 1.0)), colorscale=scale, showscale=False, opacity=VEIL_OPACITY,
        hoverinfo="skip", **grid.axes,
    )  # fmt: skip


def _outlines(pieces: Iterable[BaseGeometry], unit: float) -> Scatter:
    """All rings as one line with gaps."""
    from plotly.graph_objects import Scatter

    x: list[float | None] = []
    y: list[float | None] = []
    for piece in pieces:
        simple = piece.simplify(OUTLINE_TOLERANCE_PX)
        for polygon in getattr(simple, "geoms", [simple]):
            for ring in (polygon.exterior, *polygon.interiors):
                at = np.asarray(ring.coords)[:, :2] * unit
                x += [*at[:, 0].tolist(), None]
                y += [*at[:, 1].tolist(), None]
    return Scatter(x=x, y=y, mode="lines", line={"color": palette.TISSUE_OUTLINE, "width": 1.5}, hoverinfo="skip")


def _mark(tile: dict[str, Any], unit: float) -> Scatter:
    from plotly.graph_objects import Scatter

    left, top = tile["x_px"] * unit, tile["y_px"] * unit
    right = left + (tile["width_px"] or tile["size_px"]) * unit
    bottom = top + (tile["height_px"] or tile["size_px"]) * unit
    line = {"color": "#000000", "width": 3}
    return Scatter(x=[left, right, right, left, left], y=[top, top, bottom, bottom, top], mode="lines", line=line,
                   hoverinfo="skip")  # fmt: skip


def _layout(width: float, height: float) -> dict[str, Any]:
    return {
        **SHARED_LAYOUT,
        "xaxis": {"visible": False, "range": [0, LEGEND_ROOM * width], "constrain": "range"},
        "yaxis": {"visible": False, "range": [height, 0], "scaleanchor": "x", "constrain": "range"},
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "dragmode": "pan",
        "uirevision": "view",  # what the user has zoomed to stays when the layer changes
    }
