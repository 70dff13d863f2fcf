"""Forget: everything that the study holds of one slide removed; the slide's file stays.

Belongs here: rows, arrays, masks, pictures, drawings that were imported, reports, kept exports. Does not belong: Dagster's partition
(`defs/event_log.py`), the snapshot, files that were exported out of the study.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import polars as pl

from pathassets.slides.places import is_uri
from pathassets.steps.annotations import FOLDER as ANNOTATIONS
from pathassets.steps.annotations import annotation_path
from pathassets.steps.naming import find_slides, one_slide
from pathassets.steps.session import Session
from pathassets.store import layout
from pathassets.store.census import readable
from pathassets.store.local_root import remove_path, translated
from pathassets.store.schema import TABLES

LOCK_SECONDS = 10.0
REPORTS = "reports"
"""Folder of a home in which reports lie (`report/folder`)."""
EXPORTS = "exports"
"""Folder of a home in which exports are kept, a folder for each format (`exports/kept`)."""


def known_slide(session: Session, text: str, partitions: Collection[str] = ()) -> str:
    """The slide that `text` means: registered, or half forgotten, or known to Dagster alone.

    Raises:
        ConfigError: None, or more than one.
    """
    if not find_slides(session, text) and (text in partitions or _left_over(session, text)):
        return layout.checked_slide_id(text)
    return one_slide(session, text)


def what_goes(session: Session, slide_id: str) -> dict[str, dict[str, Any]]:
    """Files and MB by what they are: tables, arrays, masks, figures, annotations, reports, exports."""
    found = {}
    for name, prefixes in {
        "tables": _table_prefixes(slide_id),
        **{f: [f"{f}/{slide_id}"] for f in layout.SLIDE_FOLDERS},
    }.items():
        entries = [entry for prefix in prefixes for entry in session.root.entries(prefix)]
        if entries:
            found[name] = {"files": len(entries), "MB": sum(entry.size for entry in entries) / 1e6}
    for name, paths in _beside(session, slide_id).items():
        files = [file for path in paths for file in (path, *path.rglob("*")) if file.is_file()]
        if files:
            found[name] = {"files": len(files), "MB": sum(file.stat().st_size for file in files) / 1e6}
    return found


def forget(session: Session, slide_id: str) -> None:
    """Removes all that the study holds of a slide, under its lock.

    The row of `slides` goes first: where this is killed, what is left belongs to no slide, is not published, and goes with the
    next `forget` or by age. A drawing goes after the tissue that was made from it, so that at no moment there is tissue whose
    origin is gone; were it kept, the same slide registered again would silently be given it.

    Raises:
        StoreError: `locked`: somebody is working on the slide; `store_read_only`.
    """
    with session.root.lock(layout.slide_lock(slide_id), LOCK_SECONDS):
        for prefix in [*_table_prefixes(slide_id), *(f"{folder}/{slide_id}" for folder in layout.SLIDE_FOLDERS)]:
            session.root.delete(prefix)
        for path in (path for paths in _beside(session, slide_id).values() for path in paths):
            with translated(f"remove {path}"):
                remove_path(path)
    for key in session.root.keys(f"figures/{layout.STUDY}"):
        if key.endswith(layout.MOSAIC_ENDING) and f'"{slide_id}"'.encode() in (session.root.read_if_there(key) or b""):
            session.root.delete(key)  # tiles of it can be seen there; the next night makes another one
    for table in (spec.name for spec in TABLES.values() if spec.study and "slide_id" in spec.names):
        for key in session.tables.keys(table):
            _without(session, table, layout.table_part(key), slide_id)


def comes_back(session: Session, slide_id: str) -> str | None:
    """A warning, where the slide's file lies in an inbox or the manifest names it: the next run registers it again."""
    rows = readable(session.tables, "slides").filter(slide_id=slide_id)
    for row in rows.iter_rows(named=True):
        for path in (row["path"], *(row["other_paths"] or ())):
            watched = any(path.startswith(f"{place}/") for place in session.study.inbox_places)
            if (watched and (is_uri(path) or Path(path).exists())) or session.manifest_entry(path):
                return (
                    f"{path} is in the inbox or in slides.csv: the next run registers it again unless it is moved away"
                )
    return None


def _beside(session: Session, slide_id: str) -> dict[str, list[Path]]:
    """Files and folders about a slide that lie in the study's home, outside the store."""
    home = session.study.home
    return {
        ANNOTATIONS: [annotation_path(home, slide_id)],
        REPORTS: [home / REPORTS / f"{slide_id}.html"],
        EXPORTS: sorted((home / EXPORTS).glob(f"**/{slide_id}.*")),
    }


def _table_prefixes(slide_id: str) -> list[str]:
    """Folders of a slide's rows, that of `slides` first."""
    names = (spec.name for spec in TABLES.values() if not spec.study)
    return [layout.table_key(name, slide_id).rpartition("/")[0] for name in names]


def _left_over(session: Session, text: str) -> bool:
    try:
        return bool(what_goes(session, layout.checked_slide_id(text)))
    except ValueError:
        return False


def _without(session: Session, table: str, part: str, slide_id: str) -> None:
    """A table of the study without a slide's rows; what it was made from is then no longer what there is, and it is made again."""
    frame = session.tables.read(table, None, part)
    if frame is not None and (frame["slide_id"] == slide_id).any():
        session.tables.write(table, frame.filter(pl.col("slide_id") != slide_id), slide_id=None, part=part)
