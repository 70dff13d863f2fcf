"""Local copies of remote slides: whole or not there, bounded, and never taken from under a reader."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pathassets.errors import Reason, SlideError
from pathassets.slides import copies as copies_module
from pathassets.slides.copies import Copies, OutOfTimeError
from pathassets.slides.discover import Entry
from pathassets.slides.parts import Found
from pathassets.slides.remote import found_at

URI = "s3://lab/in/"


class Store:
    """Objects in memory, each read counted."""

    def __init__(self, **objects: bytes) -> None:
        self.objects = {f"{URI}{name}": data for name, data in objects.items()}
        self.reads: list[tuple[str, int]] = []
        self.before_read = lambda uri, start: None

    def read(self, uri, start, n_bytes):
        self.before_read(uri, start)
        self.reads.append((uri.removeprefix(URI), start))
        return self.objects[uri][start : start + n_bytes]

    def look(self, uri):
        return Entry(uri, len(self.objects[uri]), 7, str(hash(self.objects[uri])))

    def found(self, name, parts=()):
        found = Found.of_one(self.look(f"{URI}{name}"))
        return found._replace(
            parts=tuple(self.look(f"{URI}{part}") for part in parts), version=f"{found.version}{parts}"
        )

    def copies(self, folder, limit_bytes=10**6):
        return Copies(folder, limit_bytes, self.read, self.look)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Objects come in blocks of 10 bytes."""
    monkeypatch.setattr(copies_module, "BLOCK_BYTES", 10)


def use(copies, found, when=0.0):
    """Reads a slide once; `when` is the time of that use."""
    with copies.held(found) as path:
        data = path.read_bytes()
    if when:
        os.utime(copies.folder / f"{copies_module._token(found)}.lock", (when, when))
    return data


def here(copies):
    return sorted(path.name for folder in copies.folder.iterdir() if folder.is_dir() for path in folder.iterdir())


def test_a_slide_is_brought_once_and_has_its_name(tmp_path):
    store = Store(**{"a.svs": bytes(range(35))})
    copies = store.copies(tmp_path / "cache")
    with copies.held(store.found("a.svs")) as path:
        assert path.name == "a.svs"
        assert path.read_bytes() == bytes(range(35))
    use(copies, store.found("a.svs"))
    assert [start for _, start in store.reads] == [0, 10, 20, 30]


def test_a_changed_object_is_another_copy(tmp_path):
    store = Store(**{"a.svs": b"old"})
    copies = store.copies(tmp_path)
    old = store.found("a.svs")
    with copies.held(old) as path:
        store.objects[f"{URI}a.svs"] = b"new"
        assert use(copies, store.found("a.svs")) == b"new"
        assert path.read_bytes() == b"old"


def test_parts_lie_where_the_reader_looks_for_them(tmp_path):
    store = Store(**{"a.mrxs": b"i", "a/Slidedat.ini": b"s", "a/deep/Data.dat": bytes(25)})
    copies = store.copies(tmp_path)
    with copies.held(store.found("a.mrxs", ("a/Slidedat.ini", "a/deep/Data.dat"))) as path:
        assert (path.parent / "a" / "Slidedat.ini").read_bytes() == b"s"
        assert (path.parent / "a" / "deep" / "Data.dat").read_bytes() == bytes(25)


@pytest.mark.parametrize("name", ["../../evil", "a/../../../evil", "/etc/evil", "nul\0"])
def test_a_part_that_would_leave_the_folder_is_refused(tmp_path, name):
    store = Store(**{"a.mrxs": b"i", name: b"evil"})
    folder = tmp_path / "deep" / "er" / "cache"
    with pytest.raises(OSError, match="name"), store.copies(folder).held(store.found("a.mrxs", (name,))):
        pass
    assert not [path for path in tmp_path.rglob("*evil*") if path.is_file()]


