"""What Dagster does by itself to keep a study in order: cohort checks, the nightly comparison, the weekly sweep."""

from __future__ import annotations

import os
import time

import dagster as dg
import pytest
from support.cohorts import cohort_of

from pathassets.config import init_home
from pathassets.definitions import build_defs
from pathassets.defs.cohort_assets import RESULTS_KEY
from pathassets.defs.keeping import STORE_CHECK
from pathassets.defs.launch import open_instance
from pathassets.defs.partitions import add_slides, range_tags
from pathassets.steps.register import register
from pathassets.steps.session import Session


def evaluations(result) -> dict[str, dg.AssetCheckEvaluation]:
    events = [event for event in result.all_events if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION]
    return {e.check_name: e for e in (event.asset_check_evaluation_data for event in events)}


def run(study, instance, job, **how):
    result = build_defs(study).resolve_job_def(job).execute_in_process(instance=instance, **how)
    assert result.success
    return evaluations(result)


@pytest.fixture
def instance(study):
    """Dagster's own for this study: the comparison looks into its event log."""
    init_home(study.home)
    with open_instance(study) as instance:
        yield instance


@pytest.fixture
def one_slide(study, instance, slide_file):
    [entry] = register(Session(study), [slide_file])
    add_slides(instance, [entry.slide_id])
    run(study, instance, "slides", tags=range_tags([entry.slide_id]))
    return entry.slide_id


def test_the_cohort_run_judges_the_cohort(study, instance):
    ids = cohort_of(Session(study), 30, strange=7)
    found = run(study, instance, "cohort")
    assert set(found) == {"outlier_slides", "batch_effects", "failed_slides"}, (
        "the nightly comparison has a job of its own"
    )
    assert found["batch_effects"].passed
    assert found["failed_slides"].passed
    strange = found["outlier_slides"]
    assert (strange.passed, strange.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert strange.metadata[ids[7]].value > 3.5


def test_a_snapshot_tells_who_has_failed(study, instance, tmp_path):
    text = tmp_path / "inbox" / "notes.tiff"
    text.write_text("no slide")
    [entry] = register(Session(study), [text])
    add_slides(instance, [entry.slide_id])
    build_defs(study).resolve_job_def("slides").execute_in_process(
        instance=instance, tags=range_tags([entry.slide_id]), raise_on_error=False
    )
    found = run(study, instance, "publish")
    assert set(found) == {"failed_slides"}
    assert not found["failed_slides"].passed
    assert "not_a_slide" in found["failed_slides"].metadata[entry.slide_id].value


def test_the_night_finds_what_was_lost(study, instance, one_slide):
    run(study, instance, "publish")
    assert run(study, instance, "verify")[STORE_CHECK].passed
    shard = next(Session(study).root.local(f"arrays/{one_slide}").rglob("c/0/0"))
    shard.unlink()
    lost = run(study, instance, "verify")[STORE_CHECK]
    assert not lost.passed
    assert lost.severity is dg.AssetCheckSeverity.ERROR
    assert any(one_slide in key for key in lost.metadata)
    assert instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(RESULTS_KEY, STORE_CHECK), limit=5
    )


def test_the_week_sweeps_what_nobody_refers_to_once_it_is_old(study, instance, one_slide):
    arrays = Session(study).root.local(f"arrays/{one_slide}")
    left = arrays / ("f" * 16) / "embeddings.zarr" / "zarr.json"
    left.parent.mkdir(parents=True)
    left.write_text("{}")
    run(study, instance, "gc")
    assert left.exists(), "somebody may be at it"
    old = time.time() - 8 * 86_400
    for path in (left, left.parent, left.parent.parent):
        os.utime(path, (old, old))
    run(study, instance, "gc")
    assert not left.exists()
    assert any(arrays.iterdir()), "what rows refer to stays"
