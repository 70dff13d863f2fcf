"""Watched: a slide whose disk may stop answering.

Belongs here: a limit on opening and on each read. Does not belong: reading itself, the engine's own watchdog
(`engine/pipeline.py`), which sees batches and needs no thread for each read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from pathassets.errors import Reason, SlideError
from pathassets.slides import probe
from pathassets.slides.info import Facts
from pathassets.slides.reader import Pixels, Reader
from pathassets.slides.slide import Slide

Found = TypeVar("Found")


@contextmanager
def watched_slide(path: Path, seconds: float, *, mpp: float | None = None) -> Iterator[Slide]:
    """An open slide, given up when opening it or one of its reads takes more than `seconds`.

    After such a read all further ones fail at once, and so does the block at its end, whatever was made of those failures in it:
    places that nobody could wait for are no damaged ones.

    Raises:
        SlideError: `pixels_unreadable` when the disk did not answer; else what `open_slide` raises.
    """
    opened = _within(seconds, partial(probe.open_slide, path, mpp=mpp), f"opening {path}")
    watched: list[_Watched] = []

    def wrap(reader: Reader) -> Reader:
        watched.append(_Watched(reader, seconds, path.name))
        return watched[0]

    with opened.seen_through(wrap) as slide:
        try:
            yield slide
        except SlideError as error:
            raise (watched[0].stalled or error) from error.__cause__
        if watched[0].stalled is not None:
            raise watched[0].stalled


class _Watched:
    """A reader with a limit on each read; see `Reader`."""

    def __init__(self, reader: Reader, seconds: float, name: str) -> None:
        self._reader, self._seconds, self._of = reader, seconds, name
        self.stalled: SlideError | None = None

    @property
    def name(self) -> Literal["openslide", "tifffile"]:
        return self._reader.name

    @property
    def decoder(self) -> Literal["openslide", "tifffile", "jpeg", "jpeg2000"]:
        return self._reader.decoder

    @property
    def facts(self) -> Facts:
        return self._reader.facts

    def reductions(self, level: int) -> tuple[int, ...]:
        return self._reader.reductions(level)

    def read_level(self, level: int, left: float, top: float, width: int, height: int, reduction: int = 1) -> Pixels:
        if self.stalled is not None:
            raise self.stalled
        read = partial(self._reader.read_level, level, left, top, width, height, reduction)
        try:
            return _within(self._seconds, read, f"{self._of}: reading {width} x {height} px of level {level}")
        except _StalledError as error:
            self.stalled = error
            raise

    def close(self) -> None:
        """One that hangs is left behind with its thread."""
        if self.stalled is None:
            self._reader.close()


class _StalledError(SlideError):
    """A disk did not answer in time."""


def _within(seconds: float, work: Callable[[], Found], what: str) -> Found:
    """`work()` in a thread of its own, which is left behind where it takes longer."""
    future: Future[Found] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  handed to whoever waits
            future.set_exception(error)

    # a daemon: a thread that hangs must not keep the process from ending
    threading.Thread(target=run, name="pathassets-watched", daemon=True).start()
    try:
        return future.result(timeout=seconds)
    except TimeoutError:
        if future.done():  # a time limit of its own, or it came at the last moment
            return future.result()
    raise _StalledError(
        f"{what} has taken more than {seconds:g} s",
        reason=Reason.PIXELS_UNREADABLE,
        remedy="Check the disk or network that the file lies on.",
    )
