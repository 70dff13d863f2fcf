"""Which process does a run's work, so that a run whose process is gone can be ended.

Belongs here: the tags that name a run's process, and ending runs that have lost theirs. Does not belong: starting runs.

A killed run looks like a working one for ever: Dagster's own launcher on one machine cannot ask whether a run's process
lives, and a run of the command line has no launcher. It would keep its place in the queue and in the pool of the device.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import dagster as dg
import psutil

PID_TAG = "pathassets/pid"
HOST_TAG = "pathassets/host"
BORN_TAG = "pathassets/born"  # the number of a process is used again after a restart; its birth is not
GONE = "The process of this run is gone (killed, or the machine went down)."


def process_tags(run_id: str) -> dict[str, str]:
    """Tags of a run that this process carries out."""
    pid = os.getpid()
    born = [run_id, *_machine(), _born(pid) or "-"]
    return {PID_TAG: str(pid), HOST_TAG: socket.gethostname(), BORN_TAG: " ".join(born)}


def claim(instance: dg.DagsterInstance, run_id: str) -> None:
    """Notes this process as the one that carries out a run. Right for executors that work in the run's own process."""
    instance.add_run_tags(run_id, process_tags(run_id))


def tidy_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Ends runs of this machine whose process is gone, and gives back what they held in pools.

    Returns:
        The ended runs.
    """
    active = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    dead = [run for run in instance.get_runs(active) if _is_dead(run)]
    for run in dead:
        instance.report_run_failed(run, GONE)
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.run_id for run in dead]


def dead_runs_sensor() -> dg.SensorDefinition:
    """Looks for dead runs every minute."""

    @dg.sensor(
        name="dead_runs",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Ends runs whose process on this machine is gone, so that they hold up nobody.",
    )
    def _dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        ended = tidy_dead_runs(context.instance)
        return dg.SkipReason(f"ended {', '.join(ended)}" if ended else "every run has its process")

    return _dead_runs


def _is_dead(run: dg.DagsterRun) -> bool:
    pid, noted = run.tags.get(PID_TAG), run.tags.get(BORN_TAG, "").split(" ")
    if not pid or run.tags.get(HOST_TAG) != socket.gethostname():
        return False  # not known, or another machine's business
    if len(noted) != 4 or noted[0] != run.run_id:
        return False  # a run that is tried again bears the tags of the one before it until it has begun
    boot, namespace = _machine()
    if noted[1] != boot:
        return True  # the machine has been started again since
    # Two containers may share a name and a machine and yet not see each other's processes.
    return noted[2] == namespace and noted[3] != _born(int(pid))


def _machine() -> tuple[str, str]:
    """This start of the machine, and the space in which process numbers mean something; "-" where they cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        return boot, str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return "-", "-"


def _born(pid: int) -> str | None:
    """When a process began, in a form that clocks do not move; None when there is no such process."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        if not psutil.LINUX:
            return str(int(process.create_time()))
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return None
