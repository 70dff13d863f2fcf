"""An event log that was lost comes back from the store; where the two differ is found."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from sqlalchemy.exc import OperationalError

from pathassets.config import CONFIG_FILE, Study, init_home
from pathassets.definitions import build_defs
from pathassets.defs.adopt import adopt, logged_versions, looking_at
from pathassets.defs.event_log import check_event_log, differences, forget_partition, mend, read_claims
from pathassets.defs.partitions import SLIDES, add_slides, range_tags
from pathassets.errors import Reason, StoreError
from pathassets.steps.checks import CHECKS
from pathassets.steps.forget import forget
from pathassets.steps.nodes import Step, chain
from pathassets.steps.register import register
from pathassets.steps.session import Session
from pathassets.steps.slide_map import make_slide_map
from pathassets.store import layout
from pathassets.store.census import Census, take_census
from pathassets.store.verify import HARMLESS, Fault

from .conftest import CONFIG

pytestmark = pytest.mark.e2e
EMBEDDINGS = dg.AssetKey(["small", "tiny", "embeddings"])
PART = "small__tiny"


@pytest.fixture(scope="module")
def master(tmp_path_factory, slide_file) -> tuple[Path, list[str]]:
    """Two good slides and a broken one, run as one batch, and the cohort's assets: a study, and its instance beside it."""
    place = tmp_path_factory.mktemp("master")
    folder = place / "home" / "inbox"
    folder.mkdir(parents=True)
    (place / "dagster").mkdir()
    (place / "home" / CONFIG_FILE).write_text(CONFIG)
    shutil.copy(slide_file, folder / "a.tiff")
    (folder / "b.tiff").write_bytes(b"II*\0 broken")
    shutil.copy(slide_file, folder / "c.tiff")
    study = Study(place / "home")
    ids = [entry.slide_id for entry in register(Session(study), sorted(folder.iterdir()))]
    with dg.DagsterInstance.local_temp(str(place / "dagster")) as instance:
        add_slides(instance, ids)
        definitions = build_defs(study)
        definitions.resolve_job_def("slides").execute_in_process(
            instance=instance, tags=range_tags(ids), raise_on_error=False
        )
        assert definitions.resolve_job_def("cohort").execute_in_process(instance=instance).success
    return place, ids


@pytest.fixture
def made(master, tmp_path) -> tuple[Study, list[str]]:
    """A copy of the study, and its slides: good, bad, good."""
    place, ids = master
    shutil.copytree(place / "home", tmp_path / "home")
    return Study(tmp_path / "home"), ids


@pytest.fixture
def instance(master, tmp_path) -> Iterator[dg.DagsterInstance]:
    """A copy of the instance that saw the runs."""
    shutil.copytree(master[0] / "dagster", tmp_path / "dagster")
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        yield instance


@pytest.fixture
def empty(tmp_path_factory) -> Iterator[dg.DagsterInstance]:
    """The instance after the event log was lost."""
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance:
        yield instance


def events(instance: dg.DagsterInstance, key: tuple[str, ...]) -> dict[str, dg.AssetMaterialization]:
    records = instance.fetch_materializations(dg.AssetRecordsFilter(dg.AssetKey(list(key))), 100).records
    return {str(r.partition_key): r.asset_materialization for r in reversed(records) if r.asset_materialization}


def last_materialisation(instance: dg.DagsterInstance) -> tuple[str, int]:
    """The run and the number in the log of the last one of the embeddings."""
    [record] = instance.fetch_materializations(EMBEDDINGS, 1).records
    return record.run_id, record.storage_id


def stale(study: Study, instance: dg.DagsterInstance, slide_ids: list[str]) -> dict[tuple[str, str | None], str]:
    """Whatever Dagster does not call fresh, and why; reports are files for people, which no store has."""
    from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
    from dagster._core.loader import LoadingContextForTest

    graph = build_defs(study).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    found = {}
    for key in graph.get_all_asset_keys() - {dg.AssetKey("results"), dg.AssetKey("report")}:
        for slide_id in slide_ids if graph.get(key).is_partitioned else [None]:
            if resolver.get_status(key, slide_id) is not StaleStatus.FRESH:
                causes = "; ".join(cause.reason for cause in resolver.get_stale_causes(key, slide_id))
                found[key.to_user_string(), slide_id] = causes or "missing"
    return found


