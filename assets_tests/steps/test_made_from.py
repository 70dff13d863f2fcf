"""Every outcome says what it was made from, and with what."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pathassets import __version__
from pathassets.steps.chain import step_module
from pathassets.steps.made_from import LIBRARIES, OWN_INPUTS, inputs_of, library_versions, options_of
from pathassets.steps.nodes import Step, chain
from pathassets.steps.outcomes import Outcome, load_outcome

# This study has no slide encoder, whose weights are all that slide vectors have of their own.
NAMES = {**OWN_INPUTS, Step.SLIDE_VECTOR: ()}


# The study's encoder is no classifier; what predictions are made from is in `test_predictions`.
ALWAYS = [step for step in Step if step is not Step.PREDICTIONS]


def recorded(finished, step: Step) -> dict:
    rows = finished.table("outcomes").filter(step=str(step)).to_dicts()
    assert len(rows) == 1
    return rows[0]


@pytest.mark.parametrize("step", ALWAYS)
def test_every_own_input_has_a_name(finished, step):
    node = next(node for node in chain(finished.study) if node.step is step)
    own = step_module(step).inputs(finished.session, finished.slide_id, node)
    assert len(own) == len(NAMES[step])


@pytest.mark.parametrize("step", ALWAYS)
def test_an_outcome_says_options_inputs_versions_and_time(finished, step):
    row = recorded(finished, step)
    node = next(node for node in chain(finished.study) if node.step is step)
    assert json.loads(row["options"]) == options_of(node)
    assert row["code_version"] == node.options_digest
    assert row["pathassets_version"] == __version__
    assert {"python", "numpy"} <= json.loads(row["libraries"]).keys()
    assert row["seconds"] > 0
    upstream = {"/".join(parent.key) for parent in node.upstream}
    assert json.loads(row["inputs"]).keys() == upstream | set(NAMES[step])


def test_inputs_are_the_digests_of_what_was_read(finished):
    inputs = json.loads(recorded(finished, Step.SPATIAL_DOMAINS)["inputs"])
    assert list(inputs.values()) == [recorded(finished, Step.EMBEDDINGS)["result_digest"]]
    weights = finished.table("embeddings")["weights_sha256"][0]
    assert json.loads(recorded(finished, Step.EMBEDDINGS)["inputs"])["weights_sha256"] == weights


def test_rows_say_which_version_wrote_them(finished):
    for table in ("slides", "tissues", "tiles", "embeddings", "slide_vectors", "domains", "text_scores"):
        assert finished.table(table)["pathassets_version"].unique().to_list() == [__version__], table
    terms = finished.table("term_embeddings")
    assert json.loads(terms["options"][0])["terms"] == ["adipose", "muscularis", "xqzzvk"]


def test_an_outcome_of_another_day_and_version_says_the_same(finished):
    node = chain(finished.study)[1]
    outcome = load_outcome(finished.session, finished.slide_id, node)
    assert outcome is not None
    later = replace(outcome, libraries="{}", seconds=9.0, pathassets_version="9", run_id="r", created_at=None)
    assert outcome.says_the_same(later)
    assert not outcome.says_the_same(replace(outcome, options="{}"))
    assert Outcome(**recorded(finished, Step.TISSUE)) == outcome


def test_an_own_input_without_a_name_is_kept_all_the_same():
    assert inputs_of(Step.TISSUE, {("slide",): "d"}, ("m", 2)) == {"slide": "d", "input_0": "m", "input_1": 2}


def test_a_library_that_is_not_there_is_left_out():
    assert json.loads(library_versions(("no-such-library",))).keys() == {"python"}
    assert set(LIBRARIES) == set(NAMES) == set(Step)
