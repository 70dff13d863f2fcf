"""Runs whose process is gone are ended and give back their place; a run that lives, or may live, is left alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import dagster as dg
import pytest

from pathassets.defs import processes
from pathassets.defs.processes import BORN_TAG, GONE, HOST_TAG, claim, dead_runs_sensor, process_tags, tidy_dead_runs


@pytest.fixture
def started(instance):
    """Makes a run that has begun, with the tags of a process."""

    @dg.job
    def work() -> None:
        pass

    def make(**tags: str) -> str:
        run = instance.create_run_for_job(work, tags=tags, status=dg.DagsterRunStatus.STARTED)
        return run.run_id

    return make


def tags_of_a_dead_process(run_id: str) -> dict[str, str]:
    """What a process that has ended since called itself."""
    code = (
        f"from pathassets.defs.processes import process_tags; import json; print(json.dumps(process_tags({run_id!r})))"
    )
    output = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    import json

    return json.loads(output.stdout)


def status(instance, run_id: str) -> dg.DagsterRunStatus:
    return instance.get_run_by_id(run_id).status


def test_a_run_that_lives_is_left_alone(instance, started):
    run_id = started()
    claim(instance, run_id)
    assert tidy_dead_runs(instance) == []
    assert status(instance, run_id) is dg.DagsterRunStatus.STARTED


def test_a_run_whose_process_has_ended_is_ended(instance, started):
    run_id = started()
    instance.add_run_tags(run_id, tags_of_a_dead_process(run_id))
    assert tidy_dead_runs(instance) == [run_id]
    assert status(instance, run_id) is dg.DagsterRunStatus.FAILURE
    assert GONE in str([entry.message for entry in instance.all_logs(run_id)])


def test_another_process_under_the_same_number_is_not_the_run_s(instance, started):
    run_id = started()
    tags = process_tags(run_id)
    born = tags[BORN_TAG].split(" ")
    instance.add_run_tags(run_id, {**tags, BORN_TAG: " ".join([*born[:3], "1"])})
    assert tidy_dead_runs(instance) == [run_id]


def test_a_machine_that_was_started_again_has_none_of_its_old_processes(instance, started):
    run_id = started()
    tags = process_tags(run_id)
    born = tags[BORN_TAG].split(" ")
    instance.add_run_tags(run_id, {**tags, BORN_TAG: " ".join([born[0], "another!", *born[2:]])})
    assert tidy_dead_runs(instance) == [run_id]


@pytest.mark.parametrize(
    "doubt", ["another host", "another container", "the tags of the run that it repeats", "no tags"]
)
def test_in_doubt_a_run_is_left_alone(instance, started, doubt):
    run_id = started()
    tags = tags_of_a_dead_process(run_id)
    born = tags[BORN_TAG].split(" ")
    if doubt == "another host":
        tags[HOST_TAG] = f"not-{socket.gethostname()}"
    elif doubt == "another container":
        tags[BORN_TAG] = " ".join([*born[:2], "4026532999", born[3]])
    elif doubt == "no tags":
        tags = {}
    else:
        tags = tags_of_a_dead_process("00000000-0000-0000-0000-000000000000")
    instance.add_run_tags(run_id, tags)
    assert tidy_dead_runs(instance) == []


def test_the_sensor_says_what_it_has_ended(instance, started):
    run_id = started()
    context = dg.build_sensor_context(instance=instance)
    assert dead_runs_sensor()(context).skip_message == "every run has its process"
    instance.add_run_tags(run_id, tags_of_a_dead_process(run_id))
    assert run_id in dead_runs_sensor()(context).skip_message


def test_a_process_that_was_never_there_was_never_born():
    assert processes._born(2**22 + 1) is None
    assert processes._born(os.getpid()) == processes._born(os.getpid())
