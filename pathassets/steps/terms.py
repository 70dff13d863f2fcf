"""Terms: a recipe's words as vectors, once for all slides.

Belongs here: the table `term_embeddings`. Does not belong: comparing tiles with them (`text_similarity`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pathassets.core.similarity import prompts, term_vectors
from pathassets.recipes import Recipe, digest
from pathassets.steps.embedded import recipe_part
from pathassets.steps.made_from import TERMS_LIBRARIES
from pathassets.steps.session import Session, study_made_by

TERMS_VERSION = 1


@dataclass(frozen=True)
class Terms:
    """A recipe's terms.

    Attributes:
        terms: The words, in the settings' order.
        vectors: (n_terms, dim) float32, rows of length one.
        unknown_words: For each term, the words that the text tower cannot know.
        logit_scale: The model's factor on cosines before a softmax.
        digest: Of terms, templates and weights.
    """

    terms: tuple[str, ...]
    vectors: np.ndarray
    unknown_words: tuple[tuple[str, ...], ...]
    logit_scale: float
    digest: str


def terms_digest(session: Session, recipe: Recipe) -> str:
    """Digest of everything that a recipe's term vectors are made from; the temperature is not part of it."""
    text = recipe.text
    return digest("terms", TERMS_VERSION, recipe.encoder, session.weights_sha256(recipe), text.terms, text.templates)


def load_terms(session: Session, recipe: Recipe) -> Terms | None:
    """The stored terms, if they are current."""
    frame = session.tables.read("term_embeddings", None, recipe_part(recipe))
    wanted = terms_digest(session, recipe)
    if frame is None or frame.is_empty() or frame["digest"][0] != wanted:
        return None
    return Terms(
        terms=tuple(frame["term"]),
        vectors=np.asarray(frame["vector"].to_list(), np.float32),
        unknown_words=tuple(tuple(words or ()) for words in frame["unknown_words"].to_list()),
        logit_scale=float(frame["logit_scale"][0]),
        digest=wanted,
    )


def make_terms(session: Session, recipe: Recipe) -> Terms:
    """The recipe's terms, embedded and stored unless they are current.

    Raises:
        EncoderError: The encoder cannot be had, or has no text tower.
    """
    current = load_terms(session, recipe)
    if current is not None:
        return current
    encoder = session.encoder(recipe)
    templates = recipe.text.templates or encoder.templates
    vectors = term_vectors(encoder.embed_text(prompts(recipe.text.terms, templates)), len(recipe.text.terms))
    terms = Terms(
        terms=recipe.text.terms,
        vectors=vectors,
        unknown_words=tuple(tuple(encoder.unknown_words(term)) for term in recipe.text.terms),
        logit_scale=float(encoder.logit_scale),
        digest=terms_digest(session, recipe),
    )
    made = study_made_by(
        session,
        terms.digest,
        options=terms_options(recipe),
        inputs={"weights_sha256": session.weights_sha256(recipe)},
        libraries=TERMS_LIBRARIES,
    )
    session.tables.write("term_embeddings", _rows(recipe, terms, made), slide_id=None, part=recipe_part(recipe))
    return terms


def terms_options(recipe: Recipe) -> dict[str, Any]:
    """The options in force for a recipe's terms, and the version of what makes them."""
    words = recipe.text.model_dump(mode="json", include={"terms", "templates"})
    return {"algorithm_version": TERMS_VERSION, "encoder": recipe.encoder, **words}


def _rows(recipe: Recipe, terms: Terms, made: dict[str, Any]) -> list[dict]:
    return [
        {
            **made,
            "recipe": recipe.key,
            "term": term,
            "vector": vector.tolist(),
            "unknown_words": list(unknown),
            "logit_scale": terms.logit_scale,
        }
        for term, vector, unknown in zip(terms.terms, terms.vectors, terms.unknown_words, strict=True)
    ]
