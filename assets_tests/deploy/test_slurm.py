"""The batch script's body: two jobs of an array at once on one study, as Slurm would start them, without Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import dagster as dg
import pytest
from support.commands import answer
from support.daemon import instance_of, make_home, runs_of
from support.postgres import SETTINGS, postgres_running

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "slurm"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two slides and a file that is none."""
    from pathassets.slides.synthetic import synthetic_slide

    folder = tmp_path / "in"
    folder.mkdir()
    for seed in (1, 2):
        synthetic_slide(folder / f"synthetic_{seed}.tiff", seed=seed, width_px=2048, height_px=1792)
    (folder / "bad.svs").write_text("no slide")
    return folder


def start_job(task: int, lists: Path, home: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **environment, "PATH": path, "SLURM_ARRAY_TASK_ID": str(task)}
    command = ["bash", str(FOLDER / "array.sbatch"), str(lists), str(home)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.e2e
def test_two_jobs_of_an_array_share_a_study(tmp_path, folder):
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="pa-", ignore_cleanup_errors=True) as short:
        Path(short).chmod(0o755)
        with postgres_running(Path(short) / "pg") as server, pytest.MonkeyPatch.context() as patch:
            for name, value in server.environment.items():
                patch.setenv(name, value)
            study = make_home(tmp_path / "home", SETTINGS.read_text())
            share_out(folder, 2, tmp_path / "lists")
            jobs = [start_job(task, tmp_path / "lists", study.home, server.environment) for task in (0, 1)]
            outputs = [one.communicate(timeout=900)[0] for one in jobs]
            assert sorted(one.returncode for one in jobs) == [0, 1], outputs
            with instance_of(study) as instance:
                states = [run.status for run in runs_of(instance)]
            assert set(states) == {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS}
            assert answer(study.home, "SELECT count(*) AS n FROM embeddings") == [{"n": 2}]
            assert answer(study.home, "SELECT count(*) AS n FROM outcomes WHERE status = 'failed'") == [{"n": 1}]


def share_out(folder: Path, n: int, lists: Path) -> None:
    command = ["bash", str(FOLDER / "lists.sh"), str(folder), str(n), str(lists)]
    subprocess.run(command, check=True, capture_output=True)


def test_slides_are_shared_out_by_size_and_each_once(tmp_path):
    folder = tmp_path / "in"
    (folder / "below").mkdir(parents=True)
    sizes = {"a b.svs": 900, "below/b.tiff": 500, "c.NDPI": 400, "d.svs": 10, "notes.txt": 5000}
    for name, size in sizes.items():
        (folder / name).write_bytes(b"x" * size)
    share_out(folder, 2, tmp_path / "lists")
    lists = [(tmp_path / "lists" / f"{k}.txt").read_text().splitlines() for k in (0, 1)]
    names = [{str(Path(path).relative_to(folder)) for path in one} for one in lists]
    assert names == [{"a b.svs", "d.svs"}, {"below/b.tiff", "c.NDPI"}]


@pytest.mark.parametrize("arguments", [[], ["lists"]])
def test_a_job_that_was_not_told_what_to_do_says_how(arguments):
    run = subprocess.run(
        ["bash", str(FOLDER / "array.sbatch"), *arguments], capture_output=True, text=True, check=False
    )
    assert run.returncode != 0
    assert "usage" in run.stderr


def test_a_study_with_sqlite_is_refused(tmp_path):
    make_home(tmp_path / "home")
    (tmp_path / "0.txt").write_text("")
    job = start_job(0, tmp_path, tmp_path / "home", {})
    assert "deploy/postgres/dagster.yaml" in job.communicate()[0]
    assert job.returncode == 2
