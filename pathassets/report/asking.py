"""Asking: a question about a table of millions of rows, answered without reading them all; files that are damaged do without.

Belongs here: that. Does not belong: questions (`cohort_slides`, `cohort_tiles`), how tables are read (`store/`).
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from pathassets.errors import StoreError
from pathassets.steps.session import Session
from pathassets.store.census import readable


def asked(session: Session, table: str, question: Callable[[pl.LazyFrame], pl.LazyFrame]) -> pl.DataFrame:
    """The answer to `question` about a table; where a file of it cannot be read, about the others."""
    try:
        return question(session.tables.scan(table)).collect()
    except (StoreError, pl.exceptions.PolarsError):
        return question(readable(session.tables, table).lazy()).collect()
