"""Compare: `results.duckdb` held against the store that it was published from.

Belongs here: finding differences between a current snapshot and the tables. Does not belong: making the snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pathassets.errors import PathassetsError
from pathassets.store import layout
from pathassets.store.census import Census
from pathassets.store.ingest import PARQUET_FILES, column_expression, glob_escaped
from pathassets.store.query import connect, query
from pathassets.store.root import Root
from pathassets.store.schema import TABLES
from pathassets.store.spec import TableSpec

if TYPE_CHECKING:
    import duckdb


def snapshot_differences(root: Root, home: Path, census: Census, *, deep: bool) -> Iterator[str]:
    """What a snapshot that should be current has other than the store, in words.

    Args:
        root: The store.
        home: The folder of `results.duckdb`.
        census: What the tables hold; a table of which a file cannot be read is not compared.
        deep: Compare every row; else count them.
    """
    import duckdb

    keys = [*map(layout.schema_file_key, TABLES), *census.files] if deep else []
    with root.files(keys) as folder:
        try:
            con = connect(home, folder=folder)
        except PathassetsError as error:
            yield error.message
            return
        try:
            for spec in TABLES.values():
                if not any(key.startswith(f"{layout.table_prefix(spec.name)}/") for key in census.unreadable):
                    yield from _differences(
                        con, folder, layout.uri_prefix(root.uri, home.resolve()), spec, census, deep
                    )
        except duckdb.Error as error:
            yield f"cannot be read: {str(error).partition(chr(10))[0]}"
        finally:
            con.close()


def published_slides(root: Root, home: Path) -> set[str]:
    """Slides that the snapshot has; none where it cannot be read."""
    try:
        return set(query(home, "SELECT slide_id FROM main.slides", root=root)["slide_id"])
    except PathassetsError:
        return set()


def _differences(
    con: duckdb.DuckDBPyConnection, folder: Path, uri_prefix: str, spec: TableSpec, census: Census, deep: bool
) -> Iterator[str]:
    """Of embeddings and what comes from them the snapshot leaves out what is not current, but has nothing of its own."""
    keys = [key for key in census.files if key.startswith(f"{layout.table_prefix(spec.name)}/")]
    whole = not spec.derived and spec.name != "embeddings"
    here, there = _count(con, f"main.{spec.name}"), sum(census.files[key].rows for key in keys)
    if here > there or (whole and here != there):
        yield f"{spec.name} has {here} rows; the store has {there}"
    elif deep:
        paths = [glob_escaped(folder / key) for key in (layout.schema_file_key(spec.name), *keys)]
        names = ", ".join(f'"{name}"' for name in spec.names)
        columns = ", ".join(column_expression(c, uri_prefix) for c in spec.columns)
        main, store = f"SELECT {names} FROM main.{spec.name}", f"SELECT {columns} FROM {PARQUET_FILES}"
        strange = _count(con, f"({main} EXCEPT {store})", paths)
        lost = _count(con, f"({store} EXCEPT {main})", paths) if whole else 0
        if strange or lost:
            yield f"{spec.name} has {strange} rows that the store has not, and lacks {lost}"


def _count(con: duckdb.DuckDBPyConnection, source: str, *values: object) -> int:
    row = con.execute(f"SELECT count(*) FROM {source}", list(values)).fetchone()
    return int(row[0]) if row else 0
