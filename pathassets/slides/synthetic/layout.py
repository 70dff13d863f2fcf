"""Where tissue lies on a synthetic slide: pieces of gut wall with layers, a tumour and its company.

Belongs here: the map of classes of a whole slide. Does not belong: how a class looks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pathassets.slides.synthetic import scene as sc
from pathassets.slides.synthetic.noise import Floats, smooth_field
from pathassets.slides.synthetic.scene import CELL_PX, MPP, Character, Scene, tissue_waves

# The layers of the wall from the lumen outwards, with the depth (0-1) where each ends.
_LAYERS = ((sc.MUCOSA, 0.25), (sc.SUBMUCOSA, 0.50), (sc.MUSCULARIS, 0.75), (sc.ADIPOSE, 1.01))

_SEROSA_CELLS = 4


@dataclass(frozen=True)
class _Frame:
    """Coordinates of the wall: both run from -1 to 1 within the tissue's outline; `bump` is free noise."""

    along: Floats
    across: Floats
    bump: Floats
    fine: Floats


def slide_scene(width_px: int, height_px: int, *, seed: int, mpp: float) -> Scene:
    """A whole slide's scene: one wall with its layers, and one or two small fragments beside it.

    Args:
        width_px: Width of the slide at level 0.
        height_px: Height of the slide at level 0.
        seed: Seed of everything random.
        mpp: Resolution of level 0, µm per px.
    """
    rng = np.random.default_rng([seed, 1])
    shape = (-(-height_px // CELL_PX), -(-width_px // CELL_PX))
    frame, across, along = _wall(rng, shape)
    labels = _layers(rng, frame)
    _growths(rng, frame, labels)
    _fragments(rng, frame, labels, shape)
    labels[[0, 1, -2, -1], :] = sc.BACKGROUND
    labels[:, [0, 1, -2, -1]] = sc.BACKGROUND
    scale = MPP / mpp
    unit = CELL_PX / scale
    return Scene(
        labels, (across * unit).astype(np.float32), (along * unit).astype(np.float32),
        tissue_waves(rng, shape, unit), scale, seed, Character.sample(rng),
    )  # fmt: skip


def _wall(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[_Frame, Floats, Floats]:
    """The wall's frame and its tissue coordinates in cells (large enough to stay positive)."""
    size = max(shape)
    angle = float(rng.choice([0, np.pi / 2, np.pi, -np.pi / 2]) + rng.normal(0, 0.12))
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    y, x = y - shape[0] / 2, x - shape[1] / 2
    along = np.cos(angle) * x + np.sin(angle) * y
    across = -np.sin(angle) * x + np.cos(angle) * y
    across = across + size * (0.03 * smooth_field(rng, shape, size / 3) + 0.008 * smooth_field(rng, shape, size / 10))
    quarter = abs(np.sin(angle)) > 0.7
    long_side, deep_side = shape if quarter else (shape[1], shape[0])
    bump = smooth_field(rng, shape, size / 6)
    fine = smooth_field(rng, shape, max(size / 40, 3))
    return (
        _Frame(along / (0.45 * long_side), across / (0.41 * deep_side), bump, fine),
        across + 4 * size,
        along + 4 * size,
    )


def _layers(rng: np.random.Generator, frame: _Frame) -> NDArray[np.uint8]:
    depth = (frame.across + 1) / 2 + 0.006 * frame.fine
    labels = np.full(depth.shape, sc.BACKGROUND, dtype=np.uint8)
    start = -1.0
    for kind, end in _LAYERS:
        stop = end + (rng.normal(0, 0.012) if end < 1 else 0)
        labels[(depth >= start) & (depth < stop)] = kind
        start = stop
    outside = np.abs(frame.along) ** 4 + np.abs(frame.across) ** 4 > 1 + 0.10 * frame.bump + 0.03 * frame.fine
    outside |= (depth < 0) | (depth > 1)
    # The serosa: a thin skin of stroma, without which fat would end in open cells.
    labels[(labels == sc.ADIPOSE) & ndimage.binary_dilation(outside, iterations=_SEROSA_CELLS)] = sc.STROMA
    labels[outside] = sc.BACKGROUND
    return labels


def _growths(rng: np.random.Generator, frame: _Frame, labels: NDArray[np.uint8]) -> None:
    """Tumour with its stroma and necrosis, lymphoid aggregates, blood: each inside the tissue only."""
    tissue = labels != sc.BACKGROUND
    side = float(rng.choice([-1, 1]))
    centre = (side * rng.uniform(0.36, 0.46), rng.uniform(-0.32, -0.05))
    nest = _distance(frame, centre, (0.40, 0.52)) - 0.16 * frame.bump - 0.03 * frame.fine
    labels[tissue & (nest < 1.36)] = sc.STROMA
    labels[tissue & (nest < 1.0)] = sc.TUMOR
    rot = (centre[0] + rng.normal(0, 0.03), centre[1] + rng.uniform(-0.05, 0.12))
    labels[tissue & (_distance(frame, rot, (0.22, 0.29)) - 0.14 * frame.bump < 1.0)] = sc.NECROSIS
    for offset in (0.02, 0.42, 0.78):
        place = (-side * offset + rng.normal(0, 0.03), rng.uniform(-0.58, -0.38))
        radius = rng.uniform(0.15, 0.19)
        ring = _distance(frame, place, (radius, radius)) - 0.08 * frame.bump - 0.04 * frame.fine
        labels[tissue & (ring < 1.0) & (labels != sc.TUMOR) & (labels != sc.NECROSIS)] = sc.LYMPHOCYTES
    for place in ((-side * rng.uniform(0.35, 0.6), rng.uniform(0.55, 0.75)), (side * rng.uniform(0.3, 0.7), 0.62)):
        radius = rng.uniform(0.13, 0.19)
        pool = _distance(frame, place, (1.5 * radius, radius)) - 0.2 * frame.bump
        labels[tissue & (pool < 1.0)] = sc.BLOOD


def _distance(frame: _Frame, centre: tuple[float, float], radii: tuple[float, float]) -> Floats:
    return np.hypot((frame.along - centre[0]) / radii[0], (frame.across - centre[1]) / radii[1]).astype(np.float32)


def _fragments(rng: np.random.Generator, frame: _Frame, labels: NDArray[np.uint8], shape: tuple[int, int]) -> None:
    """Small loose pieces where the slide is still empty, each of one tissue."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    size = max(shape)
    for _ in range(int(rng.integers(1, 3))):
        kind = int(rng.choice([sc.TUMOR, sc.STROMA, sc.MUSCULARIS, sc.MUCOSA]))
        corner = rng.integers(0, 2, 2)
        cy, cx = (float(n * (0.055 + 0.89 * c)) for n, c in zip(shape, corner, strict=True))
        reach = size * rng.uniform(0.028, 0.04)
        inside = np.hypot(y - cy, x - cx) / reach - 0.15 * frame.bump - 0.05 * frame.fine < 1
        near = np.hypot(y - cy, x - cx) < reach * 1.7
        if not (labels[near] != sc.BACKGROUND).any():
            labels[inside & near] = kind
