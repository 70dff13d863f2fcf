"""Shares: what the slides of a cohort are made of.

Belongs here: bars of shares. Does not belong: computing shares, maps (`maps`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pathassets.core import palette
from pathassets.figures.interactive import safe

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BAR_PX = 26
LABEL_PX = 20
# Rarer labels are drawn as one: more colours cannot be told apart.
MAX_LABELS = 16
OTHER = "other"


def label_shares(frame: pl.DataFrame) -> Figure:
    """A bar for each slide, a piece of it for each label; a label has one colour throughout, the commonest the first.

    Args:
        frame: `slide_id`, `label`, `share` (0 to 1); several rows of one label count together.
    """
    from plotly.graph_objects import Bar, Figure

    totals = frame.group_by("label").agg(pl.col("share").sum()).sort("share", "label", descending=[True, False])
    common = totals["label"].head(MAX_LABELS).to_list()
    grouped = frame.with_columns(label=pl.when(pl.col("label").is_in(common)).then("label").otherwise(pl.lit(OTHER)))
    slides = sorted(frame["slide_id"].unique().to_list(), reverse=True)  # the first one on top
    wide = grouped.pivot("label", index="slide_id", values="share", aggregate_function="sum")
    rows = pl.DataFrame({"slide_id": slides}).join(wide, on="slide_id", how="left", maintain_order="left")
    names = [name for name in (*common, OTHER) if name in rows.columns]
    figure = Figure(
        [
            Bar(
                y=[safe(slide) for slide in slides],
                x=(100 * rows[name].fill_null(0.0)).to_numpy(),
                name=safe(name),
                orientation="h",
                marker={"color": palette.domain_colour(-1 if name == OTHER else i)},
                hovertemplate=f"{safe(name)}: %{{x:.1f}} %<extra>%{{y}}</extra>",
            )
            for i, name in enumerate(names)
        ]
    )
    figure.update_layout(
        barmode="stack", plot_bgcolor="white", height=max(BAR_PX * len(slides), LABEL_PX * len(names)) + 110,
        xaxis={"title": {"text": "share of tiles (%)"}, "range": [0, 100], "gridcolor": "#eeeeee"},
        yaxis={"automargin": True, "type": "category"}, margin={"l": 10, "r": 10, "t": 10, "b": 50},
        legend={"traceorder": "normal"},
    )  # fmt: skip
    return figure
