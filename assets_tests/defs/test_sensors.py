"""The inbox sensor and the nightly schedule, tick by tick, on a real instance: what is asked for, and how much at once."""

from __future__ import annotations

import functools
import json
import os
import shutil
import sqlite3
import time
from datetime import UTC, datetime

import dagster as dg
import pytest
from sqlalchemy.exc import IntegrityError
from support.inbox import Inbox

from pathassets.cli.keeping import forget_slide
from pathassets.config import init_home
from pathassets.defs import sensors
from pathassets.defs.event_log import forget_partition
from pathassets.defs.launch import open_instance
from pathassets.defs.partitions import add_slides, check_idle, range_tags, slides_at_work
from pathassets.defs.schedules import missing_schedule
from pathassets.errors import Reason, StoreError
from pathassets.slides.parts import found_at
from pathassets.steps import inbox as inbox_module
from pathassets.steps.chain import run_node
from pathassets.steps.forget import forget
from pathassets.steps.nodes import chain
from pathassets.steps.register import Book, register
from pathassets.steps.session import Session


@pytest.fixture
def inbox(study, instance):
    return Inbox(study.home, instance)


@pytest.fixture
def limit(monkeypatch):
    """Makes a look do less."""

    def set_limits(**limits):
        monkeypatch.setattr(inbox_module, "Limits", functools.partial(inbox_module.Limits, **limits))

    return set_limits


def test_a_file_is_taken_when_it_has_lain_still_for_a_tick(inbox, slide_file):
    shutil.copy(slide_file, inbox.folder / "new.tiff")
    first = inbox.tick()
    assert not first.run_requests
    assert inbox.state(first) == "1 new files are waited for"
    second = inbox.tick()
    assert inbox.groups(second) == [inbox.partitions()]
    assert [slide_id.rpartition("-")[0] for slide_id in inbox.partitions()] == ["new"]
    third = inbox.tick()
    assert not third.run_requests
    assert inbox.state(third) == "no new files"


def test_a_file_that_grows_is_left_alone(inbox, slide_file):
    inbox.drop("growing.tiff", slide_file.read_bytes()[:1000])
    inbox.tick()
    inbox.drop("growing.tiff", slide_file.read_bytes()[:2000])
    assert not inbox.tick().run_requests
    assert len(inbox.tick().run_requests) == 1


def test_what_is_no_slide_inside_is_registered_all_the_same(inbox):
    inbox.drop("bad.svs", "no slide")
    assert len(inbox.ticks(2).run_requests) == 1


def test_many_files_become_batches(inbox):
    for i in range(10):
        inbox.drop(f"{i}.svs")
    groups = inbox.groups(inbox.ticks(2))
    assert [len(group) for group in groups] == [4, 4, 2]  # slides_per_run = 4
    assert [slide_id for group in groups for slide_id in group] == inbox.partitions()


def test_a_tick_does_a_bounded_amount_and_the_next_goes_on(inbox, limit):
    limit(files=3)
    for i in range(8):
        inbox.drop(f"{i}.svs")
    inbox.tick()
    counts = [len(inbox.partitions()) for _ in range(4) if inbox.tick()]
    assert counts == [3, 6, 8, 8]
    assert sorted(inbox.asked) == sorted(inbox.partitions())


def test_a_tick_without_time_registers_nothing_and_loses_nothing(inbox, limit):
    inbox.drop("a.svs")
    limit(seconds=-1.0)
    assert not inbox.ticks(3).run_requests
    limit(seconds=20.0)
    assert len(inbox.tick().run_requests) == 1


def test_a_tick_looks_at_the_partitions_once(inbox, monkeypatch):
    for i in range(5):
        inbox.drop(f"{i}.svs")
    calls = []
    for name in ("get_dynamic_partitions", "has_dynamic_partition", "get_dynamic_partitions_definition_id"):
        real = getattr(dg.DagsterInstance, name)
        monkeypatch.setattr(
            dg.DagsterInstance, name, lambda *args, real=real, name=name: calls.append(name) or real(*args)
        )
    with dg.build_sensor_context(instance=inbox.instance) as context:
        sensors.inbox_sensor(inbox.study)(context)
    assert calls == ["get_dynamic_partitions"]


def test_the_cursor_stays_small(inbox):
    for i in range(300):
        inbox.drop(f"{'long' * 20}_{i}.svs")
        inbox.drop(f"{'long' * 20}_{i}.txt")
    inbox.tick()
    assert len(inbox.cursor) < 150
    assert json.loads(inbox.cursor)["waiting"] == 300


