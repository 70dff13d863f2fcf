"""Ingest: Parquet files into the tables of a DuckDB file, slide by slide, what is not current left out.

Belongs here: the SQL that fills a snapshot. Does not belong: when and where a snapshot appears (`results`).

The unit is the slide: when any of its files has changed, all its rows are taken again, so that the rows of different
tables that are only true together (`embeddings_digest`, `tiles_digest`) are judged together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from pathassets.store import layout
from pathassets.store.groups import digest_folders
from pathassets.store.root import Root
from pathassets.store.schema import TABLES
from pathassets.store.spec import Column, TableSpec
from pathassets.store.tables import in_lots

if TYPE_CHECKING:
    import duckdb

INTERNAL = "internal"
# DuckDB holds all files of a statement open: 5,000 of each table took 10 GB.
FILES_AT_ONCE = 1000
NOT_LIVE = (
    "The schema live cannot look into an object store: ask the same table without `live.` (as of the last "
    "`pathassets publish`), or pathassets.Study(home).scan(table) in Python"
)
_DONE = {"slide_id": pl.String, "digest": pl.String}
_FILES = {"key": pl.String, "etag": pl.String}
_PARQUET = "read_parquet({files}, union_by_name = {union}, hive_partitioning = false)"
PARQUET_FILES = _PARQUET.format(files="?", union=True)

_CURRENT_EMBEDDINGS = f"""
    EXISTS (FROM {INTERNAL}.done d WHERE d.slide_id = s.slide_id AND d.digest = s.digest)
    AND NOT EXISTS (
        FROM main.tiles t WHERE t.slide_id = s.slide_id AND t.tiling = s.tiling AND t.digest <> s.tiles_digest
    )"""
_CURRENT_DERIVED = """
    EXISTS (
        FROM main.embeddings e
        WHERE e.slide_id = s.slide_id AND e.recipe = s.recipe AND e.digest = s.embeddings_digest
    )"""

# Joins that everybody needs, written once. Name: (comment, query).
VIEWS = {
    "tile_domains": (
        "`domains` with where each tile is",
        "SELECT d.*, t.tissue_id, t.x_px, t.y_px, t.size_px FROM main.domains d JOIN main.tiles t "
        "ON t.slide_id = d.slide_id AND t.tile_id = d.tile_id AND t.tiling = split_part(d.recipe, '/', 1)",
    ),
    "problems": (
        "What is not plainly ok, with the file that it is about",
        "SELECT s.path, o.* FROM main.outcomes o LEFT JOIN main.slides s ON s.slide_id = o.slide_id "
        "WHERE o.status <> 'ok'",
    ),
}
_VIEW_SOURCE = {"tile_domains": "domains", "problems": "outcomes"}
_VIEW_COLUMNS = {"path": TABLES["slides"], **dict.fromkeys(("tissue_id", "x_px", "y_px", "size_px"), TABLES["tiles"])}


@dataclass(frozen=True)
class StoreState:
    """What the store holds at one moment.

    Attributes:
        files: Etag of every Parquet file and every embeddings marker, by key.
    """

    files: dict[str, str]

    def of_table(self, table: str, slides: set[str] | None = None) -> list[str]:
        """Keys of a table's files, of some slides or of all."""
        return [key for slide, key in self._by_table.get(table, ()) if slides is None or slide in slides]

    @cached_property
    def _by_table(self) -> dict[str, list[tuple[str | None, str]]]:
        """Slide and key of each file: a study has a hundred thousand, and each table is asked for several times."""
        found: dict[str, list[tuple[str | None, str]]] = {}
        for key in self.files:
            place = layout.table_slide(key) if key.startswith("tables/") else None
            if place is not None:
                found.setdefault(place[0], []).append((place[1], key))
        return found

    def done_groups(self) -> list[tuple[str, str]]:
        """Slide id and digest of the finished embeddings."""
        return [(key.split("/")[1], key.split("/")[2]) for key in self.files if key.startswith("arrays/")]

    def changed_slides(self, before: dict[str, str]) -> set[str]:
        """Slides of which any file is not as it was."""
        keys = {key for key in self.files.keys() | before.keys() if self.files.get(key) != before.get(key)}
        slides = {_slide_of(key) for key in keys}
        return {slide for slide in slides if slide is not None}


