"""The snapshot's schedule asks for a run only when one would do something: every run is kept for ever."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest

from pathassets.defs.jobs import RESULTS_JOB, SLIDES_JOB
from pathassets.defs.partitions import ARRIVED, NIGHTLY, QUICK, add_slides, range_tags
from pathassets.defs.schedules import missing_schedule, snapshot_schedule
from pathassets.steps.publish import publish_results
from pathassets.steps.register import register
from pathassets.steps.session import Session


@pytest.fixture
def instance(instance_on_disk):
    return instance_on_disk


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


def missing(study, instance):
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=datetime(2026, 1, 1, tzinfo=UTC))
    return missing_schedule(study).evaluate_tick(context)


@pytest.fixture
def arrived(study, instance, slide_file, tmp_path):
    """Two slides of which nothing has been made."""
    (tmp_path / "other.tiff").write_bytes(b"no slide")
    slide_ids = [entry.slide_id for entry in register(Session(study), [slide_file, tmp_path / "other.tiff"])]
    add_slides(instance, slide_ids)
    return slide_ids


def test_what_is_missing_at_night_waits_for_slides_that_arrive(study, instance, arrived):
    [request] = missing(study, instance).run_requests
    assert int(request.tags["dagster/priority"]) == NIGHTLY < 0 < ARRIVED < QUICK


@pytest.mark.parametrize(
    ("status", "tags", "in_hand"),
    [
        (dg.DagsterRunStatus.NOT_STARTED, {}, True),
        (dg.DagsterRunStatus.STARTED, {}, True),
        (dg.DagsterRunStatus.FAILURE, {"dagster/will_retry": "true"}, True),
        (dg.DagsterRunStatus.FAILURE, {"dagster/will_retry": "true", "dagster/auto_retry_run_id": "1"}, False),
        (dg.DagsterRunStatus.FAILURE, {}, False),
        (dg.DagsterRunStatus.SUCCESS, {}, False),
    ],
)
def test_a_slide_that_a_run_has_in_hand_is_not_asked_for_at_night(study, instance, arrived, status, tags, in_hand):
    @dg.job(name=SLIDES_JOB)
    def slides() -> None:
        pass

    instance.create_run_for_job(slides, status=status, tags={**range_tags(arrived[:1]), **tags})
    [request] = missing(study, instance).run_requests
    first = request.tags["dagster/asset_partition_range_start"]
    assert first == arrived[1 if in_hand else 0]


def test_no_run_is_asked_for_when_every_slide_is_in_a_backfill_already(study, instance, arrived):
    @dg.job
    def backfill() -> None:
        pass

    for slide_id in arrived:
        instance.create_run_for_job(
            backfill, status=dg.DagsterRunStatus.STARTING, tags={"dagster/partition": slide_id, "dagster/backfill": "b"}
        )
    assert not missing(study, instance).run_requests
