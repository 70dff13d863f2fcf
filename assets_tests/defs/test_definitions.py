"""What a study consists of, as Dagster sees it."""

from __future__ import annotations

import asyncio
import time

import dagster as dg
import pytest
from dagster._core.definitions import freshness_evaluator
from dagster._core.loader import LoadingContextForTest

from pathassets.definitions import build_defs


def test_definitions_load_and_hold_what_the_design_says(study):
    definitions = build_defs(study)
    dg.Definitions.validate_loadable(definitions)
    specs = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    assert set(specs) == {
        "slide", "tissue", "small/tiles", "small/tiny/embeddings", "small/tiny/slide_vector", "small/tiny/spatial_domains",
        "small/tiny/slide_map", "small/tiny/cohort_map", "results", "report",
    }  # fmt: skip
    assert {spec.group_name for spec in specs.values()} == {"slides", "small", "small__tiny", "results"}
    for key, spec in specs.items():
        assert spec.description, key
        assert spec.owners == ["team:pathology"], key
        assert spec.kinds, key
    for key in ("slide", "tissue", "small/tiles", "small/tiny/embeddings"):
        assert "dagster/column_schema" in specs[key].metadata
    assert {job.name for job in definitions.jobs} == {"slides", "cohort", "publish", "reports", "verify", "gc"}
    assert [sensor.name for sensor in definitions.sensors] == ["inbox", "automation", "dead_runs"]


def test_what_the_night_makes_says_when_it_is_too_old(study):
    specs = {spec.key.to_user_string(): spec for spec in build_defs(study).resolve_all_asset_specs()}
    policies = {key: spec.freshness_policy for key, spec in specs.items() if spec.freshness_policy is not None}
    night = {"results", "small/tiny/slide_map", "small/tiny/cohort_map"}
    assert set(policies) == night, "Dagster judges assets, not their partitions"
    for policy in policies.values():
        assert 24 < policy.warn_window.to_timedelta().total_seconds() / 3600 < 48
        assert policy.fail_window.to_timedelta().total_seconds() / 3600 > 48


@pytest.mark.parametrize(("hours", "state"), [(None, "UNKNOWN"), (1, "PASS"), (27, "WARN"), (51, "FAIL")])
@pytest.mark.parametrize("asset", ["results", "small/tiny/slide_map", "small/tiny/cohort_map"])
def test_dagster_judges_the_age_of_what_the_night_makes(study, monkeypatch, asset, hours, state):
    """One night that was missed is worth a look, two are a fault; what was never made is not judged."""
    key = dg.AssetKey.from_user_string(asset)
    node = build_defs(study).resolve_asset_graph().get(key)
    with dg.DagsterInstance.ephemeral() as instance:
        if hours is not None:
            instance.report_runless_asset_event(dg.AssetMaterialization(key))
        now = time.time() + 3600 * (hours or 0)
        monkeypatch.setattr(freshness_evaluator, "get_current_timestamp", lambda: now)
        judge = freshness_evaluator.TimeWindowFreshnessPolicyEvaluator()
        found = asyncio.run(judge.evaluate_freshness(LoadingContextForTest(instance), node))
    assert found.name == state


def test_text_assets_exist_where_the_encoder_reads_words(study):
    from pathassets.recipes import Recipe, TextOptions

    recipe = Recipe(tiling=study.recipes[0].tiling, encoder="demo-vlm", text=TextOptions(terms=("fat",)))
    keys = build_defs(study.model_copy(update={"recipes": (recipe,)})).resolve_asset_graph().get_all_asset_keys()
    assert dg.AssetKey(["small", "demo_vlm", "text_similarity"]) in keys
    assert dg.AssetKey(["small", "demo_vlm", "term_embeddings"]) in keys
