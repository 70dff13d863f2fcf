"""Single synthetic tiles, pure or mixed, for training and testing of encoders.

Belongs here: tiles and their batches. Does not belong: whole slides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathassets.slides.synthetic.layout import slide_scene
from pathassets.slides.synthetic.noise import Floats, smooth_field
from pathassets.slides.synthetic.optics import photograph
from pathassets.slides.synthetic.scene import BACKGROUND, CELL_PX, CLASSES, flat_scene
from pathassets.slides.synthetic.stain import Stain, sample_stain
from pathassets.slides.synthetic.tissue import render


def synthetic_tile(
    kinds: str | int | tuple[str | int, ...],
    *,
    seed: int,
    size_px: int = 224,
    mpp: float = 0.5,
    stain_jitter: float = 1.0,
    stain: Stain | None = None,
) -> tuple[NDArray[np.uint8], Floats]:
    """One tile of one class, or of two with a wavy border between them.

    Args:
        kinds: A class by name or label value, or two of them.
        seed: The same seed gives the same pixels.
        size_px: Side of the tile.
        mpp: Resolution, µm per px.
        stain_jitter: Spread of the stain, see `sample_stain`.
        stain: The stain to use instead of one at random.

    Returns:
        The tile, uint8, shape (size_px, size_px, 3), and the area share of each class, float32, shape (10,).
    """
    chosen = [_label(kind) for kind in (kinds if isinstance(kinds, tuple) else (kinds,))]
    rng = np.random.default_rng([seed, 3])
    cells = -(-size_px // CELL_PX)
    labels = _patchwork(rng, chosen, cells)
    scene = flat_scene(labels, seed=seed, mpp=mpp)
    stain = stain or sample_stain(rng, stain_jitter)
    amounts = render(scene, (0, 0, cells * CELL_PX, cells * CELL_PX))
    image = photograph(amounts, stain, rng, scale=scene.scale)[:size_px, :size_px]
    shares = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
    return image, shares.astype(np.float32)


def _label(kind: str | int) -> int:
    return CLASSES.index(kind) if isinstance(kind, str) else int(kind)


def _patchwork(rng: np.random.Generator, chosen: list[int], cells: int) -> NDArray[np.uint8]:
    if len(chosen) == 1:
        return np.full((cells, cells), chosen[0], dtype=np.uint8)
    angle, share = rng.uniform(0, 2 * np.pi), rng.uniform(0.12, 0.88)
    y, x = np.mgrid[:cells, :cells].astype(np.float32) / cells - 0.5
    ramp = np.cos(angle) * x + np.sin(angle) * y + 0.1 * smooth_field(rng, (cells, cells), cells / 3)
    return np.where(ramp < np.quantile(ramp, share), chosen[0], chosen[1]).astype(np.uint8)


@dataclass(frozen=True)
class TileBatch:
    """Tiles with their truth.

    Attributes:
        images: uint8, shape (n, size, size, 3).
        shares: Area share of each class, float32, shape (n, 10).
    """

    images: NDArray[np.uint8]
    shares: Floats

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class with the largest share, shape (n,)."""
        return self.shares.argmax(axis=1)


def synthetic_tiles(
    count: int, *, seed: int, size_px: int = 224, mpp: float = 0.5, stain_jitter: float = 1.0, mixed: float = 0.0
) -> TileBatch:
    """A batch of tiles, the classes in turn, each tile with its own stain.

    Args:
        count: Number of tiles.
        seed: The same seed gives the same tiles; tile k does not depend on `count`.
        size_px: Side of the tiles.
        mpp: Resolution, µm per px.
        stain_jitter: Spread of the stains, see `sample_stain`.
        mixed: Share of tiles that hold two classes.
    """
    images = np.empty((count, size_px, size_px, 3), dtype=np.uint8)
    shares = np.empty((count, len(CLASSES)), dtype=np.float32)
    for k in range(count):
        rng = np.random.default_rng([seed, k])
        first = k % len(CLASSES)
        second = int((first + rng.integers(1, len(CLASSES))) % len(CLASSES))
        kinds = (first, second) if rng.random() < mixed else first
        tile_seed = int(rng.integers(1 << 40))
        images[k], shares[k] = synthetic_tile(
            kinds, seed=tile_seed, size_px=size_px, mpp=mpp, stain_jitter=stain_jitter
        )
    return TileBatch(images, shares)


def slide_crops(
    count: int, *, seed: int, size_px: int = 224, mpp: float = 0.5, stain_jitter: float = 1.0, slide_px: int = 4500
) -> TileBatch:
    """Tiles from one slide's scene, at random places with tissue, each with its own stain.

    Args:
        count: Number of tiles.
        seed: Seed of the scene and of the places.
        size_px: Side of the tiles.
        mpp: Resolution, µm per px.
        stain_jitter: Spread of the stains, see `sample_stain`.
        slide_px: Side of the slide that the tiles come from.
    """
    rng = np.random.default_rng([seed, 7])
    scene = slide_scene(slide_px, slide_px, seed=seed, mpp=mpp)
    cells = -(-size_px // CELL_PX)
    images = np.empty((count, size_px, size_px, 3), dtype=np.uint8)
    shares = np.empty((count, len(CLASSES)), dtype=np.float32)
    done = 0
    while done < count:
        row, column = (int(rng.integers(n - cells)) for n in scene.labels.shape)
        labels = scene.labels[row : row + cells, column : column + cells]
        if (labels != BACKGROUND).mean() < 0.3:
            continue
        stain = sample_stain(rng, stain_jitter)
        amounts = render(scene, (row * CELL_PX, column * CELL_PX, cells * CELL_PX, cells * CELL_PX))
        images[done] = photograph(amounts, stain, rng, scale=scene.scale)[:size_px, :size_px]
        shares[done] = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
        done += 1
    return TileBatch(images, shares)
