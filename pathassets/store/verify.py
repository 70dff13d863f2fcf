"""Verify: the store checked against itself, each finding with what is wrong and what to do.

Belongs here: damage to tables, array groups and the snapshot, and what is left over. Does not belong: what the steps know of
their results (`steps/consistency.py`), Dagster's event log (`defs/adopt.py`), repairing (`steps/repair.py`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import polars as pl

from pathassets.errors import Reason, StoreError
from pathassets.store import layout
from pathassets.store.arrays import Embeddings
from pathassets.store.census import Census, Named, take_census
from pathassets.store.compare import published_slides, snapshot_differences
from pathassets.store.garbage import Kind, Waste, find_waste
from pathassets.store.groups import is_done, read_marker, tree_hashes
from pathassets.store.results import needs_publishing
from pathassets.store.root import DAY_S, Root
from pathassets.store.schema import TABLES
from pathassets.store.tables import Tables

_EMPTY = hashlib.sha256(b"").hexdigest()
_PLACE = ("tile_id", "x_px", "y_px", "size_px", "width_px", "height_px", "tissue_id")
REPAIR = "`pathassets verify --repair`, then `pathassets run`."


class Fault(StrEnum):
    """What is wrong, for programs."""

    UNREADABLE = "unreadable"  # cannot be parsed, or is not as the schema says
    MISSING = "missing"  # spoken of, and not there
    TORN = "torn"  # the bytes are not those that were written
    CONTRADICTION = "contradiction"  # two things that must agree do not
    UNPROVED = "unproved"  # there, and no outcome says what it was made from
    SNAPSHOT = "snapshot"  # results.duckdb cannot be read, or says other than the store that it was made from
    EVENT_LOG = "event_log"  # Dagster says other than the store
    UNTOLD = "untold"  # in the store, and Dagster has not heard of it: a run was killed between the two
    NOT_COMPARED = "not_compared"  # Dagster's event log cannot be opened where nothing may be written
    OLD_SNAPSHOT = "old_snapshot"
    ORPHAN = "orphan"
    TEMPORARY = "temporary"
    LOCK = "lock"
    FOREIGN = "foreign"
    BUSY = "busy"  # being worked on: not judged


# Nothing is wrong with what is published; the exit code says so.
HARMLESS = {Fault.UNTOLD, Fault.NOT_COMPARED, Fault.OLD_SNAPSHOT, Fault.ORPHAN, Fault.TEMPORARY, Fault.LOCK,
            Fault.FOREIGN, Fault.BUSY}  # fmt: skip
_FAULT_OF = {Kind.TEMPORARY: Fault.TEMPORARY, Kind.LOCK: Fault.LOCK}


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        fault: What kind of thing is wrong.
        key: What it is about: a key of the store, or an asset.
        message: What is wrong with it.
        remedy: What to do.
        slide_id: The slide that it belongs to.
    """

    fault: Fault
    key: str
    message: str
    remedy: str
    slide_id: str | None = None

    @property
    def harmless(self) -> bool:
        """Whether all that is published can be used nevertheless."""
        return self.fault in HARMLESS


