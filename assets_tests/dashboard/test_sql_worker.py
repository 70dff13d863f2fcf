"""Questions that DuckDB's own limits do not stop cost the process that answers them, and nobody else."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from pathassets.config import Study
from pathassets.dashboard import sql_box, sql_worker
from pathassets.dashboard.catalog import Catalog
from pathassets.dashboard.sql_worker import Worker
from pathassets.errors import ConfigError, StudyError

from .conftest import Finished


@pytest.fixture(scope="module")
def worker(finished: Finished):
    found = Worker(finished.study.home)
    yield found
    found.end()


def test_it_answers_as_the_box_itself(worker: Worker, catalog: Catalog):
    for sql in ("FROM slides", "SELECT [1, 2] AS a, {'b': NULL} AS c, 1::DECIMAL(9, 2) AS d", "FROM range(5000)"):
        one, other = worker.ask(sql), sql_box.ask(catalog, sql)
        assert (one.cut, one.frame.schema) == (other.cut, other.frame.schema)
        assert one.frame.equals(other.frame)


@pytest.mark.parametrize(
    "sql", ["DROP TABLE slides", "SELECT * FROM read_csv('/etc/passwd')", "SELECT '\ud800'", "SELEC"]
)
def test_it_refuses_in_the_boxs_words(worker: Worker, catalog: Catalog, sql: str):
    told = []
    for ask in (worker.ask, lambda text: sql_box.ask(catalog, text)):
        with pytest.raises(ConfigError) as refused:
            ask(sql)
        told.append((refused.value.message, refused.value.remedy))
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT length(string_agg(repeat('x', 100000000), '')) FROM range(60)",
        pytest.param("SELECT repeat('x', 2000000000) AS a, repeat('y', 2000000000) AS b", marks=pytest.mark.e2e),
        "SELECT repeat('x', 1000000) FROM range(900)",
        "WITH RECURSIVE r(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM r) SELECT max(length(s)) FROM r",
    ],
)
def test_what_would_take_the_memory_of_the_machine_is_stopped(worker: Worker, sql: str):
    with pytest.raises(ConfigError):
        worker.ask(sql)
    if worker._process is not None and worker._process.poll() is None:
        assert psutil.Process(worker._process.pid).memory_info().rss < 2 * sql_worker.MEMORY_BYTES
    assert worker.ask("SELECT 42 AS n").frame["n"][0] == 42, "and the next question is answered"


def test_what_does_not_let_itself_be_interrupted_is_ended(worker: Worker, monkeypatch: pytest.MonkeyPatch):
    worker.ask("SELECT 1")
    assert worker._process is not None
    old = worker._process.pid
    monkeypatch.setattr(sql_worker, "GRACE_SECONDS", 0.5)
    os.kill(old, signal.SIGSTOP)
    with pytest.raises(ConfigError, match="stopped after"):
        worker.ask("SELECT 1", seconds=0.5)
    assert not psutil.pid_exists(old)
    assert worker.ask("SELECT 42 AS n").frame["n"][0] == 42


def test_a_process_that_was_killed_is_started_again(worker: Worker):
    worker.ask("SELECT 1")
    assert worker._process is not None
    worker._process.kill()
    worker._process.wait()
    assert worker.ask("SELECT 42 AS n").frame["n"][0] == 42


def test_it_ends_with_whoever_asks(finished: Finished):
    other = Worker(finished.study.home)
    other.ask("SELECT 1")
    process = other._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0


def test_a_study_without_a_snapshot_says_so(tmp_path):
    with pytest.raises(StudyError, match="published"):
        sql_worker.ask_worker(Catalog(Study(tmp_path)), "SELECT 1")
    sql_worker._WORKERS.pop(tmp_path).end()


def test_a_long_question_holds_up_nobody_else(finished: Finished, monkeypatch: pytest.MonkeyPatch):
    """Two readers: the one asks something that takes as long as this test wants, the other is answered meanwhile."""
    begun, go_on = threading.Event(), threading.Event()
    answer = Worker.ask

    def slow(worker: Worker, sql: str) -> sql_box.Answer:
        if sql == "SELECT 1":
            begun.set()
            assert go_on.wait(60)
        return answer(worker, sql)

    monkeypatch.setattr(Worker, "ask", slow)
    workers = sql_worker.Workers(finished.study.home)
    with ThreadPoolExecutor(sql_worker.AT_ONCE) as readers:
        long = []
        for _ in range(sql_worker.AT_ONCE):
            assert workers.ask("SELECT 42 AS n").frame["n"][0] == 42
            begun.clear()
            long.append(readers.submit(workers.ask, "SELECT 1"))
            assert begun.wait(60)
        with pytest.raises(ConfigError, match="other questions") as busy:
            workers.ask("SELECT 42")
        assert "again" in busy.value.remedy
        go_on.set()
        assert [len(one.result().frame) for one in long] == [1] * sql_worker.AT_ONCE
    assert workers.ask("SELECT 42 AS n").frame["n"][0] == 42, "who is done answers again"
    workers.end()


def test_workers_start_when_they_are_needed(finished: Finished):
    workers = sql_worker.Workers(finished.study.home)
    for _ in range(3):
        workers.ask("SELECT 1")
    assert sum(worker._process is not None for worker in workers._all) == 1
    workers.end()
