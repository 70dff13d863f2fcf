"""Schedules: the snapshot every few minutes, the cohort and whatever is missing at night.

Belongs here: when. Does not belong: what (`jobs`).
"""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from pathassets.config import Study
from pathassets.defs.export_assets import EXPORT_JOB
from pathassets.defs.jobs import COHORT_JOB, RESULTS_JOB, SLIDES_JOB
from pathassets.defs.partitions import NIGHTLY, UNFINISHED, batches, run_requests, slides_at_work
from pathassets.defs.report_asset import REPORT_JOB
from pathassets.steps.chain import pending
from pathassets.steps.nodes import chain
from pathassets.steps.publish import is_stale
from pathassets.steps.register import missing_slides
from pathassets.steps.session import Session


def schedules(study: Study) -> list[dg.ScheduleDefinition]:
    """`snapshot` every five minutes, `cohort_nightly` at 05:00, `missing_nightly` at 01:00; `report_nightly`, once switched on;
    `exports_nightly`, where the settings name a format."""
    running = dg.DefaultScheduleStatus.RUNNING
    exports = dg.ScheduleDefinition(
        name="exports_nightly",
        job_name=EXPORT_JOB,
        cron_schedule="30 6 * * *",
        default_status=running,
        description="Brings the exports that pathassets.toml names up to date, in the folder exports.",
    )
    return [
        snapshot_schedule(study),
        dg.ScheduleDefinition(
            name="cohort_nightly",
            job_name=COHORT_JOB,
            cron_schedule="0 5 * * *",
            default_status=running,
            description="Maps over all slides, then the snapshot.",
        ),
        dg.ScheduleDefinition(
            name="report_nightly",
            job_name=REPORT_JOB,
            cron_schedule="0 6 * * *",
            default_status=dg.DefaultScheduleStatus.STOPPED,
            description="Reports of the study and of the slides that have changed, into the folder reports. Switch it on here.",
        ),
        *([exports] if study.exports else []),
        missing_schedule(study),
    ]


def snapshot_schedule(study: Study) -> dg.ScheduleDefinition:
    """Every five minutes, unless nothing has changed or the last one is still waiting: each run is kept for ever."""

    @dg.schedule(
        name="snapshot",
        job_name=RESULTS_JOB,
        cron_schedule="*/5 * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Publishes results.duckdb when a table has changed.",
    )
    def _snapshot(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        unfinished = dg.RunsFilter(job_name=RESULTS_JOB, statuses=UNFINISHED)
        if context.instance.get_runs_count(unfinished):
            return dg.SkipReason("the last snapshot is not finished")
        if not is_stale(Session(study)):
            return dg.SkipReason("no table has changed")
        return dg.RunRequest()

    return _snapshot


def missing_schedule(study: Study) -> dg.ScheduleDefinition:
    """Every night, the slides that lack a current result and that no run has in hand."""

    @dg.schedule(
        name="missing_nightly",
        job_name=SLIDES_JOB,
        cron_schedule="0 1 * * *",
        default_status=dg.DefaultScheduleStatus.STOPPED if study.automation else dg.DefaultScheduleStatus.RUNNING,
        description="Materialises what is missing or out of date; not needed where `automation = true`.",
    )
    def _missing(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        session = Session(study)
        nodes = chain(study)
        keys = context.instance.get_dynamic_partitions("slides")
        passed_over = missing_slides(session) | slides_at_work(context.instance, keys).keys()
        late = [slide_id for slide_id in keys if slide_id not in passed_over and pending(session, slide_id, nodes)]
        if not late:
            yield dg.SkipReason("every slide is up to date, missing or at work")
        moment = context.scheduled_execution_time.isoformat()
        groups = batches(keys, late, study.slides_per_run)
        yield from run_requests(groups, job_name=SLIDES_JOB, run_key=moment, priority=NIGHTLY)

    return _missing
