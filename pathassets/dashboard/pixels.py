"""Pixels: slides as a pyramid of square tiles, cut when they are asked for.

Belongs here: the pyramid's geometry, and which slides are held open. Does not belong: addresses (`routes`), file formats
(`slides/`).

Level 0 is the slide itself, each further level half as large, as DeepZoom has it with the order turned round. Tiles have
the edge that scanners give theirs, so that most are one decoded tile of the file.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, defaultdict
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pathassets.errors import PathassetsError, Reason, SlideError
from pathassets.steps.session import Session

if TYPE_CHECKING:
    from pathassets.slides import Slide
    from pathassets.slides.reader import Pixels

TILE_PX = 256
JPEG_QUALITY = 85
OPEN_SLIDES = 32
# A slide that cannot be opened is asked for by every tile of the view: one trial in so many seconds is enough.
RETRY_SECONDS = 20.0


def n_levels(width: int, height: int) -> int:
    """Levels until the whole slide of `width` x `height` px fits one tile."""
    return max(1, (max(width, height, 1) - 1).bit_length() - TILE_PX.bit_length() + 2)


def tile_window(width: int, height: int, level: int, column: int, row: int) -> tuple[int, int, int, int] | None:
    """The rectangle (x, y, width, height) in level-0 px that a tile of the pyramid shows; None where there is no such tile."""
    if not 0 <= level < n_levels(width, height) or column < 0 or row < 0:
        return None
    side = TILE_PX << level
    x, y = column * side, row * side
    if x >= width or y >= height:
        return None
    return x, y, min(side, width - x), min(side, height - y)


class SlidePool:
    """Slides held open, the least recently used closed first. Safe between threads.

    Args:
        session: What opens slides.
        size: How many.
    """

    def __init__(self, session: Session, size: int = OPEN_SLIDES) -> None:
        self._session, self._size = session, size
        self._open: OrderedDict[str, tuple[Slide, ExitStack]] = OrderedDict()
        self._refused: dict[str, tuple[float, PathassetsError]] = {}
        self._lock = threading.Lock()  # of the two above, never held while a file is opened
        self._opening: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def slide(self, slide_id: str) -> Slide:
        """The open slide. One that is closed meanwhile still ends the reads that are under way.

        Raises:
            SlideError: Its file is gone, has changed, or cannot be read.
        """
        found = self._held(slide_id)
        if found is not None:
            return found
        with self._lock:
            own = self._opening[slide_id]
        with own:  # a slow disk, or a copy from an object store, holds up this slide alone
            return self._held(slide_id) or self._keep(slide_id, *self._opened(slide_id))

    def _held(self, slide_id: str) -> Slide | None:
        with self._lock:
            if slide_id not in self._open:
                return None
            self._open.move_to_end(slide_id)
            return self._open[slide_id][0]

    def _keep(self, slide_id: str, slide: Slide, stack: ExitStack) -> Slide:
        with self._lock:
            self._open[slide_id] = slide, stack
            oldest = [self._open.popitem(last=False)[1][1] for _ in range(len(self._open) - self._size)]
        for closing in oldest:
            closing.close()
        return slide

    def trouble(self, slide_id: str) -> PathassetsError | None:
        """Why the slide cannot be opened; None when it is open."""
        try:
            self.slide(slide_id)
        except PathassetsError as error:
            return error
        return None

    def close(self) -> None:
        """Lets go of all files."""
        with self._lock:
            while self._open:
                self._open.popitem()[1][1].close()

    def tile(self, slide_id: str, level: int, column: int, row: int) -> bytes | None:
        """A tile of the pyramid as JPEG; None where there is no such tile.

        Raises:
            SlideError: As for `slide`, or `pixels_unreadable`.
        """
        slide = self.slide(slide_id)
        window = tile_window(slide.info.width_px, slide.info.height_px, level, column, row)
        if window is None:
            return None
        x, y, width, height = window
        return jpeg(slide.read(x, y, width, height, (-(-height >> level), -(-width >> level))))

    def crop(self, slide_id: str, x: int, y: int, width: int, height: int, side: int) -> bytes:
        """A rectangle in level-0 px as JPEG whose longer edge has `side` px.

        Raises:
            SlideError: As for `tile`.
        """
        scale = side / max(width, height)
        out_hw = (max(1, round(height * scale)), max(1, round(width * scale)))
        return jpeg(self.slide(slide_id).read(x, y, width, height, out_hw))

    def _opened(self, slide_id: str) -> tuple[Slide, ExitStack]:
        when, error = self._refused.get(slide_id, (0.0, None))
        if error is not None and time.monotonic() - when < RETRY_SECONDS:
            raise error
        stack = ExitStack()
        try:
            return stack.enter_context(self._session.open_slide(slide_id)), stack
        except PathassetsError as refusal:
            self._refused[slide_id] = (time.monotonic(), refusal)
            raise
        except OSError as problem:
            unreadable = SlideError(f"the file of {slide_id} cannot be read", reason=Reason.FILE_UNREADABLE)
            self._refused[slide_id] = (time.monotonic(), unreadable)
            raise unreadable from problem


def jpeg(rgb: Pixels) -> bytes:
    """`rgb` (h, w, 3) as JPEG."""
    import numpy as np
    import simplejpeg

    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality=JPEG_QUALITY, colorspace="RGB"))
