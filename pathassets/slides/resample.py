"""From pixels of a level to pixels of the size asked for.

Belongs here: the arithmetic of windows, and the filters. Does not belong: which file they come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pathassets.slides.reader import Pixels

# A window counts as a whole multiple of its output when it is off by no more than this, in px of the level over its
# whole width: 224 px cut from a level that is 3.9995 times coarser must not be blurred for a 30th of a pixel.
WHOLE_PX = 0.25
# Below this a shift cannot change a pixel by a grey level on any edge softer than half the grey scale.
_NO_SHIFT_PX = 1 / 128
# By how much a reduced level must be finer than an output that is no whole multiple of it. At hardly more than one px for
# one, the filter blurs where it falls between pixels and does not where it falls on them: 2 to 6 grey levels in the
# mean on sharp tissue, less than 1 from here on.
_SPARE = 1.5
# what sums and products of sizes may be off
_EPSILON = 1e-6


@dataclass(frozen=True)
class Window:
    """A rectangle of a level, in px of that level; not whole in general."""

    left: float
    top: float
    width: float
    height: float

    def reduced(self, factor: int) -> Window:
        """The same rectangle in px of a level that is `factor` times coarser."""
        return Window(self.left / factor, self.top / factor, self.width / factor, self.height / factor)

    def part(self, rows: tuple[int, int], columns: tuple[int, int], out_hw: tuple[int, int]) -> Window:
        """What output rows `rows[0]:rows[1]` and columns `columns[0]:columns[1]` of `out_hw` show."""
        step_y, step_x = self.height / out_hw[0], self.width / out_hw[1]
        return Window(
            self.left + columns[0] * step_x,
            self.top + rows[0] * step_y,
            (columns[1] - columns[0]) * step_x,
            (rows[1] - rows[0]) * step_y,
        )


@dataclass(frozen=True)
class Plan:
    """How a window becomes an image.

    Attributes:
        left: Where to begin to read, in px of the level.
        top: Where to begin to read, in px of the level.
        read_hw: Rows and columns to read.
        factors: (y, x): whole numbers of level px per output px; None when they are not whole.
        box: (left, top, right, bottom) of the window within what is read.
    """

    left: float
    top: float
    read_hw: tuple[int, int]
    factors: tuple[int, int] | None
    box: tuple[float, float, float, float]


def plan_window(window: Window, out_hw: tuple[int, int], *, within: Window | None = None) -> Plan:
    """What must be read to show `window` on `out_hw` pixels.

    Args:
        window: The rectangle.
        out_hw: Height and width of the output in px.
        within: The larger rectangle that `window` is one part of: then what the filter sees beyond the part's border is
            read too, so that the parts fit together without a seam.
    """
    scale_y, scale_x = window.height / out_hw[0], window.width / out_hw[1]
    factor_y, factor_x = max(1, round(scale_y)), max(1, round(scale_x))
    rows, columns = factor_y * out_hw[0], factor_x * out_hw[1]
    # one part of a picture must not be rounded to whole factors where its neighbour is not
    tolerance = _EPSILON * max(rows, columns) if within else WHOLE_PX
    if abs(rows - window.height) <= tolerance and abs(columns - window.width) <= tolerance:
        return Plan(window.left, window.top, (rows, columns), (factor_y, factor_x), (0, 0, columns, rows))
    outer = within or window
    left, right = _span(window.left, window.width, outer.left, outer.width, scale_x)
    top, bottom = _span(window.top, window.height, outer.top, outer.height, scale_y)
    x, y = max(0.0, window.left - left), max(0.0, window.top - top)
    box = (x, y, min(x + window.width, right - left), min(y + window.height, bottom - top))
    return Plan(left, top, (bottom - top, right - left), None, box)


def best_reduction(window: Window, out_hw: tuple[int, int], reductions: Sequence[int], within: Window | None) -> int:
    """The largest of `reductions` (largest first) at which a level may be decoded to show `window` on `out_hw` px; else 1.

    The reduced level must be fine enough (to 1 %, as levels are chosen). And where whole factors allow to take means of
    blocks, its pixels must be whole blocks of the window: a start at an odd pixel is not shifted by half a pixel. Where they
    do not, it must be finer by half as much again.
    """
    factors = plan_window(window, out_hw, within=within).factors
    finest = 1.01 * min(window.height / out_hw[0], window.width / out_hw[1])
    for reduction in reductions:
        if reduction * (_SPARE if factors is None else 1) > finest:
            continue
        sides = (window.left, window.top, *factors) if factors else ()
        if all(abs(v - reduction * round(v / reduction)) < _EPSILON for v in sides):
            return reduction
    return 1


def _span(start: float, length: float, outer_start: float, outer_length: float, scale: float) -> tuple[int, int]:
    """First and last px to read for one axis: the window and two output px to each side, as far as the outer one goes."""
    margin = 2 * max(1.0, scale)
    first = max(start - margin, outer_start)
    last = min(start + length + margin, outer_start + outer_length)
    return math.floor(first + _EPSILON), math.ceil(last - _EPSILON)


def resample(pixels: Pixels, plan: Plan, out_hw: tuple[int, int]) -> Pixels:
    """`pixels` (what `plan` says to read, uint8 RGB) on `out_hw` px: (height, width, 3).

    Whole factors: the mean over each block of pixels, and factor 1 leaves them as they are. Otherwise a windowed sinc of
    one output pixel to each side (Hamming), which is as sharp as an area mean without its jumps, or, enlarging, bicubic.
    """
    if plan.factors == (1, 1):
        return pixels
    from PIL import Image

    image = Image.fromarray(pixels)
    if plan.factors is not None:
        return np.asarray(image.reduce((plan.factors[1], plan.factors[0])))
    left, top, right, bottom = plan.box
    enlarges = (right - left) * (bottom - top) < out_hw[0] * out_hw[1]
    image_filter = Image.Resampling.BICUBIC if enlarges else Image.Resampling.HAMMING
    return np.asarray(image.resize((out_hw[1], out_hw[0]), image_filter, box=plan.box))


def shift(read: Callable[[int, int, int, int], Pixels], left: float, top: float, width: int, height: int) -> Pixels:
    """Pixels (height, width, 3) from a start that need not be whole, by linear interpolation.

    Args:
        read: Gives pixels for whole left, top, width, height.
        left: Where the first column begins, px.
        top: Where the first row begins, px.
        width: Columns.
        height: Rows.
    """
    x, y = round(left), round(top)
    if abs(left - x) <= _NO_SHIFT_PX and abs(top - y) <= _NO_SHIFT_PX:
        return read(x, y, width, height)
    from PIL import Image

    x, y = math.floor(left), math.floor(top)
    image = Image.fromarray(read(x, y, width + 1, height + 1))
    box = (left - x, top - y, left - x + width, top - y + height)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=box))
