"""Strange slides and batches, on cohorts whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from pathassets.core.cohort import MIN_SLIDES, group_effect, outlier_scores


def cohort(n, dim=64, seed=0):
    """Slides around a common vector, as slide vectors of one encoder are."""
    rng = np.random.default_rng(seed)
    return (1 + 0.1 * rng.normal(size=(n, dim))).astype(np.float32)


def test_a_slide_unlike_all_others_stands_out():
    vectors = cohort(40)
    vectors[17] = -np.ones(64) + 0.1 * np.arange(64)
    scores = outlier_scores(vectors)
    assert scores.argmax() == 17
    assert scores[17] > 3.5
    assert np.delete(scores, 17).max() < 3.5


def test_two_organs_are_no_outliers():
    vectors = np.concatenate([cohort(30), cohort(6, seed=1) * np.linspace(-1, 1, 64, dtype=np.float32)])
    assert outlier_scores(vectors).max() < 3.5


@pytest.mark.parametrize("n", [10, 30, 300])
def test_ordinary_cohorts_have_hardly_any(n):
    found = [(outlier_scores(cohort(n, seed=seed)) > 3.5).sum() for seed in range(20)]
    assert sum(found) / (20 * n) < 0.02


def test_a_length_makes_no_outlier():
    vectors = cohort(20)
    vectors[3] *= 50
    assert outlier_scores(vectors) == pytest.approx(outlier_scores(cohort(20)), abs=1e-3)


def test_of_few_slides_nothing_is_said_and_of_equal_ones_nothing_bad():
    assert outlier_scores(cohort(MIN_SLIDES - 1)) is None
    assert outlier_scores(np.ones((12, 8), np.float32)).tolist() == [0.0] * 12
    mostly_equal = np.ones((12, 8), np.float32)
    mostly_equal[5, 0] = -3
    assert outlier_scores(mostly_equal).argmax() == 5


def test_a_scanner_that_shifts_all_its_slides_is_found():
    vectors = cohort(40)
    groups = ["aperio"] * 20 + ["hamamatsu"] * 20
    vectors[20:, :8] += 0.3
    effect = group_effect(vectors, groups)
    assert effect.share > 0.2
    assert effect.p == pytest.approx(1 / 1000)
    assert effect.groups == {"aperio": 20, "hamamatsu": 20}


def test_its_share_is_the_share_of_the_variance():
    """Against the definition: sums of squared distances within and between, Anderson 2001."""
    vectors, groups = cohort(15, dim=4), ["a"] * 5 + ["b"] * 10
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    squares = ((unit[:, None] - unit[None]) ** 2).sum(-1)
    total = squares.sum() / (2 * 15)
    within = squares[:5, :5].sum() / (2 * 5) + squares[5:, 5:].sum() / (2 * 10)
    assert group_effect(vectors, groups).share == pytest.approx((total - within) / total, rel=1e-6)


def test_groups_by_chance_are_no_batch():
    p = [group_effect(cohort(30, seed=seed), ["x", "y", "z"] * 10).p for seed in range(40)]
    assert np.mean(np.asarray(p) <= 0.05) < 0.2
    assert 0.3 < np.mean(p) < 0.7


def test_small_groups_and_slides_without_one_are_left_out():
    vectors = cohort(20)
    assert group_effect(vectors, ["a"] * 16 + ["b"] * 4) is None
    assert group_effect(vectors, ["a"] * 20) is None
    assert group_effect(np.ones((20, 8), np.float32), ["a", "b"] * 10) is None
    effect = group_effect(vectors, ["a"] * 8 + ["b"] * 8 + [None, None, "c", "c"])
    assert effect.groups == {"a": 8, "b": 8}
