"""What an empty place of a slide looks like, and how much every pixel differs from it.

Belongs here: the white point (or the dark level of fluorescence), its slow change over the slide, its noise, the optical
density above it, and the roughness that tells tissue from dye. Does not belong: which pixels are tissue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Levels = tuple[float, float, float]

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
NEIGHBOURHOOD_UM = 32.0
# The illumination changes slowly; it is fitted on about this many pixels, and only when glass lies all around.
SURFACE_SAMPLES = 20_000
SURFACE_MIN_SHARE = 0.1
SURFACE_MIN_CELLS = 6


@dataclass(frozen=True)
class Contrast:
    """How much each pixel differs from an empty place.

    Attributes:
        signal: float32 (h, w), 0 or more. Bright field: optical density above the glass of the channel that absorbs most.
            Dark field: log(1 + grey levels above the dark level) / log(256), so that 1 is full scale.
        mean: float32 (h, w); the mean density of the channels (dark field: the signal).
        chroma: float32 (h, w); the difference between the strongest and the weakest channel's density (dark field: 0).
        glass: bool (h, w); pixels that were taken as empty.
        noise: Signal that empty places reach, after smoothing is not counted.
        roughness: Roughness (see `roughness`) of the emptiest tenth of the glass.
        dark: True for a dark background.
        level: The white point or dark level, grey levels, mean of the channels.
    """

    signal: Floats
    mean: Floats
    chroma: Floats
    glass: Mask
    noise: float
    roughness: float
    dark: bool
    level: float


def contrast(rgb: NDArray[np.uint8], mpp: float) -> Contrast:
    """Measures the background of `rgb` (uint8 (h, w, 3) at `mpp` µm/px) and every pixel's difference from it."""
    candidates = _glass_candidates(rgb)
    if candidates.mean() < 0.02 and np.median(rgb.max(axis=2)) < DARK_MEDIAN:
        return _dark_contrast(rgb)
    glass, white, rough = _find_glass(rgb, candidates, mpp)
    steps = np.arange(256) + 1.0
    tables = [-np.log10(steps / (w + 1.0)).astype(np.float32) for w in white]
    density = np.stack([table[rgb[..., c]] for c, table in enumerate(tables)], axis=2)
    _level_illumination(density, glass)
    highest = density.max(axis=2)
    signal = np.maximum(highest, 0.0)
    return Contrast(
        signal=signal,
        mean=density.mean(axis=2),
        chroma=highest - density.min(axis=2),
        glass=glass,
        noise=_noise(signal[glass]),
        roughness=rough,
        dark=False,
        level=float(np.mean(white)),
    )


def smooth(values: Floats, um: float, mpp: float) -> Floats:
    """Gaussian smoothing with a standard deviation of `um` µm; nothing below a third of a pixel."""
    sigma = um / mpp
    return ndimage.gaussian_filter(values, sigma) if sigma > 0.3 else values


def local_mean(values: Floats, mpp: float) -> Floats:
    """Mean over a square whose standard deviation is about `NEIGHBOURHOOD_UM`, at least 3 pixels wide."""
    return ndimage.uniform_filter(values, 2 * max(1, round(3**0.5 * NEIGHBOURHOOD_UM / mpp)) + 1)


def roughness(values: Floats, valid: Mask, mpp: float) -> Floats:
    """Mean absolute deviation of `values` from their local mean, both over valid pixels of a neighbourhood only.

    Tissue has 0.13 to 0.18 of its density as roughness, however pale it is; dye, vignetting and shadows have below 0.03.
    """
    weight = local_mean(valid.astype(np.float32), mpp) + np.float32(1e-6)
    mean = local_mean(np.where(valid, values, 0), mpp) / weight
    return local_mean(np.where(valid, np.abs(values - mean), 0), mpp) / weight


def _glass_candidates(rgb: NDArray[np.uint8]) -> Mask:
    lowest, highest = rgb.min(axis=2), rgb.max(axis=2)
    return np.asarray((lowest >= GLASS_MIN_LEVEL) & (highest - lowest <= GLASS_MAX_CHROMA))


