"""Outcomes of thousands of slides: those that were seen before are not opened again, those that changed are."""

from __future__ import annotations

import json

import pytest

from pathassets.cli.reporting import print_outcomes
from pathassets.config import CONFIG_FILE, Study
from pathassets.errors import Reason
from pathassets.steps.nodes import chain
from pathassets.steps.outcomes import COLUMNS, failure, known_outcomes, record_outcome
from pathassets.steps.publish import publish_results
from pathassets.steps.session import Session
from pathassets.store import index
from pathassets.store.index import indexed


@pytest.fixture
def session(tmp_path) -> Session:
    (tmp_path / CONFIG_FILE).write_text('[[recipes]]\nencoder = "demo-vlm"\nname = "demo"\n')
    return Session(Study(tmp_path))


def fail(session, slide_id, reason=Reason.MPP_MISSING):
    node = chain(session.study)[0]
    record_outcome(session, node, failure(slide_id, node, reason, "no resolution", "tell it"))


def test_a_publication_remembers_and_what_changes_is_read(session, monkeypatch):
    for name in ("a-00000001", "b-00000002"):
        fail(session, name)
    before = known_outcomes(session)
    publish_results(session)
    opened = []
    rows = index._rows
    monkeypatch.setattr(index, "_rows", lambda tables, keys, schema: opened.extend(keys) or rows(tables, keys, schema))
    assert known_outcomes(session).equals(before)
    assert opened == []
    fail(session, "b-00000002", Reason.NOT_A_SLIDE)
    assert known_outcomes(session)["reason"].to_list() == ["mpp_missing", "not_a_slide"]
    assert len(opened) == 1
    assert "b-00000002" in opened[0]


@pytest.mark.parametrize("remembered", [False, True])
def test_outcomes_tell_the_remedy_as_text_and_as_json(session, remembered, capsys):
    fail(session, "a-00000001")
    if remembered:  # an index of a time when outcomes were remembered without their remedy
        indexed(session.tables, "outcomes", [name for name in COLUMNS if name != "remedy"], remember=True)
    assert print_outcomes(session.study, everything=False, as_json=True) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["reason"], row["message"], row["remedy"]) == ("mpp_missing", "no resolution", "tell it")
    assert print_outcomes(session.study, everything=False, as_json=False) == 1
    assert "tell it" in capsys.readouterr().out
