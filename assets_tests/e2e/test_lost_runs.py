"""The real daemon and runs that die: their place in the pool comes back, they are tried again once, nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import dagster as dg
import pytest
from support.commands import PATHASSETS
from support.daemon import dagster_running, instance_of, is_at_work, make_home, pool_is_empty, runs_of, wait_for

from pathassets.defs.processes import PID_TAG
from pathassets.slides.identity import slide_id
from pathassets.steps.session import Session

pytestmark = pytest.mark.e2e
DONE, FAILED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE


def test_a_killed_run_gives_back_its_place_and_is_tried_again_once(tmp_path, slides):
    study = make_home(tmp_path / "home")
    with instance_of(study) as instance, dagster_running(study.home):
        with Session(study).root.lock(f"slide-{slide_id(slides[0])}"):  # the run waits for it, and can be met
            shutil.copy(slides[0], study.home / "inbox")
            first = wait_for(lambda: next((run for run in runs_of(instance) if is_at_work(instance, run)), None))
            pid = int(wait_for(lambda: instance.get_run_by_id(first.run_id).tags.get(PID_TAG)))
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: instance.get_run_by_id(first.run_id).status is FAILED)
            second = wait_for(lambda: next((run for run in runs_of(instance)[1:] if is_at_work(instance, run)), None))
            assert second.parent_run_id == first.run_id
        wait_for(lambda: instance.get_run_by_id(second.run_id).status is DONE)
        wait_for(lambda: pool_is_empty(instance))
        assert [run.status for run in runs_of(instance)] == [FAILED, DONE], "tried again once"
    assert study.scan("domains").collect().height > 0


def test_a_failed_slide_is_not_tried_again(tmp_path):
    study = make_home(tmp_path / "home")
    with instance_of(study) as instance, dagster_running(study.home):
        (study.home / "inbox" / "bad.svs").write_text("no slide")
        run = wait_for(lambda: next((run for run in runs_of(instance) if run.status is FAILED), None))
        said = "failed due to an asset or op failure"
        wait_for(lambda: said in str([entry.message for entry in instance.all_logs(run.run_id)]))
        assert len(runs_of(instance)) == 1


def test_a_run_of_the_command_line_that_was_killed_does_not_hold_up_the_daemon(tmp_path, slides):
    study = make_home(tmp_path / "home")
    with Session(study).root.lock(f"slide-{slide_id(slides[0])}"):
        process = start_run(study.home, slides[0])
        with instance_of(study) as instance:
            killed = wait_for(lambda: next((run for run in runs_of(instance) if is_at_work(instance, run)), None))
            process.kill()
            process.wait()
            assert instance.get_run_by_id(killed.run_id).status is dg.DagsterRunStatus.STARTED, "nobody has noticed"
    with instance_of(study) as instance, dagster_running(study.home):
        shutil.copy(slides[1], study.home / "inbox")
        wait_for(lambda: runs_of(instance)[-1].status is DONE)
        assert [run.status for run in runs_of(instance)] == [FAILED, DONE], "whoever started it starts it again"


def start_run(home: Path, slide: Path) -> subprocess.Popen:
    command = [*PATHASSETS, "run", str(slide), "--home", str(home)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
