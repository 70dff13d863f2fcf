"""The SQL box: one SELECT over the snapshot for whoever can reach the page, and nothing else of this machine.

Belongs here: what a reader may ask, and the limits. Does not belong: `pathassets sql` (`store/query`), whose user may read
the study's folder anyway; the page (`pages/sql`).

Four fences, each of which would do against most of what is tried: DuckDB reads no file, loads nothing and keeps its
settings; the statement is one SELECT; the tables it names are the snapshot's own, seen through views that hold no path;
the functions it calls run no further SQL and tell nothing of the machine. Time, memory, rows and text have limits; those of
memory and time are kept by a process of its own (`sql_worker`) where DuckDB does not.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from pathassets.dashboard.catalog import FOLDER, Catalog, without_folders
from pathassets.errors import ConfigError, PathassetsError, Reason, StudyError
from pathassets.store import layout
from pathassets.store.ingest import VIEWS, quoted
from pathassets.store.schema import TABLES

if TYPE_CHECKING:
    import duckdb

SECONDS = 10.0
ROWS = 1000
MAX_TEXT = 20_000
MAX_BYTES = 20_000_000
MEMORY = "1GB"
THREADS = 2
NAMES = (*TABLES, *VIEWS)

# Functions in FROM that make rows of nothing but their arguments.
_TABLE_FUNCTIONS = {"range", "generate_series", "unnest", "repeat", "repeat_row"}
# Functions that run SQL given as text, change something, or tell of settings and plans.
_FUNCTIONS = {
    "query", "query_table", "json_execute_serialized_sql", "json_serialize_plan", "sql_auto_complete", "current_setting",
    "getvariable", "getenv", "nextval", "currval", "write_log", "checkpoint", "force_checkpoint", "set_config", "sleep_ms",
    "format_type", "get_block_size",
}  # fmt: skip
_PREFIXES = ("read_", "duckdb_", "pragma_", "pg_", "parquet_", "sniff_", "sqlite_", "scan_", "st_")
# Columns in which somebody's path may stand.
_WITH_PATHS = {"slides": ("path",), "problems": ("path",)}
_LISTS_WITH_PATHS = {"slides": ("other_paths",)}
# Texts that never hold one.
_PLAIN = {"slide_id", "tiling", "recipe", "geometry", "digest", "embeddings_digest"}


@dataclass(frozen=True)
class Answer:
    """What a question gave.

    Attributes:
        frame: At most `ROWS` rows.
        cut: Whether there are more.
        seconds: Time it took.
    """

    frame: pl.DataFrame
    cut: bool
    seconds: float


def ask(catalog: Catalog, sql: str, *, seconds: float = SECONDS, rows: int = ROWS) -> Answer:
    """The answer to one SELECT.

    Args:
        catalog: The study.
        sql: The statement.
        seconds: It is stopped after so long.
        rows: At most so many come back.

    Raises:
        ConfigError: It is no single SELECT, names or calls what it may not, is wrong, or takes too long.
        StudyError: `file_missing` when nothing has been published.
    """
    catalog.version  # noqa: B018  says in words that nothing has been published
    con = _connect(catalog)
    try:
        statement = _checked(con, sql)
        begun = time.perf_counter()
        frame = _run(con, f"SELECT * FROM (\n{statement}\n) LIMIT {rows + 1}", seconds)
        if frame.estimated_size() > MAX_BYTES:
            what = f"the answer has {frame.estimated_size() / 1e6:,.0f} MB, at most {MAX_BYTES / 1e6:,.0f} are shown"
            raise ConfigError(what, remedy="Ask for fewer columns or rows, or shorter texts.")
        return Answer(frame.head(rows), len(frame) > rows, time.perf_counter() - begun)
    finally:
        con.close()


def _connect(catalog: Catalog) -> duckdb.DuckDBPyConnection:
    """A database in memory whose views show the snapshot without anybody's paths."""
    import duckdb

    con = duckdb.connect(config={"threads": THREADS, "memory_limit": MEMORY})
    try:
        con.execute("SET temp_directory = ''; SET python_enable_replacements = false")
        con.execute(f"ATTACH {quoted(str(layout.results_path(catalog.study.home)))} AS snapshot (READ_ONLY)")
        for name in NAMES:
            con.execute(f"CREATE VIEW main.{name} AS SELECT {_columns(con, name)} FROM snapshot.main.{name} one")
        con.execute("SET enable_external_access = false; SET lock_configuration = true")
    except duckdb.Error as error:
        con.close()
        remedy = "Run `pathassets publish`; it makes the snapshot anew."
        raise StudyError("the snapshot cannot be opened", reason=Reason.STORE_CORRUPT, remedy=remedy) from error
    return con


def _columns(con: duckdb.DuckDBPyConnection, table: str) -> str:
    """All columns; of paths the file's name alone, of other texts without folders."""
    described = con.execute(f"DESCRIBE snapshot.main.{table}").fetchall()
    return ", ".join(_expression(table, str(row[0]), str(row[1])) for row in described)


