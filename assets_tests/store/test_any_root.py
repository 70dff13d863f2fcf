"""What every root promises, held by the one on a disk and by the one in a bucket."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import polars as pl
import pytest
import zarr

from pathassets.errors import Reason, StoreError
from pathassets.store import Root, open_root


@pytest.fixture(params=["disk", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Root:
    return open_root(tmp_path / "store" if request.param == "disk" else request.getfixturevalue("bucket"))


def test_what_is_put_can_be_read_and_listed(root: Root):
    assert not root.is_there()
    root.put("b/two", b"22")
    root.put("a/one=1/x y", b"1")
    assert root.is_there()
    assert root.read("b/two") == b"22"
    assert root.keys() == ["a/one=1/x y", "b/two"]
    assert root.keys("a") == ["a/one=1/x y"]
    assert root.keys("a/one") == root.keys("nothing") == []
    assert [(entry.size, entry.key) for entry in root.entries("b")] == [(2, "b/two")]
    root.put("b/c/three", memoryview(b"3"))
    assert (root.folders("b"), root.folders("nothing")) == (["c"], [])
    assert root.sha256("b/two") == hashlib.sha256(b"22").hexdigest()


def test_there_is_what_lies_under_a_key_or_below_it(root: Root):
    root.put("a/b/c", b"")
    assert [root.exists(key) for key in ("a/b/c", "a/b", "a", "a/b/c/d", "b")] == [True, True, True, False, False]


def test_what_is_missing_is_said_or_none(root: Root):
    root.put("file", b"x")
    assert root.read_if_there("a/b") is root.read_if_there("file/below") is None
    for look in (root.read, root.sha256):
        with pytest.raises(StoreError) as caught:
            look("a/b")
        assert caught.value.reason is Reason.STORE_CORRUPT


def test_equal_content_is_not_written_again_and_other_content_has_another_etag(root: Root):
    assert root.put_if_changed("k", b"1")
    before = root.entries()[0]
    assert not root.put_if_changed("k", b"1")
    assert root.entries()[0] == before
    assert root.put_if_changed("k", b"2")
    assert root.entries()[0].etag != before.etag


def test_delete_takes_one_and_all_that_lie_below(root: Root):
    for key in ("a/b/1", "a/b/2", "a/bc", "a/d"):
        root.put(key, b"x")
    assert root.delete("a/b")
    assert root.keys() == ["a/bc", "a/d"]
    assert root.delete("a/d")
    assert not root.delete("a/d")
    assert root.keys() == ["a/bc"]


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a\\b", "a\0"])
def test_no_key_leaves_the_root(root: Root, key: str):
    for operation in (root.read, root.exists, root.delete, root.address, root.sha256):
        with pytest.raises(ValueError, match="not a key"):
            operation(key)
    with pytest.raises(ValueError, match="not a key"):
        root.put(key, b"x")
    with pytest.raises(ValueError, match="not a key"), root.staged(key):
        pass


def test_an_address_leads_back_to_its_key(root: Root):
    assert root.address("a/b") == f"{root.uri}/a/b"
    assert root.key_of(root.address("a/b")) == root.key_of("a/b") == "a/b"
    for elsewhere in ("/somewhere/else/a", "s3://another/a", f"{root.uri}-2/a"):
        with pytest.raises(StoreError, match="does not lie in the store"):
            root.key_of(elsewhere)


def test_a_staged_file_appears_when_the_block_ends_well_and_only_then(root: Root):
    def fail() -> None:
        with root.staged("k") as temp:
            temp.write_bytes(b"half")
            raise RuntimeError("power")

    with root.staged("k") as temp:
        temp.write_bytes(b"old")
        assert root.keys() == []
    with pytest.raises(RuntimeError):
        fail()
    assert root.read("k") == b"old"
    assert root.keys() == ["k"]


def test_a_library_finds_what_lies_in_the_workshop_and_leaves_what_it_makes(root: Root):
    root.put("g/zarr.json", b"{}")
    with root.workshop("g") as folder:
        assert (folder / "zarr.json").read_bytes() == b"{}"
        (folder / "obs").mkdir()
        (folder / "obs" / "x").write_bytes(b"1")
    root.settle("g")
    assert root.keys() == ["g/obs/x", "g/zarr.json"]


def test_files_lie_under_their_keys(root: Root):
    root.put("a/b", b"1")
    root.put("c", b"2")
    with root.files(["a/b", "c", "gone"]) as folder:
        assert ((folder / "a/b").read_bytes(), (folder / "c").read_bytes()) == (b"1", b"2")
        assert not (folder / "gone").exists()


def test_polars_scans_what_parquet_gives(root: Root):
    for name in ("a", "b"):
        with root.staged(f"{name}.parquet") as path:
            pl.DataFrame({"x": [name]}).write_parquet(path)
    assert pl.scan_parquet(root.parquet(["a.parquet", "b.parquet"])).collect()["x"].to_list() == ["a", "b"]


def test_zarr_reads_what_zarr_has_written(root: Root):
    import numpy as np

    store = root.zarr("g.zarr", durable=True)
    group = zarr.create_group(store, zarr_format=3, attributes={"a": 1})
    values = np.arange(12.0).reshape(6, 2)
    group.create_array("x", shape=(6, 2), chunks=(1, 2), shards=(3, 2), dtype="float64")[:] = values
    again = zarr.open_group(root.zarr("g.zarr"), mode="r")
    assert again.attrs["a"] == 1
    assert (again["x"][:] == values).all()
    assert (again["x"][4:5] == values[4:5]).all()
    assert list(again.keys()) == ["x"]
    del group["x"]
    assert root.keys("g.zarr") == ["g.zarr/zarr.json"]


def test_many_at_once_come_in_order(root: Root):
    assert root.map(lambda n: n * n, range(100)) == [n * n for n in range(100)]


def test_many_threads_and_one_key_never_show_half_a_value(root: Root):
    values = [bytes([65 + i]) * 50_000 for i in range(3)]
    root.put("k", values[0])
    threads = [threading.Thread(target=lambda v=v: [root.put("k", v) for _ in range(10)]) for v in values]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        seen.add(root.read("k"))
    assert seen <= set(values)
    assert root.keys() == ["k"]


def test_check_writable_leaves_nothing(root: Root):
    root.check_writable()
    assert root.keys() == []


def test_a_lock_keeps_out_others_names_its_holder_and_leaves_nothing(root: Root):
    with root.lock("x") as held:
        held.check()
        with pytest.raises(StoreError, match="x is being worked on by process") as caught, root.lock("x"):
            pass
        assert caught.value.reason is Reason.LOCKED
        with root.lock("y"):
            pass
    with root.lock("x"):
        pass
    assert root.keys() == []


def test_nothing_half_written_is_left(root: Root):
    assert (root.temp_files(-60), root.sweep(-60)) == ([], 0)
    root.put("a/b", b"")
    root.clear_leftovers("a")
    root.delete_empty("a")
    assert root.keys() == ["a/b"]
