"""Census: every table file of the store looked into once, and what the rest of a check needs of it remembered.

Belongs here: which files there are, can be read and are of the schema, what digests they carry, which array groups they
name. Does not belong: judging what that means (`verify`, `garbage`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from pathassets.errors import StoreError
from pathassets.store import layout
from pathassets.store.root import Root
from pathassets.store.schema import TABLES
from pathassets.store.tables import Tables

NAMING = ("embeddings", "derived_arrays", "patch_tokens")


@dataclass(frozen=True)
class FileFacts:
    """What a table's file holds.

    Attributes:
        rows: Number of rows.
        digests: The column `digest`; empty where the table has none.
    """

    rows: int
    digests: frozenset[str]


@dataclass(frozen=True)
class Named:
    """An array group that a row names.

    Attributes:
        group: Its key, as the row has it; None where it does not lie in the store.
        home: The key where the group with this digest belongs.
        file: Key of the table's file.
        row: The row.
    """

    group: str | None
    home: str
    file: str
    row: dict[str, Any]

    @property
    def table(self) -> str:
        """The table that names it."""
        return (layout.table_slide(self.file) or ("", None))[0]

    @property
    def is_embeddings(self) -> bool:
        """Whether the group holds embeddings, and not what was derived from them."""
        return self.table == "embeddings"


@dataclass
class Census:
    """What the tables hold.

    Attributes:
        files: Every file that can be read, by key.
        unreadable: Why the others cannot, by key.
        named: The groups that rows name.
        outcomes: All rows of `outcomes`.
    """

    files: dict[str, FileFacts] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    named: list[Named] = field(default_factory=list)
    outcomes: list[dict[str, Any]] = field(default_factory=list)

    def slides(self) -> set[str]:
        """Slides that are registered; a row that cannot be read counts."""
        prefix = f"{layout.table_prefix('slides')}/"
        return set(_slides_of(key for key in (*self.files, *self.unreadable) if key.startswith(prefix)))

    def groups(self) -> set[str]:
        """Keys of the groups that are named, where rows say and where they belong."""
        return {key for named in self.named for key in (named.group, named.home) if key is not None}

    def doubtful(self) -> set[str]:
        """Slides of which a file that may name groups cannot be read."""
        prefixes = tuple(f"{layout.table_prefix(name)}/" for name in NAMING)
        return set(_slides_of(key for key in self.unreadable if key.startswith(prefixes)))


def take_census(root: Root, slide_id: str | None = None) -> Census:
    """Looks into every table's file, or into those of one slide."""
    census, tables = Census(), Tables(root)
    for name in TABLES:
        for key in tables.keys(name):
            if slide_id is None or layout.table_slide(key) == (name, slide_id):
                _enter(census, tables, key)
    return census


def readable(tables: Tables, table: str) -> pl.DataFrame:
    """All rows of a table but those in files that cannot be read."""
    frames = [TABLES[table].empty()]
    for key in tables.keys(table):
        try:
            frame = tables.read(table, (layout.table_slide(key) or ("", None))[1], layout.table_part(key))
        except StoreError:
            continue
        frames += [] if frame is None else [frame]
    return pl.concat(frames, how="diagonal_relaxed")


def _slides_of(keys: Iterator[str]) -> Iterator[str]:
    for key in keys:
        place = layout.table_slide(key)
        if place is not None and place[1] is not None:
            yield place[1]


def _enter(census: Census, tables: Tables, key: str) -> None:
    name, slide_id = layout.table_slide(key) or ("", None)
    try:
        frame = tables.read(name, slide_id, layout.table_part(key))
        if frame is None:  # deleted since it was listed
            return
        tables.check(key)
        frame = TABLES[name].conform(frame)
    except (StoreError, ValueError) as error:
        census.unreadable[key] = error.message if isinstance(error, StoreError) else str(error)
        return
    strange = frame.filter(pl.col("slide_id") != slide_id) if slide_id is not None else frame.clear()
    if not strange.is_empty():
        census.unreadable[key] = f"{tables.root.address(key)} holds rows of another slide"
        return
    digests = frame["digest"].drop_nulls().unique().to_list() if "digest" in frame.columns else []
    census.files[key] = FileFacts(frame.height, frozenset(digests))
    if name in NAMING:
        census.named += [_named(tables.root, key, row) for row in frame.iter_rows(named=True)]
    elif name == "outcomes":
        census.outcomes += frame.to_dicts()


def _named(root: Root, file: str, row: dict[str, Any]) -> Named:
    name = row.get("name") or layout.EMBEDDINGS
    try:
        group: str | None = root.key_of(row["uri"])
    except StoreError:
        group = None
    try:
        places = layout.group_places(row["slide_id"], str(row["digest"]), str(name))
        home = group if group in places else places[0]
    except ValueError:
        home = ""
    return Named(group, home, file, row)