def found(study: Study, instance: dg.DagsterInstance) -> list[tuple[Fault, str, str]]:
    session = Session(study)
    claims = read_claims(study, instance)
    return [(f.fault, f.key, f.message) for f in differences(session, instance, claims, take_census(session.root))]


def test_what_a_run_has_logged_comes_back_as_it_was(made, instance, empty):
    study, ids = made
    adopted = adopt(Session(study), empty)
    assert adopted.skipped == []
    assert empty.get_dynamic_partitions(SLIDES.name) == instance.get_dynamic_partitions(SLIDES.name)
    for node in chain(study):
        before, after = events(instance, node.key), events(empty, node.key)
        assert set(after) == set(before) == {ids[0], ids[2]}, node.key
        for slide_id in before:
            assert after[slide_id].tags == before[slide_id].tags, node.key
            told = set(after[slide_id].metadata) - set(before[slide_id].metadata)
            assert told == {"adopted", "made_by_run", "made_at"}
            assert after[slide_id].metadata.keys() > before[slide_id].metadata.keys()
    assert stale(study, empty, [ids[0], ids[2]]) == {}


def test_checks_come_back_too(made, instance, empty):
    study, ids = made
    adopt(Session(study), empty)
    of_slides = {check.name for check in CHECKS}  # those of the cohort come again with the next night
    keys = [key for key in build_defs(study).resolve_asset_graph().asset_check_keys if key.name in of_slides]
    assert keys
    for key in keys:
        records = [i.event_log_storage.get_asset_check_execution_history(key, 10) for i in (instance, empty)]
        before, after = ({r.partition: str(r.status) for r in found} for found in records)
        assert after == {slide_id: status for slide_id, status in before.items() if slide_id != ids[1]}, key


def test_adopting_twice_adds_nothing_and_a_dry_run_adds_nothing_at_all(made, empty):
    study, _ = made
    told = adopt(Session(study), empty, dry_run=True)
    assert not empty.get_dynamic_partitions(SLIDES.name)
    assert not events(empty, EMBEDDINGS.path)
    adopted = adopt(Session(study), empty)
    assert (told.partitions, told.events, told.n_events) == (adopted.partitions, adopted.events, adopted.n_events)
    again = adopt(Session(study), empty)
    assert (again.partitions, again.events, again.skipped) == ([], {}, [])
    assert adopt(Session(study), None, dry_run=True).events == adopted.events


def test_nothing_is_added_to_a_log_that_a_run_has_written(made, instance):
    study, _ = made
    adopted = adopt(Session(study), instance)
    assert (adopted.partitions, adopted.events, adopted.skipped, adopted.snapshot) == ([], {}, [], True)


def test_a_result_of_other_options_is_adopted_as_stale(made, empty):
    study, ids = made
    recipe = study.recipes[0]
    changed = recipe.model_copy(update={"domains": recipe.domains.model_copy(update={"resolution": 0.9})})
    other = study.model_copy(update={"recipes": (changed,)})
    assert adopt(Session(other), empty).skipped == []
    found = stale(other, empty, [ids[0]])
    assert found == {("small/tiny/spatial_domains", ids[0]): "has a new code version"}


def test_what_nobody_recorded_is_left_to_a_run(made, empty):
    study, ids = made
    tables = Session(study).tables
    rows = tables.read("outcomes", ids[0], PART)
    tables.write("outcomes", rows.with_columns(inputs=pl.lit(None, dtype=pl.String), digest=pl.lit("0" * 16)),
                 slide_id=ids[0], part=PART)  # fmt: skip
    adopted = adopt(Session(study), empty)
    assert len(adopted.skipped) == sum(node.recipe is not None for node in chain(study))
    assert all(ids[0] in line and "run again" in line for line in adopted.skipped)
    assert set(events(empty, EMBEDDINGS.path)) == {ids[2]}


