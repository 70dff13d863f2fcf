from __future__ import annotations

from pathlib import Path

import pytest

from pathassets.errors import ConfigError, Reason, StudyError
from pathassets.store.query import query
from pathassets.store.results import publish

from .conftest import SmallStudy


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published study, which no question may change."""
    study = SmallStudy(tmp_path_factory.mktemp("query") / "home")
    study.add("s-1")
    publish(study.root, study.home)
    (study.home / "secret.csv").write_text("a\n1\n")
    return study.home


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1", "  select 1 ; ", "-- a comment\nSELECT 1", "WITH a AS (SELECT 1) FROM a", "FROM slides", "VALUES (1)",
        "DESCRIBE tiles", "SHOW TABLES", "SUMMARIZE tiles", "EXPLAIN SELECT 1", "explain analyze from tiles",
        "TABLE slides", "PIVOT domains ON variant USING count(*)", "FROM live.tiles", "SELECT ';'",
    ],
)  # fmt: skip
def test_questions_are_answered(home: Path, sql: str):
    assert query(home, sql).width > 0


@pytest.mark.parametrize(
    "sql",
    [
        "", ";", "SELECT 1; SELECT 2", "INSERT INTO slides VALUES (1)", "DELETE FROM slides", "DROP TABLE slides",
        "CREATE TABLE x AS SELECT 1", "CREATE TYPE t AS ENUM ('a'); SELECT 1", "SET threads = 1", "PRAGMA version; SELECT 1",
        "ATTACH 'x.db'", "INSTALL httpfs", "COPY (SELECT 1) TO 'store/x.csv'", "USE memory", "EXPORT DATABASE 'x'",
        "CALL pragma_version(); SELECT 1", "EXPLAIN ANALYZE COPY (SELECT 1) TO 'store/x.csv'",
        "/* EXPLAIN SELECT */ EXPLAIN ANALYZE COPY (SELECT 1) TO 'store/x.csv'",
        "EXPLAIN (ANALYZE) COPY (SELECT 1) TO 'store/x.csv'", "VACUUM", "CHECKPOINT",
    ],
)  # fmt: skip
def test_what_is_no_single_question_is_refused(home: Path, sql: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(home)
    before = sorted(home.rglob("*"))
    with pytest.raises(ConfigError) as caught:
        query(home, sql)
    assert caught.value.remedy
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize(
    "function", ["read_csv('{}')", "read_text('{}')", "'{}'", "read_blob('/etc/passwd')", "glob('{}')"]
)
def test_only_the_store_can_be_read(home: Path, function: str):
    with pytest.raises(StudyError) as caught:
        query(home, f"FROM {function.format(home / 'secret.csv')}")
    assert "\n" not in str(caught.value)


def test_a_wrong_question_says_what_there_is(home: Path):
    with pytest.raises(ConfigError, match="slides, ") as caught:
        query(home, "FROM slide")
    assert "\n" not in caught.value.message
    with pytest.raises(ConfigError, match="DESCRIBE"):
        query(home, "SELECT pathh FROM slides")
    with pytest.raises(ConfigError, match="syntax"):
        query(home, "SELEC 1")


def test_without_a_snapshot_the_remedy_is_named(tmp_path: Path):
    with pytest.raises(StudyError, match="pathassets publish") as caught:
        query(tmp_path, "SELECT 1")
    assert caught.value.reason is Reason.FILE_MISSING
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_said(tmp_path: Path):
    (tmp_path / "results.duckdb").write_bytes(b"x" * 5000)
    with pytest.raises(StudyError, match="cannot be opened") as caught:
        query(tmp_path, "SELECT 1")
    assert caught.value.reason is Reason.STORE_CORRUPT


def test_asking_writes_nothing(home: Path):
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    query(home, "FROM live.tiles")
    query(home, "SELECT count(*) FROM tiles")
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before


def test_times_come_back_without_further_packages(home: Path):
    assert query(home, "SELECT created_at FROM slides").item().year >= 2026
