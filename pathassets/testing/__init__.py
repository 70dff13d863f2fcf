"""Contracts that an encoder or a reader of one's own must keep, and slides whose truth is known.

    from pathassets.testing import check_card, check_encoder, check_slide, synthetic_slide

Belongs here: what authors of plug-ins run in their own tests. Does not belong: this project's tests.
A check raises AssertionError with what is wrong; nothing here needs pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pathassets.slides.synthetic import CLASSES, SyntheticTruth, synthetic_slide, synthetic_tiles
from pathassets.testing.encoder_contract import check_card, check_encoder, small_copy

if TYPE_CHECKING:
    from pathassets.slides import Slide

__all__ = [
    "CLASSES",
    "SyntheticTruth",
    "check_card",
    "check_encoder",
    "check_slide",
    "small_copy",
    "synthetic_slide",
    "synthetic_tiles",
]


def check_slide(slide: Slide) -> None:
    """What every open slide promises: the size asked for, white outside, parts equal to the whole.

    Raises:
        AssertionError: A promise is broken.
    """
    info = slide.info
    edge = min(256, info.width_px, info.height_px)
    region = slide.read(0, 0, edge, edge, (edge, edge))
    assert region.shape == (edge, edge, 3), f"asked for {edge} px, got {region.shape}"
    assert region.dtype == np.uint8, f"pixels are uint8, not {region.dtype}"
    half = edge // 2
    part = slide.read(half, half, edge - half, edge - half, (edge - half, edge - half))
    assert np.array_equal(part, region[half:, half:]), "a part of a region is not what the region shows"
    outside = slide.read(info.width_px + 10, info.height_px + 10, 16, 16, (16, 16))
    assert (outside == 255).all(), "outside the slide is white"
    small = slide.read(0, 0, edge, edge, (max(1, edge // 2), max(1, edge // 2)))
    assert abs(float(small.mean()) - float(region.mean())) < 3, "a smaller picture of a region has other colours"
