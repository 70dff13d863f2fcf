"""Two processes and one slide: one works, the other waits for it or goes; nobody waits for the dead."""

from __future__ import annotations

import os
import signal

import pytest
from engine import child
from support.embedders import GROUP, N
from support.streams import wait_until

from pathassets.store.groups import is_done

pytestmark = pytest.mark.e2e


@pytest.fixture
def pair(tmp_path, embedder):
    """Two servers of processes for one store, each with notes of its own."""
    return [embedder(tmp_path / "store", name=name) for name in ("one", "two")]


def computed(pair) -> int:
    return sum(sum(one.computed()) for one in pair)


def test_the_second_waits_and_computes_nothing_again(pair):
    one, two = pair
    one.start()
    wait_until(lambda: len(one.shards()) >= 1, 120)
    two.start(patience=600)
    assert one.ended() == 0
    assert two.ended() == 0
    assert (sum(one.computed()), sum(two.computed())) == (N, 0)


def test_the_second_goes_at_once_where_it_may_not_wait_and_says_who_works(pair):
    one, two = pair
    first = one.start()
    wait_until(lambda: len(one.shards()) >= 1, 120)
    two.start()
    assert two.ended() == 1
    assert f"is being worked on by process {first} on {os.uname().nodename}" in two.said()
    assert "[locked] Wait until it has finished, or end it" in two.said()
    assert one.ended() == 0
    assert computed(pair) == N


def test_nobody_waits_for_a_process_that_was_killed(pair):
    one, two = pair
    one.start()
    wait_until(lambda: len(one.shards()) >= 2, 120)
    two.start(patience=600)
    wait_until(lambda: len(one.shards()) >= 4, 120)  # the second has come to the lock by now
    one.pause()  # who is stopped and then killed writes nothing in between
    there = sum(min(child.SHARD_ROWS, N - child.SHARD_ROWS * number) for number in one.shards())
    one.signal(signal.SIGKILL)
    assert one.ended() == -signal.SIGKILL
    assert two.ended() == 0
    assert sum(two.computed()) == N - there < N
    assert is_done(two.root, GROUP)


def test_a_process_that_is_stopped_is_waited_for_as_long_as_wanted_and_goes_on(pair):
    one, two = pair
    first = one.start()
    wait_until(lambda: len(one.shards()) >= 1, 120)
    one.pause()
    there = one.shards()
    two.start(patience=1)
    assert two.ended() == 1
    assert f"process {first} " in two.said()
    assert one.shards() == there
    two.start(patience=600)
    one.signal(signal.SIGCONT)
    assert one.ended() == 0
    assert two.ended() == 0
    assert (sum(one.computed()), sum(two.computed())) == (N, 0)
