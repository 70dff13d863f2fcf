"""The cohort map: a sample of the tiles of all slides of a recipe as points.

Belongs here: gathering the sample, the table `cohort_map`. Does not belong: the layout (`core/cohort_map.py`), the mosaic made
of it (`figures/mosaic.py`).

Every embedding is read once, block by block; of each slide at most 500 vectors are kept.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pathassets.core import cohort_map as core
from pathassets.errors import Reason, StoreError
from pathassets.recipes import Recipe, digest
from pathassets.steps.embedded import open_embeddings, recipe_part
from pathassets.steps.made_from import COHORT_MAP_LIBRARIES
from pathassets.steps.session import Session, study_made_by
from pathassets.store.arrays import Embeddings

log = logging.getLogger(__name__)

COHORT_MAP_VERSION = 1
SEED = 0
BLOCK_ROWS = 4096
# Drawn in advance for tiles that could not be read; a slide of which more are bad has fewer points.
SPARE = 2


@dataclass(frozen=True)
class CohortMap:
    """What was laid out: tiles of how many slides, by which method, from what; slides whose arrays could not be read."""

    n_slides: int
    n_tiles: int
    method: str
    digest: str
    left_out: tuple[str, ...] = ()


def current_embeddings(session: Session, recipe: Recipe) -> pl.DataFrame:
    """The rows of `embeddings` of a recipe, by slide id."""
    return session.tables.scan("embeddings").filter(pl.col("recipe") == recipe.key).sort("slide_id").collect()


def make_cohort_map(session: Session, recipe: Recipe) -> CohortMap:
    """Lays out a sample of all slides' tiles and writes the table `cohort_map`; one that is current is left as it is."""
    rows = current_embeddings(session, recipe)
    there = _stored(session, recipe, rows)
    if there is not None and not session.force:
        return there
    frame, features, left_out = _sample(session, rows)
    method, xy = core.layout(features, seed=SEED) if len(frame) else ("pca", np.zeros((0, 2), np.float32))
    used = rows.filter(pl.col("slide_id").is_in(frame["slide_id"].unique().to_list()))
    made_from = map_digest(recipe, used)
    inputs = {"slides": used.height, "tiles": frame.height}  # which, and from which embeddings, says each row
    made = study_made_by(session, made_from, options=map_options(), inputs=inputs, libraries=COHORT_MAP_LIBRARIES)
    constants = {"recipe": recipe.key, "method": method, **made}
    frame = frame.with_columns(
        pl.Series("x", xy[:, 0], dtype=pl.Float64),
        pl.Series("y", xy[:, 1], dtype=pl.Float64),
        *(pl.lit(value, dtype=pl.String).alias(name) for name, value in constants.items()),
    )
    session.tables.write("cohort_map", frame, slide_id=None, part=recipe_part(recipe))
    return CohortMap(used.height, frame.height, method, made_from, tuple(left_out))


def load_cohort_map(session: Session, recipe: Recipe) -> CohortMap | None:
    """The stored map, if it is of just the slides that have embeddings now."""
    return _stored(session, recipe, current_embeddings(session, recipe))


def _stored(session: Session, recipe: Recipe, rows: pl.DataFrame) -> CohortMap | None:
    frame = session.tables.read("cohort_map", None, recipe_part(recipe))
    if frame is None or frame.is_empty() or frame["digest"][0] != map_digest(recipe, rows):
        return None
    return CohortMap(frame["slide_id"].n_unique(), frame.height, frame["method"][0], frame["digest"][0])


def map_digest(recipe: Recipe, rows: pl.DataFrame) -> str:
    """Digest of everything that a map of these rows of `embeddings` is made from; slides without tiles are none of it."""
    found = rows.filter(pl.col("n_tiles") > 0)
    return digest("cohort_map", COHORT_MAP_VERSION, recipe.key, map_options(), found["digest"].to_list())


def map_options() -> dict[str, Any]:
    """The options in force, and the version of what makes the map."""
    return {
        "algorithm_version": COHORT_MAP_VERSION,
        "tiles_per_slide": core.TILES_PER_SLIDE,
        "max_tiles": core.MAX_TILES,
        "n_pcs": core.N_PCS,
        "n_neighbors": core.NEIGHBORS,
        "min_dist": core.MIN_DIST,
        "seed": SEED,
    }


def _sample(session: Session, rows: pl.DataFrame) -> tuple[pl.DataFrame, NDArray[np.float32], list[str]]:
    """`slide_id`, `tile_id` and `embeddings_digest` of the sample, its vectors, and the slides that could not be read."""
    wanted = core.tiles_per_slide(rows.height)
    tiles, features, left_out = [], [], []
    # Vectors of another length are of weights that the recipe no longer has.
    dim = max(rows["dim"].mode().to_list(), default=0)
    for row in rows.iter_rows(named=True):
        try:
            if row["dim"] != dim:
                raise StoreError(f"its vectors have {row['dim']} numbers, most have {dim}", reason=Reason.STORE_CORRUPT)
            ids, vectors = _sample_slide(open_embeddings(session, row), row["slide_id"], wanted)
        except StoreError as error:
            log.warning("%s is left out of the map: %s", row["slide_id"], error)
            left_out.append(row["slide_id"])
            continue
        names = {"slide_id": row["slide_id"], "embeddings_digest": row["digest"]}
        tiles.append(pl.DataFrame({"tile_id": ids}).with_columns(pl.lit(v).alias(k) for k, v in names.items()))
        features.append(vectors)
    empty = pl.DataFrame(schema={"tile_id": pl.Int64, "slide_id": pl.String, "embeddings_digest": pl.String})
    kept = np.concatenate(features) if features else np.zeros((0, 1), np.float32)
    return pl.concat([empty, *tiles]), kept, left_out


def _sample_slide(embeddings: Embeddings, slide_id: str, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Numbers and vectors of the tiles drawn from a slide, by number; rows are in the tiles' order."""
    drawn = core.sampled_rows(slide_id, embeddings.n_tiles, SEED)[: SPARE * wanted]
    vectors = np.empty((len(drawn), embeddings.dim), np.float32)
    for start in range(0, embeddings.n_tiles, BLOCK_ROWS):
        here = np.flatnonzero((drawn >= start) & (drawn < start + BLOCK_ROWS))
        if len(here):
            block = embeddings.rows(start, min(embeddings.n_tiles, start + BLOCK_ROWS))
            vectors[here] = block[drawn[here] - start]
    good = np.flatnonzero(np.isfinite(vectors).all(axis=1))[:wanted]
    order = good[np.argsort(drawn[good])]
    return drawn[order].astype(np.int64), vectors[order]
