"""Overviews of whole slides, in spite of damaged places.

Belongs here: going on when part of a level cannot be read. Does not belong: reading itself (`slide`).

One damaged JPEG tile must not cost a slide. A block that cannot be read is tried in quarters; small ones are tried at the
finer levels, too. What cannot be read at `SMALLEST_PX` stays white, so that no tissue is found where none can be read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from pathassets.errors import Reason, SlideError
from pathassets.slides.problems import COPY_AGAIN
from pathassets.slides.reader import Pixels
from pathassets.slides.resample import Window

SMALLEST_PX = 32
# finer levels cost more to read and may lie half a pixel beside: they are for the damaged place, not for all around it
FROM_FINER_LEVELS_PX = 256
# Each failure costs a new handle; after this many a slide is not going to get better by trying.
MAX_FAILURES = 256

Span = tuple[int, int]
Render = Callable[..., Pixels]
Blocks = Callable[[Window, tuple[int, int]], Iterator[tuple[Span, Span]]]

log = logging.getLogger(__name__)


def read_overview(
    render: Render, blocks: Blocks, windows: Sequence[Window], out_hw: tuple[int, int], name: str
) -> Pixels:
    """The whole slide on `out_hw` px, (height, width, 3).

    Args:
        render: Shows (level, window, out_hw) or raises `SlideError`.
        blocks: Cuts a window of a level into rows and columns of the output.
        windows: The whole slide as a window of each level, finest first; the last is the level to read.
        out_hw: Height and width of the result in px.
        name: The slide's name, for messages.

    Raises:
        SlideError: `pixels_unreadable` when nothing of the slide can be read.
    """
    return _Overview(render, windows, out_hw, name).read(blocks)


class _Overview:
    def __init__(self, render: Render, windows: Sequence[Window], out_hw: tuple[int, int], name: str) -> None:
        self._render = render
        self._windows = windows
        self._out = np.full((*out_hw, 3), 255, np.uint8)
        self._name = name
        self._failures = 0
        self._white_px = 0

    def read(self, blocks: Blocks) -> Pixels:
        out_hw = self._out.shape[:2]
        level = len(self._windows) - 1
        for rows, columns in blocks(self._windows[level], (out_hw[0], out_hw[1])):
            if not self._try(level, rows, columns):
                self._rescue(rows, columns)
        if self._white_px == out_hw[0] * out_hw[1]:
            raise SlideError(
                f"{self._name}: no pixel of the slide can be read", reason=Reason.PIXELS_UNREADABLE, remedy=COPY_AGAIN
            )
        if self._white_px:
            share = self._white_px / (out_hw[0] * out_hw[1])
            log.warning("%s: %.2g %% of the slide cannot be read and is white in the overview", self._name, 100 * share)
        return self._out

    def _try(self, level: int, rows: Span, columns: Span) -> bool:
        height, width = self._out.shape[:2]
        part = self._windows[level].part(rows, columns, (height, width))
        size = (rows[1] - rows[0], columns[1] - columns[0])
        try:
            self._out[slice(*rows), slice(*columns)] = self._render(level, part, size, self._windows[level])
        except SlideError:
            self._failures += 1
            return False
        return True

    def _rescue(self, rows: Span, columns: Span) -> None:
        height, width = rows[1] - rows[0], columns[1] - columns[0]
        give_up = self._failures >= MAX_FAILURES
        if not give_up and max(height, width) <= FROM_FINER_LEVELS_PX and self._from_finer(rows, columns):
            return
        if give_up or max(height, width) <= SMALLEST_PX:
            self._white_px += height * width
            return
        for half_rows in _halves(rows):
            for half_columns in _halves(columns):
                if not self._try(len(self._windows) - 1, half_rows, half_columns):
                    self._rescue(half_rows, half_columns)

    def _from_finer(self, rows: Span, columns: Span) -> bool:
        return any(self._try(level, rows, columns) for level in reversed(range(len(self._windows) - 1)))


def _halves(span: Span) -> list[Span]:
    middle = (span[0] + span[1]) // 2
    return [half for half in ((span[0], middle), (middle, span[1])) if half[1] > half[0]]
