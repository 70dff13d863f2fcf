"""Withdrawal: slides that an asset is no longer called materialised for.

Belongs here: taking a slide's records out of what Dagster counts. Does not belong: deciding which (`event_log`), the store.

No storage of open-source Dagster can wipe single partitions (`wipe_asset_partitions` raises NotImplementedError), and what a
removed partition had materialised counts again when the partition comes back: `newly_missing` then never fires.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import dagster as dg
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorageTable,
)
from sqlalchemy import ColumnElement, Table, and_, select

LOT = 500
"""Slides in one statement: databases take a limited number of values."""


def withdraw(instance: dg.DagsterInstance, keys: Iterable[dg.AssetKey], slide_ids: Collection[str]) -> None:
    """Makes assets missing for slides, in Dagster's eyes; the logs of the runs that made them stay as they are.

    Args:
        instance: Dagster's instance, its storage of any kind of SQL.
        keys: The assets.
        slide_ids: The slides.
    """
    slides, storage = sorted(slide_ids), instance.event_log_storage
    for key in keys:
        for start in range(0, len(slides), LOT):
            _take_out(storage, key.to_string(), slides[start : start + LOT])
        storage.wipe_asset_cached_status(key)


def _take_out(storage: Any, asset: str, slides: list[str]) -> None:
    """Events lose their asset and keep their row: SQLite gives the number of a removed row to the next event, and whoever
    reads on from the last number that they have seen would miss that one."""
    events = SqlEventLogStorageTable
    theirs = _of(events, asset, slides)
    tags = AssetEventTagsTable.c.event_id.in_(select(events.c.id).where(theirs))
    with storage.index_connection() as connection:
        connection.execute(AssetEventTagsTable.delete().where(tags))
        connection.execute(AssetCheckExecutionsTable.delete().where(_of(AssetCheckExecutionsTable, asset, slides)))
        connection.execute(events.update().where(theirs).values(asset_key=None))


def _of(table: Table, asset: str, slides: list[str]) -> ColumnElement[bool]:
    return and_(table.c.asset_key == asset, table.c.partition.in_(slides))
