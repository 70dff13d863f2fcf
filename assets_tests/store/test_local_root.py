"""What only a disk does: hidden names, locks of the operating system, full and read-only disks."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pathassets.errors import Reason, StoreError
from pathassets.store.local_root import LocalRoot
from pathassets.store.root import DAY_S

from .conftest import fill_disk, start


@pytest.fixture
def root(tmp_path: Path) -> LocalRoot:
    return LocalRoot(tmp_path / "store")


def test_replacing_within_one_tick_of_the_clock_changes_the_etag(root: LocalRoot):
    etags = set()
    for value in (b"1", b"2"):
        root.put("k", value)
        os.utime(root.local("k"), ns=(1_000, 1_000))
        etags.add(root.entries()[0].etag)
    assert len(etags) == 2


def test_a_failed_write_leaves_the_old_content_and_no_litter(root: LocalRoot):
    root.put("k", b"old")

    def fail() -> None:
        with root.staged("k") as temp:
            temp.write_bytes(b"half")
            raise RuntimeError("power")

    with pytest.raises(RuntimeError):
        fail()
    assert root.read("k") == b"old"
    assert os.listdir(root.path) == ["k"]


def test_half_written_files_are_hidden_and_swept_when_a_day_old(root: LocalRoot):
    root.put("a/k", b"1")
    old, young = root.path / "a" / ".k.1.abc.tmp", root.path / "a" / ".k.2.abc.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - DAY_S - 60,) * 2)
    assert root.keys() == ["a/k"]
    assert root.temp_files() == [old]
    assert root.sweep() == 1
    assert (old.exists(), young.exists()) == (False, True)


HOLDER = """
    import sys, time
    from pathassets.store.local_root import LocalRoot
    with LocalRoot(sys.argv[1]).lock("x"):
        print("ready")
        time.sleep(float(sys.argv[2]))
"""


def test_a_lock_names_its_holder_and_dies_with_it(root: LocalRoot):
    child = start(HOLDER, root.path, 600)
    try:
        with pytest.raises(StoreError, match=f"process {child.pid} ") as caught, root.lock("x", timeout=0.1):
            pass
        assert caught.value.reason is Reason.LOCKED
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    with root.lock("x"):
        pass


def test_a_lock_can_be_waited_for(root: LocalRoot):
    child = start(HOLDER, root.path, 0.3)
    with root.lock("x", timeout=60):
        assert child.wait(60) == 0
    child.communicate()


def test_a_lock_keeps_out_other_threads_of_the_same_process(root: LocalRoot):
    with root.lock("x"), pytest.raises(StoreError), root.lock("x"):
        pass
    with root.lock("x"), root.lock("y"):
        pass


COUNTER = """
    import sys
    from pathlib import Path
    from pathassets.store.local_root import LocalRoot
    root, counter = LocalRoot(sys.argv[1]), Path(sys.argv[2])
    print("ready")
    for _ in range(50):
        with root.lock("x", timeout=120):
            counter.write_text(str(int(counter.read_text()) + 1))
"""


def test_no_two_ever_hold_a_lock_although_its_file_comes_and_goes(root: LocalRoot, tmp_path: Path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    children = [start(COUNTER, root.path, counter) for _ in range(3)]
    for child in children:
        assert child.communicate(timeout=180)[1] == ""
    assert counter.read_text() == "150"
    assert os.listdir(root.path / "locks") == []


def test_the_lock_of_a_file_that_was_just_removed_is_no_lock(root: LocalRoot, monkeypatch: pytest.MonkeyPatch):
    path, real, others = root.path / "locks" / "x.lock", fcntl.flock, []

    def flock(handle: int, operation: int) -> None:
        if not others:  # between opening and locking: the holder gives it back, the next one takes it
            path.unlink()
            others.append(os.open(path, os.O_RDWR | os.O_CREAT))
            real(others[0], fcntl.LOCK_EX)
        real(handle, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StoreError) as caught, root.lock("x"):
        pass
    assert caught.value.reason is Reason.LOCKED
    os.close(others[0])


def test_a_full_disk_is_said_and_the_old_content_stays(tmpfs: Callable[[str], Path]):
    disk = tmpfs("1m")
    root = LocalRoot(disk / "store")
    root.put("a/k", b"old")
    filler = fill_disk(disk)
    with pytest.raises(StoreError) as caught:
        root.put("a/k", b"new" * 100_000)
    assert caught.value.reason is Reason.DISK_FULL
    assert caught.value.remedy
    with pytest.raises(StoreError) as caught:
        root.check_writable()
    assert caught.value.reason is Reason.DISK_FULL
    assert root.read("a/k") == b"old"
    assert root.temp_files(older_than=-60) == []
    filler.unlink()
    root.check_writable()
    root.put("a/k", b"new")


def test_a_read_only_store_is_said(tmpfs: Callable[[str], Path]):
    disk = tmpfs("1m")
    root = LocalRoot(disk / "store")
    root.put("k", b"1")
    root.check_writable()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for operation in (
        root.check_writable,
        lambda: root.put("k", b"2"),
        lambda: root.delete("k"),
        lambda: root.put("x/y", b""),
    ):
        with pytest.raises(StoreError) as caught:
            operation()
        assert caught.value.reason is Reason.STORE_READ_ONLY
        assert caught.value.remedy
    with pytest.raises(StoreError), root.lock("x"):
        pass
    assert root.read("k") == b"1"


def test_check_writable_leaves_nothing(root: LocalRoot):
    root.check_writable()
    assert list(root.path.iterdir()) == []
    assert root.free_bytes() > 0
    assert LocalRoot(root.path / "not" / "yet").free_bytes() > 0
