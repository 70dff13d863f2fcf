"""`pathassets dev`, the real daemon: a file dropped into the inbox comes out as assets, a bad one as an outcome."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from support.commands import PATHASSETS
from support.daemon import answers, free_port, wait_for
from support.studies import TINY

from pathassets import Study
from pathassets.config import init_home

pytestmark = pytest.mark.e2e


@pytest.fixture
def dev(tmp_path):
    """A home whose Dagster runs, and its port."""
    home = tmp_path / "home"
    init_home(home)
    (home / "pathassets.toml").write_text(TINY)
    port = free_port()
    log = (tmp_path / "dev.log").open("w")
    environment = {**os.environ, "PATHASSETS_DEVICE": "cpu"}
    process = subprocess.Popen([*PATHASSETS, "dev", "--home", str(home), "--port", str(port)], stdout=log, stderr=log,
                               env=environment, start_new_session=True)  # fmt: skip
    yield home, port
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    log.close()


def test_what_is_dropped_into_the_inbox_is_materialised(dev, slides):
    home, port = dev
    wait_for(lambda: answers(port))
    shutil.copy(slides[0], home / "inbox" / "dropped.tiff")
    (home / "inbox" / "broken.svs").write_text("no slide")
    study = Study(home)
    wait_for(lambda: study.scan("domains").collect().height)
    bad = wait_for(lambda: study.scan("outcomes").filter(status="failed").collect().to_dicts())
    assert [row["reason"] for row in bad] == ["not_a_slide"]
    names = {Path(path).name for path in study.scan("slides").collect()["path"]}
    assert names == {"dropped.tiff", "broken.svs"}
