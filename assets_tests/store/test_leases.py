"""Leases: no two holders, none for ever, and one that was away for too long notices before it writes."""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

import pytest

from assets_tests.store.conftest import start
from pathassets.errors import Reason, StoreError, StoreUnreachableError
from pathassets.store import layout
from pathassets.store.leases import Claim, Lease, Leases, now
from pathassets.store.object_root import ObjectRoot

TERM_S = 1.0
UNREACHABLE = StoreUnreachableError("nobody answers")


class Shelf:
    """Objects in memory, with a network that can fail before or after a request is carried out."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.fails: list[str] = []
        self._count, self._one = 0, threading.Lock()

    def read(self, name: str) -> tuple[bytes, str] | None:
        self._fail("before")
        return self.objects.get(name)

    def create(self, name: str, data: bytes) -> str | None:
        return self._put(name, data, None)

    def replace(self, name: str, data: bytes, etag: str) -> str | None:
        return self._put(name, data, etag)

    def remove(self, name: str) -> None:
        self._fail("before")
        del self.objects[name]

    def _put(self, name: str, data: bytes, etag: str | None) -> str | None:
        self._fail("before")
        with self._one:
            if self.objects.get(name, (b"", None))[1] != etag:
                return None
            self._count += 1
            self.objects[name] = data, str(self._count)
        self._fail("after")
        return str(self._count)

    def _fail(self, when: str) -> None:
        if self.fails and self.fails[0] == when:
            self.fails.pop(0)
            raise UNREACHABLE


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def lease_of(shelf: Shelf, name: str = "x", seconds: float = TERM_S) -> Lease:
    claim, since = Claim(seconds=seconds), now()
    etag = shelf.create(name, claim.data())
    assert etag is not None
    return Lease(shelf, name, claim, etag, since)


def test_a_lease_is_written_again_and_again_while_it_is_held(shelf: Shelf):
    with Leases(shelf, TERM_S).hold("x", 0) as lease:
        first = shelf.objects["x"]
        time.sleep(TERM_S)
        assert shelf.objects["x"] != first
        lease.check()
        with pytest.raises(StoreError) as caught, Leases(shelf, TERM_S).hold("x", 2.5 * TERM_S):
            pass
        assert caught.value.reason is Reason.LOCKED
    assert shelf.objects == {}


def test_nothing_keeps_writing_when_nothing_is_held(shelf: Shelf):
    leases = Leases(shelf, TERM_S)
    for _ in range(3):
        with leases.hold("x", 0), leases.hold("y", 0):
            pass
    deadline = time.monotonic() + 30
    while any(thread.name == "leases" for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(thread.name == "leases" for thread in threading.enumerate())


def test_a_renewal_whose_answer_was_lost_is_recognised(shelf: Shelf, caplog: pytest.LogCaptureFixture):
    lease = lease_of(shelf)
    shelf.fails = ["after"]
    with pytest.raises(StoreUnreachableError):
        lease.renew()
    lease.renew()
    lease.check()
    assert "lost" not in caplog.text


def test_a_lease_that_another_has_taken_is_lost_for_good(shelf: Shelf):
    lease = lease_of(shelf, seconds=0)  # the term is over at once: each check asks
    shelf.objects["x"] = Claim().data(), "theirs"
    for _ in range(2):
        with pytest.raises(StoreError, match="another process works on x") as caught:
            lease.check()
        assert caught.value.reason is Reason.LOCKED
    lease.renew()
    lease.give_back()
    assert shelf.objects["x"][1] == "theirs"


def test_a_lease_that_was_removed_is_lost(shelf: Shelf):
    lease = lease_of(shelf, seconds=0)
    shelf.objects.clear()
    with pytest.raises(StoreError):
        lease.check()
    assert shelf.objects == {}


def test_after_a_silence_of_the_network_the_lease_goes_on_if_nobody_took_it(shelf: Shelf):
    lease = lease_of(shelf, seconds=0)
    shelf.fails = ["before"]
    with pytest.raises(StoreUnreachableError):
        lease.check()
    lease.check()


def test_a_young_lease_is_trusted_without_asking(shelf: Shelf):
    lease = lease_of(shelf, seconds=600)
    shelf.fails = ["before"]
    lease.check()
    assert shelf.fails == ["before"]


def test_what_is_given_back_late_is_marked_free_and_not_removed_from_under_a_successor(shelf: Shelf):
    lease = lease_of(shelf, seconds=0)
    lease.give_back()
    assert shelf.objects["x"][0] == b""
    with Leases(shelf, TERM_S).hold("x", 0):
        pass
    assert shelf.objects == {}


def test_giving_back_to_a_server_that_is_away_is_no_failure(shelf: Shelf, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    with Leases(shelf, 600).hold("x", 0):
        shelf.fails = ["before"]
    assert "runs out by itself" in caplog.text


def dead(**changes: object) -> bytes:
    """A claim of nobody who is known to be dead."""
    return json.dumps(asdict(replace(Claim(seconds=TERM_S, machine="another", host="far"), **changes))).encode()


def test_what_does_not_change_for_its_term_is_taken_over_and_not_before(shelf: Shelf):
    shelf.objects["x"] = dead(process=7), "0"
    with pytest.raises(StoreError, match="process 7 on far"), Leases(shelf, TERM_S).hold("x", 0):
        pass
    begun, heard = time.monotonic(), []
    with Leases(shelf, TERM_S).hold("x", 60, heard.append):
        assert time.monotonic() - begun >= TERM_S
    assert set(heard) == {"process 7 on far"}


@pytest.mark.parametrize(
    "data",
    [
        lambda: b"",
        lambda: dead(written=time.time() - 3600),
        lambda: Claim(process=2**22 + 1).data(),
        lambda: replace(Claim(), started=-1).data(),
    ],
    ids=["free", "written an hour ago", "a process that is gone", "a process that has its number now"],
)
def test_what_has_no_living_holder_is_taken_at_once(shelf: Shelf, data: Callable[[], bytes]):
    shelf.objects["x"] = data(), "0"
    with Leases(shelf, 600).hold("x", 0):
        assert shelf.objects["x"][1] != "0"


@pytest.mark.parametrize(
    "data",
    [
        dead,  # written when the test begins, which may be long after it was collected
        lambda: dead(written=time.time() + 600),
        lambda: Claim(seconds=TERM_S).data(),
        lambda: b"{}",
        lambda: b"\xff",
    ],
    ids=["far away", "a clock that is ahead", "this process", "of another version", "no claim"],
)
def test_what_may_have_a_living_holder_is_not(shelf: Shelf, data: Callable[[], bytes]):
    claimed = data()
    shelf.objects["x"] = claimed, "0"
    with pytest.raises(StoreError), Leases(shelf, 600).hold("x", 0):
        pass
    assert shelf.objects["x"] == (claimed, "0")


@pytest.mark.e2e
def test_of_many_that_take_over_at_once_one_wins(shelf: Shelf):
    shelf.objects["x"] = b"", "0"
    inside, most = [0], [0]

    def work() -> None:
        with Leases(shelf, 60).hold("x", 60):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1]
    assert shelf.objects == {}


HOLDER = """
    import sys
    from pathassets.errors import StoreError
    from pathassets.store.object_root import ObjectRoot
    root = ObjectRoot(sys.argv[1], lease_s=float(sys.argv[2]))
    with root.lock("slide-s"):
        root.put("masks/s/labels.npz", b"first")
        print("ready")
        sys.stdin.readline()
        try:
            root.put("masks/s/labels.npz", b"late")
        except StoreError as error:
            print(error.reason)
        else:
            print("written")
        root.put("masks/t/labels.npz", b"of another slide")
