"""Verdicts at both sides of each threshold."""

from __future__ import annotations

import math

import pytest

from pathassets.core import checks


@pytest.mark.parametrize(
    ("share", "found", "passed"),
    [(0.3, True, True), (0.0019, True, False), (0.96, True, False), (0.0, True, False), (1.0, False, True)],
)
def test_tissue_share(share, found, passed):
    verdict = checks.tissue_share(share * 200, 200, found=found)
    assert verdict.passed is passed
    assert verdict.numbers["tissue_share"] == pytest.approx(share)


@pytest.mark.parametrize(("n", "passed"), [(0, False), (15, False), (16, True), (10**6, True), (10**6 + 1, False)])
def test_tile_count(n, passed):
    assert checks.tile_count(n).passed is passed


@pytest.mark.parametrize(
    ("cosine", "passed"), [(1.0, True), (0.99, True), (0.9899, False), (-1.0, False), (None, False)]
)
def test_precision_agreement(cosine, passed):
    verdict = checks.precision_agreement(cosine, None if cosine is None else 0.1)
    assert verdict.passed is passed
    assert verdict.numbers.get("cosine") == cosine


def test_a_cosine_that_is_no_number_does_not_pass():
    assert not checks.precision_agreement(math.nan, math.nan).passed


def test_embeddings_finite_counts_unreadable_tiles_apart():
    assert checks.embeddings_finite(0, 7).passed
    assert not checks.embeddings_finite(1, 0).passed


@pytest.mark.parametrize(("found", "passed"), [((9, 128), True), ((8, 128), False), ((9, 127), False)])
def test_embeddings_shape(found, passed):
    assert checks.embeddings_shape(found, (9, 128)).passed is passed


@pytest.mark.parametrize(
    ("norms", "passed"), [((1, 2, 3), True), ((0, 2, 3), False), ((1, 2, 200), True), ((1, 2, 201), False)]
)
def test_embeddings_norms(norms, passed):
    assert checks.embeddings_norms(*norms).passed is passed


def test_a_slide_of_unreadable_tiles_has_no_norms_to_judge():
    assert checks.embeddings_norms(math.nan, math.nan, math.nan).passed


def test_same_digest_names_what_differs():
    wanted = {"row": "a", "tiles": "b"}
    assert checks.same_digest({"row": "a", "tiles": "b", "more": "c"}, wanted).passed
    verdict = checks.same_digest({"row": "a"}, wanted)
    assert not verdict.passed
    assert "tiles" in verdict.message


@pytest.mark.parametrize(
    ("sizes", "passed"),
    [
        ([50, 50], True),
        ([98, 2], True),
        ([99, 1], False),
        ([100], False),
        ([4] * 25, True),
        ([3] * 25, False),
        ([15], True),
        ([16], False),
        ([], True),
    ],
)
def test_domains_not_degenerate(sizes, passed):
    assert checks.domains_not_degenerate({"leiden": sizes}).passed is passed
    assert checks.domains_not_degenerate({"leiden": [50, 50], "utag": sizes}).passed is passed


@pytest.mark.parametrize(("error", "passed"), [(0.0, True), (1e-4, True), (2e-4, False), (math.nan, False)])
def test_sums_to_one(error, passed):
    assert checks.sums_to_one(error).passed is passed
