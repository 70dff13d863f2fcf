"""What is said of all slides together, from tables whose truth is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from support.cohorts import cohort_of

from pathassets.config import CONFIG_FILE, Study
from pathassets.steps.cohort_checks import BATCH_EFFECTS, OUTLIER_SLIDES, judge_day, judge_map
from pathassets.steps.session import Session
from pathassets.steps.slide_map import make_slide_map

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture
def session(tmp_path) -> Session:
    (tmp_path / CONFIG_FILE).write_text('[[recipes]]\nencoder = "demo-vlm"\nname = "demo"\n')
    return Session(Study(tmp_path))


def test_a_strange_slide_is_named_with_its_score(session):
    ids = cohort_of(session, 30, strange=4)
    verdict = judge_map(session, session.study.recipes[0])[OUTLIER_SLIDES]
    assert not verdict.passed
    assert verdict.numbers["outliers"] == 1
    assert verdict.numbers[ids[4]] > 3.5
    make_slide_map(session, session.study.recipes[0])
    rows = session.tables.scan("slide_map").collect()
    assert set(rows.filter(rows["outlier_score"] > 3.5)["slide_id"]) == {ids[4]}


def test_a_scanner_a_stain_and_new_slides_that_differ_are_found(session):
    cohort_of(
        session, 40, shifted=range(20, 40), columns={"scanner": ["one"] * 20 + ["two"] * 20, "diagnosis": ["x"] * 40}
    )
    verdict = judge_map(session, session.study.recipes[0])[BATCH_EFFECTS]
    assert not verdict.passed
    assert verdict.numbers["scanner_share"] > 0.1
    assert verdict.numbers["scanner_p"] <= 0.01
    assert verdict.numbers["scanner_slides"] == "one: 20, two: 20"
    assert "age_share" in verdict.numbers, "the newest fifth lies within the shifted half"
    assert not any(name.startswith("diagnosis") for name in verdict.numbers)


def test_slides_that_differ_by_what_was_found_in_them_are_no_batch(session):
    cohort_of(
        session, 40, shifted=range(0, 40, 2), columns={"diagnosis": ["benign", "cancer"] * 20, "Stain": ["HE"] * 40}
    )
    assert judge_map(session, session.study.recipes[0])[BATCH_EFFECTS].passed


def test_a_few_slides_and_none_pass(session):
    for n in (0, 3):
        cohort_of(session, n)
        assert all(verdict.passed for verdict in judge_map(session, session.study.recipes[0]).values())


def test_who_failed_since_yesterday(session):
    for slide_id, age, status in (("a-00000001", 2, "failed"), ("b-00000002", 30, "failed"), ("c-00000003", 1, "ok")):
        row = {"slide_id": slide_id, "tiling": None, "recipe": None, "step": "slide", "status": status,
               "reason": "mpp_missing" if status == "failed" else None, "message": "no resolution", "remedy": None,
               "created_at": NOW - timedelta(hours=age)}  # fmt: skip
        session.tables.write("outcomes", [row], slide_id=slide_id)
    verdict = judge_day(session, NOW)
    assert not verdict.passed
    assert verdict.numbers == {"failed": 1, "a-00000001": "slide: mpp_missing: no resolution"}
    assert judge_day(session, NOW + timedelta(days=2)).passed


def test_scores_do_not_depend_on_who_asks_first(session):
    cohort_of(session, 12)
    first, second = (judge_map(session, session.study.recipes[0])[OUTLIER_SLIDES].numbers for _ in range(2))
    assert first == second
    assert np.isfinite([value for value in first.values() if isinstance(value, float)]).all()
