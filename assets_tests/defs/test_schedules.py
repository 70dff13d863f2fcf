"""The snapshot's schedule asks for a run only when one would do something: every run is kept for ever."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg

from pathassets.defs.jobs import RESULTS_JOB
from pathassets.defs.partitions import ARRIVED, NIGHTLY, QUICK, add_slides
from pathassets.defs.schedules import missing_schedule, snapshot_schedule
from pathassets.steps.publish import publish_results
from pathassets.steps.register import register
from pathassets.steps.session import Session


def tick(study, instance):
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=datetime(2026, 1, 1, tzinfo=UTC))
    return snapshot_schedule(study).evaluate_tick(context)


def test_a_snapshot_is_made_when_a_table_has_changed_and_not_again(study, instance, slide_file):
    register(Session(study), [slide_file])
    assert len(tick(study, instance).run_requests) == 1
    publish_results(Session(study))
    assert tick(study, instance).skip_message == "no table has changed"


def test_snapshots_do_not_queue_up_behind_each_other(study, instance, slide_file):
    register(Session(study), [slide_file])

    @dg.job(name=RESULTS_JOB)
    def waiting() -> None:
        pass

    instance.create_run_for_job(waiting, status=dg.DagsterRunStatus.STARTED)
    assert tick(study, instance).skip_message == "the last snapshot is not finished"


def test_what_is_missing_at_night_waits_for_slides_that_arrive(study, instance, slide_file):
    entries = register(Session(study), [slide_file])
    add_slides(instance, [entry.slide_id for entry in entries])
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=datetime(2026, 1, 1, tzinfo=UTC))
    [request] = missing_schedule(study).evaluate_tick(context).run_requests
    assert int(request.tags["dagster/priority"]) == NIGHTLY < 0 < ARRIVED < QUICK
