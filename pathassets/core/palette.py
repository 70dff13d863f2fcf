"""The only source of colours: domains, outlines, scales, the one accent.

Belongs here: colour values and the rule that gives a domain its colour. Does not belong: drawing.
Colours are `#rrggbb`. The first eight domain colours are the set of Okabe and Ito (2008, "Color Universal Design"), black
replaced by a grey, which stay apart for people with red-green or blue-yellow blindness; the next sixteen are darker and
lighter relatives of them, told apart by lightness.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DOMAIN_COLOURS: tuple[str, ...] = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7f7f7f",
    "#003f63", "#8a5f00", "#005a41", "#8b3f68", "#a8dbf7", "#8c2d04", "#8f8600", "#3d3d3d",
    "#4f9bd1", "#ffcf70", "#66cfae", "#f0b8d4", "#1f6f8b", "#ff9a5c", "#c9c1e8", "#c4c4c4",
)  # fmt: skip
NO_DOMAIN_COLOUR = "#dddddd"
"""Tiles that have no domain."""

TISSUE_OUTLINE = "#00b400"
"""Outline of tissue on a slide: no stain is green, so that it is seen on H&E and on IHC; brighter than any green domain."""

HOLE_OUTLINE = "#1a5fb4"
INK_OUTLINE = "#d55e00"
ACCENT = "#0072b2"
"""The one colour that means "look here" outside of maps."""

STATUS_COLOURS: dict[str, str] = {"ok": "#009e73", "skipped": "#7f7f7f", "failed": "#d55e00"}
SEQUENTIAL_SCALE = "cividis"
"""Name (Plotly and Matplotlib) of the scale for scores from low to high: even in lightness, the same for the colour-blind."""

DIVERGING_SCALE = "PuOr"
"""Name of the scale for values around a middle."""


def domain_colour(domain: int) -> str:
    """Colour of domain number `domain`; the list starts again after its end, negative numbers mean no domain."""
    return DOMAIN_COLOURS[domain % len(DOMAIN_COLOURS)] if domain >= 0 else NO_DOMAIN_COLOUR


def rgb(colour: str) -> tuple[int, int, int]:
    """`#rrggbb` as three numbers from 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def domain_rgb(domains: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Colours of many domains at once: integers (...) to uint8 (..., 3)."""
    table = np.array([rgb(c) for c in (*DOMAIN_COLOURS, NO_DOMAIN_COLOUR)], np.uint8)
    numbers = np.asarray(domains)
    return np.asarray(table[np.where(numbers >= 0, numbers % len(DOMAIN_COLOURS), len(DOMAIN_COLOURS))])
