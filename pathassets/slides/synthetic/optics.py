"""From dye amounts to a scanned picture: light, lens, sensor.

Belongs here: what happens to light after the tissue. Does not belong: dyes and tissue.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pathassets.slides.synthetic.noise import Atlas, Floats
from pathassets.slides.synthetic.stain import Stain, colour

HALO_PX = 16
"""Pixels round a window that the lens can bring in; a multiple of the truth map's cell."""

_GRAIN = Atlas.build(np.random.default_rng(77), 0.5, 0.5)


def photograph(
    amounts: Floats, stain: Stain, rng: np.random.Generator, *, scale: float = 1.0, extra_blur_px: float = 0.0
) -> NDArray[np.uint8]:
    """A picture of dye amounts.

    Args:
        amounts: Haematoxylin, eosin and red cells, shape (3, height, width).
        stain: The slide's stain.
        rng: Places the sensor's noise.
        scale: Pixels per unit, 1 at 0.5 mpp; the lens blurs by tissue distance.
        extra_blur_px: Further blur, px.

    Returns:
        uint8, shape (height, width, 3).
    """
    y, x = (int(v) for v in rng.integers(0, 1024, 2))
    sigma = float(np.hypot(stain.blur_px * scale, extra_blur_px))
    return develop(exposure(amounts, stain, sigma), stain, y, x)


def exposure(amounts: Floats, stain: Stain, sigma: float) -> Floats:
    """Light behind the lens, shape (height, width, 3), 0-255; the haze is where tissue is."""
    hazed = amounts.copy()
    hazed[0] += np.float32(stain.haze) * np.clip(amounts[1] * 4, 0, 1)
    # Blurring the dyes instead of the light costs the same and keeps thin dark lines from washing out.
    for channel in hazed:
        ndimage.gaussian_filter(channel, sigma, output=channel, mode="nearest", truncate=2.0 if sigma < 1.5 else 3.0)
    return colour(hazed, stain)


def develop(light: Floats, stain: Stain, y: int, x: int) -> NDArray[np.uint8]:
    """Sensor noise (that of the place y, x) and rounding."""
    grain = _GRAIN.window(y, x, light.shape[0], light.shape[1])
    noisy = light + (grain * np.float32(stain.noise))[..., None]
    return np.clip(noisy + np.float32(0.5), 0, 255).astype(np.uint8)
