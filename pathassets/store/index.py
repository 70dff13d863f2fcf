"""Index: some columns of a table that is kept per slide, in one file that follows the table's files.

Belongs here: reading only what has changed since the last look. Does not belong: what the columns are for. Losing the index
loses nothing.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence

import polars as pl

from pathassets.errors import StoreError
from pathassets.store import layout
from pathassets.store.schema import table_spec
from pathassets.store.tables import Tables, in_lots

log = logging.getLogger(__name__)

_KEY, _ETAG = "__key", "__etag"


def indexed(tables: Tables, table: str, columns: Sequence[str], *, remember: bool) -> pl.DataFrame:
    """Those columns of all rows of a table, as `scan` gives them, without opening files that the index knows.

    A file that is damaged is left out and said in the log.

    Args:
        tables: The tables.
        table: One of those kept per slide.
        columns: Of the schema's own.
        remember: Bring the index up to date; a command that changes nothing leaves it as it is.

    Raises:
        StoreError: The store cannot be listed.
    """
    spec = table_spec(table)
    files = {e.key: e.etag for e in tables.root.entries(layout.table_prefix(table)) if layout.is_table_file(e.key)}
    schema = {_KEY: pl.String(), _ETAG: pl.String(), **{name: spec.polars_schema[name] for name in columns}}
    old = _load(tables, table, schema)
    there = pl.DataFrame({_KEY: list(files), _ETAG: list(files.values())}, schema={_KEY: pl.String, _ETAG: pl.String})
    kept = old.join(there, on=[_KEY, _ETAG], how="semi")
    fresh = there.join(kept, on=_KEY, how="anti")
    if fresh.height or kept.height != old.height:
        kept = pl.concat([kept, _read(tables, fresh, schema)]).sort(_KEY)
        if remember:
            _save(tables, table, kept)
    return kept.select(columns)


def _read(tables: Tables, fresh: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """Rows of changed files: many at once, or one by one where one of them is damaged."""
    frames: list[pl.DataFrame] = []
    for keys in in_lots(fresh[_KEY].to_list()):
        try:
            frames.append(_rows(tables, keys, schema))
        except (pl.exceptions.PolarsError, OSError):
            frames += [frame for key in keys if (frame := _if_whole(tables, key, schema)) is not None]
    rows = pl.concat([*frames, pl.DataFrame(schema={k: v for k, v in schema.items() if k != _ETAG})])
    return rows.join(fresh, on=_KEY, how="left").select(list(schema))


def _if_whole(tables: Tables, key: str, schema: dict[str, pl.DataType]) -> pl.DataFrame | None:
    try:
        return _rows(tables, [key], schema)
    except (pl.exceptions.PolarsError, OSError) as error:
        log.warning("%s is left out: %s", tables.root.address(key), error)
        return None


def _rows(tables: Tables, keys: list[str], schema: dict[str, pl.DataType]) -> pl.DataFrame:
    wanted = {name: dtype for name, dtype in schema.items() if name not in (_KEY, _ETAG)}
    with tables.root.files(keys) as folder:
        paths = {str(folder / key): key for key in keys}
        frame = pl.scan_parquet(
            list(paths),
            schema=wanted,
            missing_columns="insert",
            extra_columns="ignore",
            hive_partitioning=False,
            glob=False,
            include_file_paths=_KEY,
        ).collect()
    return frame.with_columns(pl.col(_KEY).replace_strict(paths, return_dtype=pl.String)).select([_KEY, *wanted])


def _load(tables: Tables, table: str, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    empty = pl.DataFrame(schema=schema)
    try:
        data = tables.root.read_if_there(layout.index_key(table))
        frame = empty if data is None else pl.read_parquet(io.BytesIO(data), hive_partitioning=False)
    except (StoreError, pl.exceptions.PolarsError, OSError):
        return empty
    return frame if frame.schema == empty.schema else empty


def _save(tables: Tables, table: str, frame: pl.DataFrame) -> None:
    """A store that cannot be written remembers nothing, and says nothing about it."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="lz4")
    try:
        tables.root.put(layout.index_key(table), buffer.getvalue())
    except StoreError:
        log.debug("the index of %s could not be written", table)