@dataclass
class Report:
    """What a check found.

    Attributes:
        findings: One for each thing that is wrong or left over.
        census: What the tables hold.
        n_files: Parquet files that were read.
        n_groups: Array groups that were checked.
    """

    findings: list[Finding] = field(default_factory=list)
    census: Census = field(default_factory=Census)
    n_files: int = 0
    n_groups: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged; leftovers and an old snapshot are no damage."""
        return all(finding.harmless for finding in self.findings)


def verify(
    root: Root, home: str | Path, *, deep: bool = False, progress: Callable[[int, int], None] | None = None
) -> Report:
    """Checks every table's file, every array group that a row names, the snapshot, and looks for what is left over.

    Args:
        root: The store.
        home: The folder of `results.duckdb`.
        deep: Read every byte of every group and compare it with its checksum, and every row of the snapshot with the store;
            else files are only held against the sizes that they were written with.
        progress: Told how many of how many groups are checked.
    """
    census = take_census(root)
    published = published_slides(root, Path(home))
    findings = list(check_tables(census))
    for number, named in enumerate(census.named, 1):
        findings += check_group(root, named, deep=deep)
        if progress is not None:
            progress(number, len(census.named))
    findings += [
        _left_over(waste) for waste in find_waste(root, census, DAY_S, published) if waste.kind is not Kind.CACHE
    ]
    findings += [*_foreign(root), *_snapshot(root, Path(home), census, deep)]
    return Report(findings, census, len(census.files) + len(census.unreadable), len(census.named))


def check_group(root: Root, named: Named, *, deep: bool = False) -> Iterator[Finding]:
    """What is wrong with an array group that a row names."""
    slide_id = named.row["slide_id"]
    if named.group != named.home:
        why = f"its row names {named.group or 'a place outside of the store'}; its digest says {named.home}"
        yield Finding(Fault.CONTRADICTION, named.file, why, REPAIR, slide_id)
        return
    found = list(_group_faults(root, named, deep))
    yield from (Finding(fault, key, message, REPAIR, slide_id) for fault, key, message in found)


def _group_faults(root: Root, named: Named, deep: bool) -> Iterator[tuple[Fault, str, str]]:
    group, row = named.home, named.row
    if not is_done(root, group) or not root.exists(group):
        yield Fault.MISSING, group, "a row names it, and it is not there or not finished"
        return
    try:
        marker = read_marker(root, group)
        said = (str(marker["digest"]), int(marker["rows"]))
    except (StoreError, KeyError, TypeError, ValueError) as error:
        yield Fault.UNREADABLE, layout.marker_key(group), f"cannot be read: {error}"
        return
    if said != (row["digest"], row["n_tiles"]):
        message = f"holds {said[1]} rows of {said[0]}; its table says {row['n_tiles']} of {row['digest']}"
        yield Fault.CONTRADICTION, group, message
        return
    faults = list(_file_faults(root, group, marker, deep))
    yield from faults
    if not faults and named.is_embeddings:
        yield from _obs_faults(root, named)


def _file_faults(root: Root, group: str, marker: dict, deep: bool) -> Iterator[tuple[Fault, str, str]]:
    sizes = {entry.key.removeprefix(f"{group}/"): entry.size for entry in root.entries(group)}
    hashes = tree_hashes(root, group) if deep else {}
    for name, expected in marker["files"].items():
        key, size = f"{group}/{name}", marker.get("sizes", {}).get(name)
        if name not in sizes:
            yield Fault.MISSING, key, "is gone"
        elif size not in (None, sizes[name]) or (not sizes[name] and expected != _EMPTY):
            yield Fault.TORN, key, f"has {sizes[name]} bytes" + (f" of {size}" if size is not None else "")
        elif deep and hashes.get(name) != expected:
            yield Fault.TORN, key, "is not what was written"


def _obs_faults(root: Root, named: Named) -> Iterator[tuple[Fault, str, str]]:
    """Whether a group's rows are the tiles that the table lists, in its order."""
    group, row = named.home, named.row
    try:
        embeddings = Embeddings(root, group)
        obs = embeddings.obs
        shape = (embeddings.n_tiles, embeddings.dim)
    except Exception as error:  # noqa: BLE001  Zarr and AnnData say of a torn file what they like
        yield Fault.TORN, f"{group}/obs", f"cannot be read: {(str(error).splitlines() or [''])[0]}"
        return
    if (obs.height, *shape) != (row["n_tiles"], row["n_tiles"], row["dim"]):
        message = f"has {obs.height} rows in obs and is {shape}; its table says ({row['n_tiles']}, {row['dim']})"
        yield Fault.CONTRADICTION, group, message
        return
    tiles = _tiles_of(root, row)
    if tiles is not None and not _same_places(obs, tiles):
        yield from _blame(root, named)


def _same_places(obs: pl.DataFrame, tiles: pl.DataFrame) -> bool:
    shared = [name for name in _PLACE if name in obs.columns and name in tiles.columns]
    return obs.height == tiles.height and all(_numbers(obs[name]).equals(_numbers(tiles[name])) for name in shared)


def _blame(root: Root, named: Named) -> Iterator[tuple[Fault, str, str]]:
    """Groups have checksums and tables have none: where the group's hold, it is the table that is another by now."""
    there, expected = tree_hashes(root, named.home), read_marker(root, named.home)["files"]
    torn = [name for name, digest in expected.items() if there.get(name) != digest]
    if torn:
        yield Fault.TORN, f"{named.home}/{torn[0]}", "is not what was written"
        return
    key = layout.table_key("tiles", named.row["slide_id"], str(named.row["recipe"]).split("/")[0])
    yield Fault.CONTRADICTION, key, f"holds other tiles than {named.home}, which was made from them"


