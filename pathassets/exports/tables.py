"""Tables: any table of the store as one Parquet or CSV file.

Belongs here: choosing rows, writing. Does not belong: questions (`pathassets sql`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from pathassets import __version__
from pathassets.errors import ConfigError
from pathassets.exports.files import Target
from pathassets.steps.session import Session
from pathassets.store.schema import TABLES


def check_tables(names: Sequence[str]) -> tuple[str, ...]:
    """The tables asked for; all, when none is named.

    Raises:
        ConfigError: There is no such table.
    """
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise ConfigError(f"there is no table {unknown[0]!r}", remedy=f"There are: {', '.join(TABLES)}.")
    return tuple(dict.fromkeys(names)) or tuple(TABLES)


def rows_of(
    session: Session, table: str, slide_ids: Sequence[str] | None, recipes: Sequence[str] | None
) -> pl.DataFrame:
    """A table's rows, of some slides and recipes only where they are given; rows that belong to no recipe stay."""
    frame = session.tables.scan(table)
    columns = frame.collect_schema().names()
    if slide_ids is not None and "slide_id" in columns:
        frame = frame.filter(pl.col("slide_id").is_in(list(slide_ids)))
    if recipes is not None and "recipe" in columns:
        frame = frame.filter(pl.col("recipe").is_in(list(recipes)) | pl.col("recipe").is_null())
    return frame.collect()


def export_table(frame: pl.DataFrame, table: str, target: Target, *, csv: bool) -> None:
    """Writes `<table>.parquet`, or `<table>.csv` with `<table>.csv.json` beside it, which says what the columns are.

    Every row says what it was made from, by which run and version; the file says what wrote it.
    """
    about = _about(table, frame)
    if not csv:
        target.put(f"{table}.parquet", lambda path: _write_parquet(path, frame, about))
        return
    target.put_bytes(f"{table}.csv", flat(frame).write_csv().encode())
    target.put_json(f"{table}.csv.json", about)


def flat(frame: pl.DataFrame) -> pl.DataFrame:
    """CSV knows no lists: they become JSON text."""
    lists = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    texts = {name: [None if v is None else json.dumps(v, default=str) for v in frame[name].to_list()] for name in lists}
    return frame.with_columns(pl.Series(name, values, dtype=pl.String) for name, values in texts.items())


def _about(table: str, frame: pl.DataFrame) -> dict[str, Any]:
    spec = TABLES[table]
    columns = {column.name: column.comment for column in spec.columns}
    known = {name: columns.get(name, "A column of slides.csv") for name in frame.columns}
    return {"table": table, "description": spec.description, "rows": len(frame), "columns": known,
            "exported_by": f"pathassets {__version__}"}  # fmt: skip


def _write_parquet(path: Path, frame: pl.DataFrame, about: dict[str, Any]) -> None:
    import pyarrow.parquet

    table = frame.to_arrow()
    note = {b"pathassets": json.dumps(about, sort_keys=True).encode()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **note})
    pyarrow.parquet.write_table(table, path, compression="zstd", write_page_checksum=True)
