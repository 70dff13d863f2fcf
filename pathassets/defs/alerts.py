"""The alert sensor: a run that has failed is reported to a web address, where one is given.

Belongs here: noticing, and finding out which slides it was. Does not belong: what is said and how it is sent (`steps/alert`).
"""

from __future__ import annotations

import re

import dagster as dg

from pathassets.config import Study
from pathassets.environment import alert_webhook
from pathassets.steps.alert import failed_run, post
from pathassets.steps.session import Session

COUNT = re.compile(r"(\d+) of \d+ slides failed")


def alert_sensors(study: Study) -> list[dg.SensorDefinition]:
    """The alert sensor; none where PATHASSETS_ALERT_WEBHOOK is not set."""
    return [alert_sensor(study)] if alert_webhook() else []


def alert_sensor(study: Study) -> dg.SensorDefinition:
    """A sensor over the failed runs of this study's jobs."""

    @dg.run_failure_sensor(
        name="alerts",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports failed runs to PATHASSETS_ALERT_WEBHOOK: ids, reasons and remedies.",
    )
    def _alerts(context: dg.RunFailureSensorContext) -> None:
        url = alert_webhook()
        if url is None:
            return
        try:
            problem = post(url, payload_of(study, context))
        except Exception as error:
            context.log.warning(f"no alert for run {context.dagster_run.run_id} could be written", exc_info=error)
            return
        if problem:
            context.log.warning(f"the alert for run {context.dagster_run.run_id} was not delivered: {problem}")

    return _alerts


def payload_of(study: Study, context: dg.RunFailureSensorContext) -> dict[str, object]:
    """What is said of the run that has failed."""
    slide_ids: list[str] = []
    n_slides = 0
    for event in context.get_step_failure_events():
        failure = event.step_failure_data.user_failure_data
        if failure is not None:
            slide_ids += list(failure.metadata)
            n_slides += sum(map(int, COUNT.findall(failure.description or "")))
    message = context.failure_event.message or ""
    return failed_run(
        Session(study),
        run_id=context.dagster_run.run_id,
        job=context.dagster_run.job_name,
        error=(message.splitlines() or [""])[0],
        slide_ids=slide_ids,
        n_slides=n_slides,
    )
