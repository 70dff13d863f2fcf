"""The one partitions definition: a partition for every registered slide.

Belongs here: partition keys and runs of neighbouring keys. Does not belong: how slides are registered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG, PRIORITY_TAG
from sqlalchemy.exc import IntegrityError

# Who goes first when there are more runs than places. A backfill from the UI has Dagster's own 0.
QUICK, ARRIVED, NIGHTLY = 20, 10, -10

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


def range_tags(group: Sequence[str]) -> dict[str, str]:
    """Run tags that make one run cover the partitions from the first to the last of `group`."""
    return {ASSET_PARTITION_RANGE_START_TAG: group[0], ASSET_PARTITION_RANGE_END_TAG: group[-1]}


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
