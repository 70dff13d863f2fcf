"""Stain amounts to colour: Beer-Lambert with dye directions that vary from slide to slide.

Belongs here: dyes, white point, optics and sensor. Does not belong: where the dye is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pathassets.slides.synthetic.noise import Floats

# Optical density directions (red, green, blue) of haematoxylin, eosin and red cells, after the measured vectors of
# Ruifrok & Johnston 2001; eosin is warmer here because their vector was measured on a pure dye.
DYES = np.array([[0.62, 0.72, 0.31], [0.10, 0.92, 0.37], [0.13, 0.76, 0.62]], dtype=np.float32)


@dataclass(frozen=True)
class Stain:
    """How one slide was stained and scanned.

    Attributes:
        dyes: Optical density of one unit of each dye, shape (3 dyes, 3 channels).
        white: Colour of the empty slide, 0-255, shape (3,).
        haze: Haematoxylin taken up by all tissue.
        blur_px: Standard deviation of the optics at 0.5 mpp.
        noise: Standard deviation of the sensor, grey levels.
    """

    dyes: Floats
    white: Floats
    haze: float
    blur_px: float
    noise: float


def sample_stain(rng: np.random.Generator, jitter: float = 1.0) -> Stain:
    """A stain at random.

    Args:
        rng: Source of randomness.
        jitter: Spread of dye directions, dye amounts and white point; 0 gives the mean stain, 1 the variation
            of ordinary laboratories, 2 twice that.
    """
    directions = DYES + rng.normal(0, 0.045, DYES.shape).astype(np.float32) * np.float32(jitter)
    directions = np.clip(directions, 0.0, None)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    gains = np.exp(np.clip(rng.normal(0, 0.13, 3) * jitter, -1.1, 0.8)).astype(np.float32)
    white = np.clip(243 + rng.normal(0, 4, 3) * jitter + rng.normal(0, 1.5), 210, 254).astype(np.float32)
    haze = float(rng.uniform(0, 0.12) * min(jitter, 2.0))
    return Stain(directions * gains[:, None], white, haze, float(rng.uniform(0.5, 0.95)), float(rng.uniform(1.0, 2.4)))


def colour(amounts: Floats, stain: Stain) -> Floats:
    """Light that passes through the dyes.

    Args:
        amounts: Haematoxylin, eosin and red cells, shape (3, height, width).
        stain: The slide's stain.

    Returns:
        Shape (height, width, 3), 0-255, not rounded.
    """
    light = np.empty((*amounts.shape[1:], 3), dtype=np.float32)
    # Written out, not as a matrix product: the result must not depend on the linear algebra library's threads.
    for channel in range(3):
        density = amounts[0] * -stain.dyes[0, channel]
        density -= amounts[1] * stain.dyes[1, channel]
        density -= amounts[2] * stain.dyes[2, channel]
        light[..., channel] = np.exp(density, out=density) * stain.white[channel]
    return light
