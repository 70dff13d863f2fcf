"""Statistics of a picture that change slowly over it, on cells of several pixels.

Belongs here: sums and means over neighbourhoods, roughness and entropy, and the way from cells back to pixels.
Does not belong: which values mean tissue.

A mean over 120 µm needs no value every 8 µm: on cells of about 24 µm it costs a ninth, and every pixel still counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathassets.core.strips import by_strips, strips

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

# At 8 µm/px cells are 3 px wide.
CELL_UM = 26.0
# Small pictures have smaller cells, at least this many from side to side.
LEAST_CELLS = 32
# A neighbourhood is a square with this standard deviation.
NEIGHBOURHOOD_UM = 32.0
# Entropy looks at squares of three by three of these, about as large as a disc with a radius of 24 µm.
GRAIN_UM = 16.0
GRAINS = 3
TINY = np.float32(1e-6)


@dataclass(frozen=True)
class Cells:
    """A grid of square cells over a picture; those at the right and lower border may be cut off.

    Attributes:
        picture: Height and width of the picture.
        edge: Of a cell, in pixels.
        window: Edge of the neighbourhood of a cell, in cells; odd.
    """

    picture: tuple[int, int]
    edge: int
    window: int

    @classmethod
    def over(cls, picture: tuple[int, int], mpp: float) -> Cells:
        """Cells and neighbourhoods of the usual size on a picture (h, w) of `mpp` µm/px."""
        edge = max(1, min(int(CELL_UM / mpp), min(picture) // LEAST_CELLS))
        pixels = 2 * max(1, round(3**0.5 * NEIGHBOURHOOD_UM / mpp)) + 1
        return cls(picture, edge, 2 * max(1, round((pixels / edge - 1) / 2)) + 1)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return -(-self.picture[0] // self.edge), -(-self.picture[1] // self.edge)

    def sums(self, values: Callable[[slice], NDArray[Any]] | NDArray[Any]) -> Floats:
        """Sums over cells, float32, of a picture (h, w) or of what a function gives for a slice of its rows."""
        out = np.empty(self.shape, np.float32)
        for rows in strips(self.picture, self.edge):
            part = values(rows) if callable(values) else values[rows]
            out[rows.start // self.edge : -(-rows.stop // self.edge)] = self.reduced(part)
        return out

    def reduced(self, part: NDArray[Any]) -> Floats:
        """Sums over the cells of a strip that begins with a row of cells."""
        down = part[:: self.edge].astype(np.float32)
        for i in range(1, self.edge):
            more = part[i :: self.edge]
            down[: len(more)] += more
        across = down[:, :: self.edge].copy()
        for i in range(1, self.edge):
            right = down[:, i :: self.edge]
            across[:, : right.shape[1]] += right
        return across

    def around(self, values: Floats) -> Floats:
        """Sums over the neighbourhoods of cells; there is nothing beyond the border."""
        return by_strips(lambda part: box_sum(part, self.window), self.window // 2, np.float32, values)

    def mean_around(self, values: NDArray[Any], valid: Mask) -> Floats:
        """Mean over the valid pixels of each cell's neighbourhood; 0 where there are none.

        Args:
            values: The picture.
            valid: Pixels (of the picture's shape), or whole cells (of the cells' shape).
        """
        return self._mean(lambda rows: values[rows], valid, self._weight(valid))

    def roughness(self, values: NDArray[Any], valid: Mask) -> Floats:
        """Mean absolute deviation from the local mean, both over the valid pixels of each cell's neighbourhood only.

        Of optical density, tissue has 0.13 to 0.18 as roughness, however pale it is; dye, vignetting and shadows have
        below 0.03. Arguments as for `mean_around`.
        """
        weight = self._weight(valid)
        mean = self._mean(lambda rows: values[rows], valid, weight)

        def deviation(rows: slice) -> Floats:
            away = self.blended(mean, rows)
            np.subtract(values[rows], away, out=away)
            return np.abs(away, out=away)

        return self._mean(deviation, valid, weight)

    def _weight(self, valid: Mask) -> Floats:
        """How many valid pixels are around each cell; never 0."""
        if valid.shape != self.shape:
            return self.around(self.sums(valid)) + TINY
        high, wide = (np.minimum(self.edge, n - np.arange(0, n, self.edge)).astype(np.float32) for n in self.picture)
        return self.around(np.outer(high, wide) * valid) + TINY

    def _mean(self, values: Callable[[slice], NDArray[Any]], valid: Mask, weight: Floats) -> Floats:
        if valid.shape == self.shape:
            sums = self.sums(values) * valid
        else:
            sums = self.sums(lambda rows: np.multiply(values(rows), valid[rows], dtype=np.float32))
        around = self.around(sums)
        around /= weight
        return around

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """A picture in which every pixel has its cell's value."""
        out = np.empty(self.picture, values.dtype)
        for some, theirs in self._laid_over(out, values):
            some[:] = theirs
        return out

    def within(self, mask: Mask, allowed: Mask) -> Mask:
        """The pixels of a mask that lie in `allowed` cells."""
        out = mask.copy()
        for some, theirs in self._laid_over(out, allowed):
            some &= theirs
        return out

    def _laid_over(self, picture: NDArray[Any], values: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Rows of a picture, in place, and the value of each of their pixels' cells; every row comes once."""
        columns = np.arange(self.picture[1]) // self.edge
        for rows in strips(self.picture, self.edge):
            wide = values[rows.start // self.edge : -(-rows.stop // self.edge)].take(columns, axis=1)
            for i in range(self.edge):
                some = picture[rows][i :: self.edge]
                yield some, wide[: len(some)]

    def blended(self, values: Floats, rows: slice) -> Floats:
        """Some rows of the picture with values interpolated linearly between the middles of cells."""
        low, high, share = self._rows
        low, high, share = low[rows], high[rows], share[rows]
        first, last = int(low[0]), int(high[-1]) + 1
        left, right, part = self._columns
        wide = values[first:last].take(left, axis=1)
        wide += part * (values[first:last].take(right, axis=1) - wide)
        out = wide.take(low - first, axis=0)
        step = wide.take(high - first, axis=0)
        step -= out
        step *= share[:, None]
        out += step
        return out

    @cached_property
    def _rows(self) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
        return _between(self.picture[0], self.shape[0], self.edge)

    @cached_property
    def _columns(self) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
        return _between(self.picture[1], self.shape[1], self.edge)


def _between(pixels: int, cells: int, edge: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """For each pixel the cells whose middles it lies between, and how far it is on the way from one to the other."""
    place = np.clip((np.arange(pixels) + 0.5) / edge - 0.5, 0, cells - 1)
    low = place.astype(np.intp)
    return low, np.minimum(low + 1, cells - 1), (place - low).astype(np.float32)


def box_sum(values: Floats, size: int) -> Floats:
    """Sums over squares of an odd number of values, with nothing beyond the border."""
    half = size // 2
    padded = np.pad(values, half)
    height, width = values.shape
    down = padded[:height].copy()
    for i in range(1, size):
        down += padded[i : i + height]
    across = down[:, :width].copy()
    for i in range(1, size):
        across += down[:, i : i + width]
    return across


def entropy_bits(levels: NDArray[np.uint8], mpp: float) -> tuple[Floats, Cells]:
    """Entropy of the levels around every place of a picture, in bits, and the cells that it is given for."""
    grains = Cells(levels.shape, max(1, int(GRAIN_UM / mpp)), GRAINS)
    out = np.empty(grains.shape, np.float32)
    most = (grains.edge * GRAINS) ** 2
    table = np.arange(most + 1, dtype=np.float32)
    table[1:] *= np.log2(table[1:])
    for rows in strips((grains.shape[0], levels.shape[1])):
        top = max(0, rows.start - 1)
        part = levels[top * grains.edge : (rows.stop + 1) * grains.edge]
        out[rows] = _bits(part, grains, table)[rows.start - top : rows.stop - top]
    return out, grains


def _bits(levels: NDArray[np.uint8], grains: Cells, table: Floats) -> Floats:
    count = box_sum(grains.reduced(np.ones(levels.shape, np.float32)), GRAINS)
    total = np.zeros_like(count)
    for level in np.flatnonzero(np.bincount(levels.ravel())):
        here = box_sum(grains.reduced(levels == level), GRAINS)
        total += table.take(here.astype(np.intp))
    return np.asarray(np.log2(count) - total / count)
