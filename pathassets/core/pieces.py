"""From a tissue mask to pieces: polygons in level-0 pixels, and the label image that says which piece a pixel is of.

Belongs here: dropping small pieces, filling small holes, outlines, a user's own mask. Does not belong: finding tissue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pathassets.core.geometry import area_mm2
from pathassets.core.strips import by_strips, strips
from pathassets.recipes import TissueOptions

if TYPE_CHECKING:
    from shapely import Polygon
    from shapely.geometry.base import BaseGeometry

Mask = NDArray[np.bool_]

# Outlines run through the middle between pixels; what is straight within this many mask pixels becomes one line.
SIMPLIFY_PX = 0.3
NO_PIECE = -1
# Single fields of view come as slides too; the limits of area must not empty them.
SMALL_SHARE = 0.05
# A mask drawn at full resolution is reduced to about this many pixels.
MAX_MASK_PIXELS = 20_000_000


@dataclass(frozen=True)
class TissuePiece:
    """One connected piece of tissue.

    Attributes:
        tissue_id: 0 for the largest piece, 1 for the next, ...
        area_mm2: Area of `geometry`, holes left out.
        geometry: Outline with holes in level-0 pixels (float), valid, inside the slide.
    """

    tissue_id: int
    area_mm2: float
    geometry: Polygon


def tissue_pieces(
    mask: Mask, mpp: float, scale_x: float, scale_y: float, options: TissueOptions | None = None
) -> tuple[list[TissuePiece], NDArray[np.int32]]:
    """Splits a mask into pieces.

    Pixels belong together when they share an edge. First holes below `min_hole_mm2` are filled (a gap at the picture's
    border is no hole), then pieces below `min_area_mm2` are dropped; both from the labels and the polygons alike. On
    a picture of a few tenths of a millimetre the limits are at most `SMALL_SHARE` of it, and method `none` drops nothing.

    Args:
        mask: bool (h, w).
        mpp: µm per level-0 pixel.
        scale_x: Level-0 pixels per mask pixel, horizontally, exact: level-0 width / w.
        scale_y: The same vertically.
        options: Least areas.

    Returns:
        The pieces, largest first (equal ones in reading order), and their label image int32 (h, w), `NO_PIECE` elsewhere.
    """
    options = options or TissueOptions()
    pixel_mm2 = area_mm2(scale_x * scale_y, mpp)
    most = SMALL_SHARE * mask.size
    filled = fill_holes(np.asarray(mask, bool), min(options.min_hole_mm2 / pixel_mm2, most))
    labels = _label_by_size(filled, 0 if options.method == "none" else min(options.min_area_mm2 / pixel_mm2, most))
    boxes = ndimage.find_objects(labels)
    labels += np.int32(NO_PIECE)
    pieces = []
    for tissue_id, box in enumerate(boxes):
        geometry = _polygon(labels[box] == tissue_id, (box[0].start, box[1].start), (scale_x, scale_y))
        pieces.append(TissuePiece(tissue_id, area_mm2(geometry.area, mpp), geometry))
    return pieces, labels


@dataclass(frozen=True)
class TissueMask:
    """Tissue on one picture.

    Attributes:
        mask: bool (h, w).
        method: What was used: `otsu`, `entropy`, `none` or `file`.
        metrics: Numbers to look at. Shares of the picture: `tissue_share`, `ink_share`, `glass_share`. Shares of what the method
            found before: `ink_removed`, `artefact_removed`. `threshold`: in the method's unit. `white_level`: grey
            levels. `dark_background`: 0 or 1.
    """

    mask: Mask
    method: str
    metrics: dict[str, float] = field(default_factory=dict)


def mask_from_image(image: NDArray[np.generic], shape: tuple[int, int] | None = None) -> TissueMask:
    """A user's mask picture as a mask; any value but 0 is tissue.

    A last axis of 2 or 4 holds transparency: fully transparent pixels are not tissue.

    Args:
        image: (h, w) or (h, w, channels), any type.
        shape: Height and width wanted, each pixel picked by its centre; by default the picture's own, or less when it
            has more than `MAX_MASK_PIXELS`.

    Raises:
        ValueError: `image` has no pixels, or is neither (h, w) nor (h, w, channels).
    """
    if image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(f"a mask is a picture of (h, w) or (h, w, channels), not of shape {image.shape}")
    if image.ndim == 2:
        marked = image != 0
    elif image.shape[2] in (2, 4):
        marked = (image[..., :-1] != 0).any(axis=2) & (image[..., -1] != 0)
    else:
        marked = (image != 0).any(axis=2)
    if shape is None:
        shrink = min(1.0, (MAX_MASK_PIXELS / marked.size) ** 0.5)
        shape = max(1, round(marked.shape[0] * shrink)), max(1, round(marked.shape[1] * shrink))
    rows, columns = (_centres(have, want) for have, want in zip(marked.shape, shape, strict=True))
    mask = np.asarray(marked[np.ix_(rows, columns)])
    return TissueMask(mask, "file", {"tissue_share": float(mask.mean())})


def mask_from_shape(shape: BaseGeometry, size: tuple[int, int], hw: tuple[int, int]) -> TissueMask:
    """A shape that was drawn as a mask: pixels whose centre lies inside.

    Args:
        shape: Polygons that do not overlap, in level-0 pixels; what lies outside the slide is cut off.
        size: Width and height of the slide in level-0 pixels.
        hw: Height and width of the mask.
    """
    from shapely import box
    from skimage.draw import polygon

    mask = np.zeros(hw, bool)
    scale = np.array([hw[1] / size[0], hw[0] / size[1]])
    cut = shape.intersection(box(0, 0, *size))
    parts = [part for part in getattr(cut, "geoms", [cut]) if part.geom_type == "Polygon" and not part.is_empty]
    for part in sorted(parts, key=lambda part: -part.envelope.area):  # an island comes after the hole that it lies in
        for ring, inside in ((part.exterior, True), *((hole, False) for hole in part.interiors)):
            x, y = (np.asarray(ring.coords)[:, :2] * scale - 0.5).T
            mask[polygon(y, x, hw)] = inside
    return TissueMask(mask, "file", {"tissue_share": float(mask.mean())})


def _centres(have: int, want: int) -> NDArray[np.intp]:
    return np.minimum(((np.arange(want) + 0.5) * (have / want)).astype(np.intp), have - 1)


def fill_holes(mask: Mask, min_pixels: float, thin_walls: bool = False) -> Mask:
    """Fills enclosed gaps of fewer than `min_pixels`.

    Gaps hang together over corners, as tissue does not; with `thin_walls` a diagonal line of single pixels parts them.
    """
    # A gap of n pixels is at most n pixels high: one that a strip does not hold is too large to be filled.
    reach = min(max(0, math.ceil(min_pixels)), mask.shape[0])
    return by_strips(lambda part: _holes_filled(part, min_pixels, thin_walls), reach, np.bool_, mask)


def _holes_filled(mask: Mask, min_pixels: float, thin_walls: bool) -> Mask:
    around = ndimage.generate_binary_structure(2, 1 if thin_walls else 2)
    gaps, n = ndimage.label(np.pad(~mask, 1, constant_values=True), structure=around)
    if n < 2:
        return mask
    # Padding joins all gaps at the border to one, which is never filled.
    small = _label_sizes(gaps, n) < min_pixels
    small[[0, gaps[0, 0]]] = False
    return mask | by_strips(small.take, 0, np.bool_, gaps)[1:-1, 1:-1]


def _label_sizes(labels: NDArray[np.int32], n: int) -> NDArray[np.intp]:
    """How many pixels have each label from 0 to `n`."""
    sizes = np.zeros(n + 1, np.intp)
    for rows in strips(labels.shape):
        sizes += np.bincount(labels[rows].ravel(), minlength=n + 1)
    return sizes


def _label_by_size(mask: Mask, min_pixels: float) -> NDArray[np.int32]:
    """1 for the largest piece, 2 for the next, ..., 0 elsewhere."""
    labels, n = ndimage.label(mask)
    sizes = _label_sizes(labels, n)[1:]
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] >= max(min_pixels, 1)]
    lookup = np.zeros(n + 1, np.int32)
    lookup[order + 1] = np.arange(1, order.size + 1, dtype=np.int32)
    for rows in strips(labels.shape):
        labels[rows] = lookup.take(labels[rows])
    return np.asarray(labels)


def _polygon(piece: Mask, offset: tuple[int, int], scale: tuple[float, float]) -> Polygon:
    """Outline of one 4-connected piece: a line through the middle between inside and outside pixel centres."""
    from shapely import Polygon, make_valid
    from skimage.measure import find_contours

    # "low" keeps pixels that touch at a corner apart, as the labels do; padding closes outlines at the border.
    rings = find_contours(np.pad(piece, 1).astype(np.float32), 0.5, fully_connected="low")
    # Padded index i is the pixel i - 1, whose centre lies at i - 0.5.
    loops = [(ring[:, ::-1] - 0.5) for ring in rings]
    loops.sort(key=lambda ring: -_ring_area(ring))
    shape = Polygon(loops[0], loops[1:]).simplify(SIMPLIFY_PX, preserve_topology=True)
    if not shape.is_valid:
        shape = max(getattr(make_valid(shape), "geoms", [shape]), key=lambda part: part.area)
    return _placed(shape, offset, scale)


def _ring_area(ring: NDArray[np.float64]) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return float(abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2)


def _placed(shape: Polygon, offset: tuple[int, int], scale: tuple[float, float]) -> Polygon:
    from shapely import transform

    corner = np.array([offset[1], offset[0]], float)
    return transform(shape, lambda xy: (xy + corner) * np.array(scale))