def read_state(root: Root) -> StoreState:
    """What the store holds now."""
    files = {e.key: e.etag for e in root.entries("tables") if e.key.endswith(".parquet") and layout.table_slide(e.key)}
    groups = [(slide_id, digest) for slide_id, digest, _ in digest_folders(root)]
    markers = root.map(lambda group: _marker(root, *group), groups)
    return StoreState(files | {marker: "done" for marker in markers if marker is not None})


def _marker(root: Root, slide_id: str, digest: str) -> str | None:
    """Key of the marker by which embeddings with a digest are finished."""
    markers = map(layout.marker_key, layout.group_places(slide_id, digest, layout.EMBEDDINGS))
    return next(filter(root.exists, markers), None)


class Ingest:
    """Brings the tables of one DuckDB connection up to a state of the store.

    Args:
        con: Connection to the file that will become the snapshot.
        root: The store.
        uri_prefix: What turns a key into a `uri`, see `layout.uri_prefix`.
        state: What is to be taken in.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, root: Root, uri_prefix: str, state: StoreState) -> None:
        self._con, self._root, self._prefix, self._state = con, root, uri_prefix, state
        self._folder = Path()
        self.skipped: dict[str, str] = {}
        self.replaced: set[str] = set()

    def run(self, before: dict[str, str]) -> int:
        """Takes in what differs from `before`; files that cannot be read are left out and end up in `skipped`.

        Returns:
            How many slides were taken in anew.

        Raises:
            duckdb.Error: What no damaged file explains.
        """
        import duckdb

        slides = self._state.changed_slides(before)
        while True:
            try:
                with self._at_hand(self._wanted(slides)), transaction(self._con):
                    self._apply(slides, anew=not before)
                return len(slides)
            except duckdb.Error:
                damaged = self._damaged(slides)
                if not damaged:
                    raise
                self.skipped |= damaged

    def damage(self, key: str) -> str | None:
        """Why a file cannot be taken in; None when it can."""
        import duckdb

        spec = TABLES[key.split("/")[1]]
        con = duckdb.connect()
        try:
            query = f"CREATE TEMP TABLE probe AS SELECT {self._columns(spec)} FROM {PARQUET_FILES}"
            with self._at_hand([layout.schema_file_key(spec.name), key]):
                con.execute(query, [self._paths(spec.name, [key])])
        except duckdb.Error as error:
            return str(error).partition("\n")[0]
        finally:
            con.close()
        return None

    def _damaged(self, slides: set[str]) -> dict[str, str]:
        keys = {key for name in TABLES for key in self._keys(name, slides)} - self.skipped.keys()
        reasons = {key: self.damage(key) for key in sorted(keys)}
        return {key: reason for key, reason in reasons.items() if reason is not None}

    def _apply(self, slides: set[str], *, anew: bool) -> None:
        self._con.register("done_groups", pl.DataFrame(self._state.done_groups(), schema=_DONE, orient="row"))
        self._con.execute(f"CREATE OR REPLACE TABLE {INTERNAL}.done AS FROM done_groups")
        self._con.execute(f"COMMENT ON TABLE {INTERNAL}.done IS 'Finished embeddings when this was published'")
        self._con.register("changed", pl.DataFrame({"slide_id": sorted(slides)}, schema={"slide_id": pl.String}))
        for spec in TABLES.values():
            if spec.open:
                if anew or not self._update(spec, slides):
                    self._replace(spec)
            elif self._refill(spec, slides):
                self._insert(spec, self._keys(spec.name, slides))
        files = sorted(self._state.files.items())
        self._con.register("files", pl.DataFrame(files, schema=_FILES, orient="row"))
        self._con.execute(f"CREATE OR REPLACE TABLE {INTERNAL}.ingested AS FROM files")
        self._con.execute(f"COMMENT ON TABLE {INTERNAL}.ingested IS 'What this was published from'")

    def _keys(self, table: str, slides: set[str]) -> list[str]:
        spec = TABLES[table]
        keys = self._state.of_table(table, None if spec.study or spec.open else slides)
        return [key for key in keys if key not in self.skipped]

    def _refill(self, spec: TableSpec, slides: set[str]) -> bool:
        """Empties what is to be taken in again; False when there is nothing to do."""
        if spec.study:
            self._con.execute(f"DELETE FROM main.{spec.name}")
            return True
        if slides:
            self._con.execute(f"DELETE FROM main.{spec.name} WHERE slide_id IN (SELECT slide_id FROM changed)")
        return bool(slides)

    def _insert(self, spec: TableSpec, keys: list[str]) -> None:
        if not keys:
            return
        where = _CURRENT_EMBEDDINGS if spec.name == "embeddings" else _CURRENT_DERIVED if spec.derived else "true"
        query = f"INSERT INTO main.{spec.name} SELECT {self._columns(spec)} FROM {PARQUET_FILES} s WHERE {where}"
        for some in in_lots(keys, FILES_AT_ONCE):
            self._con.execute(query, [self._paths(spec.name, some)])

    def _update(self, spec: TableSpec, slides: set[str]) -> bool:
        """Takes the changed slides into an open table; False when its further columns would be others, and nothing counts."""
        keys = [key for key in self._state.of_table(spec.name, slides) if key not in self.skipped]
        known = ", ".join(f'"{name}"' for name in spec.names)
        rows = f"SELECT {self._columns(spec)}, * EXCLUDE ({known}) FROM {PARQUET_FILES} s"
        there, paths = self._types(f"FROM main.{spec.name}"), [self._paths(spec.name, keys)]
        if not self._types(rows, paths).items() <= there.items():
            return False
        self._con.execute(f"DELETE FROM main.{spec.name} WHERE slide_id IN (SELECT slide_id FROM changed)")
        self._con.execute(f"INSERT INTO main.{spec.name} BY NAME {rows}", paths)
        further = [f'count("{_identifier(name)}")' for name in there if name not in spec.names]
        counts = self._con.execute(f"SELECT {', '.join(further)} FROM main.{spec.name}").fetchone() if further else ()
        return all(counts or ())

    def _types(self, query: str, parameters: list[list[str]] | None = None) -> dict[str, str]:
        return {row[0]: row[1] for row in self._con.execute(f"DESCRIBE {query}", parameters).fetchall()}

    def _replace(self, spec: TableSpec) -> None:
        """An open table is made anew: its further columns may be others now."""
        self.replaced.add(spec.name)
        known = ", ".join(f'"{name}"' for name in spec.names)
        query = f"CREATE OR REPLACE TABLE main.{spec.name} AS SELECT {self._columns(spec)}, * EXCLUDE ({known})"
        self._con.execute(f"{query} FROM {PARQUET_FILES} s", [self._paths(spec.name, self._keys(spec.name, set()))])
        comment_on(self._con, "TABLE", f"main.{spec.name}", spec)

    def _columns(self, spec: TableSpec) -> str:
        return ", ".join(column_expression(column, self._prefix) for column in spec.columns)

    def _paths(self, table: str, keys: list[str]) -> list[str]:
        """The files, the one without rows first: it gives every column, and its type, to files that lack it."""
        return [glob_escaped(self._folder / key) for key in (layout.schema_file_key(table), *keys)]

    def _wanted(self, slides: set[str]) -> list[str]:
        """All files that taking in `slides` reads."""
        return [key for name in TABLES for key in (layout.schema_file_key(name), *self._keys(name, slides))]

    @contextmanager
    def _at_hand(self, keys: list[str]) -> Iterator[None]:
        """The files of `keys` where DuckDB can read them."""
        with self._root.files(keys) as self._folder:
            yield


@contextmanager
def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All or nothing; also much faster for many small statements, of which each alone would wait for the disk."""
    import duckdb

    con.begin()
    try:
        yield
        con.commit()
    except duckdb.Error:
        with suppress(duckdb.Error):  # after a full disk there is nothing to roll back any more
            con.rollback()
        raise


