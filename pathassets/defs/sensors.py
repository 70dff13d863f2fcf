"""The inbox sensor: a slide that lies still in a watched place becomes a partition, and its chain is requested.

Belongs here: partitions and runs for what a look at the inbox found. Does not belong: looking (`steps/inbox.py`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import partial

import dagster as dg

from pathassets.config import Study
from pathassets.defs.jobs import SLIDES_JOB
from pathassets.defs.partitions import ARRIVED, SLIDES, batches, run_requests
from pathassets.errors import PathassetsError
from pathassets.recipes import digest
from pathassets.steps.errands import StillAwayError, answer, send
from pathassets.steps.inbox import Look, look
from pathassets.steps.session import Session

# Dagster gives a tick 60 s. A look that takes longer goes on, and the next tick takes what it found.
TICK_SECONDS = 50.0


def inbox_sensor(study: Study) -> dg.SensorDefinition:
    """A sensor over the study's inbox: folders and object stores."""

    @dg.sensor(
        name="inbox",
        job_name=SLIDES_JOB,
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Registers slides that arrive in {', '.join(study.inbox)}"
        + ("." if study.automation else " and requests their chain."),
    )
    def _inbox(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        keys = context.instance.get_dynamic_partitions(SLIDES.name or "")
        try:
            found = look_in_time(study, keys, fresh=context.cursor is None)
        except (PathassetsError, StillAwayError) as error:
            return dg.SensorResult(skip_reason=str(error), cursor=context.cursor)
        for line in found.news:
            context.log.info(line)
        return result(study, keys, found)

    return _inbox


def look_in_time(study: Study, keys: Collection[str], *, fresh: bool) -> Look:
    """A look at the inbox, or what came of the one that took too long for an earlier tick.

    Raises:
        PathassetsError: The store cannot be used.
        StillAwayError: It is not done yet.
    """
    name = f"inbox of {study.home}"
    send(name, partial(look, Session(study), keys, fresh=fresh))
    found: Look = answer(name, TICK_SECONDS)
    return found


def result(study: Study, keys: Sequence[str], found: Look) -> dg.SensorResult:
    """Partitions for slides that have none, and runs for them, unless automation asks for those; runs for files that are back."""
    known = set(keys)
    new = [slide_id for slide_id in found.registered if slide_id not in known]
    wanted = [*([] if study.automation else new), *found.returned]
    groups = batches([*keys, *new], wanted, study.slides_per_run)
    since = {slide_id: found.registered.get(slide_id) for slide_id in wanted}  # forgotten and back: another request
    run_key = digest(sorted(since.items()), sorted(found.returned.items()))
    requests = run_requests(groups, job_name=SLIDES_JOB, run_key=run_key, priority=ARRIVED)
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[SLIDES.build_add_request(new)] if new else [],
        skip_reason=None if requests else found.state,
        cursor=json.dumps(found.counts),
    )
