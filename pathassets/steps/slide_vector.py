"""Step `slide_vector`: a slide's embeddings as one vector for the slide and one for each piece of tissue.

Belongs here: rows from the store to the reductions and the slide encoders. Does not belong: the reductions (`core/vectors.py`),
slide encoders (`encoders/slide`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathassets.core.vectors import Chunk, reduce_embeddings
from pathassets.encoders import canonical
from pathassets.encoders.slide import SlideCard, get_slide_card
from pathassets.errors import Reason
from pathassets.recipes import Recipe, is_file, slide_vector_name
from pathassets.steps.chain import Made
from pathassets.steps.embedded import embeddings_row, open_embeddings, recipe_of, recipe_part
from pathassets.steps.nodes import Node
from pathassets.steps.outcomes import Status
from pathassets.steps.session import Session, made_by
from pathassets.steps.tiles import slide_tile_size
from pathassets.store.arrays import Embeddings

ROWS = 4096


def inputs(session: Session, slide_id: str, node: Node) -> tuple[Any, ...]:
    """The slide encoders' weights; nothing besides the embeddings where there are none."""
    weights = session.slide_weights(recipe_of(node))
    return (weights,) if weights else ()


def is_stored(session: Session, slide_id: str, node: Node) -> bool:
    """Whether the vectors are there."""
    return session.tables.exists("slide_vectors", slide_id, recipe_part(recipe_of(node)))


def make(session: Session, slide_id: str, node: Node, result_digest: str) -> Made:
    """Reduces the embeddings and writes the table `slide_vectors`.

    Raises:
        EncoderError: A slide encoder cannot be had, or wants other tiles.
        SlideError: The slide is too large for one.
    """
    recipe = recipe_of(node)
    row = embeddings_row(session, slide_id, recipe)
    if row is None:
        session.tables.write("slide_vectors", [], slide_id=slide_id, part=recipe_part(recipe))
        return Made(Status.EMPTY, Reason.NO_TILES, "the slide has no tiles to reduce")
    embeddings = open_embeddings(session, row)
    named = {"slide_id": slide_id, "recipe": recipe.key, "embeddings_digest": row["digest"]}
    named |= made_by(session, node, result_digest)
    rows = _reduced(recipe, embeddings)
    if recipe.vectors.encoders and embeddings.ok.any():
        rows += _encoded(session, slide_id, recipe, row, embeddings)
    session.tables.write("slide_vectors", [named | made for made in rows], slide_id=slide_id, part=recipe_part(recipe))
    return Made()


class _Chunks:
    """Embeddings with tissue ids, chunk by chunk, as often as they are asked for."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        self.tissue_ids = tissue_ids(embeddings)

    def __iter__(self) -> Iterator[Chunk]:
        for i, rows in enumerate(self._embeddings.iter_rows(ROWS)):
            yield rows, self.tissue_ids[i * ROWS : i * ROWS + len(rows)]


def tissue_ids(embeddings: Embeddings) -> NDArray[np.int64]:
    """The piece of tissue of each tile, -1 where it lies on none: (n_tiles,)."""
    return embeddings.obs["tissue_id"].fill_null(-1).to_numpy().astype(np.int64)


def _reduced(recipe: Recipe, embeddings: Embeddings) -> list[dict[str, Any]]:
    chunks = _Chunks(embeddings)
    good = chunks.tissue_ids[embeddings.ok]
    return [
        {
            "method": method,
            "tissue_id": tissue_id,
            "n_tiles": int(good.size if tissue_id is None else (good == tissue_id).sum()),
            "vector": vector.tolist(),
        }
        for (method, tissue_id), vector in reduce_embeddings(chunks, recipe.vectors.reductions).items()
    ]


# -- Slide encoders ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tiles:
    """The tiles of a slide that could be read, as slide encoders take them.

    Attributes:
        features: Embeddings (n, dim), as they are stored.
        coordinates: Left and top edges in level-0 pixels (n, 2).
        tissue_ids: Piece of tissue of each, -1 = none: (n,).
        width: Of a tile, in level-0 pixels, exact.
    """

    features: NDArray[np.floating]
    coordinates: NDArray[np.integer]
    tissue_ids: NDArray[np.integer]
    width: float

    def groups(self) -> Iterator[tuple[int | None, NDArray[np.bool_]]]:
        """The slide (None) and each piece of tissue, with which tiles are its."""
        yield None, np.ones(len(self.features), bool)
        for piece in np.unique(self.tissue_ids):
            if piece >= 0:
                yield int(piece), self.tissue_ids == piece


def read_tiles(embeddings: Embeddings, width: float) -> Tiles:
    """The tiles with status ok, in the grid's order."""
    ok = embeddings.ok
    features = np.empty((int(ok.sum()), embeddings.dim), embeddings.dtype)
    filled = 0
    for number, rows in enumerate(embeddings.iter_rows(ROWS)):
        good = rows[ok[number * ROWS : number * ROWS + len(rows)]]
        features[filled : filled + len(good)] = good
        filled += len(good)
    coordinates = embeddings.obs.select("x_px", "y_px").to_numpy()[ok]
    return Tiles(features, coordinates, tissue_ids(embeddings)[ok], width)


def check_trained(recipe: Recipe, weights_sha256: str) -> None:
    """Refuses files of slide encoders that were trained on other tiles than the recipe's, before any are made.

    Raises:
        EncoderError: `encoder_mismatch` or `tiling_mismatch`; `weights_missing` where there is no such file.
    """
    for method in filter(is_file, recipe.vectors.encoders):
        card = get_slide_card(method)
        card.check_tiles(canonical(recipe.encoder), recipe.tiling)
        card.check_weights(weights_sha256)


def check_embeddings(card: SlideCard, recipe: Recipe, row: dict[str, Any]) -> None:
    """Refuses embeddings that a slide encoder was not made for, by what their row of `embeddings` says.

    Raises:
        EncoderError: `encoder_mismatch` or `tiling_mismatch`.
    """
    card.check_tiles(canonical(recipe.encoder), recipe.tiling, mpp=row["mpp"])
    card.check_weights(str(row["weights_sha256"]))


def _encoded(
    session: Session, slide_id: str, recipe: Recipe, row: dict[str, Any], embeddings: Embeddings
) -> list[dict[str, Any]]:
    width = slide_tile_size(recipe.tiling, session.slide_row(slide_id)).stride_hw[1]
    tiles: Tiles | None = None
    made = []
    for method in recipe.vectors.encoders:
        encoder = session.slide_encoder(recipe, method)
        check_embeddings(encoder.card, recipe, row)
        tiles = tiles or read_tiles(embeddings, width)
        about = {"weights_sha256": encoder.weights_sha256, "random_weights": encoder.is_random}
        whole: list[float] = []
        for tissue_id, chosen in tiles.groups():
            if not chosen.all() or not whole:
                vector = encoder(tiles.features[chosen], tiles.coordinates[chosen], tiles.width).tolist()
            else:
                vector = whole  # a slide of one piece is encoded once
            whole = whole or vector
            key = {"method": slide_vector_name(method), "tissue_id": tissue_id, "n_tiles": int(chosen.sum())}
            made.append({**key, "vector": vector, **about})
    return made
