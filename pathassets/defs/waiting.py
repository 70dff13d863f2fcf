"""Waiting for a place in a pool before a run of the command line begins.

Belongs here: that wait. Does not belong: which pools there are.

Dagster would wait too, but without a pause between its questions, without a word, and for ever where the process that has
the place was killed, unless the daemon tidies.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import dagster as dg

from pathassets.defs.processes import HOST_TAG, PID_TAG, tidy_dead_runs

PAUSE_SECONDS = 1.0
_WHAT = {"gpu": "the device", "publish": "results.duckdb"}


def wait_for_places(instance: dg.DagsterInstance, job: dg.JobDefinition, waits: Callable[[str, str], None]) -> None:
    """Returns when every pool of a job has a place; another run may still take it first, and is then waited for by Dagster.

    Args:
        instance: Dagster's instance; runs whose process is gone are ended in it.
        job: The job that is to be run.
        waits: Told once for each holder: for what is waited, and who has it.
    """
    told: set[str] = set()
    for pool in sorted({node.pool for node in job.all_node_defs if isinstance(node, dg.OpDefinition) and node.pool}):
        while holders := _holders(instance, pool):
            for holder in holders - told:
                waits(_WHAT.get(pool, pool), holder)
            told |= holders
            time.sleep(PAUSE_SECONDS)


def _holders(instance: dg.DagsterInstance, pool: str) -> set[str]:
    """Who has the places of a pool that has none left, in words; empty where there is one."""
    tidy_dead_runs(instance)
    info = instance.event_log_storage.get_concurrency_info(pool)
    if info.limit is None or info.active_slot_count < info.limit:
        return set()
    return {_process_of(instance, run_id) for run_id in info.active_run_ids}


def _process_of(instance: dg.DagsterInstance, run_id: str) -> str:
    run = instance.get_run_by_id(run_id)
    tags = {} if run is None else run.tags
    return f"process {tags[PID_TAG]} on {tags[HOST_TAG]}" if PID_TAG in tags else f"Dagster's run {run_id}"
