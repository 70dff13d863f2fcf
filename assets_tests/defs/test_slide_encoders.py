"""A slide encoder through Dagster's chain: versions that know its weights."""

from __future__ import annotations

import shutil

import dagster as dg
import pytest
from support import gigapath

from pathassets.config import CONFIG_FILE, Study
from pathassets.definitions import build_defs
from pathassets.defs.adopt import adopt, logged_versions
from pathassets.defs.partitions import add_slides, range_tags
from pathassets.defs.slide_assets import code_version
from pathassets.steps.nodes import Step, chain
from pathassets.steps.register import register
from pathassets.steps.session import Session

VECTOR = dg.AssetKey(["gp", "gigapath", "slide_vector"])


@pytest.fixture
def chained(tmp_path, instance, slide_file, monkeypatch):
    gigapath.narrow(monkeypatch)
    (tmp_path / CONFIG_FILE).write_text(gigapath.CONFIG)
    (tmp_path / "inbox").mkdir()
    shutil.copy(slide_file, tmp_path / "inbox" / "a.tiff")
    study = Study(tmp_path)
    (entry,) = register(Session(study), [tmp_path / "inbox" / "a.tiff"])
    add_slides(instance, [entry.slide_id])
    job = build_defs(study).resolve_job_def("slides")
    assert job.execute_in_process(instance=instance, tags=range_tags([entry.slide_id])).success
    return study, entry.slide_id


def materialised(instance, slide_id):
    filters = dg.AssetRecordsFilter(VECTOR, asset_partitions=[slide_id])
    return instance.fetch_materializations(filters, 1).records[0].asset_materialization


def test_the_vector_is_an_asset_with_a_version_that_knows_the_weights(chained, instance):
    study, slide_id = chained
    event = materialised(instance, slide_id)
    assert event.metadata["methods"].value == "mean, gigapath-slide"
    session = Session(study)
    node = next(node for node in chain(study) if node.step is Step.SLIDE_VECTOR)
    now = code_version(session, node)
    assert event.tags["dagster/code_version"] == now != node.options_digest
    session._note(next(iter(_noted(session))), '{"gigapath-slide": "other"}')
    assert code_version(Session(study), node) != now


def _noted(session):
    from pathassets.steps.session import _slide_weights_key

    return [_slide_weights_key(recipe) for recipe in session.study.recipes]


def test_a_lost_event_log_is_told_the_same_version(chained, instance):
    study, slide_id = chained
    before = materialised(instance, slide_id)
    with dg.instance_for_test() as fresh:
        add_slides(fresh, [slide_id])
        adopt(Session(study), fresh)
        assert logged_versions(fresh, ("gp", "gigapath", "slide_vector")) == {
            slide_id: before.tags["dagster/data_version"]
        }
        again = materialised(fresh, slide_id)
    assert again.tags["dagster/code_version"] == before.tags["dagster/code_version"]