def create_tables(con: duckdb.DuckDBPyConnection) -> None:
    """The empty tables, and the joins over them."""
    with transaction(con):
        con.execute(f"CREATE SCHEMA {INTERNAL}; CREATE SCHEMA live")
        for spec in TABLES.values():
            columns = ", ".join(f'"{column.name}" {column.sql_type}' for column in spec.columns)
            con.execute(f"CREATE TABLE main.{spec.name} ({columns})")
            comment_on(con, "TABLE", f"main.{spec.name}", spec)
        for name, (comment, query) in VIEWS.items():
            con.execute(f"CREATE VIEW main.{name} AS {query}")
            comment_on(con, "VIEW", f"main.{name}", TABLES[_VIEW_SOURCE[name]], comment)


def create_live_view(con: duckdb.DuckDBPyConnection, root: Root, uri_prefix: str, spec: TableSpec) -> None:
    """A table over its Parquet files, in the schema `live`; where they are no files, a view that says so.

    Making a view looks at what it reads. Where columns may differ between files that is every file, and one damaged
    file forbids the view; it then does without the columns that only some files have.
    """
    import duckdb

    if root.folder is None:
        nothing = ", ".join(f'CAST(NULL AS {column.sql_type}) AS "{column.name}"' for column in spec.columns)
        _live_view(con, spec, f"SELECT {nothing} WHERE error({quoted(NOT_LIVE)})", "not to be had here")
        return
    columns = ", ".join(column_expression(column, uri_prefix) for column in spec.columns)
    now = "as it is now"
    files = quoted(f"{glob_escaped(root.folder)}/{layout.live_pattern(spec.name, study=spec.study)}")
    if spec.open or not _alike(root, root.folder, spec):
        more = f", * EXCLUDE ({', '.join(spec.names)})" if spec.open else ""
        with suppress(duckdb.Error):
            _live_view(con, spec, f"SELECT {columns}{more} FROM {_PARQUET.format(files=files, union=True)}", now)
            return
    _live_view(con, spec, f"SELECT {columns} FROM {_PARQUET.format(files=files, union=False)}", now)


