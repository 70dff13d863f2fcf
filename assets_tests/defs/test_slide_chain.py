"""The batch op through Dagster: exact results for each slide, versions that tell what is stale."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pytest

from pathassets.config import CONFIG_FILE, Study
from pathassets.definitions import build_defs
from pathassets.defs.partitions import SLIDES, add_slides, batches, range_tags
from pathassets.steps.register import register
from pathassets.steps.session import Session

from .conftest import CONFIG

EMBEDDINGS = dg.AssetKey(["small", "tiny", "embeddings"])


def test_batches_are_neighbours_and_bounded():
    keys = list("abcdefgh")
    assert batches(keys, {"a", "b", "c", "e", "f"}, 2) == [["a", "b"], ["c"], ["e", "f"]]
    assert batches(keys, {"z"}, 2) == []


@dataclass
class Batch:
    """Three slides, the middle one broken, run at once; what the tests do to it leaves the third alone."""

    study: Study
    instance: dg.DagsterInstance
    ids: list[str]
    success: bool

    def newest(self, key: dg.AssetKey, slide_id: str) -> Mapping[str, Any]:
        """What Dagster shows of a slide's last materialisation."""
        which = dg.AssetRecordsFilter(key, asset_partitions=[slide_id])
        event = self.instance.fetch_materializations(which, 1).records[0].asset_materialization
        assert event is not None
        return event.metadata


@pytest.fixture(scope="module")
def batch(tmp_path_factory, slide_file):
    home = tmp_path_factory.mktemp("home")
    (home / CONFIG_FILE).write_text(CONFIG)
    (home / "inbox").mkdir()
    shutil.copy(slide_file, home / "inbox" / "a.tiff")
    (home / "inbox" / "b.tiff").write_bytes(b"II*\0 broken")
    shutil.copy(slide_file, home / "inbox" / "c.tiff")
    study = Study(home)
    ids = [entry.slide_id for entry in register(Session(study), sorted((home / "inbox").iterdir()))]
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance:
        add_slides(instance, ids)
        job = build_defs(study).resolve_job_def("slides")
        result = job.execute_in_process(instance=instance, tags=range_tags(ids), raise_on_error=False)
        yield Batch(study, instance, ids, result.success)


def test_a_bad_slide_neither_hides_nor_undoes_the_good_ones(batch):
    study, instance, ids = batch.study, batch.instance, batch.ids
    assert not batch.success
    assert set(instance.get_materialized_partitions(EMBEDDINGS)) == {ids[0], ids[2]}
    failures = Session(study).tables.scan("outcomes").filter(slide_id=ids[1]).collect()
    assert failures["status"].to_list() == ["failed"]
    assert failures["remedy"][0]


def test_materialisations_say_what_they_look_like(batch):
    metadata = batch.newest(EMBEDDINGS, batch.ids[2])
    assert metadata["tiles"].value > 0
    assert metadata["dim"].value == 64
    assert metadata["random_weights"].value is True
    preview = batch.newest(dg.AssetKey("tissue"), batch.ids[2])["preview"].value
    assert preview.startswith("![")
    assert len(preview) < 150_000
    domains = batch.newest(dg.AssetKey(["small", "tiny", "spatial_domains"]), batch.ids[2])
    assert domains["interactive"].value.startswith("file:///")


def staleness(study, instance, key: dg.AssetKey, partition: str):
    from dagster._core.definitions.data_version import CachingStaleStatusResolver
    from dagster._core.loader import LoadingContextForTest

    graph = build_defs(study).resolve_asset_graph()
    return CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance)).get_status(key, partition)


def test_dagster_knows_what_is_fresh_and_what_a_changed_option_makes_stale(batch):
    from dagster._core.definitions.data_version import StaleStatus

    study, instance, ids = batch.study, batch.instance, batch.ids
    domains, vector = (dg.AssetKey(["small", "tiny", name]) for name in ("spatial_domains", "slide_vector"))
    for key in (dg.AssetKey("tissue"), EMBEDDINGS, domains, vector):
        assert staleness(study, instance, key, ids[0]) is StaleStatus.FRESH, key
    changed = study.recipes[0].model_copy(
        update={"domains": study.recipes[0].domains.model_copy(update={"resolution": 0.9})}
    )
    other = study.model_copy(update={"recipes": (changed,)})
    assert staleness(other, instance, domains, ids[0]) is StaleStatus.STALE
    assert staleness(other, instance, vector, ids[0]) is StaleStatus.FRESH


def test_a_repeated_run_makes_nothing_and_says_so(batch):
    job = build_defs(batch.study).resolve_job_def("slides")
    again = job.execute_in_process(instance=batch.instance, tags=range_tags(batch.ids[:1]), raise_on_error=False)
    assert again.success
    assert batch.newest(EMBEDDINGS, batch.ids[0])["unchanged"].value is True


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
