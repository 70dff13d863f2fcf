"""Runs on a Ray cluster of several nodes: a node that dies costs a run, which is tried again elsewhere, and no slide."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import pytest
from support.commands import answer, run_command
from support.daemon import dagster_running, instance_of, is_at_work, make_home, pool_is_empty, runs_of, wait_for
from support.postgres import PASSWORD, postgres_running
from support.ray_cluster import can_name_hosts, ray_running
from support.studies import TINY_ON_CPU

from pathassets.defs.processes import GONE, HOST_TAG, PID_TAG
from pathassets.slides.identity import slide_id
from pathassets.steps.session import Session

pytestmark = pytest.mark.e2e
SETTINGS = Path(__file__).resolve().parents[2] / "deploy" / "ray" / "dagster.yaml"
CONFIG = TINY_ON_CPU + "[resources]\ncpus = 1\n"
DONE, FAILED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE


@pytest.fixture
def cluster(short_path, tmp_path, monkeypatch):
    """PostgreSQL, and a Ray cluster whose nodes know of it."""
    with postgres_running(short_path / "pg") as server:
        environment = {**server.environment, "PATHASSETS_HOME": str(tmp_path / "home"), "PATHASSETS_DEVICE": "cpu"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with ray_running(short_path / "ray", environment) as running:
            monkeypatch.setenv("PATHASSETS_RAY_ADDRESS", running.address)
            yield running


def test_a_node_that_dies_costs_no_slide(cluster, tmp_path, slides):
    study = make_home(tmp_path / "home", SETTINGS.read_text(), CONFIG)
    cluster.start_worker("one")
    with instance_of(study) as instance, dagster_running(study.home) as log:
        with Session(study).root.lock(f"slide-{slide_id(slides[1])}"):  # the run waits for it, and can be met
            for path in slides:
                shutil.copy(path, study.home / "inbox")
            first = wait_for(lambda: next((run for run in runs_of(instance) if is_at_work(instance, run)), None), 600)
            wait_for(lambda: study.scan("domains").collect()["slide_id"].n_unique() == 1, 600)
            before = study.scan("embeddings").collect()
            tags = instance.get_run_by_id(first.run_id).tags
            assert cluster.node_of(int(tags[PID_TAG])) == "one"
            assert not can_name_hosts() or tags[HOST_TAG] == "node-one"
            cluster.start_worker("two")
            cluster.kill("one")
            wait_for(lambda: instance.get_run_by_id(first.run_id).status is FAILED, 600)
            second = wait_for(lambda: next((run for run in runs_of(instance)[1:] if is_at_work(instance, run)), None))
            assert second.parent_run_id == first.run_id
            pid = wait_for(lambda: _pid(instance, second.run_id))
            assert cluster.node_of(pid) == "two"
        wait_for(lambda: instance.get_run_by_id(second.run_id).status is DONE, 600)
        assert [run.status for run in runs_of(instance)] == [FAILED, DONE], log.read_text()[-3000:]
        wait_for(lambda: pool_is_empty(instance))
        said = " ".join(str(entry.message) for entry in instance.all_logs(first.run_id))
        made = instance.get_materialized_partitions(dg.AssetKey(["small", "tiny", "embeddings"]))
        jobs = cluster.jobs()
    assert "Ray job" in said, "noticed by Ray"
    assert GONE not in said or not can_name_hosts(), "another machine's process is not this one's business"
    assert made == {slide_id(path) for path in slides}
    now = study.scan("embeddings").collect()
    assert now.height == 2
    assert set(before["digest"]) <= set(now["digest"]), "what the dead node had finished stays"
    assert len([job for job in jobs if "dagster/run-id" in job["metadata"]]) >= 2
    assert PASSWORD not in str(jobs), "Ray shows its jobs to everybody"
    assert run_command("run", "--home", study.home).returncode == 0
    assert answer(study.home, "SELECT count(*) AS n FROM embeddings") == [{"n": 2}]


def _pid(instance: dg.DagsterInstance, run_id: str) -> int | None:
    """The process of a run that has begun; before, it bears the tags of the run before it."""
    tags = instance.get_run_by_id(run_id).tags
    return int(tags[PID_TAG]) if tags.get("pathassets/born", "").startswith(run_id) else None
