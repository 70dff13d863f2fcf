"""Registration: files and folders become slides with ids that follow their content.

Belongs here: finding files, giving ids, noticing moved, changed and doubled files. Does not belong: opening them (`slide`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pathassets.steps.session import Session


@dataclass(frozen=True)
class Registration:
    """A file and the slide that it is.

    Attributes:
        is_new: The study did not know the slide before.
    """

    slide_id: str
    path: Path
    is_new: bool


def known_slides(session: Session) -> pl.DataFrame:
    """The registered slides: `slide_id`, `path`, `size_bytes`, `mtime_ns`, `content_sha256`."""
    columns = ("slide_id", "path", "size_bytes", "mtime_ns", "content_sha256", "other_paths")
    return session.tables.scan("slides").select(columns).collect()


def files_to_register(session: Session, paths: Sequence[Path]) -> list[Path]:
    """Slide files in `paths`; with no paths, those of the inbox and of the manifest."""
    from pathassets.slides import find_slides

    if paths:
        return find_slides(paths)
    folders = [folder for folder in session.study.inbox_paths if folder.is_dir()]
    return list(dict.fromkeys([*find_slides(folders), *session.manifest.paths()]))


def register(session: Session, files: Iterable[Path]) -> list[Registration]:
    """Gives every file a slide id and a row in `slides`; files that cannot be read get one too.

    A file that was registered before and has the same size and time is not read again. A file that has moved keeps its
    slide. The same content under another name is a slide of its own, whose `duplicate_of` names the first.
    """
    book = _Book(session)
    return list({entry.slide_id: entry for entry in map(book.enter, files)}.values())


class _Book:
    """The slides known so far, found by path, by id and by content."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._rows = {row["slide_id"]: row for row in known_slides(session).iter_rows(named=True)}
        self._by_path = {
            path: row for row in self._rows.values() for path in (row["path"], *(row["other_paths"] or ()))
        }
        self._first_with = {row["content_sha256"]: row["slide_id"] for row in reversed(list(self._rows.values()))}

    def enter(self, path: Path) -> Registration:
        path = Path(os.path.abspath(path))
        size, mtime_ns = _stat(path)
        path = _sayable(path)
        known = self._by_path.get(str(path))
        if known and size is not None and (known["size_bytes"], known["mtime_ns"]) == (size, mtime_ns):
            return Registration(known["slide_id"], path, False)
        return self._enter_by_content(path, size, mtime_ns)

    def _enter_by_content(self, path: Path, size: int | None, mtime_ns: int | None) -> Registration:
        from pathassets.slides import content_digest, make_slide_id

        content = content_digest(path)
        slide_id = make_slide_id(path, content)
        if slide_id in self._rows and self._rows[slide_id]["content_sha256"] != content:
            slide_id = make_slide_id(path, content, digits=16)
        known = self._rows.get(slide_id)
        if known is not None:
            self._seen_again(known, path)
            return Registration(slide_id, path, False)
        first = self._first_with.setdefault(content, slide_id)
        row: dict[str, Any] = {
            "slide_id": slide_id,
            "path": str(path),
            "size_bytes": size,
            "mtime_ns": mtime_ns,
            "content_sha256": content,
            "other_paths": [],
            "duplicate_of": first if first != slide_id else None,
        }
        self._write(row)
        return Registration(slide_id, path, True)

    def _seen_again(self, known: dict[str, Any], path: Path) -> None:
        """The same content under the same name somewhere else: moved there, or a second copy."""
        if str(path) == known["path"] or str(path) in (known["other_paths"] or ()):
            return
        full = self._session.slide_row(known["slide_id"])
        if Path(known["path"]).exists():
            full["other_paths"] = [*(full["other_paths"] or ()), str(path)]
        else:
            full["path"] = str(path)
            _, full["mtime_ns"] = _stat(path)
        self._write(full)

    def _write(self, row: dict[str, Any]) -> None:
        self._session.tables.write("slides", [row], slide_id=row["slide_id"])
        self._rows[row["slide_id"]] = row
        self._by_path[row["path"]] = row


def _sayable(path: Path) -> Path:
    """A name that is not UTF-8 cannot stand in a table: its bytes are spelled out, and the slide is refused as missing."""
    return Path(os.fsencode(path).decode("utf-8", "backslashreplace"))


def _stat(path: Path) -> tuple[int | None, int | None]:
    try:
        stat = path.stat()
    except OSError:
        return None, None
    return stat.st_size, stat.st_mtime_ns
