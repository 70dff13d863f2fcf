"""Step `text_similarity`: how much each tile looks like each term, and what that makes of the domains' names.

Belongs here: scoring one slide's tiles. Does not belong: the terms' vectors (`terms`), the scores' formula
(`core/similarity.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from pathassets.config import DEFAULT_TERMS
from pathassets.core.similarity import text_scores
from pathassets.errors import Reason, TextTowerError
from pathassets.recipes import Recipe
from pathassets.steps.chain import Made
from pathassets.steps.embedded import embeddings_row, open_embeddings, recipe_of, recipe_part
from pathassets.steps.labels import label_domains
from pathassets.steps.nodes import Node
from pathassets.steps.outcomes import Status
from pathassets.steps.session import Session, made_by
from pathassets.steps.terms import Terms, make_terms, terms_digest


def inputs(session: Session, slide_id: str, node: Node) -> tuple[Any, ...]:
    """The terms' vectors."""
    return (terms_digest(session, recipe_of(node)),)


def is_stored(session: Session, slide_id: str, node: Node) -> bool:
    """Whether the scores are there."""
    return session.tables.exists("text_scores", slide_id, recipe_part(recipe_of(node)))


def make(session: Session, slide_id: str, node: Node, result_digest: str) -> Made:
    """Scores the tiles that count and writes the table `text_scores`.

    Words that cannot be embedded fail the step where the terms are the user's own; the terms that nobody chose are an offer, which
    is not taken up: no scores, and an outcome that says why.

    Raises:
        TextTowerError: The terms cannot be embedded, and were asked for.
        EncoderError: The encoder cannot be had.
    """
    recipe = recipe_of(node)
    part = recipe_part(recipe)
    row = embeddings_row(session, slide_id, recipe)
    if row is None:
        session.tables.write("text_scores", [], slide_id=slide_id, part=part)
        return Made(Status.EMPTY, Reason.NO_TILES, "the slide has no tiles to compare with words")
    try:
        terms = make_terms(session, recipe)
    except TextTowerError as error:
        if recipe.text.terms != DEFAULT_TERMS:
            raise
        session.tables.write("text_scores", [], slide_id=slide_id, part=part)
        return Made(Status.FLAGGED, error.reason, error.message, error.remedy)
    named = {"slide_id": slide_id, "recipe": recipe.key, "embeddings_digest": row["digest"]}
    named |= made_by(session, node, result_digest)
    constants = [pl.lit(value, dtype=pl.String).alias(name) for name, value in named.items()]
    frame = score_tiles(session, row, recipe, terms).with_columns(constants)
    session.tables.write("text_scores", frame, slide_id=slide_id, part=part)
    label_domains(session, slide_id, recipe)
    return _verdict(terms)


def score_tiles(session: Session, row: dict[str, Any], recipe: Recipe, terms: Terms) -> pl.DataFrame:
    """`tile_id`, `term`, `cosine`, `probability` of the tiles with status ok, tile by tile."""
    embeddings = open_embeddings(session, row)
    ok = embeddings.ok
    scores = [
        text_scores(rows, terms.vectors, logit_scale=terms.logit_scale, temperature=recipe.text.temperature)
        for rows in embeddings.iter_rows()
    ]
    cosine = np.concatenate([score.cosine for score in scores])[ok]
    probability = np.concatenate([score.probability for score in scores])[ok]
    tile_ids = embeddings.obs["tile_id"].to_numpy()[ok]
    n_terms = len(terms.terms)
    return pl.DataFrame(
        {
            "tile_id": np.repeat(tile_ids, n_terms),
            "term": list(terms.terms) * len(tile_ids),
            "cosine": cosine.ravel(),
            "probability": probability.ravel(),
        },
        schema_overrides={"term": pl.String},
    )


def _verdict(terms: Terms) -> Made:
    """A term of which the text tower knows no word gives scores all the same; its user must know."""
    unknown = {term: words for term, words in zip(terms.terms, terms.unknown_words, strict=True) if words}
    if not unknown:
        return Made()
    listed = "; ".join(f"{term!r}: {', '.join(words)}" for term, words in unknown.items())
    return Made(
        Status.FLAGGED,
        Reason.UNKNOWN_WORDS,
        f"the text tower has never seen some words ({listed})",
        "Use other words; scores of these terms mean little.",
    )
