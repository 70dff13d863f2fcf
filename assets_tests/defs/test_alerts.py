"""The alert sensor: a run that failed is reported once, and nothing that goes wrong while telling fails the tick."""

from __future__ import annotations

import json
import shutil

import dagster as dg
import pytest
from support.listener import listening

from pathassets.definitions import build_defs
from pathassets.defs.alerts import alert_sensor, alert_sensors
from pathassets.defs.partitions import add_slides, range_tags
from pathassets.steps.register import register
from pathassets.steps.session import Session


@pytest.fixture(autouse=True)
def without_a_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def failed(study, instance, slide_file):
    """A run of two slides of which one failed: ids and Dagster's result."""
    folder = study.home / "inbox"
    shutil.copy(slide_file, folder / "a.tiff")
    (folder / "Jane Doe.svs").write_text("no slide")
    ids = [entry.slide_id for entry in register(Session(study), sorted(folder.iterdir()))]
    add_slides(instance, ids)
    job = build_defs(study).resolve_job_def("slides")
    return ids, job.execute_in_process(instance=instance, tags=range_tags(ids), raise_on_error=False)


def tick(study, instance, result):
    """What the sensor does about the run's failure."""
    event = next(event for event in result.all_events if event.event_type_value == "PIPELINE_FAILURE")
    context = dg.build_run_status_sensor_context(
        sensor_name="alerts", dagster_instance=instance, dagster_run=result.dagster_run, dagster_event=event
    ).for_run_failure()
    return alert_sensor(study)(context)


def test_a_failed_run_is_reported_with_reasons_and_remedies(study, instance, failed, monkeypatch):
    ids, result = failed
    with listening() as server:
        monkeypatch.setenv("PATHASSETS_ALERT_WEBHOOK", f"{server.url}/hook")
        tick(study, instance, result)
    [(path, payload)] = server.posts
    assert path == "/hook"
    assert payload["event"] == "run_failed"
    assert (payload["run_id"], payload["job"], payload["n_slides_failed"]) == (result.run_id, "slides", 1)
    [slide] = payload["slides_failed"]
    assert slide["slide_id"] == next(slide_id for slide_id in ids if slide_id.startswith("jane"))
    assert (slide["step"], slide["reason"]) == ("slide", "not_a_slide")
    assert slide["remedy"]
    text = json.dumps(payload)
    assert "Jane Doe" not in text, "names of files stay here"
    assert str(study.home) not in text


def test_trouble_while_telling_fails_no_tick(study, instance, failed, monkeypatch):
    _, result = failed
    with listening(status=500) as server:
        for address in (server.url, "http://127.0.0.1:9/nobody"):
            monkeypatch.setenv("PATHASSETS_ALERT_WEBHOOK", address)
            tick(study, instance, result)
        monkeypatch.setattr("pathassets.steps.alert.load_outcome", lambda *_: 1 / 0)
        tick(study, instance, result)


def test_without_an_address_there_is_no_sensor(study, monkeypatch):
    monkeypatch.delenv("PATHASSETS_ALERT_WEBHOOK", raising=False)
    assert alert_sensors(study) == []
    monkeypatch.setenv("PATHASSETS_ALERT_WEBHOOK", "https://example.org/hook")
    assert [sensor.name for sensor in alert_sensors(study)] == ["alerts"]
