"""The slide map: every slide of a recipe as a point.

Belongs here: gathering the slides' vectors, the table `slide_map`. Does not belong: the layout (`core/slide_map.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from pathassets.core.cohort import outlier_scores
from pathassets.core.slide_map import layout
from pathassets.recipes import Recipe, digest
from pathassets.steps.embedded import recipe_part
from pathassets.steps.made_from import MAP_LIBRARIES
from pathassets.steps.session import Session, study_made_by

SLIDE_MAP_VERSION = 2


@dataclass(frozen=True)
class SlideMap:
    """What was laid out: how many slides, by which methods, from what."""

    n_slides: int
    methods: tuple[str, ...]
    digest: str


def current_vectors(session: Session, recipe: Recipe) -> pl.DataFrame:
    """The slides' first vector (`slide_id`, `vector`, `embeddings_digest`), of current embeddings only, by slide id."""
    vectors = session.tables.scan("slide_vectors").filter(
        (pl.col("recipe") == recipe.key) & (pl.col("method") == recipe.vectors.first) & pl.col("tissue_id").is_null()
    )
    current = session.tables.scan("embeddings").filter(pl.col("recipe") == recipe.key).select("slide_id", "digest")
    joined = vectors.join(
        current, left_on=("slide_id", "embeddings_digest"), right_on=("slide_id", "digest"), how="semi"
    )
    return joined.select("slide_id", "vector", "embeddings_digest").sort("slide_id").collect()


def make_slide_map(session: Session, recipe: Recipe) -> SlideMap:
    """Lays out the slides that have a current vector and writes the table `slide_map`."""
    frame = current_vectors(session, recipe)
    made_from = map_digest(recipe, frame)
    vectors = np.asarray(frame["vector"].to_list(), np.float32)
    maps = layout(vectors) if len(frame) else {}
    found = outlier_scores(vectors) if len(frame) else None
    scores = [None] * len(frame) if found is None else found.tolist()
    made = study_made_by(
        session,
        made_from,
        options=map_options(recipe),
        inputs={"slides": len(frame)},  # which, and from which embeddings, says each row
        libraries=MAP_LIBRARIES,
    )
    rows = [
        _row(recipe, slide, method, xy, score, made)
        for method, points in maps.items()
        for slide, xy, score in zip(frame.iter_rows(named=True), points, scores, strict=True)
    ]
    session.tables.write("slide_map", rows, slide_id=None, part=recipe_part(recipe))
    return SlideMap(len(frame), tuple(maps), made_from)


def map_digest(recipe: Recipe, vectors: pl.DataFrame) -> str:
    """Digest of everything that the map of `current_vectors` is made from."""
    return digest(
        "slide_map", SLIDE_MAP_VERSION, recipe.key, recipe.vectors.asked, vectors["embeddings_digest"].to_list()
    )


def map_options(recipe: Recipe) -> dict[str, Any]:
    """The options in force for a slide map, and the version of what makes it."""
    return {"algorithm_version": SLIDE_MAP_VERSION, **recipe.vectors.asked}


def load_slide_map(session: Session, recipe: Recipe) -> SlideMap | None:
    """The stored map, if it is of just the slides that have a current vector."""
    frame = session.tables.read("slide_map", None, recipe_part(recipe))
    if frame is None or frame.is_empty() or frame["digest"][0] != map_digest(recipe, current_vectors(session, recipe)):
        return None
    methods = tuple(frame["method"].unique(maintain_order=True))
    return SlideMap(frame["slide_id"].n_unique(), methods, frame["digest"][0])


def _row(
    recipe: Recipe, slide: dict[str, Any], method: str, xy: np.ndarray, score: float | None, made: dict[str, Any]
) -> dict[str, Any]:
    return {
        **made,
        "slide_id": slide["slide_id"],
        "recipe": recipe.key,
        "method": method,
        "x": float(xy[0]),
        "y": float(xy[1]),
        "outlier_score": score,
        "embeddings_digest": slide["embeddings_digest"],
    }
