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
from pathassets.store import Root
from pathassets.store.root import DAY_S

from .conftest import fill_disk, start


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "store")


def test_what_is_put_can_be_read_and_listed(root: Root):
    root.put("b/two", b"22")
    root.put("a/one", b"1")
    assert root.read("b/two") == b"22"
    assert root.keys() == ["a/one", "b/two"]
    assert root.keys("a") == ["a/one"]
    assert root.keys("nothing") == []
    root.put("b/c/three", b"3")
    assert root.folders("b") == ["c"]


def test_what_is_missing_is_said_or_none(root: Root):
    assert root.read_if_there("a/b") is None
    root.put("file", b"x")
    assert root.read_if_there("file/below") is None
    with pytest.raises(StoreError) as caught:
        root.read("a/b")
    assert caught.value.reason is Reason.STORE_CORRUPT


def test_an_equal_file_is_not_touched(root: Root):
    assert root.put_if_changed("k", b"1")
    before = root.entries()[0]
    assert not root.put_if_changed("k", b"1")
    assert root.entries()[0] == before
    assert root.put_if_changed("k", b"2")
    assert root.entries()[0].etag != before.etag


def test_replacing_within_one_tick_of_the_clock_changes_the_etag(root: Root):
    etags = set()
    for value in (b"1", b"2"):
        root.put("k", value)
        os.utime(root.local("k"), ns=(1_000, 1_000))
        etags.add(root.entries()[0].etag)
    assert len(etags) == 2


def test_a_failed_write_leaves_the_old_content_and_no_litter(root: Root):
    root.put("k", b"old")

    def fail() -> None:
        with root.staged("k") as temp:
            temp.write_bytes(b"half")
            raise RuntimeError("power")

    with pytest.raises(RuntimeError):
        fail()
    assert root.read("k") == b"old"
    assert os.listdir(root.path) == ["k"]


def test_half_written_files_are_hidden_and_swept_when_a_day_old(root: Root):
    root.put("a/k", b"1")
    old, young = root.path / "a" / ".k.1.abc.tmp", root.path / "a" / ".k.2.abc.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - DAY_S - 60,) * 2)
    assert root.keys() == ["a/k"]
    assert root.temp_files() == [old]
    assert root.sweep() == 1
    assert (old.exists(), young.exists()) == (False, True)


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/.", "a\\b", "a\0"])
def test_no_key_leaves_the_root(root: Root, key: str):
    for operation in (root.read, root.exists, root.delete, root.local):
        with pytest.raises(ValueError, match="not a key"):
            operation(key)
    with pytest.raises(ValueError, match="not a key"):
        root.put(key, b"x")


def test_delete_takes_files_and_folders(root: Root):
    for key in ("a/b/1", "a/b/2", "a/c"):
        root.put(key, b"x")
    assert root.delete("a/b")
    assert root.keys() == ["a/c"]
    assert root.delete("a/c")
    assert not root.delete("a/c")
    assert not root.delete("never")


def test_many_threads_and_one_key_never_show_half_a_value(root: Root):
    import threading

    values = [bytes([65 + i]) * 50_000 for i in range(4)]
    root.put("k", values[0])
    threads = [threading.Thread(target=lambda v=v: [root.put("k", v) for _ in range(30)]) for v in values]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        seen.add(root.read("k"))
    assert seen <= set(values)
    assert root.temp_files(older_than=-60) == []


HOLDER = """
    import sys, time
    from pathassets.store import Root
    with Root(sys.argv[1]).lock("x"):
        print("ready")
        time.sleep(float(sys.argv[2]))
"""


def test_a_lock_names_its_holder_and_dies_with_it(root: Root):
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


def test_a_lock_can_be_waited_for(root: Root):
    child = start(HOLDER, root.path, 0.3)
    with root.lock("x", timeout=60):
        assert child.wait(60) == 0
    child.communicate()


def test_a_lock_keeps_out_other_threads_of_the_same_process(root: Root):
    with root.lock("x"), pytest.raises(StoreError), root.lock("x"):
        pass
    with root.lock("x"), root.lock("y"):
        pass


COUNTER = """
    import sys
    from pathlib import Path
    from pathassets.store import Root
    root, counter = Root(sys.argv[1]), Path(sys.argv[2])
    print("ready")
    for _ in range(50):
        with root.lock("x", timeout=120):
            counter.write_text(str(int(counter.read_text()) + 1))
"""


def test_no_two_ever_hold_a_lock_although_its_file_comes_and_goes(root: Root, tmp_path: Path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    children = [start(COUNTER, root.path, counter) for _ in range(3)]
    for child in children:
        assert child.communicate(timeout=180)[1] == ""
    assert counter.read_text() == "150"
    assert os.listdir(root.path / "locks") == []


def test_the_lock_of_a_file_that_was_just_removed_is_no_lock(root: Root, monkeypatch: pytest.MonkeyPatch):
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
    root = Root(disk / "store")
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
    root = Root(disk / "store")
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


def test_check_writable_leaves_nothing(root: Root):
    root.check_writable()
    assert list(root.path.iterdir()) == []
    assert root.free_bytes() > 0
    assert Root(root.path / "not" / "yet").free_bytes() > 0
