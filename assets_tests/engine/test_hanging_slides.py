"""A disk that never answers: its slide is given up in words, the next is done, and the process can end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

CHILD = Path(__file__).with_name("child_hangs.py")
TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def hung(data_dir, tmp_path_factory) -> dict:
    """What a process says that has met such a disk, and ended by itself."""
    slides, store = data_dir / "slides", tmp_path_factory.mktemp("hung") / "store"
    names = ("CMU-1-Small-Region.svs", "her2st_C2_HE_pyr.tif")
    command = [sys.executable, "-W", "ignore", CHILD, *(slides / name for name in names), store, 5.0]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    run = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    said["ended"] = {Path(path).name: found for path, found in said["ended"].items()}
    return said


def test_the_slide_is_given_up_and_says_where(hung):
    reason, message, missing = hung["ended"]["CMU-1-Small-Region.svs"]
    assert reason == "pixels_unreadable"
    assert "has taken more than 5 s" in message
    assert "Check the disk or network that the file lies on." in message
    assert missing > 0


def test_the_next_slide_is_done(hung):
    assert hung["ended"]["her2st_C2_HE_pyr.tif"] == ["None", "", 0]
    assert hung["alive"] >= 1, "the thread that hangs cannot be ended, and the process ended all the same"
