"""Query: one SQL statement over the snapshot, read-only, with errors that a person can act on.

Belongs here: opening `results.duckdb` for questions. Does not belong: making it (`results`), printing (`cli`).

The snapshot is attached to a database in memory that may read the store's files (the views of `live` need them) and
nothing else on the disk, and that can neither load extensions nor change its settings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from pathassets.errors import ConfigError, Reason, StudyError
from pathassets.store import layout
from pathassets.store.ingest import NOT_LIVE, glob_escaped, quoted
from pathassets.store.root import Root

if TYPE_CHECKING:
    import duckdb

# EXPLAIN ANALYZE runs what it explains: only questions may follow it
_EXPLAINS_A_QUESTION = re.compile(
    r"\s*explain\s+(analyze\s+)?(select|with|from|values|describe|show|summarize|table|pivot|unpivot)\b", re.I
)
_CATALOG = "results"


def query(home: str | Path, sql: str, *, root: Root | None = None) -> pl.DataFrame:
    """The answer to one question.

    Args:
        home: The folder of `results.duckdb`.
        sql: One SELECT, WITH, FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE, PIVOT or EXPLAIN statement.
        root: The store, where it does not lie in `home`.

    Raises:
        StudyError: `file_missing` when nothing has been published.
        ConfigError: The statement is wrong, or is not a question.
    """
    import duckdb

    home = Path(home).expanduser().resolve()
    con = connect(home, root=root)
    try:
        _check_question(con, sql)
        return con.execute(sql).pl()
    except duckdb.Error as error:
        raise _said_plainly(error, con) from error
    except pl.exceptions.PolarsError as error:
        remedy = "Cast the column in the statement, for example to VARCHAR."
        raise ConfigError(f"a column of the answer has a type that cannot be shown: {error}", remedy=remedy) from error
    finally:
        con.close()


def connect(home: str | Path, *, root: Root | None = None, folder: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A connection that reads the snapshot as it is now; the caller closes it.

    Args:
        home: The folder of `results.duckdb`.
        root: The store, where it does not lie in `home`.
        folder: Where the store's files lie to be read, where that is not the store.

    Raises:
        StudyError: `file_missing` when nothing has been published, `store_corrupt` when the file cannot be opened.
    """
    import duckdb

    home = Path(home).expanduser().resolve()
    path = layout.results_path(home)
    if not path.is_file():
        remedy = "Run `pathassets publish`, or `pathassets run` first."
        raise StudyError(f"there is no {path} yet", reason=Reason.FILE_MISSING, remedy=remedy)
    store = folder or (root.folder if root is not None else layout.default_store(home))
    con = duckdb.connect()
    try:
        con.execute(f"ATTACH {quoted(str(path))} AS {_CATALOG} (READ_ONLY); USE {_CATALOG}")
        # paths in the views are patterns: a folder with a bracket in its name is written in two ways
        names = () if store is None else (store.as_posix(), glob_escaped(store))
        folders = ", ".join(quoted(f"{name}/") for name in names)
        con.execute(f"SET allowed_directories = [{folders}]")
        con.execute("SET enable_external_access = false; SET lock_configuration = true")
    except duckdb.Error as error:
        con.close()
        remedy = "Run `pathassets publish`; it makes the file anew."
        message = f"{path} cannot be opened: {_first_line(error)}"
        raise StudyError(message, reason=Reason.STORE_CORRUPT, remedy=remedy) from error
    return con


def _check_question(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    # PIVOT becomes two statements, of which the first has no text
    statements = [s for s in con.extract_statements(sql) if not (s.type.name == "CREATE" and not s.query)]
    kinds = [statement.type.name for statement in statements]
    if kinds == ["SELECT"] or (kinds == ["EXPLAIN"] and _EXPLAINS_A_QUESTION.match(sql)):
        return
    what = "nothing" if not kinds else " and ".join(kind.lower() for kind in kinds)
    raise ConfigError(
        f"one question at a time, please; this is {what}",
        remedy="results.duckdb is read-only: use SELECT, WITH, FROM, DESCRIBE, SHOW, SUMMARIZE, PIVOT or EXPLAIN.",
    )


def _said_plainly(error: duckdb.Error, con: duckdb.DuckDBPyConnection) -> StudyError:
    import duckdb

    line = _first_line(error)
    if NOT_LIVE in line:
        return ConfigError(NOT_LIVE)
    if isinstance(error, duckdb.PermissionException):
        remedy = "Only the store's own files can be read here. If the study was moved, run `pathassets publish`."
        return StudyError(line, reason=Reason.CONFIG_INVALID, remedy=remedy)
    if isinstance(error, duckdb.CatalogException):
        names = [row[0] for row in con.execute("SHOW TABLES").fetchall()]
        return ConfigError(line, remedy=f"There is: {', '.join(names)}; `DESCRIBE <table>` lists columns.")
    if isinstance(error, duckdb.IOException):
        return StudyError(line, reason=Reason.STORE_CORRUPT, remedy="Run `pathassets publish`, then ask again.")
    return ConfigError(line, remedy="Check the statement; `DESCRIBE <table>` lists columns.")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