@pytest.mark.parametrize("name", ["n" * 300 + ".svs", "é" * 150 + ".svs", "nul\0.svs", ".."])
def test_a_name_that_no_file_can_have_is_replaced(tmp_path, name):
    store = Store(**{name: b"x"})
    assert use(store.copies(tmp_path), store.found(name)) == b"x"


def test_the_least_recently_used_copies_give_way(tmp_path):
    store = Store(**{f"{name}.svs": bytes(10) for name in "abcdefghij"}, **{"new.svs": bytes(60)})
    copies = store.copies(tmp_path, limit_bytes=100)
    for moment, name in enumerate("hcajfbgide", 1):
        use(copies, store.found(f"{name}.svs"), when=moment)
    use(copies, store.found("h.svs"), when=500)  # the oldest, used again
    use(copies, store.found("new.svs"), when=600)
    assert here(copies) == ["d.svs", "e.svs", "h.svs", "i.svs", "new.svs"]
    assert copies.total_bytes() == 100


def test_what_is_read_does_not_give_way_and_who_needs_room_waits_for_it(tmp_path):
    store = Store(**{f"{name}.svs": bytes(60) for name in "ab"})
    copies = store.copies(tmp_path, limit_bytes=100)
    waited = []

    def second():
        use(copies, store.found("b.svs"))
        waited.append(time.monotonic())

    with copies.held(store.found("a.svs")) as path:
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        assert path.read_bytes() == bytes(60)
        assert not waited
        released = time.monotonic()
    thread.join(10)
    assert waited
    assert waited[0] > released
    assert here(copies) == ["b.svs"]


def test_waiting_for_room_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(copies_module, "WAIT_SECONDS", 0.2)
    store = Store(**{f"{name}.svs": bytes(60) for name in "ab"})
    copies = store.copies(tmp_path, limit_bytes=100)
    with copies.held(store.found("a.svs")), pytest.raises(SlideError) as caught, copies.held(store.found("b.svs")):
        pass
    assert caught.value.reason is Reason.DISK_FULL


def test_a_slide_larger_than_the_limit_is_refused_and_takes_nothing_away(tmp_path):
    store = Store(**{"a.svs": bytes(60), "huge.svs": bytes(101)})
    copies = store.copies(tmp_path, limit_bytes=100)
    use(copies, store.found("a.svs"))
    with pytest.raises(SlideError) as caught, copies.held(store.found("huge.svs")):
        pass
    assert caught.value.reason is Reason.DISK_FULL
    assert "cache_gb" in caught.value.remedy
    assert here(copies) == ["a.svs"]


def test_a_copy_that_fails_is_not_there_and_is_gone_on_with(tmp_path):
    store = Store(**{"a.svs": bytes(range(55))})
    copies = store.copies(tmp_path)

    def hangs_up(uri, start):
        if start == 40:
            raise OSError("the share hung up")

    store.before_read = hangs_up
    with pytest.raises(OSError, match="hung up"), copies.held(store.found("a.svs")):
        pass
    assert not (tmp_path / copies_module._token(store.found("a.svs"))).exists()
    store.before_read = lambda uri, start: None
    del store.reads[:]
    assert use(copies, store.found("a.svs")) == bytes(range(55))
    assert [start for _, start in store.reads] == [30, 40, 50]  # one block back: the last may not be on the disk


def test_a_deadline_puts_it_off_and_nothing_is_lost(tmp_path):
    store = Store(**{"a.svs": bytes(range(100))})
    copies = store.copies(tmp_path)
    ticks = 0
    while True:
        deadline = time.monotonic() + 0.05
        store.before_read = lambda uri, start: time.sleep(0.02)
        ticks += 1
        try:
            with copies.held(store.found("a.svs"), deadline) as path:
                assert path.read_bytes() == bytes(range(100))
            break
        except OutOfTimeError:
            assert ticks < 30
    assert ticks > 1
    assert len(store.reads) < 40


