"""The checks on a finished slide, and on one whose store has been tampered with."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from pathassets.errors import Reason, StoreError
from pathassets.steps import checks
from pathassets.steps.checks import CHECKS, judge
from pathassets.steps.embedded import open_embeddings
from pathassets.steps.nodes import Step


def result_of(finished, step):
    return next(result for result in finished.results if result.node.step is step)


def test_every_check_is_judged_on_a_finished_slide_and_passes(finished):
    found = [(check, verdict) for result in finished.results for check, verdict in judge(finished.session, result)]
    classified = set(
        checks.checks_of(Step.PREDICTIONS)
    )  # this encoder has no classifier; test_predictions looks at one that has
    assert {check for check, _ in found} == set(CHECKS) - classified
    assert [check.name for check, verdict in found if not verdict.passed] == []
    assert [check.name for check, verdict in found if not verdict.numbers] == [], "each was judged by some number"


def test_names_are_what_dagster_and_sql_accept_and_descriptions_say_why():
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert re.fullmatch("[a-z_]+", check.name)
        assert len(check.description) > 50


def verdicts(finished, step, **changes):
    result = replace(result_of(finished, step), **changes)
    return {check.name: verdict for check, verdict in judge(finished.session, result)}


def test_another_digest_in_the_outcome_is_found(finished):
    outcome = replace(result_of(finished, Step.EMBEDDINGS).outcome, result_digest="0" * 16)
    found = verdicts(finished, Step.EMBEDDINGS, outcome=outcome)
    assert [name for name, verdict in found.items() if not verdict.passed] == ["embeddings_digest"]


class Tampered:
    """The slide's embeddings with some other values."""

    def __init__(self, inner, change):
        self._inner, self._change = inner, change

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def iter_rows(self):
        for rows in self._inner.iter_rows():
            yield self._change(rows.copy())


def nan(rows):
    rows[3, 5] = np.nan
    return rows


def zero(rows):
    rows[3] = 0
    return rows


def long(rows):
    rows[3] *= 1000
    return rows


@pytest.mark.parametrize(
    ("change", "wrong"), [(nan, "embeddings_finite"), (zero, "embeddings_norms"), (long, "embeddings_norms")]
)
def test_values_that_cannot_be_are_found(finished, monkeypatch, change, wrong):
    monkeypatch.setattr(checks, "open_embeddings", lambda session, row: Tampered(open_embeddings(session, row), change))
    found = verdicts(finished, Step.EMBEDDINGS)
    assert [name for name, verdict in found.items() if not verdict.passed] == [wrong]


def test_what_cannot_be_read_does_not_pass_and_harms_nothing(finished, monkeypatch):
    def lost(session, row):
        raise StoreError("a shard is lost", reason=Reason.STORE_CORRUPT)

    monkeypatch.setattr(checks, "open_embeddings", lost)
    found = verdicts(finished, Step.EMBEDDINGS)
    assert not any(verdict.passed for verdict in found.values())
    assert "a shard is lost" in found["embeddings_finite"].message


def test_steps_without_checks_have_no_verdicts(finished):
    assert verdicts(finished, Step.SLIDE) == {}
