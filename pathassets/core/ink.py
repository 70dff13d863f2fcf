"""Colours that no stain makes: pen and ink on the glass or on the tissue.

Belongs here: the per-pixel colour rule, used by tissue detection and by the tiles' quality columns. Does not belong: what
is done about it.

The rules look at the ratios between the optical densities of the three channels, which stay the same when a stroke gets
thinner, and not at RGB values. The stains they must not touch, as optical density R:G:B (Ruifrok & Johnston 2001):
haematoxylin 0.65:0.70:0.29, eosin 0.07:0.99:0.11, DAB 0.27:0.57:0.78. Real tissue adds red cells (0.16:1:0.85). On
H&E slides from four scanners and on 45 labelled colorectal tiles less than 0.3 % of the pixels that are not ink fall
under a rule, single dark nuclei, which callers that look for strokes remove by size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Optical density of an 8-bit value against white 255; the +1 keeps black finite (at 2.41).
OPTICAL_DENSITY: NDArray[np.float32] = (-np.log10((np.arange(256) + 1.0) / 256.0)).astype(np.float32)

# Below this density a pixel is too pale for its hue to mean anything.
CORE_DENSITY = 0.45
FRINGE_DENSITY = 0.15


def ink_pixels(rgb: NDArray[np.uint8], min_density: float = CORE_DENSITY) -> NDArray[np.bool_]:
    """Which pixels have the colour of blue, green, red or black ink.

    Args:
        rgb: uint8 (..., 3).
        min_density: Least optical density of the channel that the ink absorbs most. The default finds strokes proper;
            `FRINGE_DENSITY` their soft borders too, and single tissue pixels, so use it next to strokes only.

    Returns:
        bool (...).
    """
    red, green, blue = (OPTICAL_DENSITY.take(rgb[..., channel]) for channel in range(3))
    return ink_densities(red, green, blue, min_density)


def ink_densities(red: Floats, green: Floats, blue: Floats, min_density: float = CORE_DENSITY) -> NDArray[np.bool_]:
    """`ink_pixels` for optical densities per channel, float32 arrays of one shape."""
    is_blue = (red > min_density) & (green < 0.82 * red) & (blue < 0.38 * red)
    is_green = (red > 0.7 * min_density) & (green < 0.75 * red) & (green < 0.75 * blue)
    # Eosin and red cells absorb some red light; red ink absorbs none, and blue as strongly as green.
    is_red = (green > min_density + 0.15) & (red < 0.16 * green) & (blue > 0.78 * green)
    lowest = np.minimum(np.minimum(red, green), blue)
    highest = np.maximum(np.maximum(red, green), blue)
    is_black = (lowest > 0.6 * min_density) & (lowest > 0.8 * highest)
    return is_blue | is_green | is_red | is_black
