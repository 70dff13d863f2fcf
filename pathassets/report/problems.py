"""Problems: the outcomes that deserve a look, as a section that may be handed on.

Belongs here: that section. Does not belong: outcomes themselves (`steps/outcomes.py`).

Messages name files where they lie, which is for whoever runs the study; a report goes to others, and paths tell names.
"""

from __future__ import annotations

import polars as pl

from pathassets.exports.places import Places
from pathassets.report.page import Cell, Section, Table
from pathassets.steps.session import Session

_COLUMNS = {
    "step": "step",
    "recipe": "recipe",
    "status": "status",
    "reason": "reason",
    "message": "what happened",
    "remedy": "what to do",
}
MAX_ROWS = 500


def problems(session: Session, outcomes: pl.DataFrame, *, of_many: bool = False) -> Section:
    """What is not plainly ok, with reason and remedy; paths are left out.

    Args:
        session: The study.
        outcomes: Rows of `outcomes`.
        of_many: Whether slides are named.
    """
    title = "What deserves a look"
    odd = outcomes.filter(pl.col("reason").is_not_null()).sort("slide_id", "step")
    if odd.is_empty():
        return Section(title, "Nothing: every step went well.")
    places = Places(session)
    shown = odd.head(MAX_ROWS)
    told = ({**row, "message": places.told(row["message"] or ""), "remedy": places.told(row["remedy"] or "")}
            for row in shown.iter_rows(named=True))  # fmt: skip
    names = {"slide_id": "slide", **_COLUMNS} if of_many else _COLUMNS
    rows = [[Cell(row[name]) for name in names] for row in told]
    left = len(odd) - len(shown)
    note = f"The first {MAX_ROWS} of {len(odd)}; `pathassets outcomes` has all." if left else ""
    return Section(title, note, Table(tuple(names.values()), rows))
