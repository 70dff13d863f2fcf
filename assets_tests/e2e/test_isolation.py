"""Sixteen slides in one run of the real daemon, three of them bad: thirteen are done, three are said, only those are retried."""

from __future__ import annotations

import dagster as dg
import pytest
from support.daemon import dagster_running, instance_of, make_home, wait_for
from support.weekend import CONFIG, materialised, slide_runs, slides_of, write_bad, write_slide

from pathassets.steps.nodes import chain

pytestmark = pytest.mark.e2e
FAILED = dg.DagsterRunStatus.FAILURE


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """A study whose automation has had its way with the slides, for as long as it wanted anything of them."""
    study = make_home(tmp_path_factory.mktemp("isolation") / "home", config=CONFIG)
    inbox = study.home / "inbox"
    good = [write_slide(inbox / f"{chr(97 + i)}.tiff", i) for i in range(13)]
    bad = write_bad(inbox, 100)
    with instance_of(study) as instance:
        with dagster_running(study.home):
            wait_for(lambda: _tries(instance, bad) >= 6, 420)
            wait_for(lambda: all(run.status is FAILED for run in slide_runs(instance)), 120)
            seen = _evaluations(instance)
            wait_for(lambda: _evaluations(instance) >= seen + 3, 240)
        yield study, instance, _ids(study, good), _ids(study, bad)


def _ids(study, paths):
    named = {row["path"]: row["slide_id"] for row in study.scan("slides").collect().to_dicts()}
    return [named[str(path)] for path in paths]


def _tries(instance, bad):
    stems = tuple(path.stem.replace("_", "-") for path in bad)
    return sum(
        one.replace("_", "-").startswith(stems) for run in slide_runs(instance) for one in slides_of(instance, run)
    )


def _evaluations(instance):
    """How often the daemon has looked at the condition."""
    state = next(state for state in instance.all_instigator_state() if state.instigator_name == "automation")
    return len(instance.get_ticks(state.instigator_origin_id, state.selector_id))


def test_one_run_takes_all_sixteen_and_the_good_ones_come_through(lived):
    study, instance, good, bad = lived
    first = slide_runs(instance)[0]
    assert set(slides_of(instance, first)) == {*good, *bad}, "a batch, not a run for each slide"
    for node in chain(study):
        assert materialised(instance, node, anew=False) == dict.fromkeys(good, 1), node.key


def test_the_event_log_says_from_what_each_was_made(lived):
    study, instance, good, _ = lived
    outcomes = study.scan("outcomes").collect()
    for node in chain(study):
        versions = {row["slide_id"]: row["result_digest"] for row in outcomes.filter(step=str(node.step)).to_dicts()}
        records = instance.fetch_materializations(dg.AssetKey(list(node.key)), limit=100).records
        tags = {record.partition_key: record.asset_materialization.tags for record in records}
        assert {one: tags[one]["dagster/data_version"] for one in good} == {one: versions[one] for one in good}
        for parent in node.upstream:
            name = "/".join(parent.key)
            assert all(f"dagster/input_data_version/{name}" in tags[one] for one in good)


def test_the_bad_ones_say_why_and_what_to_do(lived):
    study, _, _, bad = lived
    failed = {row["slide_id"]: row for row in study.scan("outcomes").filter(status="failed").collect().to_dicts()}
    assert set(failed) == set(bad)
    assert failed[bad[1]]["reason"] == "mpp_missing"
    assert all(row["remedy"] for row in failed.values())


def test_only_the_bad_ones_are_tried_again_and_only_once(lived):
    _, instance, _, bad = lived
    _, *later = slide_runs(instance)
    again = [one for run in later for one in slides_of(instance, run)]
    assert sorted(again) == sorted(bad)