def test_a_slide_map_of_other_slides_is_left_to_a_run(made, empty):
    study, ids = made
    session = Session(study)
    key = ("small", "tiny", "slide_map")
    session.tables.delete("embeddings", ids[0], PART)
    assert key not in adopt(session, empty).events
    make_slide_map(session, study.recipes[0])
    assert key in adopt(session, empty).events


def test_the_log_of_a_run_says_what_the_store_says(made, instance):
    assert found(made[0], instance) == []


def test_results_that_the_log_lacks_or_has_otherwise_are_found(made, instance, empty):
    study, ids = made
    add_slides(empty, ids)
    lacking = found(study, empty)
    assert {key for _, key, _ in lacking} == {"/".join(node.key) for node in chain(study)}
    assert all("unknown to Dagster: 2 slides" in message for _, _, message in lacking)
    assert {fault for fault, _, _ in lacking} == {Fault.UNTOLD} <= HARMLESS, "a run that was killed leaves this behind"
    instance.report_runless_asset_event(
        dg.AssetMaterialization(EMBEDDINGS, partition=ids[0], tags={"dagster/data_version": "other"})
    )
    [(fault, key, message)] = found(study, instance)
    assert (fault, key) == (Fault.EVENT_LOG, "small/tiny/embeddings")
    assert f"another version in Dagster than in the store: 1 slides ({ids[0]})" in message
    adopt(Session(study), instance)
    assert found(study, instance) == []


def test_a_result_that_was_made_after_the_log_heard_of_it_is_no_damage(made, instance):
    """As a run that made it anew and was killed leaves it."""
    study, ids = made
    tables = Session(study).tables
    instance.report_runless_asset_event(
        dg.AssetMaterialization(EMBEDDINGS, partition=ids[0], tags={"dagster/data_version": "of then"})
    )
    rows = tables.read("outcomes", ids[0], PART)
    later = rows.with_columns(created_at=pl.col("created_at") + pl.duration(hours=1))
    tables.delete("outcomes", ids[0], PART)  # a file that differs in its times alone is left as it is
    tables.write("outcomes", later, slide_id=ids[0], part=PART)
    [(fault, key, message)] = found(study, instance)
    assert (fault, key) == (Fault.UNTOLD, "small/tiny/embeddings")
    assert f"a newer version in the store than in Dagster: 1 slides ({ids[0]})" in message


def test_what_a_run_makes_while_the_store_is_compared_is_no_damage(made, instance, monkeypatch):
    study, _ = made
    monkeypatch.setattr("pathassets.defs.event_log.looking_at", lambda _: nullcontext(instance))
    assert list(check_event_log(study, Census())) == [], "the store was empty when it was looked at"


def test_results_that_the_log_claims_and_the_store_lacks_are_found(made, instance):
    study, ids = made
    session = Session(study)
    session.tables.delete("slide_vectors", ids[0], PART)
    session.tables.delete("slide_map", None, PART)
    assert [(key, message.split(":")[0]) for _, key, message in found(study, instance)] == [
        ("small/tiny/slide_vector", "materialised in Dagster, and not in the store"),
        ("small/tiny/slide_map", "materialised in Dagster, and not in the store"),
    ]
    assert [key for key, _ in mend(session, instance)] == ["small/tiny/slide_map", "small/tiny/slide_vector"]
    assert found(study, instance) == []
    vector = dg.AssetKey(["small", "tiny", "slide_vector"])
    assert instance.get_materialized_partitions(vector) == {ids[2]}, "and now it is missing in Dagster's eyes too"


def test_a_step_that_failed_since_is_no_difference(made, instance):
    study, ids = made
    tables = Session(study).tables
    rows = tables.read("outcomes", ids[0], PART)
    vector = pl.col("step") == str(Step.SLIDE_VECTOR)
    status = pl.when(vector).then(pl.lit("failed")).otherwise("status")
    tables.write("outcomes", rows.with_columns(status=status), slide_id=ids[0], part=PART)
    assert found(study, instance) == []


