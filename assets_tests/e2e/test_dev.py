"""`pathassets dev`, the real daemon: a file dropped into the inbox comes out as assets, a bad one as an outcome; the dashboard
beside it, and nothing left when it ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from support.commands import PATHASSETS
from support.daemon import answers, free_port, instance_of, make_home, runs_of, wait_for
from support.studies import TINY

from pathassets import Study
from pathassets.config import init_home

pytestmark = pytest.mark.e2e


def page(port: int) -> str:
    """The dashboard's first page; empty while nobody answers."""
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
    except (urllib.error.URLError, OSError):
        return ""


@pytest.fixture
def dev(tmp_path):
    """A home whose Dagster and dashboard run, their ports, and the process."""
    home = tmp_path / "home"
    init_home(home)
    (home / "pathassets.toml").write_text(TINY)
    port = free_port()
    log = (tmp_path / "dev.log").open("w")
    environment = {**os.environ, "PATHASSETS_DEVICE": "cpu"}
    ports = ["--port", str(port), "--dashboard-port", str(free_port())]
    process = subprocess.Popen([*PATHASSETS, "dev", "--home", str(home), *ports], stdout=log, stderr=log,
                               env=environment, start_new_session=True)  # fmt: skip
    yield home, port, int(ports[-1]), process
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    process.wait(90)
    log.close()


def test_what_is_dropped_into_the_inbox_is_materialised_and_the_dashboard_beside_it_is_named(dev, slides):
    home, port, dashboard, _ = dev
    wait_for(lambda: answers(port) and "<title>pathassets</title>" in page(dashboard))
    shutil.copy(slides[0], home / "inbox" / "dropped.tiff")
    (home / "inbox" / "broken.svs").write_text("no slide")
    study = Study(home)
    wait_for(lambda: study.scan("domains").collect().height)
    bad = wait_for(lambda: study.scan("outcomes").filter(status="failed").collect().to_dicts())
    assert [row["reason"] for row in bad] == ["not_a_slide"]
    found = {Path(row["path"]).name: row["slide_id"] for row in study.scan("slides").collect().to_dicts()}
    assert set(found) == {"dropped.tiff", "broken.svs"}
    with instance_of(study) as instance:
        wait_for(lambda: all(run.is_finished for run in runs_of(instance)))
        event = instance.fetch_materializations(_tissue(), limit=1).records[0].asset_materialization
    assert event.metadata["dashboard"].value == f"http://127.0.0.1:{dashboard}/slide/{found['dropped.tiff']}"


def _tissue():
    import dagster as dg

    return dg.AssetKey(["tissue"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_it_ends_as_a_whole(dev, number):
    _, port, dashboard, process = dev
    wait_for(lambda: answers(port) and page(dashboard))
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 4, "Dagster's web server, daemon and code server, and the dashboard"
    process.send_signal(number)
    process.wait(90)
    assert process.returncode == (0 if number != signal.SIGKILL else -number)
    assert psutil.wait_procs(family, timeout=60 if number == signal.SIGKILL else 10)[1] == []


def test_a_port_that_is_taken_costs_the_dashboard_alone(tmp_path):
    make_home(tmp_path / "home")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        log = tmp_path / "dev.log"
        port = free_port()
        ports = ["--port", str(port), "--dashboard-port", str(taken.getsockname()[1])]
        with log.open("w") as out:
            process = subprocess.Popen([*PATHASSETS, "dev", "--home", str(tmp_path / "home"), *ports], stdout=out,
                                       stderr=out, start_new_session=True)  # fmt: skip
        try:
            wait_for(lambda: answers(port) or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            assert "no dashboard: port" in log.read_text()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(90)
