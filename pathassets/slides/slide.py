"""Slide: an open slide file, read at any resolution.

Belongs here: which level a rectangle is read from, large rectangles in bounded memory, errors in the project's words.
Does not belong: file formats (the readers), filters (`resample`), what to do about damaged places of an overview (`overview`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType

import numpy as np

from pathassets.core.geometry import best_level
from pathassets.errors import PathassetsError, Reason, SlideError
from pathassets.slides.info import SlideInfo, check_mpp
from pathassets.slides.overview import read_overview
from pathassets.slides.problems import COPY_AGAIN
from pathassets.slides.reader import Pixels, Reader
from pathassets.slides.resample import Window, best_reduction, plan_window, resample

# Pixels of a level that are decoded at once; OpenSlide and Pillow need about ten bytes for each. Larger rectangles are
# read in squares.
MAX_BLOCK_PX = 2**24
BLOCK_SIDE_PX = 2048
# An output of 512 Mpx (1.5 GB) is no overview; a file that asks for one lies about its size.
MAX_OUT_PX = 2**29


class Slide:
    """An open slide; use it as a context manager. All methods may be called from several threads at once.

    Args:
        reader: The open file.
        info: What is known about it.

    Attributes:
        info: What is known about the slide.
    """

    def __init__(self, reader: Reader, info: SlideInfo) -> None:
        self._reader = reader
        self.info = info

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Slide({str(self.info.path)!r}, {self.info.width_px} x {self.info.height_px} px)"

    def close(self) -> None:
        """Lets go of the file."""
        self._reader.close()

    def seen_through(self, wrap: Callable[[Reader], Reader]) -> Slide:
        """This slide with its reader inside another one."""
        return Slide(wrap(self._reader), self.info)

    def read(self, x: int, y: int, width: int, height: int, out_hw: tuple[int, int]) -> Pixels:
        """A rectangle of level 0, shown on exactly `out_hw` pixels.

        Read from the coarsest level that is still fine enough. Where a level has the very resolution asked for, its
        pixels are handed on as they are. Memory stays bounded however large the rectangle.

        Args:
            x: Left edge in level-0 px; may lie outside the slide.
            y: Top edge in level-0 px; may lie outside the slide.
            width: Width in level-0 px.
            height: Height in level-0 px.
            out_hw: Height and width of the result in px.

        Returns:
            uint8 RGB, (height, width, 3), writable, white outside the slide.

        Raises:
            ValueError: The rectangle or the output has no area.
            SlideError: `pixels_unreadable`, naming the rectangle; `unsupported_pixels` for outputs beyond 512 Mpx.
        """
        level = self._level_for(width, height, out_hw)
        return self._render(level, self._window(level, x, y, width, height), out_hw)

    def read_mpp(self, mpp: float) -> Pixels:
        """The whole slide at about `mpp` µm per pixel: uint8 RGB, (height, width, 3).

        A damaged place is read from a finer level, or stays white; see `overview`.

        Raises:
            SlideError: The slide's own resolution is missing or implausible; `pixels_unreadable` when nothing of the slide
                can be read.
        """
        check_mpp(self.info)
        assert self.info.mpp is not None
        return self._overview(self.info.mpp / mpp)

    def thumbnail(self, max_px: int) -> Pixels:
        """The whole slide on at most `max_px` pixels a side, never enlarged: uint8 RGB, (height, width, 3).

        Raises:
            SlideError: `pixels_unreadable` when nothing of the slide can be read.
        """
        return self._overview(min(1.0, max_px / max(self.info.width_px, self.info.height_px)))

    def _overview(self, scale: float) -> Pixels:
        width, height = self.info.width_px, self.info.height_px
        out_hw = (max(1, round(height * scale)), max(1, round(width * scale)))
        finest_first = range(self._level_for(width, height, out_hw) + 1)
        windows = [self._window(level, 0, 0, width, height) for level in finest_first]
        return read_overview(self._render, self._blocks, windows, out_hw, self.info.path.name)

    def _level_for(self, width: int, height: int, out_hw: tuple[int, int]) -> int:
        if min(width, height, *out_hw) < 1:
            raise ValueError(f"a rectangle of {width} x {height} px on {out_hw[1]} x {out_hw[0]} px has no area")
        if out_hw[0] * out_hw[1] > MAX_OUT_PX:
            raise SlideError(
                f"{self.info.path.name}: an image of {out_hw[1]} x {out_hw[0]} px is too large to hold",
                reason=Reason.UNSUPPORTED_PIXELS,
                remedy="If the slide really is that large, ask for it at a coarser resolution.",
            )
        return best_level(self.info.level_dimensions, min(width / out_hw[1], height / out_hw[0]))

    def _window(self, level: int, x: int, y: int, width: int, height: int) -> Window:
        downsample = self._reader.facts.downsamples[level]
        return Window(x / downsample, y / downsample, width / downsample, height / downsample)

    def _render(self, level: int, window: Window, out_hw: tuple[int, int], within: Window | None = None) -> Pixels:
        """`window` of `level` on `out_hw` px; a part of the picture `within`, if that is given."""
        if window.width * window.height <= MAX_BLOCK_PX:
            return self._render_block(level, window, out_hw, within)
        # where a single output pixel would take more than a block: go there in two steps
        steps = (1 + (window.height > BLOCK_SIDE_PX * out_hw[0]), 1 + (window.width > BLOCK_SIDE_PX * out_hw[1]))
        if steps != (1, 1):
            halfway = self._render(level, window, (steps[0] * out_hw[0], steps[1] * out_hw[1]), within)
            parts = halfway.reshape(out_hw[0], steps[0], out_hw[1], steps[1], 3)
            return np.rint(parts.mean(axis=(1, 3))).astype(np.uint8)
        out = np.empty((*out_hw, 3), np.uint8)
        for rows, columns in self._blocks(window, out_hw):
            part = window.part(rows, columns, out_hw)
            size = (rows[1] - rows[0], columns[1] - columns[0])
            out[slice(*rows), slice(*columns)] = self._render(level, part, size, within or window)
        return out

    @staticmethod
    def _blocks(window: Window, out_hw: tuple[int, int]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Rows and columns of `out_hw` that together show `window`, each from about `BLOCK_SIDE_PX` px of the level."""
        rows = max(1, int(BLOCK_SIDE_PX * out_hw[0] / window.height))
        columns = max(1, int(BLOCK_SIDE_PX * out_hw[1] / window.width))
        for top in range(0, out_hw[0], rows):
            for left in range(0, out_hw[1], columns):
                yield (top, min(top + rows, out_hw[0])), (left, min(left + columns, out_hw[1]))

    def _render_block(self, level: int, window: Window, out_hw: tuple[int, int], within: Window | None) -> Pixels:
        reduction = best_reduction(window, out_hw, self._reader.reductions(level), within)
        reduced = window.reduced(reduction)
        plan = plan_window(reduced, out_hw, within=within.reduced(reduction) if within else None)
        try:
            pixels = self._reader.read_level(level, plan.left, plan.top, plan.read_hw[1], plan.read_hw[0], reduction)
        except PathassetsError:
            raise
        except Exception as error:  # decoders raise what they like; here it becomes one kind of error
            raise self._unreadable(level, window, error) from error
        found = resample(pixels, plan, out_hw)
        return found if found.flags.writeable else found.copy()

    def _unreadable(self, level: int, window: Window, error: Exception) -> SlideError:
        scale = self._reader.facts.downsamples[level]
        x, y, width, height = (round(v * scale) for v in (window.left, window.top, window.width, window.height))
        return SlideError(
            f"{self.info.path.name}: {width} x {height} px at x={x}, y={y} (level-0 px; read from level {level}) "
            f"cannot be read: {error}",
            reason=Reason.PIXELS_UNREADABLE,
            remedy=f"{COPY_AGAIN} If they are the same, the original is damaged there.",
        )
