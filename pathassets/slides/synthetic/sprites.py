"""Pictures of single objects: nuclei, red cells, glands, vessels, drawn once and stamped many times.

Belongs here: shapes and their dye amounts at a given scale. Does not belong: where objects stand.

Lengths are in px at 0.5 mpp ("units"); `scale` turns them into pixels. Sizes follow what pathologists measure: a
lymphocyte's nucleus about 6.5 µm, a tumour nucleus about 11 µm, a red cell about 7 µm, a smooth muscle nucleus
about 12 x 3 µm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from pathassets.slides.synthetic.noise import Atlas, Floats

ANGLES = 24
_SEED = 20_240_501


@dataclass(frozen=True)
class Gland:
    """A picture that covers what lies below it: dye amounts (3, n, n) and coverage (n, n)."""

    amounts: Floats
    cover: Floats


@dataclass(frozen=True)
class Bank:
    """All pictures and noises at one scale.

    `nuclei` maps a kind to its pictures; oriented kinds hold `ANGLES` directions times variants, variant fastest.
    """

    scale: float
    nuclei: dict[str, list[Floats]]
    glands: list[Gland]
    vessels: list[Gland]
    fine: Atlas
    middle: Atlas
    coarse: Atlas
    fibres: Atlas
    bundles: Atlas


def _grid(radius: float) -> tuple[Floats, Floats]:
    n = int(np.ceil(radius))
    y, x = np.mgrid[-n : n + 1, -n : n + 1].astype(np.float32)
    return y, x


def _blob(rng: np.random.Generator, a: float, b: float, angle: float, wobble: float, blunt: float = 2.0) -> Floats:
    """Signed depth inside a wobbly ellipse, px: positive inside. Shape (n, n)."""
    y, x = _grid(max(a, b) * (1 + wobble) + 2)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = -x * np.sin(angle) + y * np.cos(angle)
    polar = np.arctan2(across, along)
    edge = np.ones_like(x)
    for k in (2, 3, 4, 5):
        edge += np.float32(wobble / k * rng.normal()) * np.cos(k * polar + rng.uniform(0, 6.3))
    reach = (np.abs(along / a) ** blunt + np.abs(across / b) ** blunt) ** (1 / blunt)
    return ((edge - reach) * min(a, b)).astype(np.float32)


def _soft(depth: Floats, width: float = 1.0) -> Floats:
    return np.clip(depth / np.float32(width) + np.float32(0.5), 0, 1)


def _chromatin(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Floats:
    noise = ndimage.gaussian_filter(rng.standard_normal(shape).astype(np.float32), sigma)
    return noise / (noise.std() + np.float32(1e-6))


def _nucleus(rng: np.random.Generator, scale: float, a: float, b: float, dark: float, **look: float) -> Floats:
    depth = _blob(rng, a * scale, b * scale, look.get("angle", 0.0), look.get("wobble", 0.06), look.get("blunt", 2.0))
    body = 1 + look.get("clumps", 0.14) * _chromatin(rng, depth.shape, 1.3 * scale)
    rim = np.exp(-((depth / (1.6 * scale) - 0.6) ** 2)) * look.get("rim", 0.12)
    inner = body - look.get("hollow", 0.0) * _soft(depth - 2.2 * scale, 3.0 * scale) + rim
    return (_soft(depth, 1.3) * inner * dark).astype(np.float32)


def _oriented(rng: np.random.Generator, scale: float, a: float, b: float, dark: float, blunt: float) -> list[Floats]:
    pictures = []
    for k in range(ANGLES):
        for _ in range(4):
            size = float(np.exp(rng.normal(0, 0.16)))
            pictures.append(
                _nucleus(
                    rng,
                    scale,
                    a * size,
                    b * float(np.exp(rng.normal(0, 0.14))),
                    dark * rng.uniform(0.85, 1.15),
                    angle=np.pi * k / ANGLES,
                    wobble=0.05,
                    blunt=blunt,
                    clumps=0.12,
                )
            )
    return pictures


def _lymphocyte(rng: np.random.Generator, scale: float) -> Floats:
    radius = 6.0 * float(np.exp(rng.normal(0, 0.08)))
    return _nucleus(
        rng,
        scale,
        radius,
        radius * rng.uniform(0.86, 1.0),
        rng.uniform(1.0, 1.35),
        angle=rng.uniform(0, np.pi),
        clumps=0.2,
        rim=0.22,
    )


def _tumour(rng: np.random.Generator, scale: float) -> Floats:
    radius = 11.5 * float(np.exp(rng.normal(0, 0.22)))
    hollow = 0.42 if rng.random() < 0.55 else 0.12
    picture = _nucleus(
        rng,
        scale,
        radius,
        radius * rng.uniform(0.68, 0.95),
        rng.uniform(0.75, 1.1),
        angle=rng.uniform(0, np.pi),
        wobble=0.12,
        clumps=0.17,
        rim=0.3,
        hollow=hollow,
    )
    if hollow > 0.2:
        y, x = _grid((len(picture) - 1) / 2)
        dy, dx = rng.normal(0, 2.2 * scale, 2)
        spot = _soft(2.3 * scale - np.hypot(y - dy, x - dx), 1.5)
        picture = np.maximum(picture, spot * np.float32(1.15) * (picture > 0.1))
    return picture


def _mitosis(rng: np.random.Generator, scale: float) -> Floats:
    return _nucleus(rng, scale, 9.5, 3.2, 1.6, angle=rng.uniform(0, np.pi), wobble=0.25, clumps=0.1)


def _red_cell(rng: np.random.Generator, scale: float) -> Floats:
    depth = _blob(rng, 7 * scale, 6.5 * rng.uniform(0.82, 1.0) * scale, rng.uniform(0, np.pi), 0.05)
    dimple = np.float32(0.30) * _soft(depth - 4.2 * scale, 3.5 * scale)
    return (_soft(depth, 1.2) * (rng.uniform(0.75, 0.95) - dimple)).astype(np.float32)


def _round(rng: np.random.Generator, scale: float, radius: float, spread: float, dark: float) -> Floats:
    size = radius * float(np.exp(rng.normal(0, spread)))
    return _nucleus(rng, scale, size, size * rng.uniform(0.7, 1), dark * rng.uniform(0.75, 1.2), wobble=0.15, rim=0.0,
                    angle=rng.uniform(0, np.pi))  # fmt: skip


def _paste(canvas: Floats, picture: Floats, y: float, x: float) -> None:
    """Darkens the canvas by a picture centred at (y, x); parts outside are cut off."""
    n = len(picture)
    top, left = round(y) - n // 2, round(x) - n // 2
    y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + n, canvas.shape[0]), min(left + n, canvas.shape[1])
    if y0 < y1 and x0 < x1:
        view = canvas[y0:y1, x0:x1]
        np.maximum(view, picture[y0 - top : y1 - top, x0 - left : x1 - left], out=view)


def _ring(rng: np.random.Generator, radius: float, spacing: float) -> list[tuple[float, float, float]]:
    """Places evenly round a circle: y, x, angle."""
    count = max(int(2 * np.pi * radius / spacing), 5)
    angles = (np.arange(count) + rng.uniform(-0.2, 0.2, count)) * 2 * np.pi / count
    return [(radius * float(np.sin(t)), radius * float(np.cos(t)), float(t)) for t in angles]


def _gland(rng: np.random.Generator, scale: float) -> Gland:
    radius = rng.uniform(36, 50) * scale
    depth = _blob(rng, radius, radius * rng.uniform(0.78, 1.0), rng.uniform(0, np.pi), 0.07)
    y, x = _grid((len(depth) - 1) / 2)
    lumen_at = radius * rng.uniform(0.58, 0.72)
    haematoxylin = np.full_like(depth, 0.16) + np.float32(0.03) * _chromatin(rng, depth.shape, 2 * scale)
    eosin = np.full_like(depth, 0.42) + np.float32(0.06) * _chromatin(rng, depth.shape, 2 * scale)
    for gy, gx, _ in _ring(rng, radius * 0.60, 15 * scale):
        if rng.random() < 0.62:
            vacuole = _soft(rng.uniform(4.5, 7) * scale - np.hypot(y - gy, x - gx), 2.0)
            eosin *= 1 - np.float32(0.85) * vacuole
            haematoxylin *= 1 - np.float32(0.45) * vacuole
    lumen = _soft(depth - lumen_at, 2.5 * scale)
    eosin = eosin * (1 - np.float32(0.88) * lumen)
    haematoxylin *= 1 - lumen
    middle = len(depth) // 2
    for ny, nx, angle in _ring(rng, radius - 8 * scale, 8.5 * scale):
        # The contour is not a circle: follow its depth along the ray.
        place = np.clip([middle + ny, middle + nx], 0, len(depth) - 1).astype(int)
        shift = (float(depth[place[0], place[1]]) - 7 * scale) * 0.9
        ny, nx = ny + shift * np.sin(angle), nx + shift * np.cos(angle)
        cell = _nucleus(rng, scale, 7.2 * rng.uniform(0.85, 1.15), 4.0, rng.uniform(0.95, 1.3), angle=angle)
        _paste(haematoxylin, cell, middle + ny, middle + nx)
    return Gland(np.stack([haematoxylin, eosin, np.zeros_like(eosin)]), _soft(depth, 1.5))


def _vessel(rng: np.random.Generator, scale: float) -> Gland:
    radius = rng.uniform(22, 36) * scale
    depth = _blob(rng, radius, radius * rng.uniform(0.7, 1.0), rng.uniform(0, np.pi), 0.05)
    wall = 1 - _soft(depth - 5.5 * scale, 2.0)
    haematoxylin, eosin = np.float32(0.14) * wall, np.float32(0.75) * wall
    red = np.zeros_like(depth)
    middle = len(depth) // 2
    for ny, nx, angle in _ring(rng, radius - 6 * scale, 22 * scale):
        _paste(haematoxylin, _nucleus(rng, scale, 7, 2.2, 1.1, angle=angle + np.pi / 2), middle + ny, middle + nx)
    filled = rng.random() < 0.75
    for _ in range(int(filled * rng.integers(5, 16))):
        place = rng.normal(0, radius * 0.3, 2)
        _paste(red, _red_cell(rng, scale), middle + place[0], middle + place[1])
    red *= _soft(depth - 6 * scale, 2.0)
    return Gland(np.stack([haematoxylin, eosin, red]), _soft(depth, 1.5))


@lru_cache(maxsize=24)
def bank(scale: float) -> Bank:
    """All pictures and noises at `scale` pixels per unit (1.0 at 0.5 mpp); drawn once per process."""
    rng = np.random.default_rng(_SEED)
    nuclei = {
        "lymphocyte": [_lymphocyte(rng, scale) for _ in range(48)],
        "fibroblast": _oriented(rng, scale, 10.5, 2.5, 1.15, 1.7),
        "muscle": _oriented(rng, scale, 11.5, 2.8, 0.95, 2.8),
        "fat": _oriented(rng, scale, 8.0, 2.2, 1.2, 2.0),
        "tumour": [_tumour(rng, scale) for _ in range(64)],
        "mitosis": [_mitosis(rng, scale) for _ in range(12)],
        "debris": [_round(rng, scale, 2.2, 0.3, 1.0) for _ in range(24)],
        "ghost": [_round(rng, scale, 10.0, 0.2, 0.26) for _ in range(24)],
        "red_cell": [_red_cell(rng, scale) for _ in range(48)],
    }
    return Bank(
        scale, nuclei, [_gland(rng, scale) for _ in range(20)], [_vessel(rng, scale) for _ in range(14)],
        Atlas.build(rng, 0.9 * scale, 0.9 * scale), Atlas.build(rng, 3.5 * scale, 3.5 * scale),
        Atlas.build(rng, 12 * scale, 12 * scale), Atlas.build(rng, 2.0, 26.0), Atlas.build(rng, 7.0, 60.0),
    )  # fmt: skip
