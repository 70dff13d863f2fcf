"""What is where on a synthetic slide: the truth map and the direction of its fibres.

Belongs here: the classes, the map of classes in coarse cells, curved tissue coordinates. Does not belong: pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pathassets.slides.synthetic.noise import Floats, smooth_field

CLASSES: tuple[str, ...] = (
    "background", "adipose", "stroma", "submucosa", "muscularis",
    "mucosa", "lymphocytes", "tumor", "necrosis", "blood",
)  # fmt: skip
"""The ten kinds of ground, in the order of their label values."""

BACKGROUND, ADIPOSE, STROMA, SUBMUCOSA, MUSCULARIS, MUCOSA, LYMPHOCYTES, TUMOR, NECROSIS, BLOOD = range(len(CLASSES))

CELL_PX = 8
"""Level-0 pixels per cell of the truth map."""

MPP = 0.5
"""Resolution at which one unit of length is one pixel."""

# How much the fibres of a class wave about the layer's direction, in units, and turn away from it, radians.
_WAVES = {STROMA: (20.0, 0.9), SUBMUCOSA: (14.0, 0.3), MUSCULARIS: (6.0, 0.0), TUMOR: (20.0, 0.4)}


@dataclass(frozen=True)
class Character:
    """How this slide's tissue differs from another's: factors about one."""

    cellularity: float
    gland_spacing: float
    fat_spacing: float
    eosin: tuple[float, ...]

    @staticmethod
    def sample(rng: np.random.Generator) -> Character:
        """A slide's character at random."""
        return Character(
            cellularity=float(rng.uniform(0.8, 1.15)),
            gland_spacing=float(rng.uniform(88, 116)),
            fat_spacing=float(rng.uniform(75, 115)),
            eosin=tuple(np.exp(rng.normal(0, 0.06, len(CLASSES))).tolist()),
        )


@dataclass(frozen=True)
class Scene:
    """A slide before it is drawn.

    Attributes:
        labels: Class of each cell of `CELL_PX` pixels, uint8, shape (rows, columns).
        across: Distance across the layers in units, shape of `labels`.
        along: Distance along the layers in units, shape of `labels`.
        waves: Smooth noise, shape (3, rows, columns).
        scale: Pixels per unit of length.
        seed: Seed of all objects.
        character: The slide's own factors.
    """

    labels: NDArray[np.uint8]
    across: Floats
    along: Floats
    waves: Floats
    scale: float
    seed: int
    character: Character

    @cached_property
    def present(self) -> tuple[int, ...]:
        """Classes that occur."""
        return tuple(int(c) for c in np.unique(self.labels))

    @cached_property
    def _curved(self) -> dict[int, tuple[Floats, Floats, Floats]]:
        return {}

    def curved(self, kind: int) -> tuple[Floats, Floats, Floats]:
        """Tissue coordinates of a class: across, along (units) and the fibres' angle, each in coarse cells."""
        if kind not in self._curved:
            wave, turn = _WAVES.get(kind, (15.0, 0.3))
            angle = turn * self.waves[1]
            across = np.cos(turn) * self.across + np.sin(turn) * self.along + np.float32(wave) * self.waves[0]
            across = across + np.float32(0.4 * wave) * angle
            along = np.cos(turn) * self.along - np.sin(turn) * self.across
            dy, dx = np.gradient(across)
            self._curved[kind] = (across, along, np.arctan2(-dx, dy).astype(np.float32))
        return self._curved[kind]


def flat_scene(labels: NDArray[np.uint8], *, seed: int, mpp: float, angle: float | None = None) -> Scene:
    """A scene whose layers run in one direction, whatever the labels.

    Args:
        labels: Class of each cell, uint8, shape (rows, columns).
        seed: Seed of everything random.
        mpp: Resolution that the scene will be drawn at, µm per px.
        angle: Direction of the layers, radians; at random when not given.
    """
    rng = np.random.default_rng([seed, 11])
    scale = MPP / mpp
    angle = float(rng.uniform(0, 2 * np.pi)) if angle is None else angle
    unit = CELL_PX / scale
    shape = (labels.shape[0], labels.shape[1])
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) * np.float32(unit)
    shift = rng.uniform(2000, 9000, 2)
    return Scene(
        labels,
        (np.cos(angle) * y - np.sin(angle) * x + shift[0]).astype(np.float32),
        (np.sin(angle) * y + np.cos(angle) * x + shift[1]).astype(np.float32),
        tissue_waves(rng, shape, unit),
        scale,
        seed,
        Character.sample(rng),
    )


def tissue_waves(rng: np.random.Generator, shape: tuple[int, int], unit: float) -> Floats:
    """The smooth noises that bend fibres and walls; `unit` is units of length per cell."""
    return np.stack([smooth_field(rng, shape, period / unit) for period in (130, 300, 60)])
