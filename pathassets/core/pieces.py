"""From a tissue mask to pieces: polygons in level-0 pixels, and the label image that says which piece a pixel is of.

Belongs here: dropping small pieces, filling small holes, outlines, a user's own mask. Does not belong: finding tissue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pathassets.core.geometry import area_mm2
from pathassets.recipes import TissueOptions

if TYPE_CHECKING:
    from shapely import Polygon

Mask = NDArray[np.bool_]

# Outlines run through the middle between pixels; what is straight within this many mask pixels becomes one line.
SIMPLIFY_PX = 0.3
NO_PIECE = -1


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
    mask: Mask, scale_x: float, scale_y: float, mpp: float, options: TissueOptions | None = None
) -> tuple[list[TissuePiece], NDArray[np.int32]]:
    """Splits a mask into pieces.

    Pixels belong together when they share an edge. First holes below `min_hole_mm2` are filled (a gap at the picture's
    border is no hole), then pieces below `min_area_mm2` are dropped; both from the labels and the polygons alike.

    Args:
        mask: bool (h, w).
        scale_x: Level-0 pixels per mask pixel, horizontally, exact: level-0 width / w.
        scale_y: The same vertically.
        mpp: µm per level-0 pixel.
        options: Least areas.

    Returns:
        The pieces, largest first (equal ones in reading order), and their label image int32 (h, w), `NO_PIECE` elsewhere.
    """
    options = options or TissueOptions()
    pixel_mm2 = area_mm2(scale_x * scale_y, mpp)
    filled = fill_holes(np.asarray(mask, bool), options.min_hole_mm2 / pixel_mm2)
    labels = _label_by_size(filled, options.min_area_mm2 / pixel_mm2)
    boxes = ndimage.find_objects(labels + 1)
    pieces = []
    for tissue_id, box in enumerate(boxes):
        geometry = _polygon(labels[box] == tissue_id, (box[0].start, box[1].start), (scale_x, scale_y))
        pieces.append(TissuePiece(tissue_id, area_mm2(geometry.area, mpp), geometry))
    return pieces, labels


def mask_from_image(image: NDArray[np.generic], shape: tuple[int, int]) -> Mask:
    """A user's mask picture of any size as a mask of `shape` (h, w); any value but 0 is tissue.

    A last axis of 2 or 4 holds transparency: fully transparent pixels are not tissue. Pixels are picked by their centres.

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
    rows, columns = (_centres(have, want) for have, want in zip(marked.shape, shape, strict=True))
    return np.asarray(marked[np.ix_(rows, columns)])


def _centres(have: int, want: int) -> NDArray[np.intp]:
    return np.minimum(((np.arange(want) + 0.5) * (have / want)).astype(np.intp), have - 1)


def fill_holes(mask: Mask, min_pixels: float) -> Mask:
    """Fills enclosed gaps of fewer than `min_pixels`; gaps hang together over corners, as tissue does not."""
    gaps, n = ndimage.label(np.pad(~mask, 1, constant_values=True), structure=np.ones((3, 3)))
    if n < 2:
        return mask
    # Padding joins all gaps at the border to one, which is never filled.
    small = np.bincount(gaps.ravel(), minlength=n + 1) < min_pixels
    small[[0, gaps[0, 0]]] = False
    inner = gaps[1:-1, 1:-1]
    return np.asarray(mask | small[inner])


def _label_by_size(mask: Mask, min_pixels: float) -> NDArray[np.int32]:
    found, n = ndimage.label(mask)
    sizes = np.bincount(found.ravel(), minlength=n + 1)[1:]
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] >= max(min_pixels, 1)]
    lookup = np.full(n + 1, NO_PIECE, np.int32)
    lookup[order + 1] = np.arange(order.size, dtype=np.int32)
    return np.asarray(lookup[found])


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
