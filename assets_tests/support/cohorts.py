"""Cohorts of slides that exist in tables alone.

Belongs here: rows of many slides for tests of what needs all of them. Does not belong: pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from pathassets.steps.embedded import recipe_part
from pathassets.steps.session import Session

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
DIM = 32


def cohort_of(
    session: Session,
    n: int,
    *,
    strange: int | None = None,
    shifted: Collection[int] = (),
    columns: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """Writes `n` slides with vectors round a common one, registered an hour after the other; gives their ids.

    Args:
        session: Whose first recipe they belong to.
        n: How many.
        strange: The slide that is like no other.
        shifted: Slides that all differ from the others in the same way.
        columns: Columns of `slides.csv`.
    """
    rng = np.random.default_rng(n)
    vectors = 1 + 0.1 * rng.normal(size=(n, DIM))
    vectors[list(shifted), : DIM // 4] += 0.3
    if strange is not None:
        vectors[strange] = np.linspace(-1, 1, DIM)
    ids = [f"s{i}-{i:08x}" for i in range(n)]
    for i, slide_id in enumerate(ids):
        extra = {name: values[i] for name, values in (columns or {}).items()}
        _write(session, slide_id, vectors[i].tolist(), BEGINNING + timedelta(hours=i), extra)
    return ids


def _write(session: Session, slide_id: str, vector: list[float], when: datetime, extra: Mapping[str, str]) -> None:
    recipe = session.study.recipes[0]
    part, tables = recipe_part(recipe), session.tables
    slide = {"slide_id": slide_id, "path": f"/slides/{slide_id}.svs", "created_at": when, **extra}
    tables.write("slides", [slide], slide_id=slide_id)
    embeddings = {"slide_id": slide_id, "recipe": recipe.key, "uri": f"arrays/{slide_id}/0/embeddings.zarr",
                  "n_tiles": 1, "dim": DIM, "dtype": "float16", "precision": "fp32", "digest": "0"}  # fmt: skip
    tables.write("embeddings", [embeddings], slide_id=slide_id, part=part)
    row = {"slide_id": slide_id, "recipe": recipe.key, "method": recipe.vectors.methods[0], "tissue_id": None,
           "n_tiles": 1, "vector": vector, "embeddings_digest": "0"}  # fmt: skip
    tables.write("slide_vectors", [row], slide_id=slide_id, part=part)
