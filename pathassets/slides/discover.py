"""Finding slide files in folders.

Belongs here: which files are taken for slides by their names. Does not belong: whether they are (`probe` looks inside).

Nothing that looks like a slide is left out in silence: what cannot be a slide, a folder named `x.svs` or a folder that may
not be entered, is returned too and gets its row in `outcomes` when it is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pathassets.slides.dicom import series_uid

# What OpenSlide reads, TIFFs of all kinds, and scanners' formats that nobody here reads: their users want to be told.
SLIDE_EXTENSIONS = frozenset({
    ".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".dcm", ".dicom",
    ".btf", ".tf2", ".tf8", ".qptiff",
    ".czi", ".isyntax", ".i2syntax", ".vsi", ".kfb", ".sdpc", ".mdsx", ".tmap", ".jp2",
})  # fmt: skip
_UNFINISHED = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".filepart", "~")
# A slide of many files keeps its parts in a folder of its own stem; some of them have slides' extensions.
_WITH_PART_FOLDER = (".mrxs", ".vms", ".vmu", ".vsi")


def find_slides(paths: Iterable[str | Path]) -> list[Path]:
    """Slide files in `paths`, absolute, each once, in the order of `paths` and sorted within each folder.

    Files that are named are always taken, whatever their extension; missing ones too, to be reported. Folders are searched
    with all their sub-folders (symbolic links are followed, loops are not); hidden and unfinished files are passed over.
    The files of one DICOM series are one slide, named by the first of them.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given).expanduser().absolute()
        for slide in _walk(path, set()) if path.is_dir() else [path]:
            found.setdefault(slide)
    return list(_one_of_each_series(list(found)))


def has_slide_name(path: Path) -> bool:
    """Whether a file's name is that of a slide."""
    name = path.name.lower()
    return (
        not name.startswith((".", "~$")) and not name.endswith(_UNFINISHED) and path.suffix.lower() in SLIDE_EXTENSIONS
    )


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Slides below `folder`; the folder itself when it may not be entered, or has a slide's name and holds none."""
    try:
        stat = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        yield folder
        return
    if (stat.st_dev, stat.st_ino) in seen:
        return
    seen.add((stat.st_dev, stat.st_ino))
    empty = True
    for slide in _slides_among(folder, entries, seen):
        empty = False
        yield slide
    if empty and has_slide_name(folder):
        yield folder


def _slides_among(folder: Path, entries: Sequence[os.DirEntry[str]], seen: set[tuple[int, int]]) -> Iterator[Path]:
    parts = {Path(e.name).stem for e in entries if Path(e.name).suffix.lower() in _WITH_PART_FOLDER}
    for entry in entries:
        path = folder / entry.name
        if _is_folder(entry):
            if not entry.name.startswith(".") and entry.name not in parts and not entry.name.endswith(".zarr"):
                yield from _walk(path, seen)
        elif has_slide_name(path):
            yield path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link that leads in a circle
        return False


def _one_of_each_series(paths: Sequence[Path]) -> Iterator[Path]:
    seen: set[tuple[Path, str]] = set()
    for path in paths:
        uid = series_uid(path) if path.suffix.lower() in (".dcm", ".dicom") else None
        if uid is not None:
            if (path.parent, uid) in seen:
                continue
            seen.add((path.parent, uid))
        yield path
