"""Waiting for a lock: for whom is said, and the waiting can be ended."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from assets_tests.store.conftest import start
from pathassets.errors import Reason, StoreError
from pathassets.store import Root, open_root

HOLDER = """
    import sys
    from pathassets.store import open_root
    with open_root(sys.argv[1]).lock("x"):
        print("ready")
        sys.stdin.readline()
"""


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return open_root(tmp_path / "store")


@pytest.fixture
def holder(root: Root):
    child = start(HOLDER, root.path)
    yield child
    child.kill()
    child.communicate()


def test_who_waits_hears_of_the_holder_and_gets_the_lock_when_it_ends(root: Root, holder):
    heard = []

    def waiting(who: str) -> None:
        heard.append(who)
        if len(heard) == 3:
            holder.stdin.write("\n")
            holder.stdin.flush()

    with root.lock("x", 60, waiting):
        assert heard[:3] == [f"process {holder.pid} on {os.uname().nodename}"] * 3


def test_the_waiting_can_be_ended(root: Root, holder):
    def enough(who: str) -> None:
        raise RuntimeError("the user does not want to wait")

    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    with pytest.raises(RuntimeError), root.lock("x", 60, enough):
        pass
    if before:
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_holder_that_is_stopped_is_waited_for_and_named_and_one_that_is_killed_is_not(root: Root, holder):
    holder.send_signal(signal.SIGSTOP)
    heard = []
    with pytest.raises(StoreError, match=f"process {holder.pid} ") as caught, root.lock("x", 0.3, heard.append):
        pass
    assert caught.value.reason is Reason.LOCKED
    assert heard

    def kill(who: str) -> None:
        holder.kill()

    with root.lock("x", 60, kill):
        pass
