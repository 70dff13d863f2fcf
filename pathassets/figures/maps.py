"""Maps of a cohort: one point per slide.

Belongs here: the slide map, interactive and as a small picture. Does not belong: the layout (`core/slide_map`), the
page around a figure (`interactive.page`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pathassets.core import palette
from pathassets.figures import images
from pathassets.figures.interactive import safe

if TYPE_CHECKING:
    import polars as pl
    from PIL.ImageDraw import ImageDraw
    from plotly.graph_objects import Figure, Scatter

# Names are written beside the points of small maps only.
NAMED_SLIDES = 30
POINT_PX = 4
SIDE_PX = 384
MARGIN = 0.08


def slide_map(points: pl.DataFrame, title: str, colour_by: str | None = None) -> Figure:
    """Scatter of slides with their ids on hover, and a menu where there is more than one layout.

    Args:
        points: `slide_id`, `method`, `x`, `y`, and the column `colour_by`.
        title: Above the figure.
        colour_by: Column whose values get a colour each.
    """
    from plotly.graph_objects import Figure

    methods = points["method"].unique(maintain_order=True).to_list()
    traces = [
        (method, trace.update(visible=method == methods[0]))
        for method in methods
        for trace in _traces(points, method, colour_by)
    ]
    figure = Figure([trace for _, trace in traces])
    buttons = [
        {"label": safe(method), "method": "restyle", "args": [{"visible": [of == method for of, _ in traces]}]}
        for method in methods
    ]
    axis = {"showticklabels": False, "zeroline": False, "showline": True, "mirror": True, "linecolor": "#bbbbbb"}
    figure.update_layout(
        title={"text": safe(title), "x": 0.01, "font": {"size": 15}},
        xaxis=axis,
        yaxis={**axis, "scaleanchor": "x"},
        plot_bgcolor="white",
        updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.01, "yanchor": "bottom"}]
        if buttons
        else [],
    )
    return figure


def _traces(points: pl.DataFrame, method: str, colour_by: str | None) -> list[Scatter]:
    of = points.filter(points["method"] == method)
    if colour_by is None:
        return [_trace(of, None, palette.ACCENT)]
    groups = points[colour_by].unique(maintain_order=True).to_list()
    found = ((of.filter(of[colour_by].eq_missing(value)), value, i) for i, value in enumerate(groups))
    return [
        _trace(part, "none" if value is None else str(value), palette.domain_colour(-1 if value is None else i))
        for part, value, i in found
        if len(part)
    ]


def _trace(part: pl.DataFrame, name: str | None, colour: str) -> Scatter:
    from plotly.graph_objects import Scatter

    ids = [safe(slide_id) for slide_id in part["slide_id"]]
    return Scatter(
        x=part["x"].to_numpy(), y=part["y"].to_numpy(), text=ids, name=safe(name or ""), showlegend=name is not None,
        mode="markers+text" if len(ids) <= NAMED_SLIDES else "markers", textposition="top center",
        textfont={"size": 10}, marker={"size": 9, "color": colour}, hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def slide_map_image(points: pl.DataFrame, method: str = "pca") -> bytes:
    """The layout `method` as a small picture (WebP bytes), with ids where there is room.

    Args:
        points: `slide_id`, `method`, `x`, `y`.
        method: Which layout.
    """
    from PIL import Image, ImageDraw

    of = points.filter(points["method"] == method)
    picture = Image.new("RGB", (SIDE_PX, SIDE_PX), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, SIDE_PX - 1, SIDE_PX - 1), outline=palette.NO_DOMAIN_COLOUR)
    places = _on_picture(of.select("x", "y").to_numpy())
    taken: list[tuple[float, float, float]] = []
    for (x, y), slide_id in zip(places, of["slide_id"], strict=True):
        box = (x - POINT_PX, y - POINT_PX, x + POINT_PX, y + POINT_PX)
        draw.ellipse(box, fill=palette.ACCENT)
        _name(draw, taken, float(x), float(y), images.plain(slide_id, 32))
    images.write(draw, (6, SIDE_PX - 18), f"{method}, {len(of)} slides")
    return images.encode(picture)


def _name(draw: ImageDraw, taken: list[tuple[float, float, float]], x: float, y: float, text: str) -> None:
    """A slide's id beside its point, on the side where it fits; left out where it would cover another."""
    width, right = images.text_width(text), x + 2 * POINT_PX
    left = right if right + width < SIDE_PX else max(2.0, x - 2 * POINT_PX - width)
    if any(abs(y - other) < images.FONT_PX + 2 and left < end and start < left + width for start, end, other in taken):
        return
    taken.append((left, left + width, y))
    images.write(draw, (left, y - images.FONT_PX / 2 - 2), text)


def _on_picture(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions in the layout as px of the picture, one scale for both axes, y upwards."""
    if not len(xy):
        return xy
    low, high = xy.min(axis=0), xy.max(axis=0)
    span = float((high - low).max()) or 1.0
    centred = (xy - (low + high) / 2) / span * (1 - 2 * MARGIN)
    return (centred * [1, -1] + 0.5) * SIDE_PX
