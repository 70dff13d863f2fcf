"""The command, as a user starts and ends it."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
import urllib.request

import pytest
from support.commands import PATHASSETS, run_command

from .conftest import Finished

pytestmark = pytest.mark.e2e


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def test_the_dashboard_answers_and_ends_when_it_is_told_to(finished: Finished):
    port = free_port()
    command = [*PATHASSETS, "dashboard", "--home", str(finished.study.home), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        text = ""
        for _ in range(600):
            try:
                text = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
                break
            except OSError:
                assert process.poll() is None, process.communicate()[0]
                time.sleep(0.1)
        assert "<title>pathassets</title>" in text
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert f"http://127.0.0.1:{port}" in said
    assert "Traceback" not in said


def test_a_port_that_is_taken_is_said(finished: Finished):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        run = run_command("dashboard", "--home", finished.study.home, "--port", taken.getsockname()[1])
    assert run.returncode == 2
    assert "--port" in run.stderr


def test_a_folder_without_a_study_is_refused(tmp_path):
    run = run_command("dashboard", "--home", tmp_path)
    assert run.returncode == 2
    assert "pathassets run" in run.stderr
    assert list(tmp_path.iterdir()) == []
