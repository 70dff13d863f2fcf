"""The inbox: one look at the watched places, and what follows from it.

Belongs here: which files are ready, how much is done in one look, what is said about it. Does not belong: looking
(`sighting`), registering (`register`), partitions and runs (`defs/sensors.py`).

A file is ready when two looks in turn find it, and all its parts, with the same size and time. A slide whose file two looks
in turn do not find is missing; nothing is deleted. One bad file, or a place that cannot be seen, stops nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from pathassets.errors import PathassetsError, Reason, SlideError, StoreError, StoreUnreachableError, StudyError
from pathassets.slides.copies import OutOfTimeError
from pathassets.slides.parts import Found
from pathassets.slides.places import name_of, sayable
from pathassets.steps.chain import run_node
from pathassets.steps.nodes import Node, chain
from pathassets.steps.outcomes import failure, record_outcome
from pathassets.steps.register import Book, ChangingError, Registration, Row
from pathassets.steps.session import Session
from pathassets.steps.sighting import Memory, Sighting, load_memory, save_memory, sight

log = logging.getLogger(__name__)

MAX_TRIES = 3
# How long a slide waits for the rest of it: copying hundreds of MRXS brings all their indexes first.
INCOMPLETE_SECONDS = 6 * 3600.0
_NAMES_SAID = 5


@dataclass(frozen=True)
class Limits:
    """How much one look does; a sensor's tick has 60 s.

    Attributes:
        files: Files that are registered or found missing.
        listing_seconds: For listing all places.
        seconds: For registering; a file of 1 GB takes 2 s.
        handed: Slides that are handed to Dagster.
    """

    files: int = 64
    listing_seconds: float = 20.0
    seconds: float = 20.0
    handed: int = 256


@dataclass
class Look:
    """What came of a look.

    Attributes:
        registered: Slides without a partition, in the order in which they are to get one, and when they were registered.
        returned: Slides with a partition whose file is back, and since when it had been missing.
        news: Lines for the log; each is said once.
        state: How things stand, in a sentence.
        counts: Numbers for whoever watches.
    """

    registered: dict[str, str] = field(default_factory=dict)
    returned: dict[str, str] = field(default_factory=dict)
    news: list[str] = field(default_factory=list)
    state: str = ""
    counts: dict[str, int] = field(default_factory=dict)


def look(
    session: Session,
    partitions: Collection[str],
    *,
    fresh: bool = False,
    limits: Limits | None = None,
    now: Callable[[], float] = time.time,
) -> Look:
    """Looks at the watched places, registers what is ready, and marks what is missing.

    Args:
        session: The study.
        partitions: The slides that Dagster knows.
        fresh: Forget what earlier looks saw.
        limits: How much to do.
        now: The clock, in s since 1970.

    Raises:
        StoreError: The store cannot be listed.
    """
    limits = limits or Limits()
    memory = Memory() if fresh else load_memory(session)
    seen = sight(session, memory, limits.listing_seconds)
    return _Looking(session, memory, seen, limits, now()).finish(set(partitions))


class _Looking:
    """One look on its way."""

    def __init__(self, session: Session, memory: Memory, seen: Sighting, limits: Limits, now: float) -> None:
        self._session, self._old, self._seen, self._limits, self._now = session, memory, seen, limits, now
        self._new = Memory(heads=seen.carry_over(memory.heads, seen.heads), blind=seen.blind)
        self._deadline = time.monotonic() + limits.seconds
        self._done = 0
        self._stopped = ""
        self._lacking = 0
        self._book = Book(session, remember=True)
        self._here: dict[str, None] = {}
        self._look = Look()

    def finish(self, partitions: Collection[str]) -> Look:
        """All of it, in order."""
        self._say_sight()
        ready = [found for path, found in self._seen.slides.items() if self._is_ready(path, found)]
        ready.sort(key=lambda found: self._book.unread(sayable(found.path)) is not None)  # they may never be readable
        entered = [entry for entry in map(self._enter, ready) if entry is not None]
        self._mark_missing()
        new = [slide_id for slide_id in self._here if slide_id not in partitions][: self._limits.handed]
        self._look.registered = {slide_id: str(self._book.rows[slide_id]["created_at"]) for slide_id in new}
        self._say_entered(entered)
        self._remember()
        self._sum_up(len(entered))
        return self._look

    # -- what is ready -------------------------------------------------------------------------------------------------

    def _is_ready(self, path: str, found: Found) -> bool:
        unread = self._book.unread(path)
        row = unread or self._book.slide_of(found) or self._aliased(path, found)
        if row is not None:
            self._here[row["slide_id"]] = None
            if unread is None or self._book.slide_of(found) is unread:
                return unread is not None or row["missing_since"] is not None
        stamp = list(found.stamp)
        before = self._old.waiting.get(path)
        lay_still = before is not None and before[:3] == stamp
        since, tries = (before[3], before[4]) if before is not None and lay_still else (self._now, 0)
        self._new.waiting[path] = [*stamp, since, tries]
        if found.lacks and self._now - since < INCOMPLETE_SECONDS:
            self._lacking += 1
            if before is None:
                self._say(f"{_shown(path)} waits for {found.lacks}")
            return False
        return lay_still

    def _aliased(self, path: str, found: Found) -> Row | None:
        """The slide of which the file is known to be a copy."""
        known = self._old.aliases.get(path)
        if known is None or known[:3] != list(found.stamp):
            return None
        row = self._book.rows.get(known[3])
        if row is not None:
            self._new.aliases[path] = known
        return row

    # -- registering ---------------------------------------------------------------------------------------------------

    def _enter(self, found: Found) -> Registration | None:
        """Registers a file; whatever goes wrong with it is its own affair."""
        if self._is_enough():
            return None
        path = sayable(found.path)
        unread = self._book.unread(path) is not None  # tried at every look: right to read changes neither size nor time
        self._done += not unread
        waiting = self._new.waiting.get(path, [*found.stamp, self._now, 0])
        entry: Registration | None
        try:
            entry = self._book.enter(found, patient=waiting[4] < MAX_TRIES, deadline=self._deadline)
        except OutOfTimeError as error:
            self._stopped = str(error)
            return None
        except (StoreError, StoreUnreachableError) as error:
            self._stop(error)
            return None
        except ChangingError:
            return None
        except (OSError, SlideError) as error:
            waiting[4] += 1
            self._say(f"{_shown(path)} cannot be read ({error}), try {waiting[4]} of {MAX_TRIES}")
            return None
        except Exception as error:  # noqa: BLE001  a file may do what it likes, the others go on
            entry = None if unread else self._enter_broken(found, error)
        if entry is not None:
            self._entered(path, found, entry)
        return None if unread and entry is not None and not entry.is_back else entry

    def _entered(self, path: str, found: Found, entry: Registration) -> None:
        self._new.waiting.pop(path, None)
        self._here[entry.slide_id] = None
        if self._book.slide_of(found) is None:  # a copy that looks different, or a row that a run holds
            self._new.aliases[path] = [*found.stamp, entry.slide_id]
        if entry.is_back:
            self._look.returned[entry.slide_id] = f"{found.mtime_ns}-{self._now:.0f}"

    def _enter_broken(self, found: Found, error: Exception) -> Registration | None:
        """A file that breaks the registration gets its slide by its path, and an outcome that says what happened."""
        log.error("%r could not be registered", found.path, exc_info=error)
        try:
            entry = self._book.enter_unread(found)
            text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:500]
            remedy = "See .dagster/pathassets.log in the study's folder; please report it."
            record_outcome(
                self._session, self._node, failure(entry.slide_id, self._node, Reason.INTERNAL, text, remedy)
            )
        except (StoreError, StoreUnreachableError) as problem:
            self._stop(problem)
            return None
        return entry

    @property
    def _node(self) -> Node:
        return chain(self._session.study)[0]

    # -- what is missing -----------------------------------------------------------------------------------------------

    def _mark_missing(self) -> None:
        before = set(self._old.gone)
        for row in list(self._book.rows.values()):
            if row["missing_since"] is not None:
                continue
            gone = {path for path in (row["path"], *(row["other_paths"] or ())) if self._seen.lacks(path)}
            if not gone:
                if row["slide_id"] in before and self._seen.is_hidden(row["path"]):
                    self._new.gone.append(row["slide_id"])
            elif row["slide_id"] not in before or self._is_enough() or not self._mark(row, gone):
                self._new.gone.append(row["slide_id"])

    def _mark(self, row: Row, gone: Collection[str]) -> bool:
        self._done += 1
        path = row["path"]
        try:
            if not self._book.leave(row, gone):
                return False
            if row["missing_since"] is not None:
                self._say(f"{_shown(path)} is gone; what was made from it is kept")
                with self._session.root.lock(f"slide-{row['slide_id']}", timeout=0.0):
                    run_node(self._session, row["slide_id"], self._node, {})
        except (StoreError, StoreUnreachableError) as error:
            if error.reason is not Reason.LOCKED:
                self._stop(error)
        except PathassetsError as error:
            self._say(f"{_shown(path)}: {error.message}")
        return True

    # -- limits and words ----------------------------------------------------------------------------------------------

    def _is_enough(self) -> bool:
        return bool(self._stopped) or self._done >= self._limits.files or time.monotonic() > self._deadline

    def _stop(self, error: StudyError) -> None:
        self._stopped = error.message
        self._say(str(error))

    def _say(self, line: str) -> None:
        self._look.news.append(line)

    def _say_sight(self) -> None:
        self._new.ignored = self._seen.carry_over(self._old.ignored, self._seen.ignored)
        fresh: dict[str, list[str]] = {}
        for path, why in self._new.ignored.items():
            if self._old.ignored.get(path) != why:
                fresh.setdefault(why, []).append(path)
        for why, paths in fresh.items():
            self._say(f"left alone, {why}: {_few(paths)}")
        for place, why in self._seen.blind.items():
            if place not in self._old.blind:
                self._say(self._blind(place, why))
        for place in self._old.blind.keys() - self._seen.blind.keys():
            self._say(f"{_shown(place)} can be listed again")

    def _blind(self, place: str, why: str) -> str:
        """Of the manifest, its own words: they name the line and say what to write there."""
        is_manifest = place == str(self._session.study.manifest_path)
        return _shown(f"slides.csv cannot be used: {why}" if is_manifest else f"{place} cannot be listed: {why}")

    def _say_entered(self, entered: list[Registration]) -> None:
        new = [entry.slide_id for entry in entered if entry.is_new]
        if new:
            self._say(f"registered: {_few(new)}")
        for slide_id in self._look.returned:
            self._say(f"{slide_id}: its file is back, or can be read now")

    def _remember(self) -> None:
        for name in ("waiting", "aliases"):
            setattr(self._new, name, self._seen.carry_over(getattr(self._old, name), getattr(self._new, name)))
        if self._new != self._old:
            try:
                save_memory(self._session, self._new)
            except (StoreError, StoreUnreachableError) as error:
                self._stop(error)

    def _sum_up(self, n_entered: int) -> None:
        self._look.counts = {
            "seen": len(self._seen.slides),
            "waiting": len(self._new.waiting),
            "entered": n_entered,
            "ignored": len(self._new.ignored),
            "blind": len(self._seen.blind),
        }
        waiting = len(self._new.waiting)
        parts = [f"{waiting} new files are waited for" if waiting else "no new files"]
        if self._lacking:
            parts.append(f"{self._lacking} of them lack parts")
        parts += [self._blind(place, why) for place, why in list(self._seen.blind.items())[:_NAMES_SAID]]
        self._look.state = "; ".join([*parts, self._stopped] if self._stopped else parts)


def _few(paths: Iterable[str]) -> str:
    """Some names, and how many more there are."""
    paths = list(paths)
    names = ", ".join(_shown(name_of(path)) for path in paths[:_NAMES_SAID])
    more = len(paths) - _NAMES_SAID
    return f"{names} and {more} more" if more > 0 else names


def _shown(text: str) -> str:
    """A name as one line of a log can show it."""
    plain = sayable(text)
    return plain if plain.isprintable() else repr(plain)
