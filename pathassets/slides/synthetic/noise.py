"""Reproducible randomness in slide coordinates: hashed lattices, smooth fields and tileable noise.

Belongs here: random numbers that depend on a place, not on the order of drawing, so that a slide drawn block by
block has no seams. Does not belong: anything that knows tissue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]

ATLAS_PX = 1024
_MASK = ATLAS_PX - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def hashed_uniforms(ix: NDArray[np.int64], iy: NDArray[np.int64], seed: int, count: int) -> Floats:
    """Uniform numbers that belong to lattice cells.

    Args:
        ix: Column index of each cell, shape (n,).
        iy: Row index of each cell, shape (n,).
        seed: Any integer; another one gives independent numbers.
        count: Numbers per cell.

    Returns:
        Numbers in [0, 1), shape (count, n).
    """
    with np.errstate(over="ignore"):
        key = _mix(ix.astype(np.uint64) + _GOLDEN * np.uint64(seed % (1 << 62) + 1))
        key = _mix(key + _GOLDEN * iy.astype(np.uint64))
        rows = [_mix(key + _GOLDEN * np.uint64(k + 1)) >> np.uint64(40) for k in range(count)]
    return (np.array(rows, dtype=np.float32) / np.float32(1 << 24)).reshape(count, ix.size)


@dataclass(frozen=True)
class Points:
    """Objects on a jittered hexagonal lattice.

    Attributes:
        x: Level-0 column of each object, px.
        y: Level-0 row of each object, px.
        u: Five further uniform numbers for each object, shape (5, n).
    """

    x: Floats
    y: Floats
    u: Floats

    def keep(self, chosen: NDArray[np.bool_]) -> Points:
        """Only the chosen objects, in the same order."""
        return Points(self.x[chosen], self.y[chosen], self.u[:, chosen])


def lattice_points(seed: int, spacing: float, box: tuple[float, float, float, float], jitter: float = 0.38) -> Points:
    """Objects whose lattice cell touches a box; their order does not depend on the box.

    Args:
        seed: Seed of this kind of object on this slide.
        spacing: Distance of neighbours in a row, px.
        box: x0, y0, x1, y1 in px.
        jitter: Largest displacement, as a share of the spacing.
    """
    x0, y0, x1, y1 = box
    rise = spacing * 0.866
    rows = np.arange(int(np.floor(y0 / rise)) - 1, int(np.ceil(y1 / rise)) + 2)
    columns = np.arange(int(np.floor(x0 / spacing)) - 2, int(np.ceil(x1 / spacing)) + 2)
    iy, ix = (grid.ravel() for grid in np.meshgrid(rows, columns, indexing="ij"))
    u = hashed_uniforms(ix, iy, seed, 7)
    x = (ix + 0.5 * (iy & 1) + (2 * u[0] - 1) * jitter) * spacing
    y = (iy + (2 * u[1] - 1) * jitter) * rise
    inside = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
    return Points(x[inside].astype(np.float32), y[inside].astype(np.float32), u[2:, inside])


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], period: float) -> Floats:
    """Smooth noise over a coarse grid, about zero mean and unit spread.

    Args:
        rng: Source of randomness.
        shape: Rows and columns of the grid.
        period: Distance of neighbouring independent values, in grid cells.
    """
    rows, columns = (int(np.ceil(n / period)) + 4 for n in shape)
    knots = rng.standard_normal((rows, columns)).astype(np.float32)
    y = 1.5 + np.arange(shape[0], dtype=np.float32) / period
    x = 1.5 + np.arange(shape[1], dtype=np.float32) / period
    knots = ndimage.spline_filter(knots, order=3, output=np.float32)
    along = ndimage.map_coordinates(
        knots, np.meshgrid(y, x, indexing="ij"), order=3, prefilter=False, output=np.float32, mode="nearest"
    )
    return along * np.float32(1.25)


def sample_linear(coarse: Floats, window: tuple[int, int, int, int], step: int, offset: float) -> Floats:
    """A window of a coarse grid at full resolution, bilinear, held constant beyond the grid.

    Args:
        coarse: Values, shape (rows, columns).
        window: y, x, height, width in px.
        step: Pixels per grid cell.
        offset: Pixel position of the first grid value.

    Returns:
        Shape (height, width).
    """
    y, x, height, width = window
    rows = _interpolate(coarse, y, height, step, offset)
    return _interpolate(np.ascontiguousarray(rows.T), x, width, step, offset).T


def _interpolate(values: Floats, start: int, count: int, step: int, offset: float) -> Floats:
    place = (np.arange(start, start + count, dtype=np.float32) - np.float32(offset)) / np.float32(step)
    place = np.clip(place, 0, len(values) - 1)
    low = np.minimum(place.astype(np.int64), max(len(values) - 2, 0))
    share = (place - low)[:, None].astype(np.float32)
    below = values[low]
    return below + (values[np.minimum(low + 1, len(values) - 1)] - below) * share


@dataclass(frozen=True)
class Atlas:
    """Tileable noise of unit spread with every period of `ATLAS_PX`, stored with a wrapped margin."""

    values: Floats

    @staticmethod
    def build(rng: np.random.Generator, sigma_y: float, sigma_x: float) -> Atlas:
        """White noise blurred by a Gaussian that wraps round."""
        noise = rng.standard_normal((ATLAS_PX, ATLAS_PX)).astype(np.float32)
        blurred = ndimage.gaussian_filter(noise, (sigma_y, sigma_x), mode="wrap")
        blurred -= blurred.mean()
        return Atlas(blurred / blurred.std())

    def window(self, y: int, x: int, height: int, width: int) -> Floats:
        """Noise for a window in slide coordinates (equal wherever windows overlap)."""
        return self.values[(y + np.arange(height))[:, None] & _MASK, (x + np.arange(width))[None, :] & _MASK]

    def along(self, across: Floats, length: Floats) -> Floats:
        """Noise looked up in curved coordinates; `across` is doubled for finer steps across the fibres."""
        return self.values[(across * 2).astype(np.int32) & _MASK, length.astype(np.int32) & _MASK]