def test_with_automation_slides_are_only_registered(study, instance):
    inbox = Inbox(study.home, instance, automation=True)
    inbox.drop("a.svs")
    result = inbox.ticks(2)
    assert len(inbox.partitions()) == 1
    assert not result.run_requests


def test_a_slide_whose_tick_died_is_asked_for_by_the_next(inbox):
    """Registered, and then the process ended before Dagster had heard of it."""
    path = inbox.drop("a.svs")
    register(Session(inbox.study), [path])
    assert len(inbox.tick().run_requests) == 1
    assert len(inbox.partitions()) == 1
    assert not inbox.tick().run_requests


def test_a_slide_that_was_forgotten_and_is_registered_again_is_another_request(inbox):
    inbox.drop("a.svs")
    [first] = inbox.ticks(2).run_requests
    [slide_id] = inbox.partitions()
    inbox.instance.delete_dynamic_partition("slides", slide_id)
    [again] = inbox.tick().run_requests
    assert again.run_key == first.run_key, "the same registration, as after a tick that died"
    forget(Session(inbox.study), slide_id)
    forget_partition(inbox.instance, slide_id)
    inbox.tick()
    [anew] = inbox.tick().run_requests
    assert inbox.partitions() == [slide_id]
    assert anew.run_key != first.run_key


def test_a_slide_that_a_run_has_in_hand_is_not_forgotten(study):
    """The run covers a range: without one of its ends it would fail, and all its slides with it."""
    inbox = study.home / "inbox"
    for name in "abc":
        (inbox / f"{name}.svs").write_text(name)
    ids = [entry.slide_id for entry in register(Session(study), sorted(inbox.iterdir()))]
    init_home(study.home)
    with open_instance(study) as instance:
        add_slides(instance, ids)
        run = dg.DagsterRun("slides", status=dg.DagsterRunStatus.NOT_STARTED, tags=range_tags(ids[:2]))
        instance.add_run(run)
        with pytest.raises(StoreError, match=run.run_id) as refused:
            forget_slide(study, ids[0], yes=True, as_json=True)
        assert refused.value.reason is Reason.LOCKED
        assert set(instance.get_dynamic_partitions("slides")) == set(ids)
        assert Session(study).slide_row(ids[0])
        assert slides_at_work(instance, ids) == dict.fromkeys(ids[:2], run.run_id)
        check_idle(instance, ids[2])


def test_a_slide_that_another_process_has_entered_meanwhile_keeps_what_is_known_of_it(inbox, slide_file):
    path = inbox.drop("good.tiff", slide_file.read_bytes())
    book = Book(Session(inbox.study))  # knows nothing yet
    (entry,) = register(Session(inbox.study), [path])
    session = Session(inbox.study)
    run_node(session, entry.slide_id, chain(inbox.study)[0], {})
    assert book.enter(found_at(str(path))).slide_id == entry.slide_id
    assert session.slide_row(entry.slide_id)["reader"] is not None


def test_many_that_dagster_does_not_know_come_in_portions(inbox, limit):
    register(Session(inbox.study), [inbox.drop(f"{i}.svs") for i in range(7)])
    limit(handed=3)
    assert [len(inbox.partitions()) for _ in range(4) if inbox.tick()] == [3, 6, 7, 7]


def test_slides_that_lie_elsewhere_are_not_the_inbox_s_affair(inbox, tmp_path):
    (tmp_path / "elsewhere.svs").write_bytes(b"x")
    register(Session(inbox.study), [tmp_path / "elsewhere.svs"])
    inbox.ticks(3)
    assert inbox.partitions() == []
    (tmp_path / "elsewhere.svs").unlink()
    inbox.ticks(3)
    assert [row["missing_since"] for row in inbox.rows().values()] == [None]


def test_slides_of_the_manifest_are_taken_too(inbox, tmp_path):
    outside = tmp_path / "outside" / "b.svs"
    outside.parent.mkdir()
    outside.write_bytes(b"b")
    (inbox.home / "slides.csv").write_text(f"path,mpp\n{outside},0.5\n{tmp_path}/nowhere.svs,0.5\n")
    assert len(inbox.ticks(2).run_requests) == 1
    assert [row["path"] for row in inbox.rows().values()] == [str(outside)]


def test_a_manifest_that_cannot_be_read_stops_nothing(inbox):
    (inbox.home / "slides.csv").write_text("mpp\nsoon\n")
    inbox.drop("a.svs")
    assert "no column path" in inbox.state(inbox.tick())
    assert len(inbox.tick().run_requests) == 1


