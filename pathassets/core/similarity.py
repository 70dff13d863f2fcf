"""How much a tile looks like a word: cosine and probability between tile embeddings and term embeddings.

Belongs here: prompts out of terms, scores out of vectors, the best term of a domain. Does not belong: encoders
(they embed tiles and prompts), where scores are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Rows scored at once: bounds the float64 copy.
BLOCK_ROWS = 8192


class TextScores(NamedTuple):
    """`cosine` and `probability`, both (n tiles, k terms) float32; each row of `probability` sums to one."""

    cosine: NDArray[np.float32]
    probability: NDArray[np.float32]


def prompts(terms: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every term in every template, term by term: k·t texts; `{}` is the term's place. No templates: the terms."""
    return [template.replace("{}", term) for term in terms for template in (templates or ("{}",))]


def term_vectors(prompt_vectors: ArrayLike, n_terms: int) -> NDArray[np.float32]:
    """One unit vector (k, d) per term: the mean of its prompts' unit vectors (prompt ensemble, CLIP).

    Args:
        prompt_vectors: (k·t, d), as an encoder returns them for `prompts`.
        n_terms: k.
    """
    vectors = _unit(np.asarray(prompt_vectors, dtype=np.float64))
    if n_terms < 1 or len(vectors) % n_terms:
        raise ValueError(f"{len(vectors)} prompts cannot be shared out among {n_terms} terms")
    return _unit(vectors.reshape(n_terms, -1, vectors.shape[1]).mean(axis=1)).astype(np.float32)


def text_scores(
    features: NDArray[np.floating],
    terms: ArrayLike,
    *,
    logit_scale: float | None = None,
    temperature: float | None = None,
) -> TextScores:
    """Cosine and softmax probability of every tile for every term.

    Probabilities compare the given terms with each other and with nothing else: with one term they are 1. Without the
    model's scale a softmax over cosines is almost flat (a difference of 0.1 gives 52 to 48), hence no default.

    Args:
        features: (n, d) tile embeddings; a row that is not finite gives NaN.
        terms: (k, d) term embeddings.
        logit_scale: The model's own factor on cosines before the softmax.
        temperature: Softmax temperature, used instead of `logit_scale` when given; the factor is 1 / temperature.

    Raises:
        ValueError: No terms, other width than the features, or neither scale nor temperature.
    """
    text = _unit(np.asarray(terms, dtype=np.float64))
    if text.ndim != 2 or not len(text) or text.shape[1] != features.shape[1]:
        raise ValueError(f"terms {text.shape} and tile embeddings {features.shape} do not belong together")
    factor = _factor(logit_scale, temperature)
    cosine = np.empty((len(features), len(text)), dtype=np.float32)
    probability = np.empty_like(cosine)
    for start in range(0, len(features), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        block = _cosine(features[rows].astype(np.float64), text)
        cosine[rows], probability[rows] = block, _softmax(block * factor)
    return TextScores(cosine, probability)


def _factor(logit_scale: float | None, temperature: float | None) -> float:
    if temperature is not None and temperature > 0:
        return 1.0 / temperature
    if temperature is None and logit_scale is not None and logit_scale > 0:
        return logit_scale
    raise ValueError("a softmax needs the model's logit scale or a temperature above 0")


def _cosine(rows: NDArray[np.float64], text: NDArray[np.float64]) -> NDArray[np.float64]:
    bad = ~np.isfinite(rows).all(axis=1)
    rows[bad] = 0.0
    cosine = np.clip(_unit(rows) @ text.T, -1.0, 1.0)
    cosine[bad] = np.nan
    return cosine


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    norm = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1.0)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    share: NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
    return share


def best_term_per_domain(probability: NDArray[np.floating], domains: ArrayLike) -> dict[int, int | None]:
    """For every domain the index of the term with the highest mean probability over its tiles.

    The mean of probabilities, and not the commonest best term, so that a domain of doubtful tiles gets what they share;
    the first of equals wins. None where no tile of the domain has scores.

    Args:
        probability: (n, k); rows of NaN are left out.
        domains: (n,) domain of each tile.
    """
    of = np.asarray(domains)
    good = np.isfinite(probability).all(axis=1)
    best: dict[int, int | None] = {}
    for domain in np.unique(of):
        rows = probability[(of == domain) & good]
        best[int(domain)] = int(np.argmax(rows.mean(axis=0, dtype=np.float64))) if len(rows) else None
    return best
