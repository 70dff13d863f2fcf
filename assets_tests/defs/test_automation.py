"""The automation condition, tick by tick: what is asked for, once, once more after a failure, and never without a cause."""

from __future__ import annotations

import dagster as dg
import pytest
from support.inbox import Inbox
from support.ticks import Automation

from pathassets.definitions import build_defs
from pathassets.defs.automation import LABEL
from pathassets.defs.event_log import forget_partition
from pathassets.defs.schedules import schedules
from pathassets.defs.withdrawal import withdraw

CHAIN = {
    "slide", "tissue", "small/tiles", "small/tiny/embeddings", "small/tiny/slide_vector", "small/tiny/spatial_domains",
}  # fmt: skip
RECIPE = {"small/tiny/embeddings", "small/tiny/slide_vector", "small/tiny/spatial_domains"}


@pytest.fixture
def instance():
    """In memory: a tick asks a database hundreds of times which slides there are."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def automation(study, instance, monkeypatch):
    return Automation(study, instance, monkeypatch)


def of(keys, *slides):
    return {key: set(slides) for key in keys}


def with_recipe(study, **changes):
    return study.model_copy(update={"recipes": (study.recipes[0].model_copy(update=changes),)})


def test_a_new_slide_s_whole_chain_is_asked_for_at_once_and_once(automation):
    assert automation.tick() == {}
    automation.arrive("a", "b")
    assert automation.tick() == of(CHAIN, "a", "b")
    assert automation.ticks(4) == [{}] * 4


def test_a_backlog_is_asked_for_when_automation_is_switched_on(automation):
    automation.arrive("a", "b")
    automation.run(["a"])
    assert automation.tick() == of(CHAIN, "b")
    assert automation.ticks(3) == [{}] * 3


@pytest.mark.parametrize("step", ["slide", "tiles", "embeddings", "spatial_domains"])
def test_what_fails_is_asked_for_twice_and_then_left_alone(automation, step):
    automation.tick()
    automation.bad["b"] = step
    automation.arrive("a", "b", "c")
    automation.ticks(8)
    failing = next(key for key in CHAIN if key.endswith(step))
    assert automation.times("b", failing) == 2
    assert {automation.times(slide) for slide in "ac"} == {1}
    assert sum("b" in slides for asked in automation.requests for slides in [set().union(*asked.values())]) == 2
    assert all("b" not in asked.get("slide", ()) or step == "slide" for asked in automation.requests[2:])


def test_a_second_try_that_succeeds_is_the_last(automation):
    automation.tick()
    automation.bad["a"] = "tiles"
    automation.arrive("a")
    automation.tick()
    del automation.bad["a"]
    assert automation.tick() == {}, "the tick after a request does not judge it yet"
    again = automation.tick()
    assert set(again) == CHAIN - {"slide", "tissue"}
    assert automation.ticks(4) == [{}] * 4


@pytest.mark.parametrize("ticks_between", [0, 2])
def test_a_slide_that_was_forgotten_and_comes_back_is_asked_for_again(automation, ticks_between):
    automation.tick()
    automation.arrive("a", "b")
    automation.ticks(2)
    assert forget_partition(automation.instance, "a")
    assert automation.ticks(ticks_between) == [{}] * ticks_between
    automation.arrive("a")
    assert automation.tick() == of(CHAIN, "a")
    assert automation.ticks(4) == [{}] * 4


def test_what_a_repair_took_back_is_asked_for_again(automation):
    automation.tick()
    automation.arrive("a", "b")
    automation.ticks(2)
    withdraw(automation.instance, [dg.AssetKey(["small", "tiny", "slide_vector"])], ["a"])
    assert automation.tick() == {"small/tiny/slide_vector": {"a"}}
    assert automation.ticks(3) == [{}] * 3


def test_a_failed_slide_is_tried_again_when_its_recipe_changes(automation):
    automation.tick()
    automation.bad["a"] = "embeddings"
    automation.arrive("a")
    automation.ticks(6)
    assert automation.times("a", "small/tiny/embeddings") == 2
    automation.study = with_recipe(automation.study, encoder="timm/test_resnet")
    automation.ticks(6)
    assert automation.times("a", "small/tiny/embeddings") == 4
    assert automation.times("a", "slide") == 1


def test_a_user_s_own_try_is_never_followed_by_automation_s(automation):
    automation.tick()
    automation.bad["a"] = "slide"
    automation.arrive("a")
    automation.ticks(5)
    automation.run(["a"])
    assert automation.ticks(4) == [{}] * 4
    del automation.bad["a"]
    automation.run(["a"])
    assert automation.ticks(3) == [{}] * 3


def test_a_changed_recipe_asks_for_what_depends_on_it(automation):
    automation.tick()
    automation.arrive("a", "b")
    automation.ticks(2)
    recipe = automation.study.recipes[0]
    automation.study = with_recipe(automation.study, encoder="timm/test_resnet")
    assert automation.tick() == of(RECIPE, "a", "b")
    domains = recipe.domains.model_copy(update={"resolution": 0.9})
    automation.study = with_recipe(automation.study, encoder="timm/test_resnet", domains=domains)
    assert automation.tick() == {"small/tiny/spatial_domains": {"a", "b"}}
    assert automation.ticks(3) == [{}] * 3


def test_weights_that_are_other_ones_ask_for_what_depends_on_them(automation, monkeypatch):
    automation.tick()
    automation.arrive("a")
    automation.ticks(2)
    monkeypatch.setattr("pathassets.steps.session.Session.remembered_weights", lambda *_: "others")
    assert automation.tick() == of(RECIPE, "a")


def test_a_changed_tissue_option_asks_for_all_but_the_slide(automation):
    automation.tick()
    automation.arrive("a")
    automation.ticks(2)
    tissue = automation.study.tissue.model_copy(update={"method": "none"})
    automation.study = automation.study.model_copy(update={"tissue": tissue})
    assert automation.tick() == of(CHAIN - {"slide"}, "a")
    assert automation.ticks(3) == [{}] * 3


def test_what_changed_upstream_by_hand_is_followed_and_what_did_not_is_not(automation):
    automation.tick()
    automation.arrive("a", "b")
    automation.ticks(2)
    automation.run(["a", "b"], ["slide", "tissue"])
    assert automation.tick() == {}, "made again, and the same"
    automation.content["a"] = "another mask"
    automation.run(["a", "b"], ["slide", "tissue"])
    assert automation.tick() == of(CHAIN - {"slide", "tissue"}, "a")
    assert automation.ticks(3) == [{}] * 3


def test_what_is_in_progress_is_not_asked_for_again(automation):
    automation.tick()
    automation.arrive("a")
    job = build_defs(automation.study).resolve_job_def("slides")
    run = automation.instance.create_run_for_job(
        job, tags={"dagster/partition": "a"}, status=dg.DagsterRunStatus.STARTED
    )
    for key in sorted(CHAIN):
        automation.instance.report_dagster_event(
            dg.DagsterEvent.build_asset_materialization_planned_event(job.name, "slide_chain", _planned(key)),
            run.run_id,
        )
    assert automation.ticks(3) == [{}] * 3
    automation.instance.report_run_failed(run)
    assert automation.tick() == of(CHAIN, "a"), "it died, and nobody has tried it since"


def _planned(key):
    from dagster._core.events import AssetMaterializationPlannedData

    return AssetMaterializationPlannedData(dg.AssetKey.from_user_string(key), partition="a")


def test_new_terms_are_a_cause_and_the_terms_being_missing_is_none(study, instance, monkeypatch):
    from pathassets.recipes import Recipe, TextOptions

    recipe = Recipe(tiling=study.recipes[0].tiling, encoder="demo-vlm", text=TextOptions(terms=("fat",)))
    automation = Automation(study.model_copy(update={"recipes": (recipe,)}), instance, monkeypatch)
    monkeypatch.setattr("pathassets.defs.slide_assets.version_tags", lambda *_: {})
    automation.tick()
    automation.arrive("a")
    assert "small/demo_vlm/text_similarity" in automation.tick()
    automation.study = with_recipe(automation.study, text=TextOptions(terms=("fat", "tumor")))
    assert automation.tick() == {"small/demo_vlm/text_similarity": {"a"}}
    instance.report_runless_asset_event(dg.AssetMaterialization(["small", "demo_vlm", "term_embeddings"]))
    assert automation.ticks(3) == [{}] * 3


def test_the_inbox_registers_what_is_new_and_asks_for_what_is_back(study, instance):
    """That a file was away, no condition sees: the slide has failed by then, and nothing that it is made from has changed."""
    inbox = Inbox(study.home, instance, automation=True)
    path = inbox.drop("a.svs")
    inbox.ticks(2)
    assert inbox.asked == []
    path.unlink()
    inbox.ticks(3)
    inbox.drop("a.svs")
    inbox.ticks(3)
    assert inbox.asked == inbox.partitions() != []


def test_the_condition_has_a_name_and_can_be_sent_to_the_daemon(study):
    graph = build_defs(study).resolve_asset_graph()
    conditions = {graph.get(dg.AssetKey.from_user_string(key)).automation_condition for key in CHAIN}
    assert {condition.get_label() for condition in conditions} == {LABEL}
    assert all(condition.is_serializable for condition in conditions)


@pytest.mark.parametrize("on", [False, True])
def test_one_setting_switches_it_on_and_the_night_run_off(study, on):
    study = study.model_copy(update={"automation": on})
    sensor = next(sensor for sensor in build_defs(study).sensors if sensor.name == "automation")
    assert (sensor.default_status is dg.DefaultSensorStatus.RUNNING) == on
    assert sensor.emit_backfills
    assert sensor.run_tags["dagster/priority"] == "10", "slides that have arrived, as dagster.yaml says"
    nightly = next(schedule for schedule in schedules(study) if schedule.name == "missing_nightly")
    assert (nightly.default_status is dg.DefaultScheduleStatus.STOPPED) == on
