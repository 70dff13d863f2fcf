"""What an empty place of a slide looks like, and how much every pixel differs from it.

Belongs here: the white point (or the dark level of fluorescence), its slow change over the slide, its noise, and the optical
density above it. Does not belong: which pixels are tissue, statistics of neighbourhoods (`cells.py`).

Pictures of densities are int16 in ten-thousandths, a twentieth of what one grey level of an 8-bit picture is worth, so that
three of them are hardly larger than the picture they come from. What is computed from them is floating point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathassets.core.cells import Cells
from pathassets.core.strips import by_strips, strips

Floats = NDArray[np.float32]
Densities = NDArray[np.int16]
Mask = NDArray[np.bool_]
Levels = tuple[float, float, float]

# Values of `Densities` for an optical density of 1.
UNITS = 10_000

# Glass is bright and nearly grey, though dye may tint it.
GLASS_MIN_LEVEL = 180
GLASS_MAX_CHROMA = 40
# Fewer glass pixels than this share of the picture say nothing about the white point.
GLASS_MIN_SHARE = 0.003
# Roughness (optical density): glass on real scans has 0 to 0.0018 at 8 µm/px, pale tissue 0.003 and more.
GLASS_MAX_ROUGHNESS = 0.0045
GLASS_FLAT = 0.0012
# Tinted glass is believed only when it is this flat: otherwise it is pale tissue that fills the picture.
TINTED_CHROMA = 12.0
TINTED_MAX_ROUGHNESS = 0.002
# The white point when there is no glass to measure it on: about what scanners give.
DEFAULT_WHITE = 243.0
# Scanners fill what they did not scan with white of at least this level.
PADDING_LEVEL = 254
DARK_MEDIAN = 60
# The illumination changes slowly; it is fitted on about this many pixels, and only when glass lies all around.
SURFACE_SAMPLES = 20_000
SURFACE_MIN_SHARE = 0.1
SURFACE_MIN_CELLS = 6
# The commonest grey levels and the noise are told from about this many pixels of glass.
GLASS_SAMPLES = 500_000
# Roughness is told apart in steps of this; what is rougher than all steps is no glass.
ROUGHNESS_STEP = 1e-5
ROUGHNESS_STEPS = 5000
# Smoothing ends at this many standard deviations.
SMOOTH_REACH = 3.0


@dataclass(frozen=True)
class Contrast:
    """How much each pixel differs from an empty place.

    Attributes:
        signal: int16 (h, w), 0 or more, in `UNITS`. Bright field: optical density above the glass of the channel that absorbs
            most. Dark field: log(1 + grey levels above the dark level) / log(256), so that 1 is full scale.
        mean: int16 (h, w); the mean density of the channels (dark field: the signal).
        chroma: int16 (h, w); the difference between the strongest and the weakest channel's density (dark field: 0).
        glass_share: Share of the pixels that were taken as empty.
        noise: Signal that empty places reach (density), after smoothing is not counted.
        roughness: Roughness (density; see `Cells.roughness`) of the emptiest tenth of the glass.
        dark: True for a dark background.
        level: The white point or dark level, grey levels, mean of the channels.
        mpp: µm per pixel.
        cells: For statistics of neighbourhoods.
    """

    signal: Densities
    mean: Densities
    chroma: Densities
    glass_share: float
    noise: float
    roughness: float
    dark: bool
    level: float
    mpp: float
    cells: Cells


def contrast(rgb: NDArray[np.uint8], mpp: float) -> Contrast:
    """Measures the background of `rgb` (uint8 (h, w, 3) at `mpp` µm/px) and every pixel's difference from it."""
    cells = Cells.over((rgb.shape[0], rgb.shape[1]), mpp)
    candidates = by_strips(_glass_candidates, 0, np.uint8, rgb)
    if np.count_nonzero(candidates) < 0.02 * candidates.size:
        strongest = by_strips(_strongest, 0, np.uint8, rgb)
        if np.median(strongest) < DARK_MEDIAN:
            return _dark_contrast(strongest, mpp, cells)
    glass, white, rough = _find_glass(rgb, candidates, cells)
    signal, mean, chroma = _densities(rgb, white, _illumination(rgb, glass, white))
    some = _lattice(glass, GLASS_SAMPLES)
    return Contrast(
        signal=signal,
        mean=mean,
        chroma=chroma,
        glass_share=float(glass.mean()),
        noise=_noise(signal[some][glass[some]]) / UNITS,
        roughness=rough,
        dark=False,
        level=float(np.mean(white)),
        mpp=mpp,
        cells=cells,
    )


def units(density: float) -> int:
    """An optical density as a value of `Densities`."""
    return round(min(density, 3.0) * UNITS)