def test_a_partition_without_a_slide_is_found_and_goes_with_the_last_trace(made, instance):
    study, ids = made
    session = Session(study)
    session.tables.delete("slides", ids[0])
    assert [key for _, key, _ in found(study, instance) if key == ids[0]] == [], "its row was lost, and can be put back"
    session.tables.delete("outcomes", ids[0])
    _, key, message = found(study, instance)[0]
    assert (key, message) == (ids[0], "has a partition in Dagster, and is not registered")
    assert list(mend(session, instance)) == []
    for prefix in [
        *(f"tables/{name}/slide_id={ids[0]}" for name in session.root.folders("tables")),
        f"arrays/{ids[0]}",
    ]:
        session.root.delete(prefix)
    assert [key for key, _ in mend(session, instance)] == [ids[0]]
    assert ids[0] not in instance.get_dynamic_partitions(SLIDES.name)


def test_forgetting_a_partition_makes_its_slide_unknown(made, instance):
    ids = made[1]
    assert forget_partition(instance, ids[0])
    assert not forget_partition(instance, ids[0])
    assert ids[0] not in instance.get_dynamic_partitions(SLIDES.name)
    assert {*logged_versions(instance, tuple(EMBEDDINGS.path))} == {ids[2]}
    checks = build_defs(made[0]).resolve_asset_graph().asset_check_keys
    records = [r for key in checks for r in instance.event_log_storage.get_asset_check_execution_history(key, 10)]
    assert ids[2] in {r.partition for r in records}
    assert ids[0] not in {r.partition for r in records}


def test_a_slide_that_was_forgotten_and_is_registered_again_is_no_difference(made, instance):
    study, ids = made
    session = Session(study)
    row = session.slide_row(ids[0])
    forget(session, ids[0])
    assert forget_partition(instance, ids[0])
    session.tables.write("slides", [row], slide_id=ids[0])
    add_slides(instance, [ids[0]])
    assert found(study, instance) == []
    assert instance.get_materialized_partitions(EMBEDDINGS) == {ids[2]}


def test_a_forgotten_slide_s_runs_keep_their_logs_and_no_number_is_given_twice(made, instance):
    """Whoever reads the log on from the last number seen must see what comes next."""
    run_id, before = last_materialisation(instance)
    told = len(instance.all_logs(run_id))
    forget_partition(instance, made[1][0])
    forget_partition(instance, made[1][2])
    assert len(instance.all_logs(run_id)) == told
    add_slides(instance, [made[1][0]])
    instance.report_runless_asset_event(dg.AssetMaterialization(EMBEDDINGS, partition=made[1][0]))
    assert last_materialisation(instance)[1] > before


def test_a_study_without_a_log_has_one_finding_and_gets_no_log(made):
    study, _ = made
    census = take_census(Session(study).root)
    before = set(study.home.iterdir())
    assert [(f.fault, f.key) for f in check_event_log(study, census)] == [(Fault.EVENT_LOG, ".dagster")]
    assert set(study.home.iterdir()) == before
    with looking_at(study) as instance:
        assert instance is None


def test_a_log_that_cannot_be_opened_is_a_finding(made):
    study, _ = made
    study.dagster_home.mkdir()
    (study.dagster_home / "dagster.yaml").write_text("storage: {sqlite: {base_dir: /dev/null/x}}\n")
    [finding] = check_event_log(study, take_census(Session(study).root))
    assert "cannot be read" in finding.message
    assert layout.RESULTS not in finding.remedy


def test_where_nothing_may_be_written_the_log_is_not_compared_and_it_is_said_why(made, monkeypatch):
    def denied(_):
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("attempt to write a readonly database"))

    study, _ = made
    init_home(study.home)
    monkeypatch.setattr(dg.DagsterInstance, "from_config", denied)
    [finding] = check_event_log(study, take_census(Session(study).root))
    assert (finding.fault, finding.harmless) == (Fault.NOT_COMPARED, True)
    assert "cannot be written" in finding.message
    with pytest.raises(StoreError) as refused, looking_at(study):
        pass
    assert refused.value.reason is Reason.STORE_READ_ONLY
