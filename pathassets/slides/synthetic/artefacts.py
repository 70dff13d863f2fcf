"""What goes wrong on real slides: out of focus, folded, written on, compressed too hard.

Belongs here: where artefacts lie and what they do to dyes or light. Does not belong: tissue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathassets.slides.synthetic.noise import Floats, smooth_field
from pathassets.slides.synthetic.scene import BACKGROUND, Scene

ARTEFACTS: tuple[str, ...] = ("blur", "folds", "pen", "jpeg")
"""Artefacts that a synthetic slide can have."""

_INKS = np.array([[0.20, 0.35, 0.85], [0.15, 0.60, 0.35], [0.22, 0.22, 0.25]], dtype=np.float32)


@dataclass(frozen=True)
class Artefacts:
    """Where artefacts lie, in coarse cells, each of the shape of the truth map.

    Attributes:
        blur: Share of unsharpness, 0-1.
        fold: Share of a second layer of tissue, 0-1.
        pen: Share of ink, 0-1.
        ink: The ink's transmission, shape (3,).
    """

    blur: Floats
    fold: Floats
    pen: Floats
    ink: Floats


def place_artefacts(scene: Scene, names: tuple[str, ...]) -> Artefacts:
    """Artefacts at random places of a slide.

    Args:
        scene: The slide.
        names: Any of `ARTEFACTS`.

    Raises:
        ValueError: A name is not known.
    """
    unknown = sorted(set(names) - set(ARTEFACTS))
    if unknown:
        raise ValueError(f"artefacts {unknown} are not known; choose from {list(ARTEFACTS)}")
    rng = np.random.default_rng([scene.seed, 5])
    shape = (scene.labels.shape[0], scene.labels.shape[1])
    blur, fold, pen = _patches(rng, shape), _folds(rng, scene), _strokes(rng, shape)
    ink = _INKS[int(rng.integers(len(_INKS)))]
    nothing = np.zeros(shape, dtype=np.float32)
    return Artefacts(
        blur if "blur" in names else nothing,
        fold if "folds" in names else nothing,
        pen if "pen" in names else nothing,
        ink,
    )


def _patches(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """One or two soft round areas out of focus."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) / max(shape)
    share = np.zeros(shape, dtype=np.float32)
    for _ in range(int(rng.integers(1, 3))):
        cy, cx, reach = rng.uniform(0.25, 0.75), rng.uniform(0.25, 0.75), rng.uniform(0.10, 0.17)
        share = np.maximum(share, np.clip(1.8 - 1.2 * np.hypot(y - cy, x - cx) / reach, 0, 1))
    return share


def _folds(rng: np.random.Generator, scene: Scene) -> Floats:
    """Dark bands, 20-60 µm wide, across the tissue."""
    shape = (scene.labels.shape[0], scene.labels.shape[1])
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    share = np.zeros(shape, dtype=np.float32)
    for _ in range(int(rng.integers(1, 3))):
        angle, reach = rng.uniform(0, np.pi), rng.uniform(2.5, 7) * scene.scale
        cy, cx = shape[0] * rng.uniform(0.35, 0.65), shape[1] * rng.uniform(0.35, 0.65)
        line = np.cos(angle) * (y - cy) - np.sin(angle) * (x - cx)
        line = line + max(shape) * 0.02 * smooth_field(rng, shape, max(shape) / 4)
        length = np.abs(np.sin(angle) * (y - cy) + np.cos(angle) * (x - cx)) / max(shape)
        band = np.clip(1.5 - np.abs(line) / reach, 0, 1) * np.clip((0.28 - length) * 20, 0, 1)
        share = np.maximum(share, band)
    return share * (scene.labels != BACKGROUND)


def _strokes(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Lines of a felt pen: an arc about the tissue and a short bar."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    size = max(shape)
    cy, cx = shape[0] * rng.uniform(0.4, 0.6), shape[1] * rng.uniform(0.4, 0.6)
    reach = size * rng.uniform(0.38, 0.48) + size * 0.012 * smooth_field(rng, shape, size / 4)
    polar = np.arctan2(y - cy, x - cx)
    start = rng.uniform(-np.pi, np.pi)
    on_arc = np.mod(polar - start, 2 * np.pi) < rng.uniform(0.8, 1.8)
    width = size * rng.uniform(0.008, 0.014)
    arc = np.clip(1.5 - np.abs(np.hypot(y - cy, x - cx) - reach) / width, 0, 1) * on_arc
    by, bx = shape[0] * rng.uniform(0.1, 0.9), shape[1] * rng.uniform(0.1, 0.9)
    bar = np.clip(1.5 - np.abs(y - by) / width, 0, 1) * (np.abs(x - bx) < size * 0.06)
    return np.maximum(arc, bar).astype(np.float32)


def mask(share: Floats) -> NDArray[np.bool_]:
    """Where an artefact counts as present."""
    return share > 0.5
