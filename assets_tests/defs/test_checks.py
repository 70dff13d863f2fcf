"""Asset checks through a real run: evaluated for each slide, seen in the definitions, harming nobody."""

from __future__ import annotations

import dagster as dg
import numpy as np
import pytest
import tifffile

from pathassets.config import CONFIG_FILE, Study
from pathassets.definitions import build_defs
from pathassets.defs.partitions import add_slides, range_tags
from pathassets.encoders import registry
from pathassets.steps.checks import CHECKS
from pathassets.steps.register import register
from pathassets.steps.session import Session

CONFIG = """
[study]
device = "cpu"
[tissue]
method = "none"
[embeddings]
precision = "bf16"
[tilings.small]
tile_px = 64
mpp = 0.5
[[recipes]]
encoder = "fragile"
random_weights = true
tiling = "small"
"""
EMBEDDINGS = dg.AssetKey(["small", "fragile", "embeddings"])
AGREEMENT = dg.AssetCheckKey(EMBEDDINGS, "precision_agreement")


@pytest.fixture(scope="module")
def fragile():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "BUILTIN", (*registry.BUILTIN, "support.fragile"))
        registry._families.cache_clear()
        yield
    registry._families.cache_clear()


@pytest.fixture(scope="module")
def instance(tmp_path_factory):
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance:
        yield instance


def write_slide(path, grey):
    noise = np.random.default_rng(grey).normal(grey, 20, (384, 512, 3))
    tifffile.imwrite(path, np.clip(noise, 1, 255).astype(np.uint8), photometric="rgb", tile=(256, 256),
                     resolution=(20_000, 20_000), resolutionunit="CENTIMETER")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory, instance, fragile):
    """A bright and a dark slide through the chain."""
    tmp_path = tmp_path_factory.mktemp("home")
    (tmp_path / CONFIG_FILE).write_text(CONFIG)
    (tmp_path / "inbox").mkdir()
    write_slide(tmp_path / "inbox" / "bright.tiff", 200)
    write_slide(tmp_path / "inbox" / "dark.tiff", 60)
    study = Study(tmp_path)
    ids = [entry.slide_id for entry in register(Session(study), sorted((tmp_path / "inbox").iterdir()))]
    add_slides(instance, ids)
    job = build_defs(study).resolve_job_def("slides")
    result = job.execute_in_process(instance=instance, tags=range_tags(ids), raise_on_error=False)
    return study, ids, result


def evaluations(result):
    events = [event for event in result.all_events if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION]
    return {(e.partition, e.check_name): e for e in (event.asset_check_evaluation_data for event in events)}


def test_a_precision_that_disagrees_warns_and_flags_its_slide_alone(run, instance):
    study, (bright, dark), result = run
    assert result.success, "a warning is no failure"
    found = evaluations(result)
    assert found[bright, "precision_agreement"].passed
    wrong = found[dark, "precision_agreement"]
    assert not wrong.passed
    assert wrong.severity is dg.AssetCheckSeverity.WARN
    assert wrong.metadata["cosine"].value < 0.99
    assert wrong.metadata["max_rel_error"].value > 0.1
    outcomes = Session(study).tables.scan("outcomes").filter(step="embeddings").collect()
    flagged = outcomes.filter(slide_id=dark).row(0, named=True)
    assert (flagged["status"], flagged["reason"]) == ("flagged", "precision_low")
    assert "fp32" in flagged["remedy"]
    assert outcomes.filter(slide_id=bright)["status"].to_list() == ["ok"]
    for key in (EMBEDDINGS, dg.AssetKey(["small", "fragile", "spatial_domains"])):
        assert set(instance.get_materialized_partitions(key)) == {bright, dark}


# Neither words nor a classifier.
WITHOUT = ("probabilities_sum_to_one", "predictions_sum_to_one")


def test_the_event_log_has_every_check_of_every_slide(run, instance):
    _, ids, result = run
    names = {check.name for check in CHECKS if check.name not in WITHOUT}
    assert set(evaluations(result)) == {(slide_id, name) for slide_id in ids for name in names}
    history = instance.event_log_storage.get_asset_check_execution_history(AGREEMENT, limit=10)
    assert {record.partition for record in history} == set(ids)


def test_the_definitions_show_the_checks_with_their_reasons(run):
    study, _, _ = run
    graph = build_defs(study).resolve_asset_graph()
    assert AGREEMENT in graph.asset_check_keys
    of_slides = {key for key in graph.asset_check_keys if key.name in {check.name for check in CHECKS}}
    assert len(of_slides) == len(CHECKS) - len(WITHOUT)
    assert "0.99" in graph.get(AGREEMENT).description


def test_checks_of_assets_that_were_not_asked_for_are_not_made(run, instance):
    study, ids, _ = run
    job = build_defs(study).resolve_job_def("slides")
    keys = [dg.AssetKey("slide"), dg.AssetKey("tissue")]
    result = job.execute_in_process(instance=instance, partition_key=ids[0], asset_selection=keys)
    assert result.success
    assert {name for _, name in evaluations(result)} == {"tissue_share"}