def _expression(table: str, column: str, dtype: str) -> str:
    name = '"' + column.replace('"', '""') + '"'
    if column in _WITH_PATHS.get(table, ()):
        return f"parse_filename({name}) AS {name}"
    if column in _LISTS_WITH_PATHS.get(table, ()):
        return f"list_transform({name}, lambda path: parse_filename(path)) AS {name}"
    if dtype != "VARCHAR" or column in _PLAIN:
        return name
    text = name
    if table in ("outcomes", "problems"):  # the file that it is about may lie in folders with blanks in their names
        path = "(SELECT s.path FROM snapshot.main.slides s WHERE s.slide_id = one.slide_id)"
        text = f"coalesce(replace({name}, {path}, parse_filename({path})), {name})"
    return f"regexp_replace({text}, {quoted(FOLDER)}, '\\1…/', 'g') AS {name}"


def _checked(con: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The one statement, without what follows it.

    Raises:
        ConfigError: See `ask`.
    """
    import duckdb

    if len(sql) > MAX_TEXT:
        raise ConfigError(f"the question is longer than {MAX_TEXT} letters", remedy="Ask something shorter.")
    if any("\ud800" <= letter <= "\udfff" for letter in sql):
        raise ConfigError("the question holds half a letter", remedy="Type it again.")
    try:
        statements = con.extract_statements(sql)
    except duckdb.Error as error:
        raise _plainly(error) from error
    if [statement.type.name for statement in statements] != ["SELECT"]:
        raise ConfigError("this is not one SELECT", remedy="Ask one SELECT (or WITH ... SELECT) at a time.")
    text = statements[0].query.strip().rstrip(";")
    row = con.execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchone()
    tree: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
    if tree.get("error") or len(tree.get("statements", ())) != 1:
        raise ConfigError("this is not one SELECT", remedy="Ask one SELECT (or WITH ... SELECT) at a time.")
    _check_tree(tree["statements"][0])
    return text


def _check_tree(tree: Any) -> None:
    """Refuses tables that are not the snapshot's own, and functions that may not be called."""
    nodes = list(_nodes(tree))
    own = {name for node in nodes for name in _ctes(node)}
    for name in own:
        if _is_forbidden(name):  # a part of that name would let the system's table of that name be read elsewhere
            raise _refused(f"a part of the question cannot be called {name}", "Give it another name.")
    allowed = {name.lower() for name in NAMES} | own
    for node in nodes:
        kind = node.get("type")
        if kind == "BASE_TABLE" and not _is_ours(node, allowed):
            raise _refused(f"there is no table {node.get('table_name')!r} here", f"There is: {', '.join(NAMES)}.")
        if kind == "TABLE_FUNCTION":
            name = str((node.get("function") or {}).get("function_name", "")).lower()
            if name not in _TABLE_FUNCTIONS:
                raise _refused(f"{name} cannot be read from here", f"There is: {', '.join(NAMES)}.")
        elif "function_name" in node and _is_forbidden(str(node["function_name"]).lower()):
            raise _refused(f"the function {node['function_name']} cannot be called here", "Ask without it.")
        if kind in ("SHOW_REF", "PIVOT"):
            raise _refused("this is not one SELECT", "Tables and their columns are listed beside the box.")


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """All objects of a statement's tree."""
    waiting = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def _ctes(node: dict[str, Any]) -> Iterator[str]:
    """Names that the statement gives to parts of its own."""
    entries = node.get("cte_map", {}).get("map", ()) if isinstance(node.get("cte_map"), dict) else ()
    yield from (str(entry["key"]).lower() for entry in entries)


def _is_ours(node: dict[str, Any], allowed: set[str]) -> bool:
    plain = not node.get("catalog_name") and str(node.get("schema_name") or "main").lower() == "main"
    return plain and str(node.get("table_name", "")).lower() in allowed


def _is_forbidden(name: str) -> bool:
    return name in _FUNCTIONS or name.startswith(_PREFIXES)


def _run(con: duckdb.DuckDBPyConnection, sql: str, seconds: float) -> pl.DataFrame:
    import duckdb

    timer = threading.Timer(seconds, con.interrupt)
    timer.start()
    try:
        return con.execute(sql).pl()
    except duckdb.InterruptException as error:
        remedy = "Ask for less: fewer rows in the joins, one slide, a LIMIT inside."
        raise ConfigError(f"stopped after {seconds:g} s", remedy=remedy) from error
    except duckdb.Error as error:
        raise _plainly(error) from error
    except pl.exceptions.PolarsError as error:
        raise ConfigError(
            "a column has a type that cannot be shown", remedy="Cast it, for example to VARCHAR."
        ) from error
    finally:
        timer.cancel()


def _plainly(error: Exception) -> PathassetsError:
    """DuckDB's first line without folders."""
    line = without_folders(str(error).strip().partition("\n")[0])
    return ConfigError(line[:400], remedy="Tables and columns are listed beside the box.")


def _refused(what: str, remedy: str) -> ConfigError:
    return ConfigError(what, remedy=remedy)


def described(catalog: Catalog) -> list[tuple[str, str, list[tuple[str, str, str]]]]:
    """Tables with their comment and their columns: name, type, comment."""
    sql = (
        "SELECT table_name, column_name, data_type, coalesce(comment, '') FROM duckdb_columns() "
        "WHERE database_name = 'results' AND schema_name = 'main' ORDER BY table_name, column_index"
    )
    columns: dict[str, list[tuple[str, str, str]]] = {name: [] for name in NAMES}
    for table, name, dtype, comment in catalog.frame(sql).iter_rows():
        if table in columns:
            columns[table].append((name, dtype, comment))
    about = {name: spec.description for name, spec in TABLES.items()} | {name: VIEWS[name][0] for name in VIEWS}
    return [(name, about[name], columns[name]) for name in NAMES if columns[name]]
