"""Slides in an object store: a real S3-compatible server, and fsspec's memory."""

from __future__ import annotations

import shutil

import fsspec
import pytest
from dicoms_for_tests import dicom

from pathassets.slides import content_digest, identity, remote
from pathassets.slides.parts import Heads, slides_among
from pathassets.slides.remote import entry_at, found_at, list_place, read_range, remote_digest


def look(uri):
    listing = list_place(uri)
    assert listing.blind == {}
    found = slides_among(listing.entries, Heads(read=remote.read_head))
    return {item.path.removeprefix(f"{uri}/"): item for item in found}


def test_a_bucket_is_listed_with_all_below(bucket):
    for key in (
        "slides/b.svs",
        "slides/a/c.svs",
        "slides/notes.txt",
        "slides/.hid/d.svs",
        "slides/x.zarr/e.tif",
        "other/f.svs",
    ):
        bucket.put(key, key.encode())
    found = look(f"{bucket.uri}/slides")
    assert [name for name, item in found.items() if not item.ignored] == ["a/c.svs", "b.svs"]
    assert [name for name, item in found.items() if item.ignored] == ["notes.txt"]
    assert found["b.svs"].size == len("slides/b.svs")
    assert found["b.svs"].mtime_ns > 0
    assert found["b.svs"].version


def test_an_object_has_the_stamp_that_a_listing_gives_it_until_it_is_put_again(bucket):
    uri = bucket.put("slides/a.svs", b"12345")
    listed = look(f"{bucket.uri}/slides")["a.svs"]
    assert found_at(uri) == listed
    bucket.put("slides/a.svs", b"54321")  # within the same second, of the same size
    assert look(f"{bucket.uri}/slides")["a.svs"].stamp == found_at(uri).stamp != listed.stamp


def test_slides_of_many_objects_are_one(bucket):
    bucket.put("in/a.mrxs", b"i")
    bucket.put("in/a/Slidedat.ini", b"s")
    bucket.put("in/a/Data0000.dat", b"12")
    bucket.put("in/x/1.dcm", dicom("1.5"))
    bucket.put("in/x/2.dcm", dicom("1.5"))
    bucket.put("in/v.vms", b"ImageFile=v.jpg\n")
    bucket.put("in/v.jpg", b"1")
    found = look(f"{bucket.uri}/in")
    assert {name: len(item.parts) for name, item in found.items()} == {"a.mrxs": 2, "v.vms": 1, "x/1.dcm": 1}
    for item in found.values():
        assert found_at(item.path) == item


def test_the_id_of_a_slide_does_not_depend_on_where_it_lies(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "WHOLE_BELOW_BYTES", 10_000)
    monkeypatch.setattr(identity, "SAMPLE_BYTES", 16)
    files = {"small.svs": b"s" * 9_000, "large.svs": bytes(range(256)) * 100, "m.mrxs": b"i", "m/Slidedat.ini": b"s"}
    for name, content in files.items():
        bucket.put(f"in/{name}", content)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for name in ("small.svs", "large.svs", "m.mrxs"):
        assert remote_digest(found_at(f"{bucket.uri}/in/{name}")) == content_digest(tmp_path / name)


def test_keys_of_all_kinds(bucket):
    keys = [
        'it\'s "x".svs',
        "-rf.svs",
        "é 切片 🔬.svs",
        "n" * 400 + ".svs",
        "a?b*[c].svs",
        "100% & more+1.svs",
        "d//e.svs",
    ]
    for key in keys:
        bucket.put(f"in/{key}", key.encode())
    found = look(f"{bucket.uri}/in")
    assert sorted(found) == sorted(keys)
    for key, item in found.items():
        assert read_range(item.path, 0, 10_000) == key.encode()
        assert entry_at(item.path).size == item.size


@pytest.mark.parametrize("start", [0, 3, 9])
def test_ranges_end_where_the_object_ends(bucket, start):
    uri = bucket.put("a.svs", b"0123456789")
    assert read_range(uri, start, 5) == b"0123456789"[start : start + 5]


def test_what_is_not_there_says_so(bucket):
    assert list_place(f"{bucket.uri}/nothing").entries == []
    assert list(list_place("s3://no-such-bucket-anywhere").blind) == ["s3://no-such-bucket-anywhere"]
    for uri in (f"{bucket.uri}/nothing.svs", "s3://no-such-bucket-anywhere/a.svs"):
        with pytest.raises(FileNotFoundError):
            found_at(uri)
    bucket.put("folder/a.svs", b"x")
    with pytest.raises(FileNotFoundError):
        found_at(f"{bucket.uri}/folder")


def test_a_store_that_does_not_answer_is_blind(no_server):
    (why,) = list_place("s3://lab/slides").blind.values()
    assert "connect" in why.lower()


def test_a_store_that_nobody_can_speak_to_is_blind():
    (why,) = list_place("nonsense://lab/slides").blind.values()
    assert "nonsense" in why


def test_a_library_that_is_missing_is_named(monkeypatch):
    def without_it(uri, **options):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", without_it)
    assert list(list_place("s3://lab").blind.values()) == ["ImportError: Install s3fs to access S3"]


def test_other_stores_of_fsspec(tmp_path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/lab-of-this-test/sub/a.svs", b"12345")
    memory.pipe("/lab-of-this-test/sub/new\nline.svs", b"1")  # which the S3 server of the tests does not take
    found = look("memory://lab-of-this-test")
    assert [(name, item.size) for name, item in found.items()] == [("sub/a.svs", 5), ("sub/new\nline.svs", 1)]
    assert found_at("memory://lab-of-this-test/sub/a.svs") == found["sub/a.svs"]
    memory.rm("/lab-of-this-test", recursive=True)
    (tmp_path / "a.svs").write_bytes(b"123")
    local = look(f"file://{tmp_path}")["a.svs"]
    assert (local.size, local.mtime_ns // 10**9) == (3, (tmp_path / "a.svs").stat().st_mtime_ns // 10**9)
    shutil.rmtree(tmp_path)
