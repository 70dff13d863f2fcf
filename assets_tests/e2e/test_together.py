"""Two runs on the same slides: each slide is made once, who waits says for whom, and nobody waits for the dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.commands import PATHASSETS, answer
from support.streams import wait_until

from pathassets.config import Study, init_home
from pathassets.steps.register import register
from pathassets.steps.session import Session

pytestmark = pytest.mark.e2e

ENVIRONMENT = {**os.environ, "PATHASSETS_DEVICE": "cpu"}
HOLDER = """
import sys
from pathassets.store import open_root
with open_root(sys.argv[1]).lock("slide-" + sys.argv[2]):
    print("holding", flush=True)
    sys.stdin.readline()
"""


class Talker:
    """A process whose words are heard as they are said."""

    def __init__(self, *command: object) -> None:
        self.process = subprocess.Popen(
            [*map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=ENVIRONMENT,
        )
        self.said = ""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        for line in self.process.stdout:
            self.said += line

    def hear(self, words: str) -> None:
        wait_until(lambda: words in self.said or self.process.poll() is not None, 300)
        assert words in self.said

    def ended(self) -> int:
        status = self.process.wait(300)
        self._listener.join(60)
        return status


@pytest.fixture
def talker():
    made = []

    def make(*command: object) -> Talker:
        made.append(Talker(*command))
        return made[-1]

    yield make
    for found in made:
        found.process.kill()
        found.process.communicate()


@pytest.fixture
def home(tmp_path, slides):
    """A study that knows two slides, and their ids."""
    folder = tmp_path / "home"
    init_home(folder)
    return folder, [entry.slide_id for entry in register(Session(Study(folder)), slides)]


@pytest.fixture
def holder(talker, home):
    """A process that works on the first slide."""
    folder, (first, _) = home
    found = talker(sys.executable, "-W", "ignore", "-c", HOLDER, folder / "store", first)
    found.hear("holding")
    return found


def test_the_other_slide_is_done_first_and_who_is_waited_for_is_said(home, holder, talker):
    folder, (first, second) = home
    run = talker(*PATHASSETS, "run", "--home", folder)
    run.hear(f"{first}: waiting for process {holder.process.pid} on {os.uname().nodename}")
    assert Study(folder).scan("text_scores").collect()["slide_id"].unique().to_list() == [second]
    holder.process.stdin.write("\n")
    holder.process.stdin.flush()
    assert run.ended() == 0, run.said
    assert answer(folder, "SELECT count(*) AS n FROM embeddings") == [{"n": 2}]


def test_ctrl_c_while_waiting_for_another_process_ends_the_run(home, holder, talker):
    folder, (first, second) = home
    run = talker(*PATHASSETS, "run", "--home", folder)
    run.hear(f"{first}: waiting for process")
    run.process.send_signal(signal.SIGINT)
    assert run.ended() == 130, run.said
    assert "interrupted" in run.said
    assert "Traceback" not in run.said
    assert holder.process.poll() is None
    assert Study(folder).scan("embeddings").collect()["slide_id"].to_list() == [second]


def test_a_run_that_is_stopped_and_killed_is_waited_for_and_then_taken_over(home, slides, talker):
    folder, (first, _) = home
    command = (*PATHASSETS, "run", slides[0], "--home", folder, "--tile-px", 40)
    one = talker(*command)
    wait_until(lambda: shards(folder, first), 300)
    one.process.send_signal(signal.SIGSTOP)
    there = shards(folder, first)
    two = talker(*command)
    two.hear(f"the device: waiting for process {one.process.pid} ")
    one.process.kill()
    assert two.ended() == 0, two.said
    assert there.items() <= shards(folder, first).items(), "what was done is not done again"
    assert answer(folder, "SELECT count(*) AS n FROM embeddings") == [{"n": 1}]


def shards(folder: Path, slide_id: str) -> dict[str, tuple[int, int]]:
    """Shards of a slide on the disk, with what changes when one is written again."""
    found = (folder / "store" / "arrays" / slide_id).rglob("embeddings.zarr/X/c/*/0")
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}
