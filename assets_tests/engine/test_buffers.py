"""Memory for waiting tiles: bounded by number and by what the machine has to spare."""

from __future__ import annotations

import threading
import weakref

import numpy as np
from support.streams import wait_until

from pathassets.engine import memory
from pathassets.engine.buffers import Buffers
from pathassets.engine.memory import Budget

SHAPE = (2, 10, 10, 3)
BYTES = 600


def pool(most=3, free=10**9, monkeypatch=None):
    if monkeypatch is not None:
        monkeypatch.setattr(memory, "free_memory", lambda: free)
    return Buffers(most, Budget(0.5), pinned=False)


def test_no_more_than_so_many_are_out_at_once():
    found = pool(most=2)
    first, _ = found.take(SHAPE), found.take(SHAPE)
    taken = []
    thread = threading.Thread(target=lambda: taken.append(found.take(SHAPE)))
    thread.start()
    thread.join(0.3)
    assert taken == [], "the third waits"
    found.give_back(first)
    thread.join(30)
    assert taken[0] is first, "and gets the memory of the first"


def test_the_free_memory_of_this_moment_is_the_budget(monkeypatch):
    found = pool(most=100, free=3 * BYTES, monkeypatch=monkeypatch)  # half of it: one and a half buffers
    found.take(SHAPE)
    taken = []
    thread = threading.Thread(target=lambda: taken.append(found.take(SHAPE)))
    monkeypatch.setattr(memory, "free_memory", lambda: 0)
    thread.start()
    thread.join(0.5)
    assert taken == [], "no memory is free: it waits"
    monkeypatch.setattr(memory, "free_memory", lambda: 10 * BYTES)
    wait_until(lambda: taken)  # another program gave some back; nobody told us


def test_two_devices_take_no_more_than_one_would(monkeypatch):
    free = {"bytes": 10 * BYTES}
    monkeypatch.setattr(memory, "free_memory", lambda: free["bytes"])
    full = np.full

    def taken(shape, *args):
        free["bytes"] -= BYTES
        return full(shape, *args)

    monkeypatch.setattr(np, "full", taken)
    budget = Budget(0.5)
    pools = [Buffers(100, budget, pinned=False) for _ in range(2)]
    out = [found.take(SHAPE) for found in pools]  # one each, at any price

    def greedy(found):
        while (buffer := found.take(SHAPE)) is not None:
            out.append(buffer)

    threads = [threading.Thread(target=greedy, args=(found,), daemon=True) for found in pools]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(out) >= 5)
    threads[0].join(0.5)
    assert len(out) == 5, "half of the ten that were free, together"
    for found in pools:
        found.close()
    for thread in threads:
        thread.join(30)


def test_memory_that_waits_goes_back_when_there_is_too_little(monkeypatch):
    found = pool(most=100, free=100 * BYTES, monkeypatch=monkeypatch)
    first, second = found.take(SHAPE), found.take(SHAPE)
    found.give_back(second)
    gone = weakref.ref(second)
    del second
    monkeypatch.setattr(memory, "free_memory", lambda: 0)
    thread = threading.Thread(target=found.take, args=(SHAPE,), daemon=True)
    thread.start()
    wait_until(lambda: gone() is None)
    found.give_back(first)
    thread.join(30)
    assert not thread.is_alive()


def test_a_full_machine_is_slow_and_not_stuck(monkeypatch):
    assert pool(free=0, monkeypatch=monkeypatch).take(SHAPE) is not None


def test_a_slide_with_other_tiles_gets_other_buffers():
    found = pool()
    found.give_back(found.take(SHAPE))
    assert found.take((4, 5, 5, 3)).shape == (4, 5, 5, 3)


def test_who_waits_goes_when_the_pool_is_closed():
    found, taken = pool(most=1), []
    found.take(SHAPE)
    thread = threading.Thread(target=lambda: taken.append(found.take(SHAPE)))
    thread.start()
    found.close()
    thread.join(30)
    assert taken == [None]