def _tiles_of(root: Root, row: dict) -> pl.DataFrame | None:
    """The tiles that a row of `embeddings` was made from; None where there are others by now, or none that can be read."""
    try:
        tiles = Tables(root).read("tiles", row["slide_id"], str(row["recipe"]).split("/")[0])
    except (StoreError, ValueError):
        return None
    if tiles is None or tiles.is_empty() or row.get("tiles_digest") not in (None, tiles["digest"][0]):
        return None
    return tiles


def _numbers(column: pl.Series) -> pl.Series:
    """AnnData keeps whole numbers with gaps as floats."""
    return column.cast(pl.Float64).fill_null(float("nan")).alias("")


def check_tables(census: Census) -> Iterator[Finding]:
    """Files that cannot be read or are not of the schema."""
    for key, why in census.unreadable.items():
        place = layout.table_slide(key)
        yield Finding(Fault.UNREADABLE, key, why, REPAIR, place[1] if place else None)


def _left_over(waste: Waste) -> Finding:
    fault, size = _FAULT_OF.get(waste.kind, Fault.ORPHAN), f"{waste.size / 1e6:.1f} MB"
    remedy = "`pathassets gc` removes it when it is old enough."
    return Finding(fault, waste.key, f"{waste.kind}, {size}", remedy, waste.slide_id)


def _foreign(root: Root) -> Iterator[Finding]:
    """Files among the tables, and folders among the arrays, that the store never wrote."""
    remedy = "Move it away; nothing here removes or reads it."
    schemas = {layout.schema_file_key(name) for name in TABLES}
    for key in root.keys("tables"):
        place = layout.table_slide(key)
        if key not in schemas and (place is None or place[0] not in TABLES):
            yield Finding(Fault.FOREIGN, key, "is not of this store", remedy)
    for slide_id in root.folders("arrays"):
        strange = [
            f"/{name}" for name in root.folders(f"arrays/{slide_id}") if not layout.is_array_folder(slide_id, name)
        ]
        for name in strange if layout.is_slide_id(slide_id) else [""]:
            yield Finding(Fault.FOREIGN, f"arrays/{slide_id}{name}", "is not of this store", remedy)


def _snapshot(root: Root, home: Path, census: Census, deep: bool) -> Iterator[Finding]:
    path = layout.results_path(home)
    publish = "`pathassets publish`."
    if not path.exists():
        yield Finding(Fault.OLD_SNAPSHOT, path.name, "is not there", publish)
    elif needs_publishing(root, home):
        yield Finding(Fault.OLD_SNAPSHOT, path.name, "is older than the store", publish)
    else:
        remedy = f"Delete {path}, then `pathassets publish`."
        found = snapshot_differences(root, home, census, deep=deep)
        yield from (Finding(Fault.SNAPSHOT, path.name, what, remedy) for what in found)


def hush_busy(root: Root, findings: Iterable[Finding]) -> list[Finding]:
    """`findings` without those on slides that somebody is working on, of which what is true now may not be in a second."""
    known: dict[str, bool] = {}
    kept, busy = [], set()
    for finding in findings:
        slide_id = finding.slide_id
        if slide_id is None or finding.harmless:
            kept.append(finding)
        elif known.setdefault(slide_id, is_locked(root, slide_id)):
            busy.add(slide_id)
        else:
            kept.append(finding)
    remedy = "Verify again when it is done."
    return kept + [Finding(Fault.BUSY, slide, "is being worked on", remedy, slide) for slide in sorted(busy)]


def is_locked(root: Root, slide_id: str) -> bool:
    """Whether somebody is working on a slide; where there is no lock's file, nothing is touched."""
    try:
        if not root.exists(f"locks/{layout.slide_lock(slide_id)}.lock"):
            return False
        with root.lock(layout.slide_lock(slide_id)):
            return False
    except StoreError as error:
        return error.reason is Reason.LOCKED
    except ValueError:  # no slide of ours has such an id
        return False


def summary(findings: Iterable[Finding]) -> str:
    """How many of what, in one line."""
    counts = Counter(finding.fault for finding in findings)
    return ", ".join(f"{count} {fault}" for fault, count in counts.items()) or "nothing"
