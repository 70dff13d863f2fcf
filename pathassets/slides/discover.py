"""Finding slide files in folders.

Belongs here: which files are taken for slides by their names, listing a folder. Does not belong: whether they are slides
(`probe` looks inside), which files are one slide together (`parts`), object stores (`remote`).

Nothing that looks like a slide is left out in silence: what cannot be a slide, a folder named `x.svs` or a folder that may
not be entered, is handed on too, with the reason why it is none.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pathassets.slides.dicom import series_uid
from pathassets.slides.places import name_of, suffix_of

# What OpenSlide reads, TIFFs of all kinds, and scanners' formats that nobody here reads: their users want to be told.
SLIDE_EXTENSIONS = frozenset({
    ".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".dcm", ".dicom",
    ".btf", ".tf2", ".tf8", ".qptiff",
    ".czi", ".isyntax", ".i2syntax", ".vsi", ".kfb", ".sdpc", ".mdsx", ".tmap", ".jp2",
})  # fmt: skip
DICOM_EXTENSIONS = (".dcm", ".dicom")
_UNFINISHED = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".filepart", "~")

# Why something in a folder is no slide.
FOLDER = "a folder with a slide's name"
CLOSED = "a folder that cannot be listed"
BROKEN = "a link that leads nowhere"
SPECIAL = "no ordinary file"
HIDDEN = "hidden"
UNFINISHED = "unfinished by its name"
NO_SLIDE = "no slide by its name"


class Entry(NamedTuple):
    """Something in a folder.

    Attributes:
        path: Absolute path, or URI.
        size: Bytes.
        mtime_ns: When it was last changed, ns since 1970; 0 where nobody knows.
        version: What an object store calls this state of it; empty for files.
        odd: Why it can be no slide (`FOLDER`, `CLOSED`, `BROKEN`, `SPECIAL`); empty for files.
    """

    path: str
    size: int = 0
    mtime_ns: int = 0
    version: str = ""
    odd: str = ""


@dataclass
class Listing:
    """What lies in a place at one moment.

    Attributes:
        entries: Files, and what is odd, with all folders below; sorted by name within each folder.
        blind: Folders that could not be listed, and why: of what lies in them nothing is known.
    """

    entries: list[Entry] = field(default_factory=list)
    blind: dict[str, str] = field(default_factory=dict)


def find_slides(paths: Iterable[str | Path]) -> list[Path]:
    """Slide files in `paths`, absolute, each once, in the order of `paths` and sorted within each folder.

    Files that are named are always taken, whatever their extension; missing ones too, to be reported. Folders are searched
    with all their sub-folders (symbolic links are followed, loops are not); hidden and unfinished files are passed over.
    The files of one DICOM series are one slide, named by the first of them.
    """
    from pathassets.slides.parts import slides_among

    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given).expanduser().absolute()
        inside = slides_among(list_folder(str(path)).entries) if path.is_dir() else []
        here = [Path(item.path) for item in inside if not item.ignored or is_reported(item.path, item.ignored)]
        if not here and (not path.is_dir() or has_slide_name(path.name)):
            here = [path]
        found.update(dict.fromkeys(here))
    return list(_one_of_each_series(list(found)))


def has_slide_name(name: str) -> bool:
    """Whether a file's name is that of a slide."""
    return why_no_slide(name) == ""


def why_no_slide(name: str) -> str:
    """Why a file of this name is not taken for a slide; empty when it is."""
    lower = name.lower()
    if lower.startswith((".", "~$")):
        return HIDDEN
    if lower.endswith(_UNFINISHED):
        return UNFINISHED
    return "" if suffix_of(lower) in SLIDE_EXTENSIONS else NO_SLIDE


def is_reported(path: str, odd: str) -> bool:
    """Whether someone who named the folder has to hear of an odd thing in it: it may be a slide of theirs."""
    return odd == CLOSED or (odd in (FOLDER, BROKEN, SPECIAL) and has_slide_name(name_of(path)))


def list_folder(folder: str) -> Listing:
    """All files below `folder`; it never raises, a folder that cannot be listed is `blind`."""
    listing = Listing()
    _walk(folder, set(), listing)
    return listing


def list_files(folder: str) -> list[Entry]:
    """The files directly in `folder`, sorted by name.

    Raises:
        OSError: It cannot be listed.
    """
    with os.scandir(folder) as items:
        entries = [_entry(os.path.join(folder, item.name), item) for item in items if not _is_folder(item)]
    return sorted((entry for entry in entries if not entry.odd), key=lambda entry: entry.path)


def _walk(folder: str, seen: set[tuple[int, int]], listing: Listing) -> None:
    try:
        found = os.stat(folder)
        with os.scandir(folder) as items:
            entries = sorted(items, key=lambda item: item.name)  # a share that hangs up does so here
    except OSError as error:
        listing.blind[folder] = error.strerror or str(error)
        listing.entries.append(Entry(folder, odd=CLOSED))
        return
    if (found.st_dev, found.st_ino) in seen:
        return
    seen.add((found.st_dev, found.st_ino))
    for item in entries:
        path = os.path.join(folder, item.name)
        if not _is_folder(item):
            listing.entries.append(_entry(path, item))
        elif not is_passed_over(item.name):
            _walk(path, seen, listing)
            if has_slide_name(item.name):
                listing.entries.append(Entry(path, odd=FOLDER))


def is_passed_over(folder_name: str) -> bool:
    """Whether nothing in a folder of this name is looked at: hidden ones, and Zarr groups with their thousands of files."""
    return folder_name.startswith(".") or folder_name.endswith(".zarr")


def _entry(path: str, item: os.DirEntry[str]) -> Entry:
    try:
        found = item.stat()
    except OSError:  # gone between listing and looking, or a link to nowhere
        return Entry(path, odd=BROKEN)
    if not stat.S_ISREG(found.st_mode):
        return Entry(path, odd=SPECIAL)
    return Entry(path, found.st_size, found.st_mtime_ns)


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:  # a symbolic link that leads in a circle
        return False


def _one_of_each_series(paths: Sequence[Path]) -> Iterator[Path]:
    seen: set[tuple[Path, str]] = set()
    for path in paths:
        uid = series_uid(path) if path.suffix.lower() in DICOM_EXTENSIONS else None
        if uid is not None:
            if (path.parent, uid) in seen:
                continue
            seen.add((path.parent, uid))
        yield path
