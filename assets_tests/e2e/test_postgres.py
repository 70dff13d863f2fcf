"""Dagster's state in a real PostgreSQL: the command line and the daemon work, and a server that goes away costs no slide."""

from __future__ import annotations

import shutil
import time

import dagster as dg
import pytest
from support.commands import run_command
from support.daemon import dagster_running, instance_of, is_at_work, make_home, pool_is_empty, runs_of, wait_for
from support.postgres import PASSWORD, SETTINGS, postgres_running

from pathassets.slides.identity import slide_id
from pathassets.steps.session import Session

pytestmark = pytest.mark.e2e
DONE = dg.DagsterRunStatus.SUCCESS


@pytest.fixture
def server(short_path, monkeypatch):
    with postgres_running(short_path / "pg") as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def study(tmp_path, server):
    return make_home(tmp_path / "home", SETTINGS.read_text())


def test_the_command_line_keeps_its_runs_in_postgres(study, slides):
    run = run_command("run", *slides, "--home", study.home)
    assert run.returncode == 0, run.stdout + run.stderr
    with instance_of(study) as instance:
        assert "Postgres" in type(instance.run_storage).__name__
        assert [found.status for found in runs_of(instance)] == [DONE]
        done = instance.get_materialized_partitions(dg.AssetKey(["small", "tiny", "embeddings"]))
        assert done == {slide_id(path) for path in slides}
    assert not (study.dagster_home / "history").exists(), "nothing in SQLite beside it"
    doctor = run_command("doctor", "--home", study.home)
    assert "Postgres, 2 runs" in doctor.stdout
    files = [path.read_bytes() for path in study.home.rglob("*") if path.is_file()]
    assert not [content for content in files if PASSWORD.encode() in content], "the password stays in the environment"


def test_a_server_that_is_away_is_said_to_be_away_and_nothing_is_touched(study, server, slides):
    server.stop()
    run = run_command("run", slides[0], "--home", study.home)
    assert run.returncode == 2, run.stdout + run.stderr
    assert PASSWORD not in run.stdout + run.stderr
    assert study.scan("embeddings").collect().height == 0
    server.start()
    assert run_command("run", slides[0], "--home", study.home).returncode == 0


def test_a_server_that_goes_away_during_a_run_of_the_daemon_costs_no_slide(study, server, slides):
    with instance_of(study) as instance, dagster_running(study.home) as log:
        shutil.copy(slides[1], study.home / "inbox")
        wait_for(lambda: [run.status for run in runs_of(instance)] == [DONE])
        before = study.scan("embeddings").collect()
        with Session(study).root.lock(f"slide-{slide_id(slides[0])}"):  # the run waits for it, and can be met
            shutil.copy(slides[0], study.home / "inbox")
            met = wait_for(lambda: next((run for run in runs_of(instance)[1:] if is_at_work(instance, run)), None))
            server.stop()
            time.sleep(8.0)
        time.sleep(8.0)  # the run goes on without a database, and fails or waits
        server.start()
        wait_for(lambda: instance.get_run_by_id(met.run_id).is_finished)
        assert run_command("run", "--home", study.home).returncode == 0, log.read_text()[-3000:]
        wait_for(lambda: pool_is_empty(instance))
        # What the run could not say of a slide while nobody listened is in the store, and said now.
        assert run_command("adopt", "--home", study.home).returncode == 0
        done = instance.get_materialized_partitions(dg.AssetKey(["small", "tiny", "embeddings"]))
    assert done == {slide_id(path) for path in slides}
    now = study.scan("embeddings").collect()
    assert set(before["digest"]) <= set(now["digest"])
    assert now.height == 2
