"""Crops: which tiles speak for a term or a domain, and what they look like.

Belongs here: choosing tiles, reading their pixels. Does not belong: the page (`page`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pathassets.errors import PathassetsError
from pathassets.exports.gather import SlideFeatures
from pathassets.figures import images
from pathassets.figures.rulers import with_ruler
from pathassets.report.page import Picture
from pathassets.store.arrays import OK

if TYPE_CHECKING:
    from pathassets.slides import Slide

SHOWN = 6
CROP_PX = 112
CROP_BYTES = 6_000


def best_of_term(features: SlideFeatures, term: str) -> list[tuple[int, float]]:
    """The tiles that look most like a term: row and probability, best first."""
    values = features.probability[:, features.terms.index(term)]
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(-values[known], kind="stable")][:SHOWN]
    return [(int(row), float(values[row])) for row in order]


def nearest_to_mean(features: SlideFeatures, domain: pl.Series, number: int) -> list[tuple[int, float]]:
    """The tiles of a domain that are most like its mean: row and cosine, nearest first."""
    ok = (features.tiles["status"] == OK).to_numpy()
    rows = np.flatnonzero((domain == number).fill_null(value=False).to_numpy() & ok)
    x = _unit(features.x[rows])
    cosine = x @ _unit(x.mean(axis=0, keepdims=True))[0]
    order = np.argsort(-cosine, kind="stable")[:SHOWN]
    return [(int(rows[i]), float(cosine[i])) for i in order]


def _unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12), np.float32)


def crops(slide: Slide, features: SlideFeatures, chosen: Sequence[tuple[int, float]]) -> list[Picture]:
    """Pictures of tiles with their number and score; one that cannot be read is left out."""
    width, height = features.size_px
    longest = max(width, height)
    out_hw = max(1, round(CROP_PX * height / longest)), max(1, round(CROP_PX * width / longest))
    found = []
    for row, score in chosen:
        x, y = features.corners[row]
        try:
            rgb = slide.read(int(x), int(y), width, height, out_hw)
        except PathassetsError:
            continue
        tile_id = features.tiles["tile_id"][row]
        ruled = with_ruler(rgb, features.slide["mpp"] * width / rgb.shape[1])
        found.append(Picture(images.encode(ruled, CROP_BYTES), f"tile {tile_id}, {score:.2f}", is_tile=True))
    return found
