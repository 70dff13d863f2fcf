"""The mosaic of a cohort: tiles' own pictures where the tiles lie on the cohort map.

Belongs here: the picture, and the figure that says which tile is where. Does not belong: the cells (`core/mosaic`), reading
slides (`cohort_pictures`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pathassets.core import palette
from pathassets.core.mosaic import Mosaic
from pathassets.figures import images, maps
from pathassets.figures.interactive import MODEBAR, safe

if TYPE_CHECKING:
    import polars as pl
    from plotly.graph_objects import Figure, Scattergl

SIDE_PX = 1280
CELL_PX = (32, 96)
MAX_BYTES = 900_000
BACKGROUND = palette.NO_DOMAIN_COLOUR
MAP_POINT_PX = 4


def cell_px(shape: tuple[int, int]) -> int:
    """Edge of a cell in px, so that the picture has about `SIDE_PX`."""
    return int(np.clip(SIDE_PX // max(shape), *CELL_PX))


def mosaic_image(cells: Mosaic, pictures: Mapping[int, NDArray[np.uint8]]) -> bytes:
    """The tiles' pictures in their cells (WebP bytes); cells without tiles, or whose tile could not be read, are grey.

    Args:
        cells: Which tile stands where.
        pictures: uint8 (s, s, 3) of tiles, by the tile's number in the map; s = `cell_px`.
    """
    side = cell_px(cells.shape)
    picture = np.empty((cells.shape[0] * side, cells.shape[1] * side, 3), np.uint8)
    picture[:] = palette.rgb(BACKGROUND)
    for row, column, tile in zip(cells.row, cells.column, cells.tile, strict=True):
        if int(tile) in pictures:
            picture[row * side : (row + 1) * side, column * side : (column + 1) * side] = pictures[int(tile)]
    return images.encode(picture, MAX_BYTES)


def mosaic_figure(source: str, shape: tuple[int, int], cells: Sequence[tuple[int, int, str, int, int]]) -> Figure:
    """The picture with a word for each cell.

    Args:
        source: The picture's address.
        shape: Rows and columns.
        cells: Row, column, slide, tile and number of tiles of each cell that has any.
    """
    from plotly.graph_objects import Figure, Scatter

    rows, columns = shape
    words = [
        f"{safe(slide)}<br>tile {tile}, {n:,} {'tile' if n == 1 else 'tiles'} here" for _, _, slide, tile, n in cells
    ]
    figure = Figure(
        Scatter(
            x=[column + 0.5 for _, column, *_ in cells], y=[row + 0.5 for row, *_ in cells], mode="markers",
            marker={"size": 14, "opacity": 0, "symbol": "square"}, hovertext=words, hovertemplate="%{hovertext}<extra></extra>",
            customdata=[[slide, tile] for _, _, slide, tile, _ in cells],
        )
    )  # fmt: skip
    hidden = {"visible": False, "constrain": "domain"}
    figure.update_layout(
        images=[{"source": source, "xref": "x", "yref": "y", "x": 0, "y": 0, "sizex": columns, "sizey": rows,
                 "sizing": "stretch", "layer": "below", "yanchor": "top"}],
        xaxis={**hidden, "range": [0, columns]},
        yaxis={**hidden, "range": [rows, 0], "scaleanchor": "x"},
        modebar=MODEBAR, plot_bgcolor="rgba(0,0,0,0)", paper_bgcolor="rgba(0,0,0,0)", showlegend=False,
        margin={"l": 0, "r": 0, "t": 0, "b": 0}, dragmode="pan", hovermode="closest",
    )  # fmt: skip
    return figure


def cohort_points(points: pl.DataFrame, colour_by: str, colours: Mapping[Any, str] | None = None) -> Figure:
    """The same map as points, each group in a colour of its own.

    Args:
        points: `slide_id`, `tile_id`, `x`, `y`, and the column `colour_by`.
        colour_by: Column whose values get a colour each; numbers (floats) get one scale.
        colours: Colour of each value; None = `maps.group_colours` of the column.
    """
    from plotly.graph_objects import Figure

    values = points[colour_by]
    if values.dtype.is_float():
        figure = Figure(_tile_points(points, "", maps.scaled(values, colour_by)))
    else:
        known = colours or maps.group_colours(values)
        figure = Figure()
        for value in values.unique().sort(nulls_last=True).to_list():
            name = "none" if value is None else safe(str(value))
            figure.add_trace(_tile_points(points.filter(values.eq_missing(value)), name, {"color": known[value]}))
    figure.update_layout(**_bare(), showlegend=not values.dtype.is_float())
    return figure


def _tile_points(of: pl.DataFrame, name: str, marker: dict[str, Any]) -> Scattergl:
    from plotly.graph_objects import Scattergl

    return Scattergl(
        x=of["x"].to_numpy(), y=of["y"].to_numpy(), mode="markers", name=name, text=[safe(s) for s in of["slide_id"]],
        marker={"size": MAP_POINT_PX, "opacity": 0.7, **marker},
        customdata=[[slide, tile] for slide, tile in of.select("slide_id", "tile_id").iter_rows()],
        hovertemplate="%{text}<br>tile %{customdata[1]}<extra></extra>",
    )  # fmt: skip


def _bare() -> dict[str, Any]:
    axis = {"showticklabels": False, "zeroline": False, "showgrid": False, "showline": True, "mirror": True,
            "linecolor": "#cccccc"}  # fmt: skip
    return {
        "modebar": MODEBAR,
        "xaxis": axis,
        "yaxis": {**axis, "scaleanchor": "x"},
        "plot_bgcolor": "white",
        "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
        "legend": {"itemsizing": "constant"},
        "hovermode": "closest",
    }
