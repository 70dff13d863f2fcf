"""A study's Dagster as `pathassets dev` runs it, and what can be seen of it from outside."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from dagster._core.instance.ref import InstanceRef

from pathassets import Study
from pathassets.config import init_home
from support.commands import PATHASSETS
from support.studies import TINY_ON_CPU

# The settings of every study, with less waiting.
HASTE = (("poll_interval_seconds: 60", "poll_interval_seconds: 3"), ("run_end_seconds: 60", "run_end_seconds: 3"))


def make_home(home: Path, settings: str | None = None, config: str = TINY_ON_CPU) -> Study:
    """A study with a tiny encoder, and Dagster's settings (`settings`, or those of every study) in a hurry."""
    init_home(home)
    (home / "pathassets.toml").write_text(config)
    path = home / ".dagster" / "dagster.yaml"
    text = settings or path.read_text()
    for slow, fast in HASTE:
        assert slow in text
        text = text.replace(slow, fast)
    path.write_text(text)
    return Study(home)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(what: Callable[[], Any], seconds: float = 300.0) -> Any:
    """The first true answer of `what`; the test fails when there is none for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.5)
    return pytest.fail(f"nothing for {seconds} s")


@contextmanager
def dagster_running(home: Path, environment: Mapping[str, str] | None = None) -> Iterator[Path]:
    """Dagster's UI and daemon for the study in `home`; gives the file that takes what they say. All of it is ended."""
    port, log = free_port(), home.parent / f"{home.name}.log"
    command = [*PATHASSETS, "dev", "--home", str(home), "--port", str(port), "--dashboard-port", "0"]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, **(environment or {})}, start_new_session=True
        )
    try:
        wait_for(lambda: answers(port) or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield log
    finally:
        _end(process)


def answers(port: int) -> bool:
    """Whether Dagster's UI can be asked."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


def _end(process: subprocess.Popen) -> None:
    family = _family(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
    for one in psutil.wait_procs(family, timeout=10)[1]:
        one.kill()


def _family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@contextmanager
def instance_of(study: Study) -> Iterator[dg.DagsterInstance]:
    """The study's Dagster instance, to look at."""
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(study.dagster_home))) as instance:
        yield instance


def runs_of(instance: dg.DagsterInstance, job: str = "slides") -> list[dg.DagsterRun]:
    """Runs of a job, the first one first."""
    return list(reversed(instance.get_runs(dg.RunsFilter(job_name=job))))


def is_at_work(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the run holds its place in the pool of the device."""
    held = instance.event_log_storage.get_concurrency_info("gpu").claimed_slots
    return run.run_id in {slot.run_id for slot in held}


def pool_is_empty(instance: dg.DagsterInstance) -> bool:
    """Whether nobody holds a place in the pool of the device."""
    return not instance.event_log_storage.get_concurrency_info("gpu").claimed_slots
