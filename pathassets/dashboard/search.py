"""Search: the tiles of a cohort that are most like a vector, exactly, in bounded memory.

Belongs here: cosines over stored embeddings, terms out of stored scores, words through the encoder's text tower. Does not
belong: approximate indexes (a million tiles take seconds without).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pathassets.core.similarity import prompts, term_vectors
from pathassets.dashboard.catalog import Catalog, UnknownNameError
from pathassets.errors import PathassetsError
from pathassets.store.arrays import read_embeddings

if TYPE_CHECKING:
    from pathassets.recipes import Recipe

ROWS = 4096
MAX_TEXT = 200


@dataclass(frozen=True)
class Hit:
    """A tile that was found.

    Attributes:
        score: Cosine, -1 to 1, or for a stored term its probability, 0 to 1.
    """

    slide_id: str
    tile_id: int
    score: float


@dataclass
class Found:
    """What a search gave.

    Attributes:
        hits: The best first.
        n_tiles: Tiles that were compared.
        n_slides: Slides that they are of.
        seconds: Time it took.
        skipped: Slides whose embeddings could not be read.
        n_rest: Slides that are still to be compared.
        last: The last slide that was looked at; all before it were, whatever has been published since.
        unknown_words: Words that the text tower has never seen.
    """

    hits: list[Hit] = field(default_factory=list)
    n_tiles: int = 0
    n_slides: int = 0
    seconds: float = 0.0
    skipped: list[str] = field(default_factory=list)
    n_rest: int = 0
    last: str = ""
    unknown_words: list[str] = field(default_factory=list)


def tile_vector(catalog: Catalog, slide_id: str, recipe: str, tile_id: int) -> NDArray[np.float32]:
    """A tile's embedding (dim,).

    Raises:
        UnknownNameError: The slide has no such tile, or no embeddings by this recipe.
        StoreError: `store_corrupt`.
    """
    row = catalog.embeddings_row(slide_id, recipe)
    if row is None or not 0 <= tile_id < row["n_tiles"]:
        raise UnknownNameError("tile with an embedding", "Choose one on the slide's page.")
    rows: NDArray[np.float32] = read_embeddings(catalog.session.root, row["uri"]).rows(tile_id, tile_id + 1)
    return rows[0]


def similar_tiles(
    catalog: Catalog,
    recipe: str,
    vector: NDArray[np.float32],
    k: int,
    *,
    only: str | None = None,
    but: tuple[str, int] | None = None,
    before: Found | None = None,
    seconds: float = math.inf,
) -> Found:
    """The `k` tiles with the highest cosine to `vector`.

    Args:
        catalog: The study.
        recipe: Whose embeddings.
        vector: (dim,).
        k: How many.
        only: Of this slide alone; None = of all.
        but: Slide and tile to leave out: the one that is asked about.
        before: What a search that was not over has found; it goes on with the slides after those.
        seconds: It stops after the slide during which they are over, and says how many are left.
    """
    begun = time.perf_counter()
    found = before or Found()
    rows = catalog.embeddings_rows(recipe)
    wanted = [row for row in rows if row["slide_id"] > found.last and only in (None, row["slide_id"])]
    found.n_rest = len(wanted)
    for row in wanted:
        found.n_rest, found.last = found.n_rest - 1, row["slide_id"]
        try:
            best = list(_best_of(catalog, row, vector, k, but))
        except PathassetsError:
            found.skipped.append(row["slide_id"])
            continue
        found.hits = sorted([*found.hits, *best], key=lambda hit: -hit.score)[:k]
        found.n_slides += 1
        found.n_tiles += row["n_tiles"]
        if time.perf_counter() - begun > seconds:
            break
    found.seconds += time.perf_counter() - begun
    return found


def top_of_term(catalog: Catalog, recipe: str, term: str, k: int) -> Found:
    """The `k` tiles with the highest stored probability of one of the study's terms."""
    begun = time.perf_counter()
    sql = (
        "SELECT slide_id, tile_id, probability FROM results.text_scores WHERE recipe = ? AND term = ? "
        "ORDER BY probability DESC, slide_id, tile_id LIMIT ?"
    )
    hits = [Hit(*row) for row in catalog.frame(sql, recipe, term, k).iter_rows()]
    sql = "SELECT count(*) AS n, count(DISTINCT slide_id) AS s FROM results.text_scores WHERE recipe = ? AND term = ?"
    n_tiles, n_slides = catalog.frame(sql, recipe, term).row(0)
    return Found(hits, n_tiles, n_slides, time.perf_counter() - begun)


