from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from pathassets.config import Study
from pathassets.dashboard import sql_box
from pathassets.dashboard.catalog import Catalog
from pathassets.errors import ConfigError, Reason, StudyError
from pathassets.store.query import connect

from .conftest import Finished

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1", " select 1 ; ", "-- a word\nSELECT 1 -- and another", "WITH a AS (SELECT slide_id FROM slides) FROM a",
        "FROM slides", "SELECT count(*) FROM main.tiles", "SELECT * FROM range(3)", "SELECT unnest([1, 2])",
        "SELECT ';' AS x", "SELECT slide_id, list_cosine_similarity(vector, vector) FROM slide_vectors",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT * FROM t", "FROM tile_domains",
        "SELECT a.slide_id, b.slide_id FROM slides a, slides b", "VALUES (1), (2)",
    ],
)  # fmt: skip
def test_one_select_is_answered(catalog: Catalog, sql: str):
    assert len(sql_box.ask(catalog, sql).frame) > 0


def test_the_questions_of_the_readme_are_answered(catalog: Catalog):
    questions = re.findall(r"```sql\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    asked = [question for question in questions if "duckdb_columns" not in question]
    assert len(asked) >= 10
    for question in asked:
        assert sql_box.ask(catalog, question).frame.width > 0, question


@pytest.mark.parametrize(
    "sql",
    [
        "", ";", "nonsense", "SELECT 1; SELECT 2", "INSERT INTO slides VALUES (1)", "DELETE FROM slides", "DROP VIEW slides",
        "CREATE TABLE x AS SELECT 1", "UPDATE slides SET slide_id = 'x'", "SET threads = 1", "RESET threads",
        "PRAGMA database_list", "PRAGMA version; SELECT 1", "ATTACH 'x.db'", "DETACH snapshot", "INSTALL httpfs", "LOAD httpfs",
        "COPY (SELECT 1) TO 'x.csv'", "COPY slides TO '/tmp/x.parquet'", "USE snapshot", "EXPORT DATABASE 'x'",
        "EXPLAIN SELECT 1", "EXPLAIN ANALYZE SELECT 1", "DESCRIBE slides", "SHOW TABLES", "SUMMARIZE slides",
        "CALL pragma_version()", "VACUUM", "CHECKPOINT", "BEGIN", "PREPARE p AS SELECT 1", "EXECUTE p",
        "CREATE MACRO f(x) AS x", "FROM (DESCRIBE slides)", "FROM (SHOW TABLES)", "FROM (SUMMARIZE slides)",
    ],
)  # fmt: skip
def test_what_is_no_single_select_is_refused(catalog: Catalog, sql: str):
    with pytest.raises(ConfigError) as caught:
        sql_box.ask(catalog, sql)
    assert caught.value.remedy


ATTACKS = [
    "SELECT * FROM '/etc/passwd'", "SELECT * FROM 'x.csv'", "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM read_blob('{home}/slides.csv')", "SELECT * FROM glob('/*')",
    "SELECT * FROM read_parquet('{home}/store/tables/slides/*/*.parquet')", "SELECT * FROM parquet_schema('{home}/x')",
    "SELECT * FROM sniff_csv('{home}/slides.csv')", "SELECT * FROM duckdb_databases()", "SELECT * FROM pragma_database_list()",
    "SELECT * FROM pragma_database_list", "SELECT * FROM duckdb_views()", "SELECT sql FROM duckdb_views", "FROM sqlite_master",
    "FROM sqlite_schema", "FROM duckdb_settings()", "FROM duckdb_secrets()", "FROM duckdb_temporary_files()",
    "FROM duckdb_extensions()", "FROM duckdb_logs", "FROM pg_catalog.pg_views", "FROM information_schema.tables",
    "FROM pg_views", "FROM system.main.duckdb_databases", "FROM snapshot.main.slides", "FROM snapshot.live.slides",
    "FROM live.slides", "FROM snapshot.internal.ingested", "FROM internal.done", "SELECT path FROM snapshot.slides",
    "SELECT current_setting('home_directory')", "SELECT current_setting('temp_directory')", "SELECT getenv('HOME')",
    "SELECT getvariable('x')", "SELECT * FROM query('SELECT * FROM duckdb_databases()')", "FROM query_table('duckdb_views')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('FROM duckdb_databases()'))",
    "SELECT json_serialize_plan('SELECT * FROM duckdb_views()')", "SELECT pg_get_viewdef(1)",
    "SELECT * FROM slides WHERE 1 IN (SELECT 1 FROM duckdb_databases())", "SELECT (SELECT path FROM duckdb_databases() LIMIT 1)",
    "WITH duckdb_views AS (SELECT 1) SELECT * FROM duckdb_views",
    "SELECT * FROM sqlite_master WHERE 1 IN (WITH sqlite_master AS (SELECT 1) SELECT * FROM sqlite_master)",
    "SELECT * FROM slides ORDER BY (SELECT max(path) FROM duckdb_databases())",
    "WITH a AS (FROM duckdb_databases()) FROM a", "SELECT x FROM (VALUES (1)) t(x), LATERAL (FROM duckdb_databases())",
    "SELECT * FROM sql_auto_complete('FROM ''/et')", "SELECT checkpoint()", "SELECT nextval('s')", "SELECT write_log('x')",
    "FROM enable_logging()", "FROM test_all_types()", "PIVOT slides ON vendor USING count(*)", "FROM catalog", "FROM frame",
    "FROM duckdb_functions()", "SELECT \"QUERY\"('x')", "FROM \"DuckDB_Databases\"()", "SELECT main.current_setting('home_directory')",
]  # fmt: skip


@pytest.mark.parametrize("sql", ATTACKS)
def test_nothing_but_the_snapshots_tables_can_be_read(finished: Finished, catalog: Catalog, sql: str):
    with pytest.raises(ConfigError) as caught:
        sql_box.ask(catalog, sql.format(home=finished.study.home))
    assert str(finished.study.home) not in str(caught.value).replace(sql, "")


def test_the_fences_do_without_each_other(finished: Finished, catalog: Catalog):
    """What the tree's check would let through, DuckDB itself refuses."""
    con = sql_box._connect(catalog)
    for sql in (
        "FROM read_text('/etc/passwd')", f"FROM '{finished.study.home}/slides.csv'", "COPY (SELECT 1) TO 'x.csv'", "ATTACH 'x.db'",
        "INSTALL httpfs", "SET enable_external_access = true", "SET lock_configuration = false", "DROP TABLE snapshot.main.tiles",
        "DELETE FROM snapshot.main.tiles", "CREATE TABLE snapshot.main.x AS SELECT 1", "FROM glob('/*')",
    ):  # fmt: skip
        with pytest.raises(duckdb.Error):
            con.execute(sql).fetchall()
    con.close()


def test_no_column_of_any_table_shows_where_the_study_lies(finished: Finished, catalog: Catalog):
    home = str(finished.study.home)
    raw = connect(finished.study.home)
    seen_raw = 0
    for name in sql_box.NAMES:
        assert home not in str(sql_box.ask(catalog, f"FROM {name}").frame.to_dicts()), name
        assert home.rpartition("/")[2] not in str(sql_box.ask(catalog, f"FROM {name}").frame.to_dicts()), name
        seen_raw += home in str(raw.execute(f"FROM results.main.{name}").fetchall())
    raw.close()
    assert seen_raw >= 3, "the snapshot itself does say it, or this test looks at nothing"
    files = sql_box.ask(catalog, "SELECT path FROM slides WHERE slide_id LIKE 'first%'").frame["path"].to_list()
    assert files == ["first.tiff"]


def test_every_macro_that_could_tell_of_the_machine_is_refused():
    macros = duckdb.sql(
        "SELECT DISTINCT function_name, macro_definition FROM duckdb_functions() "
        "WHERE function_type LIKE '%macro' AND regexp_matches(lower(macro_definition), 'duckdb_|pragma_|current_setting')"
    ).fetchall()
    assert macros
    assert [name for name, _ in macros if not sql_box._is_forbidden(name.lower())] == []


def test_every_table_of_the_system_has_a_name_that_is_refused():
    names = duckdb.sql(
        "SELECT view_name FROM duckdb_views() WHERE internal AND schema_name IN ('main', 'pg_catalog')"
    ).fetchall()
    assert len(names) > 10
    assert [name for (name,) in names if not sql_box._is_forbidden(name.lower())] == []


def test_a_question_that_runs_away_is_stopped(catalog: Catalog):
    with pytest.raises(ConfigError, match=r"stopped after 0.3 s"):
        sql_box.ask(
            catalog, "SELECT sum(hash(a.range + b.range)) FROM range(10000000) a, range(10000000) b", seconds=0.3
        )


def test_memory_has_a_limit_and_nothing_is_written_for_want_of_it(catalog: Catalog):
    with pytest.raises(ConfigError, match=r"(?i)memory"):
        sql_box.ask(catalog, "SELECT list(repeat('x', 1000) || range) FROM range(100000000)", seconds=60)


def test_more_rows_than_the_limit_are_cut_and_it_is_said(catalog: Catalog):
    answer = sql_box.ask(catalog, "SELECT range AS n FROM range(5000) ORDER BY n DESC")
    assert answer.cut
    assert answer.frame["n"].to_list() == list(range(4999, 3999, -1))
    exact = sql_box.ask(catalog, f"FROM range({sql_box.ROWS})")
    assert not exact.cut
    assert len(exact.frame) == sql_box.ROWS


def test_an_endless_question_is_refused_before_it_is_read(catalog: Catalog):
    with pytest.raises(ConfigError, match="longer"):
        sql_box.ask(catalog, "SELECT " + "1," * 20_000 + "1")


def test_tables_and_columns_are_described(catalog: Catalog):
    tables = {name: (about, columns) for name, about, columns in sql_box.described(catalog)}
    assert set(tables) == set(sql_box.NAMES)
    about, columns = tables["tiles"]
    assert about
    assert ("x_px", "BIGINT", "Left edge, level 0 [px]") in columns


def test_without_a_snapshot_the_remedy_is_named(tmp_path: Path):
    with pytest.raises(StudyError, match="pathassets publish") as caught:
        sql_box.ask(Catalog(Study(tmp_path)), "SELECT 1")
    assert caught.value.reason is Reason.FILE_MISSING
    assert list(tmp_path.iterdir()) == []
