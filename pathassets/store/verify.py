"""Verify: the store checked against itself, and what nobody needs any more removed.

Belongs here: finding what is damaged, missing or left over. Does not belong: repairing (a run does that).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from pathassets.errors import Reason, StoreError
from pathassets.store import layout
from pathassets.store.groups import delete_group, read_marker, tree_hashes
from pathassets.store.results import needs_publishing
from pathassets.store.root import DAY_S, Root
from pathassets.store.schema import TABLES
from pathassets.store.tables import Tables


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be.

    Attributes:
        key: What it is about.
        message: What is wrong with it.
        remedy: What to do.
    """

    key: str
    message: str
    remedy: str


@dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        problems: Damage: results that are published and cannot be used.
        orphans: Keys of groups that no table names, older than a day.
        temp_files: Half-written files older than a day.
        n_files: Parquet files that were read.
        n_groups: Zarr groups that were checked.
        snapshot_current: Whether `results.duckdb` has everything.
    """

    problems: list[Problem] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    temp_files: list[Path] = field(default_factory=list)
    n_files: int = 0
    n_groups: int = 0
    snapshot_current: bool = True

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged; leftovers and an old snapshot are no damage."""
        return not self.problems


def verify(root: Root, home: str | Path, *, deep: bool = True) -> Report:
    """Checks every table's file, every published group, and the snapshot.

    Args:
        root: The store.
        home: The folder of `results.duckdb`.
        deep: Compare the content of every group with its hashes; else only whether its files are there.
    """
    tables = Tables(root)
    frames, problems = _read_tables(tables)
    named = _named_groups(frames)
    for row in named:
        problems += _check_group(root, row, deep)
    return Report(
        problems=problems,
        orphans=_orphans(root, {row["key"] for row in named}, DAY_S),
        temp_files=root.temp_files(),
        n_files=sum(len(parts) for parts in frames.values()),
        n_groups=len(named),
        snapshot_current=not needs_publishing(root, home),
    )


def sweep(root: Root, older_than: float = DAY_S) -> list[str]:
    """Deletes groups that no table names and half-written files, both older than `older_than` seconds.

    A group that somebody is writing is left alone. Where a table cannot be read no group is deleted: it may name some.

    Returns:
        The groups that were deleted.
    """
    root.sweep(older_than)
    frames, problems = _read_tables(Tables(root))
    if problems:
        return []
    orphans = _orphans(root, {row["key"] for row in _named_groups(frames)}, older_than)
    return [group for group in orphans if _deleted(root, group)]


def _deleted(root: Root, group: str) -> bool:
    _, slide_id, digest, file = group.split("/")
    try:
        with root.lock(layout.array_lock(slide_id, digest, file.removesuffix(".zarr"))):
            delete_group(root, group)
    except StoreError as error:
        if error.reason is not Reason.LOCKED:
            raise
        return False
    folder = root.local(layout.array_folder(slide_id, digest))
    if not any(folder.iterdir()):
        folder.rmdir()
    return True


def _read_tables(tables: Tables) -> tuple[dict[str, list[pl.DataFrame]], list[Problem]]:
    frames: dict[str, list[pl.DataFrame]] = {}
    problems = []
    for name in TABLES:
        frames[name] = []
        for key in tables.keys(name):
            try:
                frames[name].append(_checked_frame(tables, key))
            except StoreError as error:
                problems.append(Problem(key, error.message, "Delete this file and run again: it is made anew."))
    return frames, problems


def _checked_frame(tables: Tables, key: str) -> pl.DataFrame:
    name, slide_id = layout.table_slide(key) or ("", None)
    frame = tables.read(name, slide_id, key.rpartition("/")[2].removesuffix(".parquet"))
    return TABLES[name].empty() if frame is None else TABLES[name].conform(frame)


def _named_groups(frames: dict[str, list[pl.DataFrame]]) -> list[dict[str, Any]]:
    """Every group that a table names: `key`, `digest`, `n_tiles`."""
    rows = []
    for name in ("embeddings", "derived_arrays"):
        for frame in frames[name]:
            for row in frame.select("uri", "digest", "n_tiles").iter_rows(named=True):
                key = "arrays/" + str(row["uri"]).rpartition("/arrays/")[2]
                rows.append({"key": key, "digest": row["digest"], "n_tiles": row["n_tiles"]})
    return rows


def _check_group(root: Root, row: dict[str, Any], deep: bool) -> Iterator[Problem]:
    group, remedy = row["key"], "Run again with --force for this slide."
    try:
        marker = read_marker(root, group)
    except StoreError as error:
        yield Problem(group, error.message, error.remedy)
        return
    if (marker["digest"], marker["rows"]) != (row["digest"], row["n_tiles"]):
        found = f"{marker['rows']} rows of {marker['digest']}"
        yield Problem(group, f"holds {found}; its table says {row['n_tiles']} of {row['digest']}", remedy)
    there = tree_hashes(root, group) if deep else dict.fromkeys(_files(root, group), "")
    for name, expected in marker["files"].items():
        if name not in there:
            yield Problem(f"{group}/{name}", "is missing", remedy)
        elif deep and there[name] != expected:
            yield Problem(f"{group}/{name}", "is not what was written", remedy)


def _files(root: Root, group: str) -> list[str]:
    return [key.removeprefix(f"{group}/") for key in root.keys(group)]


def _orphans(root: Root, named: set[str], older_than: float) -> list[str]:
    limit = time.time() - older_than
    found = []
    for slide in root.folders("arrays"):
        for digest in root.folders(f"arrays/{slide}"):
            folder = f"arrays/{slide}/{digest}"
            stems = {Path(name).stem for name in root.folders(folder)}  # a group, or the notes for one
            unnamed = sorted({f"{folder}/{stem}.zarr" for stem in stems} - named)
            if unnamed and all(entry.mtime < limit for entry in root.entries(folder)):
                found += unnamed
    return found
