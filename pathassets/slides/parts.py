"""Slides of many files: which files of a folder are one slide together.

Belongs here: MRXS with its folder, DICOM series, Hamamatsu's VMS and VMU with the files that they name. Does not belong:
listing folders (`discover`, `remote`), hashing (`identity`).
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pathassets.slides.dicom import HEAD_BYTES, is_dicom, series_in, series_uid
from pathassets.slides.discover import (
    DICOM_EXTENSIONS,
    FOLDER,
    Entry,
    has_slide_name,
    is_reported,
    list_files,
    list_folder,
    why_no_slide,
)
from pathassets.slides.places import folder_of, is_inside, name_of, suffix_of

# A slide of these formats keeps its parts in a folder of its own stem; some of them have slides' extensions.
_WITH_FOLDER = (".mrxs", ".vsi")
_WITH_NAMES = (".vms", ".vmu")
# What a folder of MRXS parts always holds, by which it is known before its .mrxs has arrived.
_MRXS_INDEX = "Slidedat.ini"
_NEEDED = ("ImageFile", "MapFile")
_NAMED = (*_NEEDED, "OptimisationFile", "MacroImage")
_FIRST_READ = 2**13
UNREAD = "?"  # a file whose head there was no time to read


class Found(NamedTuple):
    """A slide in a place, or something that is none.

    Attributes:
        path: Absolute path or URI of the file that names it.
        size: Bytes of that file; -1 where it cannot be told.
        mtime_ns: When that file was last changed, ns since 1970.
        version: What tells its states apart beyond size and time: an object store's tag, or a digest of its parts.
        parts: Its other files, sorted by name.
        lacks: What has not arrived yet; empty when nothing is known to be missing.
        ignored: Why it is no slide; empty when it may be one.
        tag: What an object store calls the state of the naming file alone.
    """

    path: str
    size: int = 0
    mtime_ns: int = 0
    version: str = ""
    parts: tuple[Entry, ...] = ()
    lacks: str = ""
    ignored: str = ""
    tag: str = ""

    @property
    def stamp(self) -> tuple[int, int, str]:
        """Equal in two looks = the slide lay still between them."""
        return self.size, self.mtime_ns, self.version

    @property
    def own(self) -> Entry:
        """The file that names it."""
        return Entry(self.path, self.size, self.mtime_ns, self.tag)

    @classmethod
    def of_one(cls, entry: Entry) -> Found:
        """A slide of a single file."""
        return cls(*entry[:4], tag=entry.version)


def read_head(path: str, n_bytes: int) -> bytes:
    """The first bytes of a file; none where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(n_bytes)
    except OSError:
        return b""


@dataclass
class Heads:
    """What stands inside files and decides which belong together; each is read once for every state of it.

    Attributes:
        read: Gives the first bytes of a file.
        known: What earlier looks read: path to [size, time, version, answer].
        deadline: Moment of the monotonic clock after which nothing is read any more.
        asked: Like `known`, for the files that this look asked about.
    """

    read: Callable[[str, int], bytes] = read_head
    known: dict[str, list[Any]] = field(default_factory=dict)
    deadline: float = float("inf")
    asked: dict[str, list[Any]] = field(default_factory=dict)

    def series(self, entry: Entry) -> str | None:
        """The DICOM series of a file; `UNREAD` when there was no time."""
        found: str | None = self._remembered(entry, self._series)
        return found

    def names(self, entry: Entry) -> dict[str, bool]:
        """The files that a VMS or VMU names, and whether it is nothing without them."""
        found = self._remembered(entry, self._names)
        return {} if found == UNREAD else dict(found)

    def _remembered(self, entry: Entry, ask: Callable[[Entry], Any]) -> Any:
        stamp = [entry.size, entry.mtime_ns, entry.version]
        known = self.known.get(entry.path)
        if known is None or known[:3] != stamp:
            if time.monotonic() > self.deadline:
                return UNREAD
            known = [*stamp, ask(entry)]
        self.asked[entry.path] = known
        return known[3]

    def _series(self, entry: Entry) -> str | None:
        data = self.read(entry.path, _FIRST_READ)
        found = series_in(data)
        if found is None and len(data) == _FIRST_READ:
            found = series_in(self.read(entry.path, HEAD_BYTES))
        return found

    def _names(self, entry: Entry) -> dict[str, bool]:
        found = {}
        for line in self.read(entry.path, HEAD_BYTES).decode("latin-1").splitlines():
            key, _, value = line.partition("=")
            plain = key.partition("(")[0].strip()
            if plain in _NAMED and value.strip() and "/" not in value:
                found[value.strip()] = plain in _NEEDED
        return found


