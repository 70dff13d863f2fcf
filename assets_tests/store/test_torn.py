"""Power cuts: what counts has reached the disk in the right order; what a lying disk has torn is found and made again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from assets_tests.store.conftest import tile_frame
from pathassets.errors import Reason, StoreError
from pathassets.store import Root, layout, open_root
from pathassets.store.arrays import OK, UNREADABLE, EmbeddingsWriter, read_embeddings
from pathassets.store.groups import tree_hashes

SLIDE, DIGEST, N, DIM = "cmu-12345678", "c0ffee" * 4, 200, 64
ROWS = np.random.default_rng(5).normal(size=(N, DIM)).astype(np.float32)
ROWS[70] = np.nan
STATUS = [UNREADABLE if i == 70 else OK for i in range(N)]


def writer_of(root: Root) -> EmbeddingsWriter:
    return EmbeddingsWriter(root, SLIDE, DIGEST, n_tiles=N, dim=DIM, shard_rows=64, dtype="float32")


def write(writer: EmbeddingsWriter, shards: list[int]) -> None:
    for shard in shards:
        span = writer.rows_of(shard)
        writer.write_shard(shard, ROWS[span], pl.DataFrame({"status": STATUS[span], "sharpness": ROWS[span, 0]}))


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return open_root(tmp_path / "store")


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, str]:
    """Hashes of the files of a group that nothing disturbed."""
    return finished(open_root(tmp_path / "undisturbed"))


def finished(root: Root) -> dict[str, str]:
    with writer_of(root) as writer:
        write(writer, writer.missing_shards())
        writer.finish(tile_frame(N))
    return tree_hashes(root, writer.group)


class Disk:
    """What happened to the disk, in order: `sync` of a file or folder, `rename` to a name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, Path]] = []
        self._fsync, self._replace = os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "replace", self.replace)

    def fsync(self, handle: int) -> None:
        self._fsync(handle)
        self.events.append(("sync", Path(os.readlink(f"/proc/self/fd/{handle}"))))

    def replace(self, source: Path, target: Path) -> None:
        self._replace(source, target)
        self.events += [("rename from", Path(source)), ("rename to", Path(target))]

    def position(self, kind: str, path: Path) -> int:
        return self.events.index((kind, path))

    def reached(self, path: Path) -> tuple[int, int]:
        """When a file was written for good: its content flushed, renamed, its name flushed; else the test fails."""
        renamed = self.position("rename to", path)
        source = self.events[renamed - 1][1]
        flushed = self.position("sync", source)
        named = next(i for i, e in enumerate(self.events) if i > renamed and e == ("sync", path.parent))
        assert flushed < renamed < named
        return flushed, named


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


@needs_proc
def test_a_shard_counts_once_content_and_name_are_on_the_disk_and_its_notes_before_it(root: Root, monkeypatch):
    with writer_of(root) as writer:
        disk = Disk(monkeypatch)
        write(writer, [1])
        shard, notes = (root.local(key) for key in (writer._shard_key(1), writer._notes_key(1)))
        assert disk.reached(notes)[1] < disk.reached(shard)[0]
        assert disk.events[-1] == ("sync", shard.parent), "nothing comes after the flush: the call has returned"
        # the shard's own folder was made for it: a power cut must not take the folder with the shard
        assert disk.position("sync", shard.parent.parent) < disk.position("rename to", shard)


@needs_proc
def test_the_marker_comes_when_every_file_of_the_group_is_on_the_disk(root: Root, monkeypatch):
    disk = Disk(monkeypatch)
    with writer_of(root) as writer:
        write(writer, writer.missing_shards())
        writer.finish(tile_frame(N))
    marker = root.local(layout.marker_key(writer.group))
    begun = disk.reached(marker)[0]
    for path in Path(writer.uri).rglob("*"):
        last_sync = max(i for i, e in enumerate(disk.events) if e == ("sync", path))
        assert last_sync < begun, path


def hole(data: bytes) -> bytes:
    """A block in the middle that never reached the disk."""
    return data[:4096] + bytes(4096) + data[8192:]


TEARS = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "without its last byte": lambda data: data[:-1],
    "zeros": lambda data: bytes(len(data)),
    "zeros at the end": lambda data: data[:-4096] + bytes(4096),
    "a hole": hole,
    "a flipped bit": lambda data: data[:5000] + bytes([data[5000] ^ 4]) + data[5001:],
}


def tear(path: Path, how: str) -> None:
    damaged = TEARS[how](path.read_bytes())
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)


@pytest.mark.parametrize("how", TEARS)
def test_a_torn_shard_is_computed_again_and_the_others_are_not(root: Root, whole: dict[str, str], how: str, caplog):
    with writer_of(root) as writer:
        write(writer, [0, 1, 2])
    tear(root.local(writer._shard_key(1)), how)
    with writer_of(root) as again:
        assert again.missing_shards() == [1, 3]
        assert "shard 1 is torn" in caplog.text
        write(again, again.missing_shards())
        again.finish(tile_frame(N))
    assert tree_hashes(root, again.group) == whole


@pytest.mark.parametrize("how", ["empty", "half", "zeros"])
def test_a_shard_whose_notes_are_torn_is_computed_again(root: Root, whole: dict[str, str], how: str):
    with writer_of(root) as writer:
        write(writer, [0, 1, 2])
    tear(root.local(writer._notes_key(2)), how)
    with writer_of(root) as again:
        assert again.missing_shards() == [2, 3]
        write(again, again.missing_shards())
        again.finish(tile_frame(N))
    assert tree_hashes(root, again.group) == whole


@pytest.mark.parametrize("name", ["zarr.json", "X/zarr.json"])
@pytest.mark.parametrize("how", ["empty", "half"])
def test_torn_metadata_is_written_again_and_costs_no_shard(root: Root, whole: dict[str, str], name: str, how: str):
    with writer_of(root) as writer:
        write(writer, [0, 1, 2])
    tear(Path(writer.uri) / name, how)
    with writer_of(root) as again:
        assert again.missing_shards() == [3]
        write(again, [3])
        again.finish(tile_frame(N))
    assert tree_hashes(root, again.group) == whole


@pytest.mark.parametrize("how", TEARS)
def test_a_finished_shard_that_the_disk_lost_later_is_an_error_and_never_other_numbers(root: Root, how: str):
    finished(root)
    group = layout.group_key(SLIDE, DIGEST, "embeddings")
    tear(root.local(f"{group}/X/c/1/0"), how)
    with pytest.raises(StoreError) as caught:
        read_embeddings(root, group).read()
    assert caught.value.reason is Reason.STORE_CORRUPT
    assert "--force" in caught.value.remedy


def test_bad_tiles_of_shards_that_are_there_are_counted(root: Root):
    with writer_of(root) as writer:
        write(writer, [0, 1])
        assert writer.n_bad == 0, "those of this writer are its caller's to count"
    with writer_of(root) as again:
        assert again.n_bad == 1
    tear(root.local(again._shard_key(1)), "half")
    with writer_of(root) as torn:
        assert torn.n_bad == 0
        write(torn, torn.missing_shards())
        torn.finish(tile_frame(N))
    with writer_of(root) as done:
        assert done.n_bad == 1