"""


@pytest.fixture
def holder(bucket: str) -> Iterator:
    child = start(HOLDER, bucket, TERM_S)
    yield child
    child.kill()
    child.communicate()


def test_the_lease_of_a_process_that_was_killed_here_is_taken_at_once(bucket: str, holder):
    root = ObjectRoot(bucket, lease_s=600)
    with pytest.raises(StoreError, match=f"process {holder.pid} "), root.lock("slide-s"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with root.lock("slide-s"):
        pass


def test_a_holder_that_was_paused_for_too_long_does_not_write_over_its_successor(bucket: str, holder):
    root = ObjectRoot(bucket, lease_s=TERM_S)
    holder.send_signal(signal.SIGSTOP)
    with root.lock(layout.slide_lock("s"), timeout=60):
        root.put(layout.tissue_labels_key("s"), b"second")
        holder.send_signal(signal.SIGCONT)
        assert holder.communicate("\n", timeout=60)[0].split() == ["locked"]
    assert root.read(layout.tissue_labels_key("s")) == b"second"
    assert root.read(layout.tissue_labels_key("t")) == b"of another slide"


def test_a_holder_that_was_paused_and_not_missed_goes_on(bucket: str, holder):
    holder.send_signal(signal.SIGSTOP)
    time.sleep(1.5 * TERM_S)
    holder.send_signal(signal.SIGCONT)
    assert holder.communicate("\n", timeout=60)[0].split() == ["written"]
    assert ObjectRoot(bucket).keys("locks") == []


COUNTER = """
    import sys
    from pathlib import Path
    from pathassets.store.object_root import ObjectRoot
    root, counter = ObjectRoot(sys.argv[1]), Path(sys.argv[2])
    print("ready")
    for _ in range(10):
        with root.lock("x", timeout=120):
            counter.write_text(str(int(counter.read_text()) + 1))
"""


def test_no_two_processes_ever_hold_a_lease(bucket: str, tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    children = [start(COUNTER, bucket, counter) for _ in range(3)]
    for child in children:
        assert child.communicate(timeout=180)[1] == ""
    assert counter.read_text() == "30"
    assert ObjectRoot(bucket).keys() == []