def test_a_look_that_takes_too_long_is_taken_by_a_later_tick(inbox, monkeypatch):
    inbox.drop("a.svs")
    inbox.tick()
    monkeypatch.setattr(sensors, "TICK_SECONDS", 0.2)
    slow = inbox_module.sight
    monkeypatch.setattr(inbox_module, "sight", lambda *args: time.sleep(1.0) or slow(*args))
    result = inbox.tick()
    assert not result.run_requests
    assert "no answer" in inbox.state(result)
    monkeypatch.setattr(inbox_module, "sight", slow)
    monkeypatch.setattr(sensors, "TICK_SECONDS", 50.0)
    assert len(inbox.tick().run_requests) == 1
    assert not inbox.tick().run_requests


def test_a_sensor_that_is_reset_looks_twice_again(inbox):
    inbox.drop("a.svs")
    inbox.tick()
    inbox.cursor = None
    assert not inbox.tick().run_requests
    assert len(inbox.tick().run_requests) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"waiting": 3, "more": 1}'])
def test_a_damaged_memory_costs_a_look(inbox, damage):
    inbox.drop("a.svs")
    inbox.tick()
    (memory,) = (inbox.home / "store" / "cache" / "inbox").iterdir()
    memory.write_bytes(damage)
    assert len(inbox.ticks(2).run_requests) == 1


def test_a_store_that_cannot_be_written_is_said_and_no_tick_fails(inbox, monkeypatch):
    from pathassets.store import local_root as root

    def full(temp, target):
        raise OSError(28, "No space left on device")

    inbox.drop("a.svs")
    inbox.tick()
    replace = root._replace
    monkeypatch.setattr(root, "_replace", full)
    result = inbox.tick()
    assert not result.run_requests
    assert "No space left" in inbox.state(result)
    monkeypatch.setattr(root, "_replace", replace)
    assert len(inbox.tick().run_requests) == 1


def test_a_store_that_cannot_be_listed_is_said_and_no_tick_fails(inbox, monkeypatch):
    from pathassets.store import local_root as root

    def gone(folder, *, temps):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(root, "_files", gone)
    assert "Input/output error" in inbox.state(inbox.tick())


def test_what_is_said_once_reaches_the_log_of_the_tick(inbox, caplog, monkeypatch):
    monkeypatch.setattr(dg.SensorEvaluationContext, "log", property(lambda self: caplog_logger))
    import logging

    caplog_logger = logging.getLogger("tick")
    caplog.set_level("INFO")
    inbox.drop("notes.txt", "x")
    inbox.tick()
    assert [record.message for record in caplog.records if record.name == "tick"] == [
        "left alone, no slide by its name: notes.txt"
    ]
    caplog.clear()
    inbox.tick()
    assert not [record for record in caplog.records if record.name == "tick"]


def test_the_night_run_asks_for_what_is_missing_but_not_for_files_that_are(study, instance_on_disk, slide_file):
    gone = study.home / "gone.tiff"
    gone.write_bytes(slide_file.read_bytes()[:5000])
    ids = [entry.slide_id for entry in register(Session(study), [slide_file, gone])]
    add_slides(instance_on_disk, ids)

    def asked():
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        context = dg.build_schedule_context(instance=instance_on_disk, scheduled_execution_time=moment)
        requests = missing_schedule(study).evaluate_tick(context).run_requests
        return [
            (r.tags["dagster/asset_partition_range_start"], r.tags["dagster/asset_partition_range_end"])
            for r in requests
        ]

    assert asked() == [(ids[0], ids[1])]
    os.remove(gone)
    register(Session(study), [gone])
    assert asked() == [(ids[0], ids[0])]


def test_partitions_that_another_process_adds_at_this_moment_are_no_error(instance, monkeypatch):
    storage = instance.event_log_storage
    add, others = storage.add_dynamic_partitions, ["b", "c"]

    def quarrel(name, keys):
        if others:  # between Dagster's look and its writing somebody else has written
            add(name, [others.pop(0)])
            raise IntegrityError("INSERT", {}, sqlite3.IntegrityError("UNIQUE constraint failed"))
        add(name, keys)

    monkeypatch.setattr(storage, "add_dynamic_partitions", quarrel)
    add_slides(instance, ["a", "b", "c", "d"])
    assert sorted(instance.get_dynamic_partitions("slides")) == ["a", "b", "c", "d"]
    assert others == []


def test_partitions_that_can_never_be_added_are_an_error(instance, monkeypatch):
    def refuse(name, keys):
        raise IntegrityError("INSERT", {}, sqlite3.IntegrityError("damaged"))

    monkeypatch.setattr(instance.event_log_storage, "add_dynamic_partitions", refuse)
    with pytest.raises(IntegrityError):
        add_slides(instance, ["a", "b"])
