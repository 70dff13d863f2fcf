"""A process that is killed loses at most the shard it was at; the next one ends with the very same numbers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.streams import wait_until

from pathassets.store.arrays import read_embeddings
from pathassets.store.layout import group_key
from pathassets.store.root import Root

N, SHARD_ROWS, DIGEST = 200, 32, "0123456789abcdef"
TESTS = Path(__file__).resolve().parents[1]
CHILD = Path(__file__).with_name("child.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}


def command(store: Path, seconds: float) -> list[str]:
    return [sys.executable, str(CHILD), str(store), DIGEST, str(N), str(seconds)]


def finish(store: Path) -> int:
    """Runs to the end; returns how many tiles were computed."""
    done = subprocess.run(command(store, 0.0), capture_output=True, text=True, env=ENVIRONMENT, check=True)
    return int(done.stdout.split()[0])


def shards(store: Path) -> list[int]:
    """Numbers of the shards that are on the disk."""
    folder = Root(store).local(group_key("slide", DIGEST, "embeddings")) / "X" / "c"
    return [int(path.parent.name) for path in folder.glob("*/0")]


def kill_when(store: Path, n_shards: int) -> int:
    """Kills a run as soon as so many shards are there; returns how many tiles they hold."""
    child = subprocess.Popen(command(store, 0.02), env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(shards(store)) >= n_shards, 120)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    return sum(min(SHARD_ROWS, N - SHARD_ROWS * number) for number in shards(store))


@pytest.mark.e2e
def test_a_run_that_is_killed_twice_is_finished_by_the_next_to_the_last_bit(tmp_path):
    assert finish(tmp_path / "whole") == N
    store = tmp_path / "killed"
    first = kill_when(store, 1)
    second = kill_when(store, 4)
    assert 0 < first < second < N, "killed in the middle, and what was done stayed done"
    assert finish(store) == N - second
    group = group_key("slide", DIGEST, "embeddings")
    whole, resumed = (read_embeddings(Root(folder), group) for folder in (tmp_path / "whole", store))
    assert np.array_equal(whole.read(), resumed.read(), equal_nan=True)
    assert whole.obs.equals(resumed.obs)
    assert int((~resumed.ok).sum()) == 2
