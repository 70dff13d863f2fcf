"""Slide ids follow content and are safe wherever they are written."""

from __future__ import annotations

import hashlib
import re
import shutil

import pytest

from pathassets.slides import content_digest, identity, make_slide_id, same_content, slide_id
from pathassets.slides.identity import slug


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("CMU-1-Small-Region", "cmu-1-small-region"),
        ("TCGA_A.01", "tcga_a-01"),
        ("Ünïcode Präparat", "unicode-praparat"),
        ("a  b'\"c", "a-b-c"),
        ("../../etc/passwd", "etc-passwd"),
        ("切片", "slide"),
        ("", "slide"),
        ("---", "slide"),
        ("-rf", "rf"),
        ("new\nline\0", "new-line"),
        ("x" * 300, "x" * 48),
        ("x" * 47 + "-" * 300, "x" * 47),
        ("\udcff\udcfe", "slide"),
        ("ﬁle", "file"),
    ],
)
def test_slugs(stem, expected):
    assert slug(stem) == expected
    assert re.fullmatch(r"[a-z0-9_-]+", slug(stem))


def test_an_id_is_slug_and_content(cmu):
    whole = hashlib.sha256(cmu.read_bytes()).hexdigest()
    assert content_digest(cmu) == whole
    assert slide_id(cmu) == f"cmu-1-small-region-{whole[:8]}"
    assert make_slide_id(cmu, whole, digits=16) == f"cmu-1-small-region-{whole[:16]}"


def test_names_and_contents_make_the_id(tmp_path):
    a, b, c = tmp_path / "a" / "s.svs", tmp_path / "b" / "s.svs", tmp_path / "c" / "s.svs"
    for path, content in ((a, b"1"), (b, b"2"), (c, b"1")):
        path.parent.mkdir()
        path.write_bytes(content)
    assert slide_id(a) != slide_id(b)
    assert slide_id(a) == slide_id(c)
    assert same_content(a, c)
    assert not same_content(a, b)
    a.write_bytes(b"3")
    assert slide_id(a) != slide_id(c)


def test_files_that_cannot_be_read_are_named_by_their_path(tmp_path):
    (tmp_path / "a.svs").mkdir()
    (tmp_path / "b").mkdir()
    ids = {slide_id(tmp_path / "a.svs"), slide_id(tmp_path / "b" / "a.svs"), slide_id(tmp_path / "x\0y.svs")}
    assert len(ids) == 3
    assert slide_id(tmp_path / "a.svs") == slide_id(tmp_path / "a.svs")
    assert not same_content(tmp_path / "a.svs", tmp_path / "a.svs")


@pytest.fixture
def small_limits(monkeypatch):
    """Large files from 10 kB on."""
    monkeypatch.setattr(identity, "WHOLE_BELOW_BYTES", 10_000)
    monkeypatch.setattr(identity, "SAMPLE_BYTES", 16)


def test_large_files_are_hashed_by_size_head_tail_and_ranges(tmp_path, small_limits):
    path, other = tmp_path / "a.svs", tmp_path / "b.svs"
    content = bytearray(b"x" * 100_000)
    path.write_bytes(content)
    first = content_digest(path)
    for change in (0, 99_999, identity_start(100_000, 33)):
        changed = bytearray(content)
        changed[change] = 0
        other.write_bytes(changed)
        assert content_digest(other) != first
    other.write_bytes(content + b"x")
    assert content_digest(other) != first


def identity_start(size: int, i: int) -> int:
    return list(identity._sample_starts(size))[i]


def test_large_files_between_whose_samples_nothing_differs_have_one_digest_and_are_told_apart(tmp_path, small_limits):
    path, other = tmp_path / "a.svs", tmp_path / "b.svs"
    content = bytearray(b"x" * 100_000)
    path.write_bytes(content)
    content[identity_start(100_000, 5) + 20] = 0
    other.write_bytes(content)
    assert content_digest(path) == content_digest(other)
    assert not same_content(path, other)


def test_samples_are_head_64_ranges_and_tail():
    starts = list(identity._sample_starts(10**10))
    assert len(starts) == 66
    assert (starts[0], starts[-1]) == (0, 10**10 - identity.SAMPLE_BYTES)
    assert starts == sorted(set(starts))


def test_mrxs_parts_count(tmp_path):
    index, folder = tmp_path / "s.mrxs", tmp_path / "s"
    index.write_bytes(b"index")
    alone = content_digest(index)
    folder.mkdir()
    (folder / "Data0000.dat").write_bytes(b"12")
    with_part = content_digest(index)
    (folder / "Data0001.dat").write_bytes(b"12")
    with_two = content_digest(index)
    (folder / "Data0001.dat").write_bytes(b"123")
    assert len({alone, with_part, with_two, content_digest(index)}) == 4
    other = tmp_path / "copy"
    other.mkdir()
    shutil.copy(index, other / "s.mrxs")
    shutil.copytree(folder, other / "s")
    assert content_digest(other / "s.mrxs") == content_digest(index)
    assert same_content(index, other / "s.mrxs")
    (other / "s" / "Data0001.dat").write_bytes(b"abc")
    assert not same_content(index, other / "s.mrxs")


def test_dicom_parts_count(odd, tmp_path):
    source = odd / "highdicom_sm_image.dcm"
    shutil.copy(source, tmp_path / "a.dcm")
    alone = content_digest(tmp_path / "a.dcm")
    assert alone == content_digest(source)
    shutil.copy(source, tmp_path / "b.dcm")
    assert content_digest(tmp_path / "a.dcm") != alone


def test_a_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.svs")
    assert slide_id(tmp_path / "pipe.svs").startswith("pipe-")
