"""Automation: when Dagster asks for a slide's assets by itself, and how often it tries again.

Belongs here: the condition on the per-slide assets, and the sensor that evaluates it. Does not belong: what a run does.

A slide is asked for when there is a cause: it is new, its recipe, code or weights have changed, or something it is made from
has. What fails is asked for once more and then left alone until there is a new cause: a slide that cannot be read stays as it
is, and a share that was away for a moment costs nobody a morning. Many slides are asked for as one backfill, which
`BackfillPolicy.multi_run` cuts into batches, so that a backlog loads its encoder once in `slides_per_run` slides.
"""

from __future__ import annotations

import dagster as dg
from dagster import AutomationCondition as When
from dagster._core.storage.tags import PRIORITY_TAG

from pathassets.config import Study
from pathassets.defs.demands import demand_tags
from pathassets.defs.partitions import ARRIVED
from pathassets.steps.nodes import chain

LABEL = "slide_chain"
SENSOR = "automation"


def slide_chain_condition(study: Study) -> dg.AutomationCondition[dg.AssetKey]:
    """The condition on every per-slide asset of a study; Dagster's UI shows its parts by their labels.

    Only assets of the chain count as something that a slide is made from: term embeddings are made on the way where they
    are not there, and new terms are a new code version of text similarity. Every part is evaluated for every asset in every
    tick, so there are no more than it takes.
    """
    other = When.code_version_changed()
    upstream = (When.data_version_changed() & ~When.executed_with_root_target()) | When.will_be_requested()
    changed = When.any_deps_match(upstream).with_label("upstream has changed, or is asked for")
    cause = When.newly_missing() | other | changed | _second_try()
    # Dagster's own `since_last_handled` would drop a recipe that changes within a tick of a request, and call a backlog handled.
    handled = ((When.newly_requested() | When.newly_updated()) & ~other).with_label("asked for or made")
    due = cause.since(handled).with_label("due")
    missing = When.missing() & ~When.will_be_requested()
    waits = When.any_deps_match(missing | When.in_progress()).with_label("upstream is missing or in progress")
    return (due & ~waits & ~When.in_progress()).allow(_slide_assets(study)).with_label(LABEL)


def _second_try() -> dg.AutomationCondition[dg.AssetKey]:
    """True once after a failure: the next one finds it remembered, until there is another recipe or a result."""
    failed = When.execution_failed() & ~When.in_progress() & ~When.newly_requested()
    remembered = failed.since(When.code_version_changed() | When.newly_updated())
    return remembered.newly_true().with_label("failed for the first time")


def automation_sensor(study: Study) -> dg.SensorDefinition:
    """Evaluates the condition; running where `automation = true`, else stopped, and then the inbox sensor asks for new slides."""
    running, stopped = dg.DefaultSensorStatus.RUNNING, dg.DefaultSensorStatus.STOPPED
    return dg.AutomationConditionSensorDefinition(
        SENSOR,
        target=_slide_assets(study),
        run_tags={**demand_tags(study.resources), PRIORITY_TAG: str(ARRIVED)},
        default_status=running if study.automation else stopped,
        minimum_interval_seconds=30,
        emit_backfills=True,
        description="Asks for slides that are new, out of date, or have failed once (`automation = true` starts it).",
    )


def _slide_assets(study: Study) -> dg.AssetSelection:
    return dg.AssetSelection.assets(*(list(node.key) for node in chain(study)))