def _live_view(con: duckdb.DuckDBPyConnection, spec: TableSpec, query: str, remark: str) -> None:
    with transaction(con):
        con.execute(f"CREATE OR REPLACE VIEW live.{spec.name} AS {query}")
        comment_on(con, "VIEW", f"live.{spec.name}", spec, f"{spec.description} ({remark})")


def _alike(root: Root, folder: Path, spec: TableSpec) -> bool:
    """Whether no readable file lacks a column, as those of an older version do."""
    for key in filter(layout.is_table_file, root.keys(layout.table_prefix(spec.name))):
        try:
            names = pl.read_parquet_schema(folder / key)
        except (pl.exceptions.PolarsError, OSError):
            continue
        if not set(spec.names) <= names.keys():
            return False
    return True


def comment_on(
    con: duckdb.DuckDBPyConnection, kind: str, name: str, spec: TableSpec, comment: str | None = None
) -> None:
    """Sets the comments of a table or view and of all its columns."""
    con.execute(f"COMMENT ON {kind} {name} IS {quoted(comment or spec.description)}")
    for row in con.execute(f"DESCRIBE {name}").fetchall():
        text = _comment(row[0], spec)
        con.execute(f'COMMENT ON COLUMN {name}."{_identifier(row[0])}" IS {quoted(text)}')


def column_expression(column: Column, uri_prefix: str) -> str:
    """A column as the snapshot has it, selected from its Parquet file."""
    value = f'"{column.name}"' if column.name != "uri" else f"{quoted(uri_prefix)} || uri"
    return f'CAST({value} AS {column.sql_type}) AS "{column.name}"'


def quoted(text: str) -> str:
    """`text` as a string in SQL."""
    return "'" + text.replace("'", "''") + "'"


def glob_escaped(path: Path) -> str:
    """`path` for functions that expand patterns."""
    return "".join(f"[{char}]" if char in "[*?" else char for char in path.as_posix())


def _identifier(name: str) -> str:
    return name.replace('"', '""')


def _comment(column: str, spec: TableSpec) -> str:
    known = {c.name: c.comment for s in (_VIEW_COLUMNS.get(column, spec), spec) for c in s.columns}
    return known.get(column, "From slides.csv")


def _slide_of(key: str) -> str | None:
    if key.startswith("arrays/"):
        return key.split("/")[1]
    place = layout.table_slide(key)
    return place[1] if place else None
