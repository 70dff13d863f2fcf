"""A map of slides as a small picture that names as many as have room, and says which have none.

Belongs here: that picture, for pages without a script. Does not belong: interactive maps (`maps`), the layout (`core/slide_map`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pathassets.core import palette
from pathassets.figures import images

if TYPE_CHECKING:
    import polars as pl
    from PIL.Image import Image

SIDE_PX = 480
POINT_PX = 4
MARGIN = 0.1
LONGEST_NAME = 32
LEGEND_PX = 20
# More points than these are shown without names: nobody could tell whose is whose.
MAX_NAMES = 60

Box = tuple[float, float, float, float]


def named_map(points: pl.DataFrame, title: str, point_px: int = POINT_PX) -> tuple[bytes, list[str]]:
    """The picture (WebP), and the slides whose name has no room; empty names are not written.

    Args:
        points: `slide_id`, `x`, `y`.
        title: Written in the corner.
        point_px: Radius of a point.
    """
    from PIL import Image

    picture = Image.new("RGB", (SIDE_PX, SIDE_PX + LEGEND_PX), "white")
    names, places = points["slide_id"].to_list(), _on_picture(points.select("x", "y").to_numpy())
    unnamed = _draw(picture, names, places, point_px, f"{title}, {len(points)}")
    return images.encode(picture), unnamed


def _draw(picture: Image, names: list[str], places: NDArray[np.float64], point_px: int, title: str) -> list[str]:
    from PIL import ImageDraw

    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, SIDE_PX - 1, SIDE_PX - 1), outline=palette.NO_DOMAIN_COLOUR)
    dots: list[Box] = [(x - point_px, y - point_px, x + point_px, y + point_px) for x, y in places]
    for dot in dots:
        draw.ellipse(dot, fill=palette.ACCENT)
    taken, unnamed = list(dots) if len(names) <= MAX_NAMES else [], []
    for name, dot in zip(names, dots, strict=True):
        text = images.plain(name, LONGEST_NAME)
        free = (box for box in _beside(dot, images.text_width(text)) if not any(_meet(box, other) for other in taken))
        box = next(free, None) if len(names) <= MAX_NAMES else None
        if box is not None and text:
            taken.append(box)
            images.write(draw, box[:2], text)
        elif text:
            unnamed.append(name)
    images.write(draw, (6, SIDE_PX + 2), title)
    return unnamed


def _beside(dot: Box, width: int) -> Iterator[Box]:
    """Boxes for a name around a point that lie in the picture: right, left, above, below, and further off."""
    left, top, right, bottom = dot
    height, middle = images.FONT_PX + 2, (top + bottom) / 2 - images.FONT_PX / 2 - 1
    for step in (0, height, 2 * height):
        for x, y in (
            (right + 3, middle - step), (right + 3, middle + step), (left - 3 - width, middle - step),
            (left - 3 - width, middle + step), ((left + right - width) / 2, top - height - step - 1),
            ((left + right - width) / 2, bottom + step + 1),
        ):  # fmt: skip
            if x >= 2 and y >= 2 and x + width < SIDE_PX - 2 and y + height < SIDE_PX - 2:
                yield x, y, x + width, y + height


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _on_picture(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions in the layout as px of the picture, one scale for both axes, y upwards."""
    if not len(xy):
        return xy
    low, high = xy.min(axis=0), xy.max(axis=0)
    span = float((high - low).max()) or 1.0
    centred = (xy - (low + high) / 2) / span * (1 - 2 * MARGIN)
    return np.asarray((centred * [1, -1] + 0.5) * SIDE_PX)
