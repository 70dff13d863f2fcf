"""The slide map: every slide of a recipe as a point.

Belongs here: gathering the slides' vectors, the table `slide_map`. Does not belong: the layout (`core/slide_map.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from pathassets.core.slide_map import layout
from pathassets.recipes import Recipe, digest
from pathassets.steps.embedded import recipe_part
from pathassets.steps.session import Session

SLIDE_MAP_VERSION = 1


@dataclass(frozen=True)
class SlideMap:
    """What was laid out: how many slides, by which methods, from what."""

    n_slides: int
    methods: tuple[str, ...]
    digest: str


def current_vectors(session: Session, recipe: Recipe) -> pl.DataFrame:
    """The slides' first vector (`slide_id`, `vector`, `embeddings_digest`), of current embeddings only, by slide id."""
    vectors = session.tables.scan("slide_vectors").filter(
        (pl.col("recipe") == recipe.key)
        & (pl.col("method") == recipe.vectors.methods[0])
        & pl.col("tissue_id").is_null()
    )
    current = session.tables.scan("embeddings").filter(pl.col("recipe") == recipe.key).select("slide_id", "digest")
    joined = vectors.join(
        current, left_on=("slide_id", "embeddings_digest"), right_on=("slide_id", "digest"), how="semi"
    )
    return joined.select("slide_id", "vector", "embeddings_digest").sort("slide_id").collect()


def make_slide_map(session: Session, recipe: Recipe) -> SlideMap:
    """Lays out the slides that have a current vector and writes the table `slide_map`."""
    frame = current_vectors(session, recipe)
    made_from = digest("slide_map", SLIDE_MAP_VERSION, recipe.key, recipe.vectors, frame["embeddings_digest"].to_list())
    maps = layout(np.asarray(frame["vector"].to_list(), np.float32)) if len(frame) else {}
    rows = [
        _row(session, recipe, slide, method, xy, made_from)
        for method, points in maps.items()
        for slide, xy in zip(frame.iter_rows(named=True), points, strict=True)
    ]
    session.tables.write("slide_map", rows, slide_id=None, part=recipe_part(recipe))
    return SlideMap(len(frame), tuple(maps), made_from)


def _row(
    session: Session, recipe: Recipe, slide: dict[str, Any], method: str, xy: np.ndarray, made_from: str
) -> dict[str, Any]:
    return {
        "slide_id": slide["slide_id"],
        "recipe": recipe.key,
        "method": method,
        "x": float(xy[0]),
        "y": float(xy[1]),
        "embeddings_digest": slide["embeddings_digest"],
        "digest": made_from,
        "run_id": session.run_id,
    }