def slides_among(entries: Sequence[Entry], heads: Heads | None = None) -> list[Found]:
    """The slides among `entries`, in their order, with what is none and why; parts of slides are in neither.

    Args:
        entries: Everything in a place, sorted by name within each folder.
        heads: Looks into DICOM and VMS files; reads local ones when it is None.
    """
    groups = _Groups(entries, heads or Heads())
    found = [item for item in map(groups.judge, entries) if item is not None]
    found = [item for item in (groups.finish(item) for item in found) if item is not None]
    slides = [item.path for item in found if not item.ignored]
    return [item for item in found if item.ignored != FOLDER or not any(is_inside(path, item.path) for path in slides)]


def digest_of(entries: Iterable[Entry]) -> str:
    """Changes when any of the files changes, comes or goes."""
    text = json.dumps([[name_of(e.path), e.size, e.mtime_ns, e.version] for e in entries])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_of_many_files(path: str) -> bool:
    """Whether a slide of this name consists of several files."""
    return suffix_of(path) in (".mrxs", *_WITH_NAMES, *DICOM_EXTENSIONS)


def parts_of(path: str) -> list[Entry]:
    """The other files of the slide file at `path`, sorted; none for ordinary slides."""
    suffix, stem = suffix_of(path), path.rpartition(".")[0]
    if suffix == ".mrxs":
        found = list_folder(stem).entries if os.path.isdir(stem) else []
        return sorted((entry for entry in found if not entry.odd), key=_by_name)
    if suffix in _WITH_NAMES:
        names = Heads().names(Entry(path))
        return [entry for entry in list_files(folder_of(path)) if name_of(entry.path) in names]
    if suffix in DICOM_EXTENSIONS or is_dicom(Path(path)):
        series = series_uid(Path(path))
        others = [entry for entry in list_files(folder_of(path)) if entry.path != path and series is not None]
        return [entry for entry in others if _is_of_dicom(entry) and series_uid(Path(entry.path)) == series]
    return []


def missing_part(path: str) -> str:
    """The file without which the slide at `path` is none, where it is not there: an MRXS without its folder. Empty when nothing is."""
    index = os.path.join(path.rpartition(".")[0], _MRXS_INDEX)
    return index if suffix_of(path) == ".mrxs" and not os.path.isfile(index) else ""


def found_at(path: str) -> Found:
    """The slide file at `path` as a folder's listing would show it.

    Raises:
        OSError: It is not there.
    """
    found = os.stat(path)
    parts = parts_of(path) if is_of_many_files(path) and stat.S_ISREG(found.st_mode) else []
    return _joined(Found.of_one(Entry(path, found.st_size, found.st_mtime_ns)), parts, "")


def _is_of_dicom(entry: Entry) -> bool:
    name = name_of(entry.path)
    return suffix_of(name) in DICOM_EXTENSIONS and has_slide_name(name)


def _by_name(entry: Entry) -> list[str]:
    return entry.path.split("/")


