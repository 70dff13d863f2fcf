"""Procedural H&E: slides and tiles that are drawn, so that the truth about each pixel is known.

Belongs here: the public names of the generator. Does not belong: its parts, which lie beside this file:
`noise` (numbers bound to places), `scene` and `layout` (what is where), `sprites`, `fat` and `tissue` (dye amounts),
`stain` and `optics` (light), `artefacts`, `writer` (slides), `tiles` (single tiles).

The pictures resemble haematoxylin and eosin sections of gut; they serve tests, demonstrations and the training of
the demonstration encoder. No biological conclusion can be drawn from them.
"""

from pathassets.slides.synthetic.artefacts import ARTEFACTS
from pathassets.slides.synthetic.scene import CLASSES
from pathassets.slides.synthetic.stain import Stain, sample_stain
from pathassets.slides.synthetic.tiles import TileBatch, slide_crops, synthetic_tile, synthetic_tiles
from pathassets.slides.synthetic.writer import SyntheticTruth, synthetic_slide

__all__ = [
    "ARTEFACTS",
    "CLASSES",
    "Stain",
    "SyntheticTruth",
    "TileBatch",
    "sample_stain",
    "slide_crops",
    "synthetic_slide",
    "synthetic_tile",
    "synthetic_tiles",
]