def _find_glass(rgb: NDArray[np.uint8], candidates: Mask, mpp: float) -> tuple[Mask, Levels, float]:
    """The flat part of the bright grey pixels, its colour and its roughness; all False when there is none.

    Pure white beside it is what scanners put where they did not scan: it counts only when nothing else does.
    """
    levels = -np.log10((rgb.mean(axis=2, dtype=np.float32) + 1) / 256)
    rough = roughness(levels, candidates, mpp)
    for pixels in (candidates & (rgb.min(axis=2) < PADDING_LEVEL), candidates):
        if pixels.mean() < GLASS_MIN_SHARE or pixels.sum() < 0.1 * candidates.sum():
            continue
        floor = float(np.percentile(rough[pixels], 10))
        glass = pixels & (rough <= max(2.5 * floor, GLASS_FLAT))
        white = _modes(rgb[glass])
        tinted = max(white) - min(white) > TINTED_CHROMA
        if floor <= (TINTED_MAX_ROUGHNESS if tinted else GLASS_MAX_ROUGHNESS):
            return glass, white, floor
    return np.zeros_like(candidates), (DEFAULT_WHITE, DEFAULT_WHITE, DEFAULT_WHITE), 0.0


def _modes(pixels: NDArray[np.uint8]) -> Levels:
    """The commonest grey level of each channel; levels beside it count, since a scanner's glass spreads over a few."""
    counts = [np.bincount(pixels[:, c], minlength=256) for c in range(3)]
    red, green, blue = (float(np.argmax(np.convolve(n, [1, 2, 3, 2, 1], mode="same"))) for n in counts)
    return red, green, blue


def _noise(empty: Floats) -> float:
    """Signal that all but a few empty pixels stay below: the median and one robust standard deviation."""
    if empty.size == 0:
        return 0.0
    middle = np.median(empty)
    return float(middle + 1.4826 * np.median(np.abs(empty - middle)))


def _level_illumination(density: Floats, glass: Mask) -> None:
    """Subtracts, in place, a quadratic surface through the glass: vignetting and slowly spreading dye are not tissue.

    Left alone unless glass lies in most parts of the picture, since the surface would run away where there is none.
    """
    cells = [
        cell.mean() > 0.02 for band in np.array_split(glass, 3, 0) for cell in np.array_split(band, 3, 1) if cell.size
    ]
    if glass.mean() < SURFACE_MIN_SHARE or sum(cells) < SURFACE_MIN_CELLS:
        return
    y = np.linspace(-1, 1, glass.shape[0], dtype=np.float32)
    x = np.linspace(-1, 1, glass.shape[1], dtype=np.float32)
    rows, columns = np.nonzero(glass)
    pick = slice(None, None, max(1, rows.size // SURFACE_SAMPLES))
    rows, columns = rows[pick], columns[pick]
    ones = np.ones(rows.size, np.float32)
    terms = np.stack([ones, x[columns], y[rows], x[columns] * y[rows], x[columns] ** 2, y[rows] ** 2], axis=1)
    for channel in range(3):
        c, cx, cy, cxy, cxx, cyy = _robust_fit(terms, density[rows, columns, channel])
        density[..., channel] -= (
            (c + cx * x + cxx * x * x)[None, :] + (cy * y + cyy * y * y)[:, None] + cxy * np.outer(y, x)
        )


def _robust_fit(terms: Floats, values: Floats) -> Floats:
    """Least squares; each round leaves out what stands well above the surface (pale tissue, dust)."""
    keep = np.ones(values.size, bool)
    weights = np.zeros(terms.shape[1], np.float32)
    for _ in range(4):
        weights = np.linalg.lstsq(terms[keep], values[keep], rcond=None)[0]
        rest = values - terms @ weights
        keep = rest < max(2.0 * 1.4826 * float(np.median(np.abs(rest[keep]))), 0.004)
    return weights


def _dark_contrast(rgb: NDArray[np.uint8]) -> Contrast:
    """Fluorescence: the background is the commonest of the darkest levels, the signal is log-scaled light above it."""
    strongest = rgb.max(axis=2)
    darkest = strongest[strongest <= max(np.percentile(strongest, 20), 4)]
    level = float(np.argmax(np.convolve(np.bincount(darkest, minlength=8), [1, 2, 3, 2, 1], mode="same")))
    above = np.maximum(strongest.astype(np.float32) - level, 0.0)
    signal = np.log1p(above) / np.float32(np.log(256.0))
    return Contrast(signal, signal, np.zeros_like(signal), signal == 0, 0.0, 0.0, True, level)
