"""The one partitions definition: a partition for every registered slide.

Belongs here: partition keys, runs of neighbouring keys, which of them a run has in hand. Does not belong: how slides are
registered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    AUTO_RETRY_RUN_ID_TAG,
    PARTITION_NAME_TAG,
    PRIORITY_TAG,
    WILL_RETRY_TAG,
)
from sqlalchemy.exc import IntegrityError

from pathassets.errors import Reason, StoreError

# Who goes first when there are more runs than places. A backfill from the UI has Dagster's own 0.
QUICK, ARRIVED, NIGHTLY = 20, 10, -10

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]
_RANGE_TAGS = (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG)

SLIDES = dg.DynamicPartitionsDefinition(name="slides")


def add_slides(instance: dg.DagsterInstance, slide_ids: Collection[str]) -> None:
    """Adds partitions for the slides that have none; one look at the existing ones.

    Another process may add some of them between Dagster's look and its writing. SQLite then refuses all; the next time
    there are fewer left to quarrel about.
    """
    for tries_left in reversed(range(len(slide_ids) + 1)):
        known = set(instance.get_dynamic_partitions(SLIDES.name or ""))
        new = [slide_id for slide_id in slide_ids if slide_id not in known]
        try:
            if new:
                instance.add_dynamic_partitions(SLIDES.name or "", new)
            return
        except IntegrityError:
            if not tries_left:
                raise


def batches(partition_keys: Sequence[str], wanted: Collection[str], limit: int) -> list[list[str]]:
    """`wanted` as groups that one run each can take: a Dagster run covers a range, so groups are neighbours in order."""
    wanted = set(wanted)
    groups: list[list[str]] = []
    gap = True
    for key in partition_keys:
        if key not in wanted:
            gap = True
            continue
        if gap or len(groups[-1]) >= limit:
            groups.append([])
        groups[-1].append(key)
        gap = False
    return groups


def slides_at_work(instance: dg.DagsterInstance, partition_keys: Sequence[str]) -> dict[str, str]:
    """Slides that a run has in hand, and which: one that waits or works, or that died and that Dagster is about to try again."""
    unfinished = dg.RunsFilter(statuses=UNFINISHED)
    died = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], tags={WILL_RETRY_TAG: "true"})
    again = [run for run in instance.get_runs(died) if AUTO_RETRY_RUN_ID_TAG not in run.tags]
    places = {key: place for place, key in enumerate(partition_keys)}
    covered: dict[str, str] = {}
    for run in [*instance.get_runs(unfinished), *again]:
        first, last = (run.tags.get(tag, run.tags.get(PARTITION_NAME_TAG)) for tag in _RANGE_TAGS)
        if first in places and last in places:
            covered.update(dict.fromkeys(partition_keys[places[first] : places[last] + 1], run.run_id))
    return covered


def check_idle(instance: dg.DagsterInstance, slide_id: str) -> None:
    """A run covers a range of partitions: without one of its ends it fails, and with it all its slides.

    Raises:
        StoreError: `locked`: a run has the slide in hand.
    """
    run_id = slides_at_work(instance, instance.get_dynamic_partitions(SLIDES.name or "")).get(slide_id)
    if run_id is not None:
        raise StoreError(
            f"{slide_id} is in the hands of run {run_id}, which waits or works",
            reason=Reason.LOCKED,
            remedy="Wait until it has finished, or cancel that run in Dagster's UI.",
        )


def range_tags(group: Sequence[str]) -> dict[str, str]:
    """Run tags that make one run cover the partitions from the first to the last of `group`."""
    return dict(zip(_RANGE_TAGS, (group[0], group[-1]), strict=True))


def run_requests(
    groups: Iterable[Sequence[str]], *, job_name: str, run_key: str, priority: int = 0
) -> list[dg.RunRequest]:
    """One run request for each group of slides; `run_key` makes a repeated request a no-op.

    Args:
        groups: Slides of one run each.
        job_name: The job.
        run_key: What makes the request one that was made before.
        priority: Higher goes first; backfills from the UI have 0.
    """
    tags = {PRIORITY_TAG: str(priority)}
    return [
        dg.RunRequest(
            run_key=f"{run_key}:{group[0]}:{group[-1]}", job_name=job_name, tags={**range_tags(group), **tags}
        )
        for group in groups
    ]
