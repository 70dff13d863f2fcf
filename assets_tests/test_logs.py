"""Logs as JSON: one object a line that says which slide, step and run it is about; text stays as it was."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading

import pytest
from support.commands import PATHASSETS, run_command
from support.studies import TINY_ON_CPU

from pathassets import logs
from pathassets.config import CONFIG_FILE, init_home

KEYS = ["time", "level", "logger", "message", "slide_id", "step", "run_id"]


def in_json(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`pathassets --log-format json ...`; tracebacks belong into such a log."""
    command = [*PATHASSETS, "--log-format", "json", *map(str, arguments)]
    environment = {**os.environ, "PATHASSETS_DEVICE": "cpu"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def line(record: logging.LogRecord) -> dict:
    text = logs.JsonLines().format(record)
    assert "\n" not in text
    return json.loads(text)


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("pathassets.x").makeRecord("pathassets.x", logging.WARNING, "f", 1, message, args, None)
    made.__dict__.update(extra)
    return made


def test_a_line_says_what_it_is_about():
    with logs.about(slide_id="a-1", step="tissue", run_id="r"):
        inside = line(record("%s\nis odd", "this"))
    assert list(inside) == KEYS
    assert (inside["message"], inside["slide_id"], inside["step"], inside["run_id"]) == (
        "this\nis odd",
        "a-1",
        "tissue",
        "r",
    )
    assert inside["level"] == "warning"
    assert inside["time"].endswith("+00:00")
    outside = line(record("quiet"))
    assert (outside["slide_id"], outside["step"]) == (None, None)


def test_blocks_in_two_threads_do_not_mix():
    seen = []

    def other() -> None:
        seen.append(line(record("x"))["slide_id"])

    with logs.about(slide_id="a-1"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert line(record("x", slide_id="b-2"))["slide_id"] == "b-2"
    assert seen == [None]


def test_a_traceback_is_one_string_and_what_is_no_json_is_text():
    try:
        raise ValueError("über\nall")
    except ValueError:
        made = record("failed", reason=object())
        made.exc_info = sys.exc_info()
        found = line(made)
    assert "ValueError: über" in found["exception"]
    assert found["reason"].startswith("<object")


@pytest.fixture(scope="module")
def json_run(tmp_path_factory):
    """A run over one good and one bad slide with JSON logs: the process and its lines."""
    from pathassets.slides.synthetic import synthetic_slide

    home = tmp_path_factory.mktemp("logs")
    init_home(home)
    (home / CONFIG_FILE).write_text(TINY_ON_CPU)
    synthetic_slide(home / "inbox" / "good.tiff", seed=3, width_px=1024, height_px=896)
    (home / "inbox" / "bad.svs").write_text("no slide")
    run = in_json("run", "--home", home)
    return home, run, [json.loads(text) for text in run.stderr.splitlines()]


@pytest.mark.e2e
def test_a_run_s_log_is_json_lines_on_standard_error_and_in_the_file(json_run):
    home, run, lines = json_run
    assert run.returncode == 1
    assert "1 of 2 slides are done" in run.stdout
    assert all(list(entry)[:7] == KEYS for entry in lines)
    failed = [entry for entry in lines if entry["step"] == "slide" and "failed" in entry["message"]]
    assert [entry["slide_id"].startswith("bad-") for entry in failed] == [True]
    progress = [entry for entry in lines if entry["message"] == "tiles embedded"]
    assert progress[-1]["done"] == progress[-1]["total"] > 0
    assert {entry["run_id"] for entry in progress} == {failed[0]["run_id"]}
    assert [json.loads(text) for text in (home / ".dagster" / "pathassets.log").read_text().splitlines()]


@pytest.mark.e2e
def test_without_it_the_console_says_what_it_always_said(json_run, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(json_run[0] / "inbox", home / "inbox")
    (home / CONFIG_FILE).write_text(TINY_ON_CPU)
    run = run_command("run", "--home", home)
    assert run.returncode == 1
    assert run.stderr == ""
    assert "2 slides, 6 assets each" in run.stdout


def test_errors_are_lines_too_and_an_unknown_format_is_refused(tmp_path, monkeypatch):
    run = in_json("status", "--home", tmp_path / "nowhere")
    assert run.returncode == 2
    last = json.loads(run.stderr.splitlines()[-1])
    assert (last["level"], last["reason"]) == ("error", "config_invalid")
    assert last["remedy"]
    monkeypatch.setenv("PATHASSETS_LOG_FORMAT", "xml")
    run = run_command("status", "--home", tmp_path)
    assert run.returncode == 2
    assert "Use text or json." in run.stderr
