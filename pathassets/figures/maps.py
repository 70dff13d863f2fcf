"""Maps of a cohort: one point per slide.

Belongs here: the slide map, interactive. Does not belong: the layout (`core/slide_map`), the page around a figure
(`interactive.page`), the map as a small picture (`named_map`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pathassets.core import palette
from pathassets.figures.interactive import MODEBAR, safe

if TYPE_CHECKING:
    from plotly.graph_objects import Figure, Scatter

# Names are written beside the points of small maps only.
NAMED_SLIDES = 30
# The least room of a layout in a window, a letter of a name, and a line of them.
DRAWN_PX, LETTER_PX, LINE_PX = 300, 6.0, 14.0


def slide_map(
    points: pl.DataFrame, title: str, colour_by: str | None = None, colours: Mapping[Any, str] | None = None
) -> Figure:
    """Scatter of slides with their ids on hover, and a menu where there is more than one layout.

    Args:
        points: `slide_id`, `method`, `x`, `y`, and the column `colour_by`.
        title: Above the figure.
        colour_by: Column whose values get a colour each; numbers (floats) get one scale.
        colours: Colour of each value; None = `group_colours` of the column.
    """
    from plotly.graph_objects import Figure

    if colour_by is not None and colours is None:
        colours = group_colours(points[colour_by])
    methods = points["method"].unique(maintain_order=True).to_list()
    traces = [
        (method, trace.update(visible=method == methods[0]))
        for method in methods
        for trace in _traces(points, method, colour_by, colours or {})
    ]
    figure = Figure([trace for _, trace in traces])
    buttons = [
        {"label": safe(method), "method": "restyle", "args": [{"visible": [of == method for of, _ in traces]}]}
        for method in methods
    ]
    axis = {"showticklabels": False, "zeroline": False, "showline": True, "mirror": True, "linecolor": "#bbbbbb"}
    figure.update_layout(
        title={"text": safe(title), "x": 0.01, "font": {"size": 15}},
        modebar=MODEBAR,
        xaxis=axis,
        yaxis={**axis, "scaleanchor": "x"},
        plot_bgcolor="white",
        updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.01, "yanchor": "bottom"}]
        if len(methods) > 1
        else [],
    )
    return figure


def group_colours(values: pl.Series) -> dict[Any, str]:
    """A colour for each value, in the values' order, so that all figures of one column agree; missing ones are grey."""
    known = values.drop_nulls().unique().sort().to_list()
    return {None: palette.NO_DOMAIN_COLOUR} | {value: palette.domain_colour(i) for i, value in enumerate(known)}


def scaled(values: pl.Series, title: str) -> dict[str, Any]:
    """Markers coloured by numbers on one scale; missing ones are grey."""
    finite = values.drop_nulls().drop_nans()
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)  # type: ignore[arg-type]
    bar = {"title": {"text": safe(title), "side": "right"}, "thickness": 14, "len": 0.7}
    return {"color": values.fill_null(float("nan")).to_list(), "colorscale": palette.SEQUENTIAL_SCALE, "cmin": low,
            "cmax": max(high, low + 1e-9), "colorbar": bar, "showscale": True}  # fmt: skip


def _traces(points: pl.DataFrame, method: str, colour_by: str | None, colours: Mapping[Any, str]) -> list[Scatter]:
    of = points.filter(points["method"] == method)
    of = of.with_columns(pl.Series("named", _named(of), dtype=pl.String))
    if colour_by is None:
        return [_trace(of, None, {"color": palette.ACCENT})]
    if of[colour_by].dtype.is_float():
        return [_trace(of, None, scaled(of[colour_by], colour_by), of[colour_by].to_list())]
    found = ((of.filter(of[colour_by].eq_missing(value)), value) for value in sorted(colours, key=_nones_last))
    return [
        _trace(part, "none" if value is None else str(value), {"color": colours[value]})
        for part, value in found
        if len(part)
    ]


def _nones_last(value: Any) -> tuple[bool, Any]:
    return value is None, 0 if value is None else value


def _trace(
    part: pl.DataFrame, name: str | None, marker: dict[str, Any], values: Sequence[float | None] = ()
) -> Scatter:
    from plotly.graph_objects import Scatter

    told = [safe(slide_id) for slide_id in part["slide_id"]]
    if values:
        numbers = ("–" if value is None else f"{value:.4g}" for value in values)
        told = [f"{slide_id}<br>{number}" for slide_id, number in zip(told, numbers, strict=True)]
    names = [safe(text) for text in part["named"]]
    return Scatter(
        x=part["x"].to_numpy(), y=part["y"].to_numpy(), text=names, hovertext=told, customdata=part["slide_id"].to_list(),
        name=safe(name or ""), showlegend=name is not None, mode="markers+text" if any(names) else "markers",
        textposition="top center", textfont={"size": 10}, marker={"size": 9, **marker},
        hovertemplate="%{hovertext}<extra></extra>",
    )  # fmt: skip


def _named(of: pl.DataFrame) -> list[str]:
    """Names to be written above the points of one layout: empty where one would lie over an earlier one."""
    if len(of) > NAMED_SLIDES:
        return [""] * len(of)
    xy = of.select("x", "y").to_numpy().astype(np.float64)
    span = float(np.ptp(xy, axis=0).max(initial=0.0)) or 1.0
    taken: list[tuple[float, float, float]] = []
    found = []
    for (x, y), slide_id in zip(xy / span * DRAWN_PX, of["slide_id"], strict=True):
        half = LETTER_PX * len(slide_id) / 2
        if any(abs(y - other) < LINE_PX and abs(x - at) < half + wide for at, other, wide in taken):
            found.append("")
            continue
        taken.append((float(x), float(y), half))
        found.append(slide_id)
    return found
