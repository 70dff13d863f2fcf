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
        digest: Of terms, templates, weights and tokenizer.
        logit_bias: The model's addend before a sigmoid; None where it was trained with a softmax.
    """

    terms: tuple[str, ...]
    vectors: np.ndarray
    unknown_words: tuple[tuple[str, ...], ...]
    logit_scale: float
    digest: str
    logit_bias: float | None = None


def terms_digest(session: Session, recipe: Recipe) -> str:
    """Digest of everything that a recipe's term vectors are made from; the temperature is not part of it."""
    text, cut = recipe.text, session.words_digest(recipe)
    read_by = (cut,) if cut is not None else ()
    weights = session.weights_sha256(recipe)
    return digest("terms", TERMS_VERSION, recipe.encoder, weights, text.terms, text.templates, *read_by)


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
        logit_bias=frame["logit_bias"][0],
    )


def make_terms(session: Session, recipe: Recipe) -> Terms:
    """The recipe's terms, embedded and stored unless they are current.

    Raises:
        TextTowerError: Words cannot be embedded: no text tower, no tokenizer, no library.
        EncoderError: The encoder cannot be had.
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
        logit_bias=encoder.logit_bias,
    )
    made = study_made_by(
        session,
        terms.digest,
        options=terms_options(recipe),
        inputs=terms_inputs(session, recipe),
        libraries=TERMS_LIBRARIES,
    )
    session.tables.write("term_embeddings", _rows(recipe, terms, made), slide_id=None, part=recipe_part(recipe))
    return terms


def terms_options(recipe: Recipe) -> dict[str, Any]:
    """The options in force for a recipe's terms, and the version of what makes them."""
    words = recipe.text.model_dump(mode="json", include={"terms", "templates"})
    return {"algorithm_version": TERMS_VERSION, "encoder": recipe.encoder, **words}


def terms_inputs(session: Session, recipe: Recipe) -> dict[str, str]:
    """What a recipe's terms are made from besides the options, by name."""
    cut = session.words_digest(recipe)
    found = {"weights_sha256": session.weights_sha256(recipe)}
    return found if cut is None else {**found, "tokenizer_sha256": cut}


def _rows(recipe: Recipe, terms: Terms, made: dict[str, Any]) -> list[dict]:
    return [
        {
            **made,
            "recipe": recipe.key,
            "term": term,
            "vector": vector.tolist(),
            "unknown_words": list(unknown),
            "logit_scale": terms.logit_scale,
            "logit_bias": terms.logit_bias,
        }
        for term, vector, unknown in zip(terms.terms, terms.vectors, terms.unknown_words, strict=True)
    ]