def test_an_object_that_changes_while_it_is_read_is_never_a_copy(tmp_path):
    store = Store(**{"a.svs": b"a" * 30})
    copies = store.copies(tmp_path)

    def replace(uri, start):
        if start == 10:
            store.objects[uri] = b"b" * 30

    store.before_read = replace
    with pytest.raises(OSError, match="changed"), copies.held(store.found("a.svs")):
        pass
    assert here(copies) == []


def test_an_object_shorter_than_its_store_says_is_an_error(tmp_path):
    store = Store(**{"a.svs": b"a" * 30})
    found = store.found("a.svs")._replace(size=35)
    with pytest.raises(OSError, match="shorter"), store.copies(tmp_path).held(found):
        pass


def test_many_readers_at_once_bring_it_once(tmp_path):
    store = Store(**{"a.svs": bytes(range(50))})
    store.before_read = lambda uri, start: time.sleep(0.01)
    copies = store.copies(tmp_path)
    data = []
    threads = [threading.Thread(target=lambda: data.append(use(copies, store.found("a.svs")))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert data == [bytes(range(50))] * 8
    assert len(store.reads) == 5


CHILD = """
import sys, time
from pathlib import Path
from pathassets.slides import copies
from pathassets.slides.discover import Entry
from pathassets.slides.parts import Found
copies.BLOCK_BYTES = 10
def read(uri, start, n):
    if start == 30 and sys.argv[2] == "hang":
        print("reading", flush=True)
        time.sleep(60)
    return bytes(range(start, start + n))
cache = copies.Copies(Path(sys.argv[1]), 100, read, lambda uri: Entry(uri, 60, 7, "v"))
with cache.held(Found.of_one(Entry("s3://lab/in/a.svs", 60, 7, "v"))) as path:
    print(path, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def child(tmp_path):
    """Starts a process that brings a slide and holds it."""
    started = []

    def start(how):
        process = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), how], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_process_killed_while_it_brings_a_slide_leaves_nothing_in_the_way(tmp_path, child):
    process = child("hang")
    process.send_signal(signal.SIGKILL)
    process.wait()
    copies = Copies(
        tmp_path, 100, lambda uri, start, n: bytes(range(start, start + n)), lambda uri: Entry(uri, 60, 7, "v")
    )
    assert here(copies) == ["a.svs"]  # of the unfinished copy
    assert use(copies, Found.of_one(Entry(f"{URI}a.svs", 60, 7, "v"))) == bytes(range(60))
    other = Store(**{"b.svs": bytes(90)})
    assert use(other.copies(tmp_path, 100), other.found("b.svs")) == bytes(90)
    assert here(copies) == ["b.svs"]


def test_a_copy_that_another_process_reads_stays(tmp_path, child, monkeypatch):
    monkeypatch.setattr(copies_module, "WAIT_SECONDS", 0.2)
    process = child("hold")
    other = Store(**{"b.svs": bytes(90)})
    with pytest.raises(SlideError), other.copies(tmp_path, 100).held(other.found("b.svs")):
        pass
    process.kill()
    process.wait()
    assert use(other.copies(tmp_path, 100), other.found("b.svs")) == bytes(90)


def test_a_full_disk_is_the_disks_error(tmp_path):
    store = Store(**{"a.svs": bytes(30)})

    def full(uri, start):
        raise OSError(28, "No space left on device")

    store.before_read = full
    with pytest.raises(OSError, match="No space") as caught, store.copies(tmp_path).held(store.found("a.svs")):
        pass
    assert caught.value.errno == 28


def test_real_slides_from_a_real_server(bucket, tmp_path, cmu):
    uri = bucket.put("in/cmu.svs", cmu.read_bytes())
    copies = Copies(tmp_path / "cache", 10**9)
    copies_module.BLOCK_BYTES = 2**18
    with copies.held(found_at(uri)) as path:
        assert path.read_bytes() == cmu.read_bytes()
    shutil.rmtree(tmp_path / "cache")
    assert not Path(path).exists()