class _Groups:
    """Which entries belong to which slide."""

    def __init__(self, entries: Sequence[Entry], heads: Heads) -> None:
        self._heads = heads
        self._owners = _part_folders(entries)
        self._owner_of: dict[str, str | None] = {}
        self._parts: dict[str, list[Entry]] = defaultdict(list)
        self._series: dict[tuple[str, str], str] = {}
        self._unread: set[str] = set()
        self._beside: dict[str, dict[str, Entry]] = defaultdict(dict)
        self._named: dict[str, set[str]] = {}
        self._has_names = {folder_of(e.path) for e in entries if suffix_of(e.path) in _WITH_NAMES}

    def judge(self, entry: Entry) -> Found | None:
        """What an entry is by itself; None for a part of a slide. Notes what belongs to whom."""
        folder = folder_of(entry.path)
        owner = self._owner(folder) if self._owners else None
        if owner is not None:
            if not entry.odd:
                self._parts[owner].append(entry)
            return None
        if folder in self._has_names:
            self._beside[folder][name_of(entry.path)] = entry
        why = entry.odd if is_reported(entry.path, entry.odd) else why_no_slide(name_of(entry.path))
        if why:
            return Found(entry.path, ignored=why)
        if suffix_of(entry.path) in DICOM_EXTENSIONS and not self._opens_series(folder, entry):
            return None
        return Found.of_one(entry)

    def finish(self, item: Found) -> Found | None:
        """The slide with its parts, once all entries are known; None for a file that another one names as its part."""
        suffix = suffix_of(item.path)
        folder = folder_of(item.path)
        if item.ignored:
            return None if name_of(item.path) in self._named_in(folder) else item
        if suffix in _WITH_NAMES:
            return self._with_named(item, folder)
        parts = self._parts.get(item.path, [])
        lacks = "its folder" if suffix == ".mrxs" and not parts else ""
        if suffix in DICOM_EXTENSIONS and folder in self._unread:
            lacks = "a look into its files"
        return _joined(item, parts, lacks)

    def _owner(self, folder: str) -> str | None:
        """The slide whose part folder holds `folder`."""
        if folder not in self._owner_of:
            parent = folder_of(folder)
            higher = self._owner(parent) if parent not in (folder, "/") and "/" in folder else None
            self._owner_of[folder] = higher or self._owners.get(folder)
        return self._owner_of[folder]

    def _opens_series(self, folder: str, entry: Entry) -> bool:
        """Whether a DICOM file is the first of its series; if not, it is noted as a part of it."""
        series = self._heads.series(entry)
        if series is None:
            return True
        if series == UNREAD:
            self._unread.add(folder)
        first = self._series.setdefault((folder, series), entry.path)
        if first != entry.path:
            self._parts[first].append(entry)
        return first == entry.path

    def _with_named(self, item: Found, folder: str) -> Found:
        wanted, beside = self._heads.names(item.own), self._beside[folder]
        missing = sorted(name for name, needed in wanted.items() if needed and name not in beside)
        return _joined(item, [beside[name] for name in sorted(wanted) if name in beside], ", ".join(missing))

    def _named_in(self, folder: str) -> set[str]:
        """The files that VMS and VMU files of this folder name."""
        if folder not in self._has_names:
            return set()
        if folder not in self._named:
            indexes = [entry for entry in self._beside[folder].values() if suffix_of(entry.path) in _WITH_NAMES]
            self._named[folder] = {name for entry in indexes for name in self._heads.names(entry)}
        return self._named[folder]


def _part_folders(entries: Sequence[Entry]) -> dict[str, str]:
    """Folders that belong to a slide, and the path of that slide, which may not have arrived yet."""
    owners = {}
    for entry in entries:
        if suffix_of(entry.path) in _WITH_FOLDER:
            owners[entry.path.rpartition(".")[0]] = entry.path
        elif entry.path.endswith(f"/{_MRXS_INDEX}"):
            owners.setdefault(folder_of(entry.path), f"{folder_of(entry.path)}.mrxs")
    return owners


def _joined(item: Found, parts: Sequence[Entry], lacks: str) -> Found:
    if not parts:
        return item._replace(lacks=lacks)
    parts = sorted(parts, key=_by_name)
    return item._replace(parts=tuple(parts), lacks=lacks, version=digest_of([item.own, *parts]))