def smooth(values: Densities, um: float, mpp: float) -> Densities:
    """Gaussian smoothing with a standard deviation of `um` µm; nothing below a third of a pixel."""
    sigma = um / mpp
    if sigma <= 0.3:
        return values
    reach = int(SMOOTH_REACH * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    weights /= 2 * weights.sum() - 1
    return by_strips(lambda part: _smoothed(part, weights.astype(np.float32)), reach, np.int16, values)


def _smoothed(values: Densities, weights: Floats) -> Densities:
    reach = len(weights) - 1
    padded = np.pad(values, reach, mode="symmetric").astype(np.float32)
    for axis in (0, 1):
        padded = _convolved(padded.swapaxes(0, axis), weights, values.shape[axis]).swapaxes(0, axis)
    return np.asarray(np.rint(padded, out=padded).astype(np.int16))


def _convolved(padded: Floats, weights: Floats, size: int) -> Floats:
    """Along the first axis, whose length becomes `size`."""
    reach = len(weights) - 1
    out = padded[reach : reach + size] * weights[0]
    for away in range(1, reach + 1):
        both = padded[reach - away : reach - away + size] + padded[reach + away : reach + away + size]
        both *= weights[away]
        out += both
    return np.asarray(out)


def _planes(rgb: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [np.ascontiguousarray(rgb[..., channel]) for channel in range(3)]


def _strongest(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    red, green, blue = _planes(rgb)
    return np.asarray(np.maximum(np.maximum(red, green), blue))


def _glass_candidates(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """1 for pixels as bright and grey as glass, 2 for pixels that may as well not have been scanned, 0 for others."""
    red, green, blue = _planes(rgb)
    low, high = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    likely = (low >= GLASS_MIN_LEVEL) & (high - low <= GLASS_MAX_CHROMA)
    return np.asarray(likely.astype(np.uint8) << (low >= PADDING_LEVEL))


def _grey_densities(rgb: NDArray[np.uint8]) -> Densities:
    """Densities of the channels' mean against white 255."""
    table = -np.log10((np.arange(766) / 3 + 1) / 256) * UNITS
    red, green, blue = _planes(rgb)
    total = np.add(red, green, dtype=np.uint16)
    total += blue
    return np.rint(table).astype(np.int16).take(total, mode="clip")


def _find_glass(rgb: NDArray[np.uint8], candidates: NDArray[np.uint8], cells: Cells) -> tuple[Mask, Levels, float]:
    """The flat part of the bright grey pixels, its colour and its roughness; all False when there is none.

    Pure white beside it is what scanners put where they did not scan: it counts only when nothing else does.
    """
    likely = candidates > 0
    n_likely = np.count_nonzero(likely)
    rough = cells.roughness(by_strips(_grey_densities, 0, np.int16, rgb), likely)
    rough /= UNITS
    for pixels in (candidates == 1, likely):
        n = np.count_nonzero(pixels)
        if n < GLASS_MIN_SHARE * pixels.size or n < 0.1 * n_likely or n == 0:
            continue
        floor = _tenth(rough, cells.sums(pixels))
        glass = cells.within(pixels, rough <= max(2.5 * floor, GLASS_FLAT))
        some = _lattice(glass, GLASS_SAMPLES)
        white = _modes(rgb[some][glass[some]])
        tinted = max(white) - min(white) > TINTED_CHROMA
        if floor <= (TINTED_MAX_ROUGHNESS if tinted else GLASS_MAX_ROUGHNESS):
            return glass, white, floor
    return np.zeros_like(likely), (DEFAULT_WHITE, DEFAULT_WHITE, DEFAULT_WHITE), 0.0


def _tenth(rough: Floats, counts: Floats) -> float:
    """The roughness that a tenth of all pixels stays below; `counts` are the pixels of each cell."""
    steps = np.minimum(rough.ravel() / ROUGHNESS_STEP, ROUGHNESS_STEPS).astype(np.intp)
    below = np.cumsum(np.bincount(steps, counts.ravel()))
    return float(np.searchsorted(below, 0.1 * below[-1])) * ROUGHNESS_STEP


def _lattice(mask: Mask, wanted: int) -> tuple[slice, slice]:
    """Every row and column, or every third, fifth, ... so that about `wanted` pixels of a mask are on them.

    The step is odd, so that it falls on all places of a JPEG's blocks.
    """
    every = slice(None, None, max(1, int((np.count_nonzero(mask) / wanted) ** 0.5)) | 1)
    return every, every


def _modes(pixels: NDArray[np.uint8]) -> Levels:
    """The commonest grey level of each channel; levels beside it count, since a scanner's glass spreads over a few."""
    counts = [np.bincount(pixels[:, c], minlength=256) for c in range(3)]
    red, green, blue = (float(np.argmax(np.convolve(n, [1, 2, 3, 2, 1], mode="same"))) for n in counts)
    return red, green, blue


def _noise(empty: NDArray[np.int16]) -> float:
    """Signal that all but a few empty pixels stay below: the median and one robust standard deviation."""
    if empty.size == 0:
        return 0.0
    middle = np.float32(np.median(empty))
    return float(middle + 1.4826 * np.median(np.abs(empty - middle)))


def _illumination(rgb: NDArray[np.uint8], glass: Mask, white: Levels) -> Floats:
    """A quadratic surface through the glass for each channel (3, 6): vignetting and slowly spreading dye are not tissue.

    0 unless glass lies in most parts of the picture, since the surface would run away where there is none.
    """
    parts = [
        cell.mean() > 0.02 for band in np.array_split(glass, 3, 0) for cell in np.array_split(band, 3, 1) if cell.size
    ]
    if np.count_nonzero(glass) < SURFACE_MIN_SHARE * glass.size or sum(parts) < SURFACE_MIN_CELLS:
        return np.zeros((3, 6), np.float32)
    y, x = _places(glass.shape)
    some = _lattice(glass, SURFACE_SAMPLES)
    rows, columns = (places * some[0].step for places in np.nonzero(glass[some]))
    pick = slice(None, None, max(1, rows.size // SURFACE_SAMPLES))
    rows, columns = rows[pick], columns[pick]
    ones = np.ones(rows.size, np.float32)
    terms = np.stack([ones, x[columns], y[rows], x[columns] * y[rows], x[columns] ** 2, y[rows] ** 2], axis=1)
    pixels = rgb[rows, columns]
    return np.stack([_robust_fit(terms, _table(white[c]).take(pixels[:, c])) for c in range(3)])


def _places(shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Where rows and columns are, from -1 to 1."""
    return np.linspace(-1, 1, shape[0], dtype=np.float32), np.linspace(-1, 1, shape[1], dtype=np.float32)


def _table(white: float) -> Floats:
    """Optical density above `white` of every grey level."""
    return -np.log10((np.arange(256) + 1.0) / (white + 1.0)).astype(np.float32)


def _robust_fit(terms: Floats, values: Floats) -> Floats:
    """Least squares; each round leaves out what stands well above the surface (pale tissue, dust)."""
    keep = np.ones(values.size, bool)
    weights = np.zeros(terms.shape[1], np.float32)
    for _ in range(4):
        weights = np.linalg.lstsq(terms[keep], values[keep], rcond=None)[0]
        rest = values - terms @ weights
        keep = rest < max(2.0 * 1.4826 * float(np.median(np.abs(rest[keep]))), 0.004)
    return weights


def _densities(rgb: NDArray[np.uint8], white: Levels, surface: Floats) -> tuple[Densities, Densities, Densities]:
    """Signal, mean and chroma of a bright-field picture (see `Contrast`)."""
    shape = rgb.shape[:2]
    signal, mean, chroma = (np.empty(shape, np.int16) for _ in range(3))
    y, x = _places(shape)
    tables = [_table(level) * UNITS for level in white]
    for rows in strips(shape):
        planes = _planes(rgb[rows])
        levelled = [
            _levelled(table.take(plane, mode="clip"), UNITS * terms, y[rows, None], x[None])
            for table, plane, terms in zip(tables, planes, surface, strict=True)
        ]
        red, green, blue = levelled
        high = np.maximum(np.maximum(red, green), blue)
        chroma[rows] = np.rint(high - np.minimum(np.minimum(red, green), blue))
        signal[rows] = np.rint(np.maximum(high, 0))
        mean[rows] = np.rint((red + green + blue) / 3)
    return signal, mean, chroma


def _levelled(density: Floats, terms: Floats, y: Floats, x: Floats) -> Floats:
    """Subtracts the surface from a strip, in place."""
    if terms.any():
        c, cx, cy, cxy, cxx, cyy = terms
        density -= c + cx * x + cxx * x * x
        density -= cy * y + cyy * y * y
        density -= (cxy * y) * x
    return density


def _dark_contrast(strongest: NDArray[np.uint8], mpp: float, cells: Cells) -> Contrast:
    """Fluorescence: the background is the commonest of the darkest levels, the signal is log-scaled light above it."""
    darkest = strongest[strongest <= max(np.percentile(strongest, 20), 4)]
    level = float(np.argmax(np.convolve(np.bincount(darkest, minlength=8), [1, 2, 3, 2, 1], mode="same")))
    above = np.log1p(np.maximum(np.arange(256) - level, 0.0)) / np.log(256.0)
    signal = by_strips(np.rint(above * UNITS).astype(np.int16).take, 0, np.int16, strongest)
    glass_share = float((signal == 0).mean())
    return Contrast(signal, signal, np.zeros_like(signal), glass_share, 0.0, 0.0, True, level, mpp, cells)
