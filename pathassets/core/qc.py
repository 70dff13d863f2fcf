"""Cheap numbers about each tile's pixels: how bright, how sharp, how much stain, is there ink.

Belongs here: columns that cost less than a millisecond a tile. Does not belong: leaving tiles out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pathassets.core.ink import OPTICAL_DENSITY, ink_densities

Column = NDArray[np.float32]

QC_COLUMNS: dict[str, str] = {
    "brightness": "mean grey level, 0 black to 1 white",
    "red": "mean of the red channel, 0 to 255",
    "green": "mean of the green channel, 0 to 255",
    "blue": "mean of the blue channel, 0 to 255",
    "saturation": "mean HSV saturation, 0 to 1",
    "sharpness": "variance of the Laplacian of the grey levels, 0 and more; low is blurred or empty",
    "haematoxylin": "mean haematoxylin, optical density, 0 and more",
    "eosin": "mean eosin, optical density, 0 and more",
    "pen_share": "share of pixels with the colour of pen or ink, 0 to 1",
    "tissue_like": "share of pixels denser than glass (one channel's optical density above 0.1), 0 to 1",
}
"""Every column of `tile_qc` with its meaning, unit and range."""

INKED = 0.05
"""A tile with a larger `pen_share` is counted as inked; the README's question asks the same."""

# Rec. 601 weights of grey from red, green, blue.
GREY = np.array([0.299, 0.587, 0.114], np.float32)
# Optical densities of haematoxylin, eosin and DAB per channel (Ruifrok & Johnston, Anal Quant Cytol Histol 2001), each
# scaled to length 1.
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)
UNMIX = np.linalg.inv(STAINS).astype(np.float32)
# Grey level of optical density 0.1 against white 255.
DENSE_LEVEL = 203
# Every second pixel each way tells colour as well as all of them; sharpness needs all.
STEP = 2
# Tiles looked at together: their intermediate arrays stay in the processor's cache.
CHUNK = 4


def tile_qc(tiles: NDArray[np.uint8]) -> dict[str, Column]:
    """Quality columns of a batch of tiles.

    Colour is read from every second pixel each way, sharpness from all. Stains are unmixed from the mean optical
    density (unmixing is linear) against white 255, and negative amounts become 0.

    Args:
        tiles: uint8 (n, h, w, 3).

    Returns:
        The columns of `QC_COLUMNS`, each float32 (n,).

    Raises:
        ValueError: `tiles` is not uint8 (n, h, w, 3).
    """
    if tiles.ndim != 4 or tiles.shape[3] != 3 or tiles.dtype != np.uint8:
        raise ValueError(f"tiles are uint8 (n, h, w, 3), not {tiles.dtype} {tiles.shape}")
    parts = [_chunk(tiles[i : i + CHUNK]) for i in range(0, len(tiles), CHUNK)]
    if not parts:
        return {name: np.zeros(0, np.float32) for name in QC_COLUMNS}
    return {name: np.concatenate([part[name] for part in parts]) for name in QC_COLUMNS}


def _chunk(tiles: NDArray[np.uint8]) -> dict[str, Column]:
    # One contiguous plane per channel: numpy is several times slower on interleaved colours.
    planes = np.ascontiguousarray(tiles[:, ::STEP, ::STEP].transpose(3, 0, 1, 2)).reshape(3, len(tiles), -1)
    means = planes.mean(axis=2, dtype=np.float32)
    density = OPTICAL_DENSITY[planes]
    stains = np.maximum(_weighted(UNMIX, density.mean(axis=2)), 0.0)
    highest = np.maximum(np.maximum(planes[0], planes[1]), planes[2])
    lowest = np.minimum(np.minimum(planes[0], planes[1]), planes[2])
    columns = {
        "brightness": _weighted(GREY[:, None], means)[0] / np.float32(255.0),
        "red": means[0],
        "green": means[1],
        "blue": means[2],
        "saturation": _saturation(highest, lowest),
        "sharpness": _sharpness(tiles),
        "haematoxylin": stains[0],
        "eosin": stains[1],
        "pen_share": ink_densities(density[0], density[1], density[2]).mean(axis=1),
        "tissue_like": (lowest < DENSE_LEVEL).mean(axis=1),
    }
    return {name: np.asarray(column, np.float32) for name, column in columns.items()}


def _weighted(weights: Column, values: Column) -> Column:
    """Weights (3, k) and values (3, n) to sums (k, n); unlike a matrix product the same for a tile alone or in a batch."""
    return np.asarray((weights[:, :, None] * values[:, None, :]).sum(axis=0), np.float32)


def _saturation(highest: NDArray[np.uint8], lowest: NDArray[np.uint8]) -> Column:
    return np.divide(highest - lowest, np.maximum(highest, 1), dtype=np.float32).mean(axis=1)


def _sharpness(tiles: NDArray[np.uint8]) -> Column:
    """Variance of the 4-neighbour Laplacian of grey, borders left out (Pech-Pacheco et al., ICPR 2000)."""
    if min(tiles.shape[1:3]) < 3:
        return np.zeros(len(tiles), np.float32)
    grey = np.multiply(tiles[..., 0], GREY[0], dtype=np.float32)
    for channel in (1, 2):
        grey += np.multiply(tiles[..., channel], GREY[channel], dtype=np.float32)
    laplacian = grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    laplacian += grey[:, :-2, 1:-1]
    laplacian += grey[:, 2:, 1:-1]
    laplacian -= 4 * grey[:, 1:-1, 1:-1]
    flat = laplacian.reshape(len(tiles), -1)
    return np.asarray(np.einsum("ij,ij->i", flat, flat) / flat.shape[1] - flat.mean(axis=1) ** 2, np.float32)
