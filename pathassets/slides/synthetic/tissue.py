"""Dye amounts of tissue: a ground for each class, then the cells that lie in it.

Belongs here: how each class looks. Does not belong: where classes lie (scene), what dyes look like (stain).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pathassets.slides.synthetic import fat
from pathassets.slides.synthetic import scene as sc
from pathassets.slides.synthetic.noise import Floats, Points, lattice_points, sample_linear
from pathassets.slides.synthetic.scene import CELL_PX, Scene
from pathassets.slides.synthetic.sprites import ANGLES, Gland, bank
from pathassets.slides.synthetic.window import CENTRE, Window

_RANDOM_ANGLE = -1.0


def render(scene: Scene, window: tuple[int, int, int, int]) -> Floats:
    """Dye amounts of a window of the scene.

    Args:
        scene: What is where.
        window: y, x, height, width in level-0 px; y and x are multiples of `CELL_PX`.

    Returns:
        Haematoxylin, eosin and red cells, shape (3, height, width); equal wherever windows overlap.
    """
    view = Window(scene, bank(scene.scale), *window)
    near = _nearby_classes(view, reach=80 * scene.scale)
    if near == {sc.BACKGROUND}:
        return np.zeros((3, view.height, view.width), dtype=np.float32)
    amounts = _ground(view, near)
    for spec in CELLS:
        if spec.kind in near:
            _draw_cells(amounts, view, spec)
    for kind, spacing, cover in ((sc.MUCOSA, scene.character.gland_spacing, 1.0), (sc.SUBMUCOSA, 150.0, 0.5)):
        if kind in near:
            _draw_structures(amounts, view, kind, spacing * scene.scale, cover)
    return amounts


def _nearby_classes(view: Window, reach: float) -> set[int]:
    margin = int(np.ceil(reach / CELL_PX)) + 1
    y, x = view.y // CELL_PX, view.x // CELL_PX
    rows = slice(max(y - margin, 0), y + view.height // CELL_PX + margin + 1)
    columns = slice(max(x - margin, 0), x + view.width // CELL_PX + margin + 1)
    near = np.unique(view.scene.labels[rows, columns])
    return {int(c) for c in near} or {sc.BACKGROUND}


def _ground(view: Window, near: set[int]) -> Floats:
    """The grounds of all classes near, mixed over a few pixels at their borders."""
    total = np.full((view.height, view.width), 1e-6, dtype=np.float32)
    amounts = np.zeros((3, view.height, view.width), dtype=np.float32)
    rough = np.float32(0.16) * view.bank.middle.window(*view.rect)
    for kind in near:
        weight = np.ones_like(total) if len(near) == 1 else _weight(view, kind, rough)
        total += weight
        if kind in GROUNDS and weight.any():
            haematoxylin, eosin = GROUNDS[kind](view)
            amounts[0] += weight * haematoxylin
            amounts[1] += weight * (eosin * np.float32(view.scene.character.eosin[kind]))
    np.maximum(amounts, 0, out=amounts)
    amounts /= total
    return amounts


def _weight(view: Window, kind: int, rough: Floats) -> Floats:
    y, x = view.y // CELL_PX, view.x // CELL_PX
    margin = 6
    rows = slice(max(y - margin, 0), y + view.height // CELL_PX + margin)
    columns = slice(max(x - margin, 0), x + view.width // CELL_PX + margin)
    share = ndimage.gaussian_filter((view.scene.labels[rows, columns] == kind).astype(np.float32), 0.8, mode="nearest")
    inner = (view.y - rows.start * CELL_PX, view.x - columns.start * CELL_PX, view.height, view.width)
    fine = sample_linear(share, inner, CELL_PX, CENTRE)
    sharp = np.clip((fine - np.float32(0.5) + rough * (fine > 0.02) * (fine < 0.98)) * 4 + np.float32(0.5), 0, 1)
    return sharp + np.float32(0.02) * fine  # so that no crack opens where two rough borders both draw back


# --- grounds: haematoxylin and eosin of what lies between the cells ----------------------------------------------


def _stroma(view: Window) -> tuple[Floats, Floats]:
    fine, bundle = view.fibres(sc.STROMA)
    eosin = 0.52 + 0.13 * fine + 0.15 * bundle
    eosin *= 1 - 0.8 * np.clip(-bundle - fine * 0.35 - 1.55, 0, 1)
    return 0.07 + 0.02 * bundle, eosin


def _submucosa(view: Window) -> tuple[Floats, Floats]:
    fine, bundle = view.fibres(sc.SUBMUCOSA)
    holes: Floats = np.clip((view.bank.coarse.window(*view.rect) + 0.45 * bundle - 0.55) * 3, 0, 1)
    eosin = (0.32 + 0.15 * fine + 0.07 * bundle) * (1 - 0.93 * holes)
    return 0.03 * (1 - holes), eosin


def _muscularis(view: Window) -> tuple[Floats, Floats]:
    fine, bundle = view.fibres(sc.MUSCULARIS)
    eosin = 0.88 + 0.09 * fine + 0.07 * bundle
    eosin *= 1 - 0.75 * np.clip((-bundle - 2.2) * 2, 0, 1)
    return 0.12 + 0.02 * fine, eosin


def _mucosa(view: Window) -> tuple[Floats, Floats]:
    noise, cloud = view.bank.middle.window(*view.rect), view.bank.coarse.window(*view.rect)
    return 0.10 + 0.02 * noise, (0.34 + 0.10 * noise) * (1 - 0.5 * np.clip(cloud - 0.8, 0, 1))


def _lymphocytes(view: Window) -> tuple[Floats, Floats]:
    noise = view.bank.middle.window(*view.rect)
    return 0.20 + 0.05 * noise, 0.24 + 0.06 * noise


def _tumor(view: Window) -> tuple[Floats, Floats]:
    noise, cloud = view.bank.middle.window(*view.rect), view.bank.coarse.window(*view.rect)
    cleft = np.clip((cloud - 1.7) * 3, 0, 1)
    return (0.24 + 0.05 * noise) * (1 - 0.8 * cleft), (0.52 + 0.08 * noise + 0.05 * cloud) * (1 - 0.75 * cleft)


def _necrosis(view: Window) -> tuple[Floats, Floats]:
    fine, noise, cloud = (atlas.window(*view.rect) for atlas in (view.bank.fine, view.bank.middle, view.bank.coarse))
    return 0.07 + 0.03 * noise + 0.04 * cloud, 0.66 + 0.14 * fine + 0.10 * noise + 0.10 * cloud


def _blood(view: Window) -> tuple[Floats, Floats]:
    cloud = view.bank.coarse.window(*view.rect)
    return np.full_like(cloud, 0.01), 0.13 + 0.04 * cloud


def _adipose(view: Window) -> tuple[Floats, Floats]:
    thickness = 1.7 + 0.35 * view.bank.coarse.window(*view.rect)
    wall = np.clip((thickness - fat.wall_distance(view)) * view.scene.scale + 0.6, 0, 1)
    return 0.05 * wall, 0.60 * wall


GROUNDS: dict[int, Callable[[Window], tuple[Floats, Floats]]] = {
    sc.ADIPOSE: _adipose, sc.STROMA: _stroma, sc.SUBMUCOSA: _submucosa, sc.MUSCULARIS: _muscularis,
    sc.MUCOSA: _mucosa, sc.LYMPHOCYTES: _lymphocytes, sc.TUMOR: _tumor, sc.NECROSIS: _necrosis, sc.BLOOD: _blood,
}  # fmt: skip


# --- cells -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cells:
    """One kind of object in one class.

    Attributes:
        kind: Class that it lives in.
        picture: Name of the pictures in the bank.
        spacing: Distance between lattice points, units.
        share: Share of lattice points that hold one.
        salt: Separates this lattice from the others.
        channel: 0 haematoxylin, 2 red cells.
        spread: Deviation from the fibres' direction, radians; negative for pictures without direction.
    """

    kind: int
    picture: str
    spacing: float
    share: float
    salt: int
    channel: int = 0
    spread: float = _RANDOM_ANGLE


CELLS: tuple[Cells, ...] = (
    Cells(sc.STROMA, "fibroblast", 25, 0.62, 1, spread=0.45),
    Cells(sc.STROMA, "lymphocyte", 60, 0.10, 2),
    Cells(sc.SUBMUCOSA, "fibroblast", 38, 0.5, 3, spread=0.6),
    Cells(sc.MUSCULARIS, "muscle", 23, 0.72, 4, spread=0.14),
    Cells(sc.MUCOSA, "lymphocyte", 20, 0.55, 5),
    Cells(sc.MUCOSA, "fibroblast", 40, 0.25, 6, spread=1.5),
    Cells(sc.LYMPHOCYTES, "lymphocyte", 13.2, 0.93, 7),
    Cells(sc.TUMOR, "tumour", 22.5, 0.9, 8),
    Cells(sc.TUMOR, "mitosis", 110, 0.4, 9),
    Cells(sc.TUMOR, "lymphocyte", 70, 0.12, 10),
    Cells(sc.NECROSIS, "ghost", 34, 0.55, 11),
    Cells(sc.NECROSIS, "debris", 13, 0.42, 12),
    Cells(sc.BLOOD, "red_cell", 13.5, 0.9, 13, channel=2),
    Cells(sc.BLOOD, "lymphocyte", 80, 0.3, 14),
    Cells(sc.ADIPOSE, "fat", 0, 0.35, 15, spread=0.1),
)


def _draw_cells(amounts: Floats, view: Window, spec: Cells) -> None:
    scale = view.scene.scale
    box = _box(view, 20 * scale)
    if spec.kind == sc.ADIPOSE:
        points, angle = fat.wall_nuclei(view.scene, box)
    else:
        points = lattice_points(view.scene.seed * 7 + spec.salt, spec.spacing * scale, box)
        angle = None
    chosen = points.u[0] < spec.share * view.scene.character.cellularity
    chosen &= _labels_at(view.scene, points.x, points.y) == spec.kind
    points = points.keep(chosen)
    pictures = view.bank.nuclei[spec.picture]
    if spec.spread == _RANDOM_ANGLE:
        index = (points.u[1] * len(pictures)).astype(np.int64)
    else:
        direction = _angles_at(view.scene, points, spec.kind) if angle is None else angle[chosen]
        index = _turned(points, direction, spec.spread, len(pictures) // ANGLES)
    _stamp(amounts[spec.channel], pictures, index, points.x - view.x, points.y - view.y)


def _turned(points: Points, direction: Floats, spread: float, variants: int) -> NDArray[np.int64]:
    """Pictures that point along `direction`, give or take `spread` (the sum of three uniforms is nearly normal)."""
    angle = direction + spread * (points.u[2] + points.u[3] + points.u[4] - 1.5) * 2
    turn = np.round(angle / np.pi * ANGLES).astype(np.int64) % ANGLES
    return turn * variants + (points.u[1] * variants).astype(np.int64)


def _stamp(canvas: Floats, pictures: list[Floats], index: NDArray[np.int64], x: Floats, y: Floats) -> None:
    """Darkens the canvas by pictures; the order does not matter."""
    height, width = canvas.shape
    for k, cx, cy in zip(index.tolist(), np.rint(x).astype(int).tolist(), np.rint(y).astype(int).tolist(), strict=True):
        picture = pictures[k]
        n = picture.shape[0]
        top, left = cy - n // 2, cx - n // 2
        bottom, right = top + n, left + n
        if top >= 0 and left >= 0 and bottom <= height and right <= width:
            view = canvas[top:bottom, left:right]
            np.maximum(view, picture, out=view)
        elif bottom > 0 and right > 0 and top < height and left < width:
            y0, x0, y1, x1 = max(top, 0), max(left, 0), min(bottom, height), min(right, width)
            view = canvas[y0:y1, x0:x1]
            np.maximum(view, picture[y0 - top : y1 - top, x0 - left : x1 - left], out=view)


def _draw_structures(amounts: Floats, view: Window, kind: int, spacing: float, share: float) -> None:
    """Glands or vessels: pictures that hide what lies below, in lattice order so that every window agrees."""
    pictures: list[Gland] = view.bank.glands if kind == sc.MUCOSA else view.bank.vessels
    points = lattice_points(view.scene.seed * 7 + 50 + kind, spacing, _box(view, 70 * view.scene.scale), jitter=0.14)
    chosen = (points.u[0] < share) & (_labels_at(view.scene, points.x, points.y) == kind)
    reach = 38 * view.scene.scale
    for angle in np.arange(8) * np.pi / 4:
        # Nothing may stick out of the tissue: the truth would be wrong there.
        edge = _labels_at(view.scene, points.x + reach * np.cos(angle), points.y + reach * np.sin(angle))
        chosen &= edge != sc.BACKGROUND
    points = points.keep(chosen)
    for k, cx, cy in zip((points.u[1] * len(pictures)).astype(int), points.x - view.x, points.y - view.y, strict=True):
        _cover(amounts, pictures[k], round(float(cx)), round(float(cy)))


def _cover(amounts: Floats, picture: Gland, cx: int, cy: int) -> None:
    n = picture.cover.shape[0]
    top, left = cy - n // 2, cx - n // 2
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + n, amounts.shape[1]), min(left + n, amounts.shape[2])
    if y0 >= y1 or x0 >= x1:
        return
    part = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    view = amounts[:, y0:y1, x0:x1]
    view += (picture.amounts[(slice(None), *part)] - view) * picture.cover[part]


def _box(view: Window, reach: float) -> tuple[float, float, float, float]:
    return view.x - reach, view.y - reach, view.x + view.width + reach, view.y + view.height + reach


def _labels_at(scene: Scene, x: Floats, y: Floats) -> NDArray[np.uint8]:
    rows, columns = scene.labels.shape
    row, column = (y // CELL_PX).astype(int), (x // CELL_PX).astype(int)
    inside = (row >= 0) & (column >= 0) & (row < rows) & (column < columns)
    found = scene.labels[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)]
    return np.where(inside, found, np.uint8(sc.BACKGROUND))


def _angles_at(scene: Scene, points: Points, kind: int) -> Floats:
    angles = scene.curved(kind)[2]
    y = np.clip((points.y // CELL_PX).astype(int), 0, angles.shape[0] - 1)
    x = np.clip((points.x // CELL_PX).astype(int), 0, angles.shape[1] - 1)
    return angles[y, x]
