"""Fat cells: rounded polygons with thin walls, and the nuclei pressed against them.

Belongs here: the geometry of adipose tissue. Does not belong: its colours.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from pathassets.slides.synthetic.noise import Floats, Points, lattice_points
from pathassets.slides.synthetic.scene import CELL_PX, Scene
from pathassets.slides.synthetic.window import Window

_BEND = 7.0  # units by which walls wander from straight lines
_ROUND = 3.2  # units; larger values fill the corners where three cells meet
_STEP = 4  # pixels; within such a square the same three cells are the nearest


def _centres(scene: Scene, box: tuple[float, float, float, float]) -> Points:
    reach = scene.character.fat_spacing * scene.scale * 2.2
    wide = (box[0] - reach, box[1] - reach, box[2] + reach, box[3] + reach)
    return lattice_points(scene.seed + 101, scene.character.fat_spacing * scene.scale, wide, jitter=0.32)


def wall_distance(view: Window) -> Floats:
    """Distance to the nearest wall in units, shape (height, width); smaller near corners, which rounds the cells.

    The signed distance to the border between two Voronoi cells is linear in the place, so the tree is asked once
    per small square and the pixels inside follow from the line's direction.
    """
    scene = view.scene
    bend = np.float32(_BEND * scene.scale)
    y = np.arange(view.y, view.y + view.height, dtype=np.float32)[:, None] + bend * view.field(scene.waves[0])
    x = np.arange(view.x, view.x + view.width, dtype=np.float32)[None, :] + bend * view.field(scene.waves[2])
    box = (float(x.min()), float(y.min()), float(x.max()), float(y.max()))
    points = _centres(scene, box)
    centres = np.stack([points.y, points.x], axis=1)
    middle = np.stack([y[2::_STEP, 2::_STEP], x[2::_STEP, 2::_STEP]], axis=-1)
    distance, index = cKDTree(centres).query(middle, k=3)
    squares = (view.height // _STEP, _STEP, view.width // _STEP, _STEP)
    dy = y.reshape(squares) - middle[:, None, :, None, 0]
    dx = x.reshape(squares) - middle[:, None, :, None, 1]
    first = centres[index[..., 0]]
    nearness = np.zeros(squares, dtype=np.float32)
    for k in (1, 2):
        toward = centres[index[..., k]] - first
        length = np.linalg.norm(toward, axis=-1)
        gap = ((distance[..., k] ** 2 - distance[..., 0] ** 2) / (2 * length)).astype(np.float32)
        unit = (toward / length[..., None]).astype(np.float32)
        line = gap[:, None, :, None] - unit[:, None, :, None, 0] * dy - unit[:, None, :, None, 1] * dx
        nearness += np.exp(np.abs(line) * np.float32(-1 / (_ROUND * scene.scale)))
    return (np.float32(-_ROUND) * np.log(nearness + np.float32(1e-9))).reshape(view.height, view.width)


def wall_nuclei(scene: Scene, box: tuple[float, float, float, float]) -> tuple[Points, Floats]:
    """Nuclei flattened against the wall between a fat cell and its nearest neighbour.

    Args:
        scene: The slide.
        box: x0, y0, x1, y1 in px.

    Returns:
        The nuclei and the direction of the wall at each, radians.
    """
    cells = _centres(scene, box)
    centres = np.stack([cells.y, cells.x], axis=1)
    _, neighbours = cKDTree(centres).query(centres, k=2)
    toward = centres[neighbours[:, 1]] - centres
    middle = (centres + toward / 2).astype(np.float32)
    y, x = _straighten(scene, middle[:, 0], middle[:, 1])
    inside = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])
    angle = np.arctan2(toward[:, 0], toward[:, 1]) + np.pi / 2
    return Points(x[inside], y[inside], cells.u[:, inside]), angle[inside].astype(np.float32)


def _straighten(scene: Scene, bent_y: Floats, bent_x: Floats) -> tuple[Floats, Floats]:
    """The pixel whose bent place is given, by two steps of fixed-point iteration."""
    y, x = bent_y, bent_x
    rows, columns = scene.labels.shape
    for _ in range(2):
        cy = np.clip(y / CELL_PX, 0, rows - 1).astype(int)
        cx = np.clip(x / CELL_PX, 0, columns - 1).astype(int)
        y = bent_y - np.float32(_BEND * scene.scale) * scene.waves[0][cy, cx]
        x = bent_x - np.float32(_BEND * scene.scale) * scene.waves[2][cy, cx]
    return y, x
