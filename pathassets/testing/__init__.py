"""Contracts that an encoder or a reader of one's own must keep, and slides whose truth is known.

    from pathassets.testing import check_encoder, check_slide, synthetic_slide

Belongs here: what authors of plug-ins run in their own tests. Does not belong: this project's tests.
A check raises AssertionError with what is wrong; nothing here needs pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pathassets.slides.synthetic import CLASSES, SyntheticTruth, synthetic_slide, synthetic_tiles

if TYPE_CHECKING:
    from pathassets.encoders.encoder import Encoder
    from pathassets.slides import Slide

__all__ = ["CLASSES", "SyntheticTruth", "check_encoder", "check_slide", "synthetic_slide", "synthetic_tiles"]

# Batches of another size may take another kernel: equal up to rounding of the precision computed in.
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 1e-2}


def check_encoder(encoder: Encoder) -> None:
    """What every encoder promises: its card's dimension, finite numbers, the same twice, no matter the batch.

    Args:
        encoder: A loaded encoder; text is checked where its card says that it has a text tower.

    Raises:
        AssertionError: A promise is broken.
    """
    edge = encoder.card.tile_px or encoder.card.input_px
    tiles = np.random.default_rng(0).integers(0, 256, (5, edge, edge, 3), dtype=np.uint8)
    vectors = encoder(tiles)
    assert vectors.shape == (5, encoder.card.dim), f"5 tiles gave {vectors.shape}, the card says {encoder.card.dim}"
    assert vectors.dtype == np.float32, f"embeddings are float32, not {vectors.dtype}"
    assert np.isfinite(vectors).all(), "embeddings of ordinary tiles are not finite"
    assert np.array_equal(encoder(tiles), vectors), "the same tiles gave other numbers the second time"
    alone = np.concatenate([encoder(tile[None]) for tile in tiles])
    error = np.abs(alone - vectors).max() / np.abs(vectors).max()
    assert error <= TOLERANCE[encoder.precision], f"a tile's embedding depends on its batch: relative error {error:.2g}"
    assert encoder(tiles[:0]).shape == (0, encoder.card.dim), "no tiles must give no rows"
    if encoder.card.has_text:
        _check_text(encoder)


def _check_text(encoder: Encoder) -> None:
    words = encoder.embed_text(["mucosa", "adipose tissue"])
    assert words.shape == (2, encoder.card.dim), f"2 texts gave {words.shape}; tiles and texts share one space"
    assert np.allclose(np.linalg.norm(words, axis=1), 1, atol=1e-3), "text embeddings have length one"
    assert encoder.logit_scale > 0, "a softmax over terms needs a scale above zero"


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
