"""Reader: what every reader of slide files can do.

Belongs here: the protocol, and which levels belong together. Does not belong: readers, resampling.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pathassets.slides.info import Facts

Pixels = NDArray[np.uint8]


class Reader(Protocol):
    """An open slide file; all methods may be called from several threads at once."""

    @property
    def name(self) -> Literal["openslide", "tifffile"]:
        """Which reader opened the file; the column `reader` of `slides`."""

    @property
    def decoder(self) -> Literal["openslide", "tifffile", "jpeg", "jpeg2000"]:
        """What decodes the pixels."""

    @property
    def facts(self) -> Facts:
        """What the file says of itself."""

    def reductions(self, level: int) -> tuple[int, ...]:
        """By which whole numbers a level can be decoded smaller than it is, at less cost; largest first, without 1."""

    def read_level(self, level: int, left: float, top: float, width: int, height: int, reduction: int = 1) -> Pixels:
        """Pixels of one level, (height, width, 3); white outside the level.

        Args:
            level: Index into `facts.level_dimensions`.
            left: Where the first column begins, in px of the level; fractions shift by less than a pixel.
            top: Where the first row begins, in px of the level.
            width: Columns.
            height: Rows.
            reduction: One of `reductions(level)`, or 1; then all four above are in px of the reduced level.

        Raises:
            Exception: Whatever the library raises when it cannot decode; `Slide` translates.
        """

    def close(self) -> None:
        """Lets go of the file; reads of other threads that are under way still end well."""


def same_picture(size0: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether a level of (width, height) `size` can show the whole of a level of `size0`, and not a part of it.

    Its factors along x and y must agree to 1 %, beyond what rounding to whole pixels explains.
    """
    factor_x, factor_y = size0[0] / size[0], size0[1] / size[1]
    rounding = 1 / size[0] + 1 / size[1]
    return abs(factor_x - factor_y) <= (0.01 + rounding) * max(factor_x, factor_y)
