"""Problems: the outcomes that deserve a look, as a section that may be handed on.

Belongs here: that section. Does not belong: outcomes themselves (`steps/outcomes.py`).

Messages name files where they lie, which is for whoever runs the study; a report goes to others, and paths tell names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from pathassets.report.page import Section, records
from pathassets.steps.session import Session
from pathassets.store.census import readable

_COLUMNS = ("step", "recipe", "status", "reason", "message", "remedy")


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
    paths = dict(readable(session.tables, "slides").select("slide_id", "path").iter_rows())
    home = str(session.study.home)
    rows = [_without_paths(row, paths.get(row["slide_id"]), home) for row in odd.iter_rows(named=True)]
    columns: Sequence[str] = ("slide_id", *_COLUMNS) if of_many else _COLUMNS
    return Section(title, table=records(rows, columns))


def _without_paths(row: Mapping[str, Any], path: str | None, home: str) -> dict[str, Any]:
    told = dict(row)
    for name in ("message", "remedy"):
        text = told[name] or ""
        for known, shown in ((path, "the file"), (home, "the study")):
            text = text.replace(known, shown) if known else text
        told[name] = text
    return told
