"""Training tiles for demo-vlm: procedural tissue with wide stain variation and the damage that scanners do.

Belongs here: what the network is shown. Does not belong: the network and its training.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pathassets.slides.synthetic import slide_crops, synthetic_tiles

SEED_BASE = 1_000_000
"""Training seeds start here; tests and gates use smaller ones, so that no picture is seen twice."""

CHUNK = 128
_RESOLUTIONS = (0.36, 0.4, 0.45, 0.5, 0.5, 0.55, 0.6, 0.68)
_JITTERS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)


@dataclass(frozen=True)
class Tiles:
    """Tiles at half resolution, uint8 (n, 112, 112, 3), and the area share of each class (n, 10)."""

    images: NDArray[np.uint8]
    shares: NDArray[np.float32]


def make_tiles(count: int, *, seed: int, processes: int = 2) -> Tiles:
    """Draws tiles: a third each pure, mixed of two classes, and cut from whole slides.

    Args:
        count: Number of tiles, rounded up to whole chunks.
        seed: Another seed gives other tiles.
        processes: Processes that draw.
    """
    chunks = [(SEED_BASE * (seed + 1) + k, k) for k in range(-(-count // CHUNK))]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(_chunk, chunks))
    return Tiles(np.concatenate([p.images for p in parts]), np.concatenate([p.shares for p in parts]))


def _chunk(job: tuple[int, int]) -> Tiles:
    seed, turn = job
    rng = np.random.default_rng(seed)
    mpp, jitter = float(rng.choice(_RESOLUTIONS)), float(rng.choice(_JITTERS))
    if turn % 3 == 2:
        batch = slide_crops(CHUNK, seed=seed, mpp=mpp, stain_jitter=jitter)
    else:
        batch = synthetic_tiles(CHUNK, seed=seed, mpp=mpp, stain_jitter=jitter, mixed=float(turn % 3))
    images = np.stack([_halve(_damage(image, rng)) for image in batch.images])
    return Tiles(images, batch.shares)


def _halve(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[0] // 2, image.shape[1] // 2
    boxes = image[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    return ((boxes.sum(axis=(1, 3), dtype=np.uint16) + 2) // 4).astype(np.uint8)


def _damage(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Sometimes a fold, a pen stroke, unsharpness, or hard compression."""
    if rng.random() < 0.06:
        image = _fold(image, rng)
    if rng.random() < 0.06:
        image = _pen(image, rng)
    if rng.random() < 0.15:
        sigma = rng.uniform(0.8, 3.0)
        image = ndimage.gaussian_filter(image, (sigma, sigma, 0))
    if rng.random() < 0.25:
        image = _compress(image, int(rng.integers(15, 85)))
    return image


def _band(rng: np.random.Generator, size: int, half_width: float) -> NDArray[np.float32]:
    y, x = np.mgrid[:size, :size].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    cy, cx = rng.uniform(0.2, 0.8, 2) * size
    line = np.cos(angle) * (y - cy) - np.sin(angle) * (x - cx)
    return np.clip(1.5 - np.abs(line) / half_width, 0, 1).astype(np.float32)[..., None]


def _fold(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    band = _band(rng, len(image), rng.uniform(12, 45))
    double = 255 * (image / np.float32(255)) ** np.float32(rng.uniform(1.5, 2.1))
    return (image + band * (double - image)).astype(np.uint8)


def _pen(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    band = _band(rng, len(image), rng.uniform(15, 50)) * np.float32(rng.uniform(0.4, 0.9))
    ink = rng.uniform(0.1, 0.5, 3).astype(np.float32)
    ink[rng.integers(3)] = rng.uniform(0.3, 0.9)
    return (image * (1 - band * (1 - ink))).astype(np.uint8)


def _compress(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))
