"""Text scores against their definition, in any chunking and for odd rows."""

from __future__ import annotations

import numpy as np
import pytest

from pathassets.core import similarity
from pathassets.core.similarity import best_term_per_domain, prompts, term_vectors, text_scores


def _sample(n=100, k=5, d=16):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)).astype(np.float32), rng.normal(size=(k, d)).astype(np.float32)


def test_scores_are_cosines_and_their_softmax():
    tiles, terms = _sample()
    cosine = (tiles / np.linalg.norm(tiles, axis=1)[:, None]) @ (terms / np.linalg.norm(terms, axis=1)[:, None]).T
    raised = np.exp(10 * cosine)
    found = text_scores(tiles * 7, terms * 3, logit_scale=10)
    np.testing.assert_allclose(found.cosine, cosine, atol=1e-6)
    np.testing.assert_allclose(found.probability, raised / raised.sum(axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(found.probability.sum(axis=1), 1, atol=1e-6)
    assert found.cosine.dtype == found.probability.dtype == np.float32


def test_chunks_do_not_show(monkeypatch):
    tiles, terms = _sample(1000)
    whole = text_scores(tiles, terms, logit_scale=20)
    monkeypatch.setattr(similarity, "BLOCK_ROWS", 7)
    parts = text_scores(tiles, terms, logit_scale=20)
    np.testing.assert_allclose(whole.cosine, parts.cosine, atol=1e-7)
    np.testing.assert_allclose(whole.probability, parts.probability, atol=1e-7)


def test_temperature_replaces_the_models_scale():
    tiles, terms = _sample()
    by_scale = text_scores(tiles, terms, logit_scale=50)
    by_temperature = text_scores(tiles, terms, logit_scale=3, temperature=0.02)
    np.testing.assert_allclose(by_scale.probability, by_temperature.probability, atol=1e-6)


def test_a_sharp_softmax_does_not_overflow():
    tiles, terms = _sample()
    found = text_scores(tiles, terms, temperature=1e-6)
    assert np.isfinite(found.probability).all()
    np.testing.assert_array_equal(found.probability.argmax(axis=1), found.cosine.argmax(axis=1))


def test_bad_tiles_stay_bad_and_empty_ones_say_nothing():
    tiles, terms = _sample()
    tiles[3, 5], tiles[4] = np.nan, 0
    found = text_scores(tiles, terms, logit_scale=10)
    assert np.isnan(found.cosine[3]).all()
    assert np.isnan(found.probability[3]).all()
    np.testing.assert_array_equal(found.cosine[4], 0)
    np.testing.assert_allclose(found.probability[4], 0.2)
    assert np.isfinite(np.delete(found.probability, 3, axis=0)).all()
    assert np.isfinite(tiles[2]).all()
    assert np.isnan(tiles[3, 5])


def test_half_precision_and_no_tiles():
    tiles, terms = _sample()
    half = text_scores(tiles.astype(np.float16), terms, logit_scale=10)
    np.testing.assert_allclose(half.cosine, text_scores(tiles, terms, logit_scale=10).cosine, atol=2e-3)
    assert text_scores(tiles[:0], terms, logit_scale=10).cosine.shape == (0, 5)


def test_what_does_not_belong_together_is_refused():
    tiles, terms = _sample()
    for bad in (terms[:, :3], terms[:0], terms[0]):
        with pytest.raises(ValueError, match="belong together"):
            text_scores(tiles, bad, logit_scale=10)
    for scale in ({}, {"temperature": 0.0}, {"logit_scale": -1.0}):
        with pytest.raises(ValueError, match="softmax"):
            text_scores(tiles, terms, **scale)


def test_prompts_take_any_text_literally():
    assert prompts(["a", "{0} {x}"], ["{}", "tissue of {}."]) == ["a", "tissue of a.", "{0} {x}", "tissue of {0} {x}."]
    assert prompts(["gland"], []) == ["gland"]


def test_a_term_is_the_mean_direction_of_its_prompts():
    vectors = np.array([[2.0, 0], [0, 5], [1, 1], [3, 3]])
    np.testing.assert_allclose(term_vectors(vectors, 2), np.full((2, 2), np.sqrt(0.5)), atol=1e-7)
    with pytest.raises(ValueError, match="shared out"):
        term_vectors(vectors, 3)


def test_the_best_term_is_the_likeliest_on_average():
    probability = np.array(
        [[0.5, 0.4, 0.1], [0.5, 0.4, 0.1], [0.0, 1.0, 0.0], [0.2, 0.2, 0.6], [np.nan] * 3, [np.nan] * 3]
    )
    assert best_term_per_domain(probability, [0, 0, 0, 1, 1, 2]) == {0: 1, 1: 2, 2: None}
