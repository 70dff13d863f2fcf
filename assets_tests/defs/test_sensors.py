"""The inbox sensor and the nightly schedule, tick by tick."""

from __future__ import annotations

import shutil

import dagster as dg

from pathassets.defs.partitions import add_slides
from pathassets.defs.schedules import missing_schedule
from pathassets.defs.sensors import inbox_sensor
from pathassets.steps.register import register
from pathassets.steps.session import Session


def tick(study, instance, cursor):
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    result = inbox_sensor(study)(context)
    return result, result.cursor if isinstance(result, dg.SensorResult) else context.cursor


def test_a_file_is_taken_when_it_has_lain_still_for_a_tick(study, instance, slide_file):
    shutil.copy(slide_file, study.home / "inbox" / "new.tiff")
    first, cursor = tick(study, instance, None)
    assert isinstance(first, dg.SkipReason)
    second, cursor = tick(study, instance, cursor)
    assert len(second.run_requests) == 1
    assert len(second.dynamic_partitions_requests[0].partition_keys) == 1
    third, _ = tick(study, instance, cursor)
    assert isinstance(third, dg.SkipReason)


def test_a_file_that_grows_is_left_alone(study, instance, slide_file):
    growing = study.home / "inbox" / "growing.tiff"
    growing.write_bytes(slide_file.read_bytes()[:1000])
    _, cursor = tick(study, instance, None)
    growing.write_bytes(slide_file.read_bytes()[:2000])
    result, cursor = tick(study, instance, cursor)
    assert isinstance(result, dg.SkipReason)
    result, _ = tick(study, instance, cursor)
    assert isinstance(result, dg.SensorResult)


def test_what_is_no_slide_is_registered_all_the_same(study, instance):
    (study.home / "inbox" / "bad.svs").write_text("no slide")
    _, cursor = tick(study, instance, None)
    result, _ = tick(study, instance, cursor)
    assert len(result.run_requests) == 1


def test_the_night_run_asks_for_what_is_missing(study, instance, slide_file):
    ids = [entry.slide_id for entry in register(Session(study), [slide_file])]
    add_slides(instance, ids)
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=None)
    from datetime import UTC, datetime

    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=datetime(2026, 1, 1, tzinfo=UTC))
    requests = missing_schedule(study).evaluate_tick(context).run_requests
    assert [request.tags["dagster/asset_partition_range_start"] for request in requests] == ids
