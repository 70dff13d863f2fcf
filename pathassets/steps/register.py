"""Registration: files become slides with ids that follow their content.

Belongs here: finding files, giving ids, noticing moved, changed, doubled, vanished and returned files. Does not belong:
opening them (`slide`), deciding when a file is ready (`inbox`).
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from pathassets.errors import Reason, SlideError, StoreError
from pathassets.slides import remote
from pathassets.slides.discover import CLOSED, find_slides
from pathassets.slides.identity import make_slide_id, path_digest
from pathassets.slides.parts import Found, Heads, found_at, slides_among
from pathassets.slides.places import absolute, is_uri
from pathassets.steps.session import Session
from pathassets.steps.sources import content_of, is_unread, stamp_of, told_apart
from pathassets.store.index import indexed

log = logging.getLogger(__name__)

COLUMNS = (
    "slide_id", "path", "size_bytes", "mtime_ns", "file_version", "content_sha256", "other_paths", "missing_since", "created_at",
)  # fmt: skip
_NAMES_SAID = 5
Row = dict[str, Any]


class ChangingError(Exception):
    """A file was changed while it was read."""


@dataclass(frozen=True)
class Registration:
    """A file and the slide that it is.

    Attributes:
        slide_id: The slide.
        path: Where the file lies: an absolute path or a URI.
        is_new: The study did not know the slide before.
        is_back: The slide's file had been missing, or could not be read until now.
    """

    slide_id: str
    path: str
    is_new: bool
    is_back: bool = False


def known_slides(session: Session, *, remember: bool = False) -> pl.DataFrame:
    """The registered slides, `COLUMNS` of them; `remember` where they are looked up again and again."""
    return indexed(session.tables, "slides", COLUMNS, remember=remember)


def missing_slides(session: Session) -> set[str]:
    """The slides whose file is gone, or another one now: nothing can be made of them until it is back."""
    return set(known_slides(session).filter(pl.col("missing_since").is_not_null())["slide_id"])


def unmatched_rows(session: Session) -> list[str]:
    """What to say of rows of `slides.csv` that are about no registered slide; nothing when all are, or none is registered.

    Raises:
        ConfigError: `manifest_invalid`.
    """
    rows = session.manifest.rows
    if not rows:
        return []
    known = known_slides(session)
    paths = [*known["path"], *known["other_paths"].explode().drop_nulls()]
    matched = {session.manifest_entry(path).get("path") for path in paths}
    left = [str(row["path"]) for row in rows if row["path"] not in matched]
    if not left or not paths:
        return []
    names = ", ".join(left[:_NAMES_SAID]) + (f" and {len(left) - _NAMES_SAID} more" if len(left) > _NAMES_SAID else "")
    return [f"{len(left)} of {len(rows)} rows of slides.csv match no slide of this study: {names}"]


def files_to_register(session: Session, places: Sequence[str]) -> list[Found]:
    """Slides at `places`, which are paths and URIs; with none, those of the inbox and of the manifest.

    A folder that may not be entered is among them, `ignored`: its user has to hear of it, and it is no slide.
    """
    if places:
        local = find_slides([Path(place) for place in places if not is_uri(place)])
        return [*map(as_found, local), *(slide for place in places if is_uri(place) for slide in slides_at(place))]
    folders = [folder for folder in session.study.inbox_paths if folder.is_dir()]
    local = list(dict.fromkeys([*find_slides(folders), *session.manifest.paths()]))
    there = [slide for place in filter(is_uri, session.study.inbox_places) for slide in slides_at(place)]
    return [*map(as_found, local), *there, *map(as_found, session.manifest.uris())]


def slides_at(uri: str) -> list[Found]:
    """The slides at or below a URI; none, and a warning, where it cannot be listed."""
    listing = remote.list_place(uri)
    for folder, why in listing.blind.items():
        log.warning("%s cannot be listed: %s", folder, why)
    slides = slides_among(listing.entries, Heads(read=remote.read_head))
    return [slide for slide in slides if not slide.ignored]


def as_found(file: str | Path | Found) -> Found:
    """A named file as a listing would show it; of size -1 when it is not there."""
    if isinstance(file, Found):
        return file
    text = str(file) if is_uri(str(file)) else os.path.abspath(file)
    try:
        if not is_uri(text) and os.path.isdir(text):
            os.scandir(text).close()
        return remote.found_at(text) if is_uri(text) else found_at(text)
    except PermissionError:
        return Found(text, size=-1, ignored=CLOSED if os.path.isdir(text) else "")
    except (OSError, ValueError):
        return Found(text, size=-1)


def register(session: Session, files: Iterable[str | Path | Found]) -> list[Registration]:
    """Gives every file a slide id and a row in `slides`; files that cannot be read get one too, what is `ignored` none.

    A file that was registered before and has the same size and time is not read again, unless it could not be read then: its slide
    keeps its id and gets its content as soon as it can be read. A file that has moved keeps its
    slide, under a new name too. The same content elsewhere under another name is a slide of its own, whose `duplicate_of`
    names the first; under the same name it is another path of the first.
    """
    book = Book(session)
    slides = (found for found in map(as_found, files) if not found.ignored)
    return list({entry.slide_id: entry for entry in map(book.enter, slides)}.values())


class Book:
    """The slides known so far, found by path, by id and by content.

    Args:
        session: The study.
        remember: See `known_slides`.

    Attributes:
        rows: The slides' rows, `COLUMNS` of them, by slide id.
    """

    def __init__(self, session: Session, *, remember: bool = False) -> None:
        self._session = session
        known = known_slides(session, remember=remember)
        self.rows: dict[str, Row] = {row["slide_id"]: row for row in known.iter_rows(named=True)}
        self._by_path: dict[str, list[Row]] = defaultdict(list)
        self._by_content: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows.values():
            self._note(row)

    def slide_of(self, found: Found) -> Row | None:
        """The slide whose row says that its file looks like this."""
        for row in self._by_path.get(absolute(found.path), ()):
            if stamp_of(row) == found.stamp:
                return row
        return None

    def enter(self, found: Found, *, patient: bool = False, deadline: float = float("inf")) -> Registration:
        """Gives a file a slide id and, if it is new, a row.

        Args:
            found: The file.
            patient: Raise when it cannot be read now, instead of naming the slide by its path.
            deadline: Moment of the monotonic clock at which a remote file is put off.

        Raises:
            OSError: `patient`, and it cannot be read.
            ChangingError: `patient`, and it changed meanwhile.
            OutOfTimeError: The deadline has passed.
            StoreError: The row cannot be written.
        """
        path = absolute(found.path)
        if found.size < 0 and path in self._by_path:
            return self._enter_missing(path)
        unread = self.unread(path)
        if unread is not None:
            return self._enter_read(unread, path, found, deadline)
        known = self.slide_of(found)
        if known is None:
            content = self._content(found, patient, deadline)
            known = self._known_by_content(path, content)
            if known is None:
                return Registration(self._new(path, found, content), path, True)
        was_missing = known["missing_since"] is not None
        self._seen_again(known, path, found)
        self._supersede(path, known["slide_id"])
        return Registration(known["slide_id"], path, False, was_missing and known["missing_since"] is None)

    def unread(self, path: str) -> Row | None:
        """The slide at `path` whose content could not be read so far."""
        rows = [row for row in self._by_path.get(path, ()) if row["path"] == path]
        if any(row["missing_since"] is None and not is_unread(row) for row in rows):
            return None
        return next(filter(is_unread, rows), None)

    def enter_unread(self, found: Found) -> Registration:
        """Like `enter`, for a file whose content cannot be had: its path names the slide."""
        path, content = absolute(found.path), path_digest(found.path)
        known = self.rows.get(make_slide_id(path, content))
        slide_id = self._new(path, found, content) if known is None else known["slide_id"]
        return Registration(slide_id, path, known is None)

    def leave(self, row: Row, gone: Collection[str]) -> bool:
        """Notes that a slide's file no longer lies at some paths; False when a run holds the slide.

        A slide that has another copy goes on with that; one that has none is missing since now. Nothing is deleted.
        """
        left = [path for path in (row["path"], *(row["other_paths"] or ())) if path not in gone]
        if row["path"] not in gone:
            return self._update(row, other_paths=left[1:])
        for path in left:
            copy = as_found(path)
            if copy.size == row["size_bytes"]:
                rest = [other for other in left if other != path]
                return self._update(row, path=path, other_paths=rest, **_stamps(copy))
        return self._update(row, missing_since=datetime.now(UTC))

    def _enter_missing(self, path: str) -> Registration:
        """A file that was named and is not there, of a slide that is known."""
        row = self._by_path[path][-1]
        self.leave(row, {path})
        return Registration(row["slide_id"], path, False)

    def _enter_read(self, row: Row, path: str, found: Found, deadline: float) -> Registration:
        """A slide that only its path named so far: it keeps its id, and gets its content once that can be read.

        Whatever lies there now is meant, whatever its time: nothing else was ever known of this slide.
        """
        content = self._content(found, False, deadline)
        if content == row["content_sha256"]:
            return Registration(row["slide_id"], path, False)
        same = [other for other in self._by_content.get(content, ()) if other is not row]
        before = next((other for other in same if other["path"] == path), None)
        if before is not None:  # it was registered here, could not be read for a while, and is the same again
            self._seen_again(before, path, found)
            self._supersede(path, before["slide_id"])
            return Registration(before["slide_id"], path, False, is_back=True)
        first = next((other["slide_id"] for other in same), None)
        changes = {**_stamps(found), "content_sha256": content, "duplicate_of": first, "missing_since": None}
        was = self._by_content[row["content_sha256"]]
        if not self._update(row, **changes):  # a run holds it: next time
            return Registration(row["slide_id"], path, False)
        was[:] = [other for other in was if other is not row]
        return Registration(row["slide_id"], path, False, is_back=True)

    def _content(self, found: Found, patient: bool, deadline: float) -> str:
        try:
            content = content_of(self._session, found, deadline)
            content = told_apart(found, content, [row["path"] for row in self._by_content.get(content, ())])
            if patient and _size_and_time(found.path) != (found.size, found.mtime_ns):
                raise ChangingError(f"{found.path} changed while it was read")
        except (OSError, ValueError) as error:
            if patient and isinstance(error, OSError | SlideError):
                raise
            return path_digest(found.path)
        return content

    def _known_by_content(self, path: str, content: str) -> Row | None:
        slide_id = self._id_for(path, content)
        if slide_id in self.rows:
            return self.rows[slide_id]
        # moved and renamed: the slide keeps the id that its first name gave it
        return next((row for row in self._by_content.get(content, ()) if not self._lies_there(row)), None)

    def _id_for(self, path: str, content: str) -> str:
        """The slide's id: longer where other content has taken the short one."""
        slide_id = make_slide_id(path, content)
        taken = self.rows.get(slide_id)
        return (
            slide_id if taken is None or taken["content_sha256"] == content else make_slide_id(path, content, digits=16)
        )

    def _new(self, path: str, found: Found, content: str) -> str:
        slide_id = self._id_for(path, content)
        first = next((row["slide_id"] for row in self._by_content.get(content, ())), None)
        row: Row = {
            "slide_id": slide_id,
            "path": path,
            **_stamps(found),
            "content_sha256": content,
            "other_paths": [],
            "missing_since": None,
            "created_at": datetime.now(UTC).replace(tzinfo=None),  # as tables keep it
        }
        if not self._entered_by_another(slide_id, content):
            self._session.tables.write("slides", [{**row, "duplicate_of": first}], slide_id=slide_id)
        self.rows[slide_id] = row
        self._note(row)
        self._supersede(path, slide_id)
        return slide_id

    def _entered_by_another(self, slide_id: str, content: str) -> bool:
        """Whether another process was faster: its row, which a run may have filled in by now, must stay."""
        try:
            frame = self._session.tables.read("slides", slide_id)
        except StoreError:
            return False  # damaged: written anew
        return frame is not None and frame["content_sha256"].to_list() == [content]

    def _seen_again(self, row: Row, path: str, found: Found) -> None:
        """The same content somewhere: where it was, moved there, or a second copy."""
        others = list(row["other_paths"] or ())
        if path == row["path"]:
            self._update(row, **_stamps(found), missing_since=None)
        elif not self._lies_there(row):
            rest = [other for other in others if other != path]
            self._update(row, path=path, other_paths=rest, **_stamps(found), missing_since=None)
        elif path not in others:
            self._update(row, other_paths=[*others, path])

    def _supersede(self, path: str, slide_id: str) -> None:
        """Other slides that lay at `path` no longer do."""
        for row in list(self._by_path.get(path, ())):
            if row["slide_id"] != slide_id and row["missing_since"] is None:
                self.leave(row, {path})

    def _lies_there(self, row: Row) -> bool:
        """Whether a slide's file is where its row says; unsure counts as yes."""
        try:
            return stamp_of(row)[:2] == _size_and_time(row["path"])
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def _update(self, row: Row, **changes: Any) -> bool:
        """Changes a row in place; False when a run holds the slide, which writes the row too: another time then."""
        changes = {name: value for name, value in changes.items() if (row.get(name) or None) != (value or None)}
        slide_id = row["slide_id"]
        if not changes:
            return True
        try:
            with self._session.root.lock(f"slide-{slide_id}", timeout=0.0):
                full = {**self._session.slide_row(slide_id), **changes}
                self._session.tables.write("slides", [full], slide_id=slide_id)
        except StoreError as error:
            if error.reason is Reason.LOCKED:
                return False
            raise
        row.update(changes)
        self._note(row)
        return True

    def _note(self, row: Row) -> None:
        for path in (row["path"], *(row["other_paths"] or ())):
            if not any(row is other for other in self._by_path[path]):
                self._by_path[path].append(row)
        same = self._by_content[row["content_sha256"]]
        if not any(row is other for other in same):
            same.append(row)


def _size_and_time(path: str) -> tuple[int, int]:
    """Size and time of a file as it is now.

    Raises:
        OSError: It is not there, or cannot be asked for.
    """
    if is_uri(path):
        now = remote.entry_at(path)
        return now.size, now.mtime_ns
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


def _stamps(found: Found) -> Row:
    there = found.size >= 0
    return {
        "size_bytes": found.size if there else None,
        "mtime_ns": found.mtime_ns if there else None,
        "file_version": found.version or None,
    }
