"""TIFFs made for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile


def smooth_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Colours that vary slowly, so that JPEG and resampling change them little: uint8 (height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    phases = np.random.default_rng(seed).uniform(0, 6.28, 3)
    waves = [np.sin(x / 37 + p) + np.cos(y / 29 + 2 * p) for p in phases]
    return np.clip(128 + 55 * np.stack(waves, -1), 0, 255).astype(np.uint8)


def edge_picture(height: int, width: int, x: int, y: int) -> np.ndarray:
    """White with a black rectangle from (x, y) on: uint8 (height, width, 3)."""
    picture = np.full((height, width, 3), 255, np.uint8)
    picture[y:, x:] = 0
    return picture


def halved(picture: np.ndarray, factor: int = 2) -> np.ndarray:
    """Means of blocks of `factor` x `factor`, leaving out what does not fill one, as scanners do."""
    h, w = picture.shape[0] // factor, picture.shape[1] // factor
    blocks = picture[: h * factor, : w * factor].reshape(h, factor, w, factor, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def write_pyramid(
    path: Path, picture: np.ndarray, factors=(2, 4), mpp: float | None = 0.5, bigtiff=False, **options
) -> Path:
    """A pyramid that OpenSlide reads: each level a page of its own."""
    options = {"photometric": "rgb", "compression": "zlib", "tile": (128, 128), **options}
    if mpp:
        options |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as tiff:
        tiff.write(picture, **options)
        for factor in factors:
            tiff.write(halved(picture, factor), subfiletype=1, **options)
    return path


def write_ome(path: Path, picture: np.ndarray, factors=(2, 4), metadata=None, **options) -> Path:
    """An OME-TIFF with its coarser levels in SubIFDs, which OpenSlide does not see."""
    options = {"photometric": "rgb", "compression": "zlib", "tile": (128, 128), **options}
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(picture, subifds=len(factors), metadata={"axes": "YXS", **(metadata or {})}, **options)
        for factor in factors:
            tiff.write(halved(picture, factor), subfiletype=1, **options)
    return path
