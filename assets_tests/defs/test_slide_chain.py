"""The batch op through Dagster: exact results for each slide, versions that tell what is stale."""

from __future__ import annotations

import shutil

import dagster as dg
import pytest

from pathassets.definitions import build_defs
from pathassets.defs.partitions import SLIDES, add_slides, batches, range_tags
from pathassets.steps.register import register
from pathassets.steps.session import Session

EMBEDDINGS = dg.AssetKey(["small", "tiny", "embeddings"])


def test_batches_are_neighbours_and_bounded():
    keys = list("abcdefgh")
    assert batches(keys, {"a", "b", "c", "e", "f"}, 2) == [["a", "b"], ["c"], ["e", "f"]]
    assert batches(keys, {"z"}, 2) == []


@pytest.fixture
def batch(study, instance, slide_file):
    """Three slides, the middle one broken, run as one batch."""
    folder = study.home / "inbox"
    shutil.copy(slide_file, folder / "a.tiff")
    (folder / "b.tiff").write_bytes(b"II*\0 broken")
    shutil.copy(slide_file, folder / "c.tiff")
    ids = [entry.slide_id for entry in register(Session(study), sorted(folder.iterdir()))]
    add_slides(instance, ids)
    job = build_defs(study).resolve_job_def("slides")
    return ids, job.execute_in_process(instance=instance, tags=range_tags(ids), raise_on_error=False)


def test_a_bad_slide_neither_hides_nor_undoes_the_good_ones(batch, instance, study):
    ids, result = batch
    assert not result.success
    assert set(instance.get_materialized_partitions(EMBEDDINGS)) == {ids[0], ids[2]}
    failures = Session(study).tables.scan("outcomes").filter(slide_id=ids[1]).collect()
    assert failures["status"].to_list() == ["failed"]
    assert failures["remedy"][0]


def test_materialisations_say_what_they_look_like(batch, instance):
    ids, _ = batch
    event = instance.fetch_materializations(dg.AssetRecordsFilter(EMBEDDINGS, asset_partitions=[ids[0]]), 1).records[0]
    metadata = event.asset_materialization.metadata
    assert metadata["tiles"].value > 0
    assert metadata["dim"].value == 64
    assert metadata["random_weights"].value is True
    tissue = instance.fetch_materializations(dg.AssetRecordsFilter(dg.AssetKey("tissue"), asset_partitions=[ids[0]]), 1)
    preview = tissue.records[0].asset_materialization.metadata["preview"].value
    assert preview.startswith("![")
    assert len(preview) < 150_000
    domains = instance.fetch_materializations(dg.AssetKey(["small", "tiny", "spatial_domains"]), 1).records[0]
    assert domains.asset_materialization.metadata["interactive"].value.startswith("file:///")


def staleness(study, instance, key: dg.AssetKey, partition: str):
    from dagster._core.definitions.data_version import CachingStaleStatusResolver
    from dagster._core.loader import LoadingContextForTest

    graph = build_defs(study).resolve_asset_graph()
    return CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance)).get_status(key, partition)


def test_dagster_knows_what_is_fresh_and_what_a_changed_option_makes_stale(batch, study, instance):
    from dagster._core.definitions.data_version import StaleStatus

    ids, _ = batch
    domains, vector = (dg.AssetKey(["small", "tiny", name]) for name in ("spatial_domains", "slide_vector"))
    for key in (dg.AssetKey("tissue"), EMBEDDINGS, domains, vector):
        assert staleness(study, instance, key, ids[0]) is StaleStatus.FRESH, key
    changed = study.recipes[0].model_copy(
        update={"domains": study.recipes[0].domains.model_copy(update={"resolution": 0.9})}
    )
    other = study.model_copy(update={"recipes": (changed,)})
    assert staleness(other, instance, domains, ids[0]) is StaleStatus.STALE
    assert staleness(other, instance, vector, ids[0]) is StaleStatus.FRESH


def test_a_repeated_run_makes_nothing_and_says_so(batch, study, instance):
    ids, _ = batch
    job = build_defs(study).resolve_job_def("slides")
    again = job.execute_in_process(instance=instance, tags=range_tags(ids[:1]), raise_on_error=False)
    assert again.success
    event = instance.fetch_materializations(dg.AssetRecordsFilter(EMBEDDINGS, asset_partitions=[ids[0]]), 1).records[0]
    assert event.asset_materialization.metadata["unchanged"].value is True


def test_one_partition_and_one_asset_can_be_asked_for(study, instance, slide_file):
    entry = register(Session(study), [slide_file])[0]
    instance.add_dynamic_partitions(SLIDES.name, [entry.slide_id])
    job = build_defs(study).resolve_job_def("slides")
    result = job.execute_in_process(
        instance=instance, partition_key=entry.slide_id, asset_selection=[dg.AssetKey("slide"), dg.AssetKey("tissue")]
    )
    assert result.success
    assert set(instance.get_materialized_partitions(dg.AssetKey("tissue"))) == {entry.slide_id}
    assert not instance.get_materialized_partitions(EMBEDDINGS)
