"""Step `slide_vector`: a slide's embeddings reduced to one vector for the slide and one for each piece of tissue.

Belongs here: streaming rows from the store into the reduction. Does not belong: the reductions (`core/vectors.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pathassets.core.vectors import Chunk, reduce_embeddings
from pathassets.errors import Reason
from pathassets.recipes import Recipe
from pathassets.steps.chain import Made
from pathassets.steps.embedded import embeddings_row, open_embeddings, recipe_of, recipe_part
from pathassets.steps.nodes import Node
from pathassets.steps.outcomes import Status
from pathassets.steps.session import Session, made_by
from pathassets.store.arrays import Embeddings

ROWS = 4096


def inputs(session: Session, slide_id: str, node: Node) -> tuple[Any, ...]:
    """Nothing besides the embeddings."""
    return ()


def is_stored(session: Session, slide_id: str, node: Node) -> bool:
    """Whether the vectors are there."""
    return session.tables.exists("slide_vectors", slide_id, recipe_part(recipe_of(node)))


def make(session: Session, slide_id: str, node: Node, result_digest: str) -> Made:
    """Reduces the embeddings and writes the table `slide_vectors`."""
    recipe = recipe_of(node)
    row = embeddings_row(session, slide_id, recipe)
    if row is None:
        session.tables.write("slide_vectors", [], slide_id=slide_id, part=recipe_part(recipe))
        return Made(Status.EMPTY, Reason.NO_TILES, "the slide has no tiles to reduce")
    embeddings = open_embeddings(session, row)
    named = {"slide_id": slide_id, "recipe": recipe.key, "embeddings_digest": row["digest"]}
    named |= made_by(session, node, result_digest)
    rows = _rows(recipe, embeddings, named)
    session.tables.write("slide_vectors", rows, slide_id=slide_id, part=recipe_part(recipe))
    return Made()


class _Chunks:
    """Embeddings with tissue ids, chunk by chunk, as often as they are asked for."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        self.tissue_ids = embeddings.obs["tissue_id"].fill_null(-1).to_numpy().astype(np.int64)

    def __iter__(self) -> Iterator[Chunk]:
        for i, rows in enumerate(self._embeddings.iter_rows(ROWS)):
            yield rows, self.tissue_ids[i * ROWS : i * ROWS + len(rows)]


def _rows(recipe: Recipe, embeddings: Embeddings, named: dict[str, Any]) -> list[dict[str, Any]]:
    chunks = _Chunks(embeddings)
    good = chunks.tissue_ids[embeddings.ok]
    return [
        {
            **named,
            "method": method,
            "tissue_id": tissue_id,
            "n_tiles": int(good.size if tissue_id is None else (good == tissue_id).sum()),
            "vector": vector.tolist(),
        }
        for (method, tissue_id), vector in reduce_embeddings(chunks, recipe.vectors.methods).items()
    ]