def terms_of(catalog: Catalog, recipe: str) -> list[str]:
    """The study's terms that tiles of a recipe were compared with."""
    return catalog.frame("SELECT DISTINCT term FROM results.text_scores WHERE recipe = ? ORDER BY 1", recipe)[
        "term"
    ].to_list()


def text_recipe(catalog: Catalog, recipe: str) -> Recipe | None:
    """The recipe, where its encoder can read words, and its weights and tokenizer are here; else None."""
    from pathassets.encoders import has_text, weights_are_here, words_are_here

    known = next((item for item in catalog.study.recipes if item.key == recipe), None)
    if known is None or known.random_weights or not has_text(known.encoder):
        return None
    how = {"weights": known.weights, "tokenizer": known.tokenizer, "encoder_kwargs": known.encoder_kwargs}
    if not words_are_here(known.encoder, **how):
        return None
    return known if known.weights or weights_are_here(known.encoder) else None


def top_of_words(catalog: Catalog, recipe: str, text: str, k: int, **how: Any) -> Found:
    """The `k` tiles with the highest cosine to words that were not compared before; `how` as for `similar_tiles`.

    Raises:
        UnknownNameError: The recipe's encoder cannot read words, or its weights are not here.
        EncoderError: The encoder fails.
    """
    known = text_recipe(catalog, recipe)
    if known is None:
        raise UnknownNameError("text tower", "Choose one of the study's terms, or a recipe whose encoder reads words.")
    words = " ".join(text.split())[:MAX_TEXT]
    encoder: Any = catalog.session.encoder(known)
    vector = term_vectors(encoder.embed_text(prompts([words], known.text.templates or encoder.templates)), 1)[0]
    found = similar_tiles(catalog, recipe, vector, k, **how)
    found.unknown_words = list(encoder.unknown_words(words))
    return found


def similar_slides(catalog: Catalog, recipe: str, slide_id: str, k: int) -> list[tuple[str, float]]:
    """The `k` other slides with the highest cosine of mean vectors, the best first."""
    sql = (
        "SELECT slide_id, vector FROM results.slide_vectors WHERE recipe = ? AND method = 'mean' AND tissue_id IS NULL"
    )
    frame = catalog.frame(sql, recipe)
    ids = frame["slide_id"].to_list()
    if slide_id not in ids:
        return []
    vectors = _unit(np.asarray(frame["vector"].to_list(), dtype=np.float32))
    cosines = vectors @ vectors[ids.index(slide_id)]
    order = np.argsort(-cosines, kind="stable")
    return [(ids[i], float(cosines[i])) for i in order if ids[i] != slide_id][:k]


def _best_of(
    catalog: Catalog, row: dict[str, Any], vector: NDArray[np.float32], k: int, but: tuple[str, int] | None
) -> Iterator[Hit]:
    """The best of one slide; rows are in the tiles' order, so that a row's number is its tile's."""
    if row["dim"] != len(vector):
        return
    wanted = _unit(vector[None])[0]
    cosines = [_cosines(rows, wanted) for rows in read_embeddings(catalog.session.root, row["uri"]).iter_rows(ROWS)]
    cosine: NDArray[np.floating] = np.concatenate(cosines) if cosines else np.zeros(0, np.float32)
    cosine[~np.isfinite(cosine)] = -np.inf
    if but is not None and but[0] == row["slide_id"]:
        cosine[but[1]] = -np.inf
    n = min(k, len(cosine))
    if n:
        best = np.argpartition(-cosine, n - 1)[:n]
        yield from (Hit(row["slide_id"], int(i), float(cosine[i])) for i in best if np.isfinite(cosine[i]))


def _cosines(rows: NDArray[np.float32], wanted: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each row with a vector of length 1; without a second copy of the rows."""
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return np.asarray((rows @ wanted) / np.where(norms > 0, norms, 1), dtype=np.float32)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norm > 0, norm, 1), dtype=np.float32)
