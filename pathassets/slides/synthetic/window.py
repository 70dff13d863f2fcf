"""A rectangle of a synthetic slide while it is drawn, with all that drawing needs.

Belongs here: access to the scene's fields at full resolution. Does not belong: what is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pathassets.slides.synthetic.noise import Floats, sample_linear
from pathassets.slides.synthetic.scene import CELL_PX, Scene
from pathassets.slides.synthetic.sprites import Bank

CENTRE = (CELL_PX - 1) / 2
"""Pixel position of the first cell's centre."""


@dataclass(frozen=True)
class Window:
    """A rectangle of the slide to draw, with what drawing needs; y and x are multiples of `CELL_PX`."""

    scene: Scene
    bank: Bank
    y: int
    x: int
    height: int
    width: int

    @property
    def rect(self) -> tuple[int, int, int, int]:
        """y, x, height, width."""
        return self.y, self.x, self.height, self.width

    def field(self, coarse: Floats) -> Floats:
        """A coarse field of the scene at full resolution."""
        return sample_linear(coarse, self.rect, CELL_PX, CENTRE)

    def fibres(self, kind: int) -> tuple[Floats, Floats]:
        """Fine fibres and bundles of a class, unit spread."""
        across, along, _ = self.scene.curved(kind)
        v, u = self.field(across), self.field(along)
        return self.bank.fibres.along(v, u), self.bank.bundles.along(v * np.float32(0.8), u)
