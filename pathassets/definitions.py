"""Dagster's entrance: one screenful that says what a study consists of.

`dagster dev -m pathassets.definitions` loads the study in PATHASSETS_HOME, or in the current directory.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from pathassets.config import Study
from pathassets.defs.alerts import alert_sensors
from pathassets.defs.automation import automation_sensor
from pathassets.defs.cohort_assets import cohort_assets
from pathassets.defs.export_assets import export_assets
from pathassets.defs.jobs import jobs
from pathassets.defs.keeping import keeping_jobs, keeping_schedules, store_check
from pathassets.defs.loggers import begin_logs, loggers
from pathassets.defs.processes import dead_runs_sensor
from pathassets.defs.report_asset import report_asset
from pathassets.defs.resources import StudyResource
from pathassets.defs.schedules import schedules
from pathassets.defs.sensors import inbox_sensor
from pathassets.defs.slide_assets import slide_chain

# Backfill policies and pools are what this project needs of Dagster's beta; it says so at every import otherwise.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)


def build_defs(study: Study, overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Everything Dagster knows about `study`.

    Args:
        study: The settings.
        overrides: Resources to use instead of the study's own, by name.
    """
    return dg.Definitions(
        assets=[slide_chain(study), *cohort_assets(study), report_asset(study), *export_assets(study)],
        asset_checks=[store_check()],
        jobs=[*jobs(study), *keeping_jobs()],
        sensors=[inbox_sensor(study), automation_sensor(study), dead_runs_sensor(), *alert_sensors(study)],
        schedules=[*schedules(study), *keeping_schedules()],
        resources={"study": StudyResource(home=str(study.home)), **(overrides or {})},
        executor=dg.in_process_executor,
        loggers=loggers(),
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The study of this process's home folder."""
    begin_logs()
    return build_defs(Study())
