"""Slides of many files: what belongs together, and what tells that it still changes."""

from __future__ import annotations

import os
import socket
import time

import pytest
from dicoms_for_tests import dicom

from pathassets.slides import content_digest
from pathassets.slides.discover import BROKEN, CLOSED, FOLDER, HIDDEN, NO_SLIDE, SPECIAL, UNFINISHED, Entry, list_folder
from pathassets.slides.parts import Heads, found_at, parts_of, slides_among


def write(folder, **files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def look(folder, heads=None):
    return {
        os.path.relpath(found.path, folder): found for found in slides_among(list_folder(str(folder)).entries, heads)
    }


def slides(folder):
    return {name: found for name, found in look(folder).items() if not found.ignored}


def test_mrxs_is_one_slide_with_its_folder(tmp_path):
    write(
        tmp_path,
        **{"a.mrxs": "i", "a/Slidedat.ini": "s", "a/Data0000.dat": "12", "a/deep/Data0001.dat": "1", "b.svs": "x"},
    )
    found = slides(tmp_path)
    assert list(found) == ["a.mrxs", "b.svs"]
    assert [os.path.relpath(part.path, tmp_path) for part in found["a.mrxs"].parts] == [
        "a/Data0000.dat",
        "a/Slidedat.ini",
        "a/deep/Data0001.dat",
    ]
    assert (found["a.mrxs"].lacks, found["b.svs"].lacks, found["b.svs"].version) == ("", "", "")


def test_a_part_that_grows_or_comes_changes_the_slide(tmp_path):
    write(tmp_path, **{"a.mrxs": "i", "a/Slidedat.ini": "s", "a/Data0000.dat": "12"})
    stamps = {slides(tmp_path)["a.mrxs"].stamp}
    write(tmp_path, **{"a/Data0000.dat": "123"})
    stamps.add(slides(tmp_path)["a.mrxs"].stamp)
    write(tmp_path, **{"a/.Data0001.dat.x7Gh2": "1"})  # as rsync names what is on its way
    stamps.add(slides(tmp_path)["a.mrxs"].stamp)
    os.utime(tmp_path / "a" / "Slidedat.ini", ns=(1, 1))
    stamps.add(slides(tmp_path)["a.mrxs"].stamp)
    assert len(stamps) == 4


def test_mrxs_whose_folder_has_not_come_yet_lacks_it_and_the_other_way_round(tmp_path):
    write(tmp_path, **{"a.mrxs": "i", "b/Slidedat.ini": "s", "b/preview.tif": "p"})
    assert {name: found.lacks for name, found in slides(tmp_path).items()} == {"a.mrxs": "its folder"}


def test_files_of_a_dicom_series_are_one_slide(tmp_path):
    write(
        tmp_path, **{"x/2.dcm": dicom("1.5"), "x/1.dcm": dicom("1.5"), "x/3.dcm": dicom("1.6"), "y/1.dcm": dicom("1.5")}
    )
    found = slides(tmp_path)
    assert {name: len(item.parts) for name, item in found.items()} == {"x/1.dcm": 1, "x/3.dcm": 0, "y/1.dcm": 0}
    before = found["x/1.dcm"].stamp
    write(tmp_path, **{"x/9.dcm": dicom("1.5")})
    assert slides(tmp_path)["x/1.dcm"].stamp != before
    assert slides(tmp_path)["x/3.dcm"].stamp == found["x/3.dcm"].stamp


def test_vms_takes_the_files_that_it_names(tmp_path):
    index = "[Virtual Microscope Specimen]\nImageFile=a.jpg\nImageFile(1,0)=b.jpg\nMapFile=map.jpg\nOptimisationFile=o.opt\n"
    write(tmp_path, **{"a.vms": index, "a.jpg": "1", "b.jpg": "2", "thumb.jpg": "3", "o.opt": "4"})
    found = look(tmp_path)
    assert found["a.vms"].lacks == "map.jpg"
    assert [os.path.basename(part.path) for part in found["a.vms"].parts] == ["a.jpg", "b.jpg", "o.opt"]
    assert {name for name, item in found.items() if item.ignored} == {"thumb.jpg"}
    write(tmp_path, **{"map.jpg": "5"})
    assert slides(tmp_path)["a.vms"].lacks == ""


@pytest.mark.parametrize("name", ["a.mrxs", "x/1.dcm", "a.vms"])
def test_a_named_file_has_the_stamp_and_the_content_that_a_listing_gives_it(tmp_path, name):
    write(tmp_path, **{"a.mrxs": "i", "a/Slidedat.ini": "s", "a/b/c.dat": "12", "a/b-c.dat": "1"})
    write(tmp_path, **{"x/2.dcm": dicom("1.5"), "x/1.dcm": dicom("1.5"), "x/._2.dcm": dicom("1.5")})
    write(tmp_path, **{"a.vms": "ImageFile=a.jpg\nImageFile(1,0)=b.jpg\n", "a.jpg": "1", "b.jpg": "2"})
    listed, named = slides(tmp_path)[name], found_at(str(tmp_path / name))
    assert named == listed
    assert content_digest(tmp_path / name) == content_digest(tmp_path / name, listed.parts)
    assert list(listed.parts) == parts_of(str(tmp_path / name))


def test_heads_are_read_once_for_each_state_of_a_file(tmp_path):
    write(tmp_path, **{"1.dcm": dicom("1.5"), "2.dcm": dicom("1.5")})
    read = []

    def reader(path, n_bytes):
        read.append(os.path.basename(path))
        return open(path, "rb").read(n_bytes)

    first = Heads(reader)
    look(tmp_path, first)
    assert sorted(read) == ["1.dcm", "2.dcm"]
    write(tmp_path, **{"2.dcm": dicom("1.777")})
    second = Heads(reader, first.asked)
    assert len([found for found in look(tmp_path, second).values() if not found.ignored]) == 2
    assert sorted(read) == ["1.dcm", "2.dcm", "2.dcm"]


def test_without_time_to_look_inside_a_dicom_slide_waits(tmp_path):
    write(tmp_path, **{"1.dcm": dicom("1.5"), "2.dcm": dicom("1.6"), "other/3.dcm": dicom("1.7")})
    known = Heads()
    look(tmp_path, known)
    known.asked.pop(str(tmp_path / "2.dcm"))
    found = look(tmp_path, Heads(known=known.asked, deadline=time.monotonic() - 1))
    assert {name: bool(item.lacks) for name, item in found.items()} == {
        "1.dcm": True,
        "2.dcm": True,
        "other/3.dcm": False,
    }


def test_a_series_number_that_is_cut_off_is_none(tmp_path):
    whole = dicom("1.2.3.4.5.6")
    cut = whole[: whole.index(b"1.2.3.4.5.6") + 4]
    write(tmp_path, **{"a.dcm": cut, "b.dcm": whole})
    assert len(slides(tmp_path)) == 2


def test_what_is_no_slide_is_named_with_the_reason(tmp_path):
    write(
        tmp_path,
        **{"a.svs": "x", "notes.txt": "x", "thumb.jpg": "x", ".hidden.svs": "x", "b.svs.partial": "x", "c.svs~": "x"},
    )
    (tmp_path / "d.svs").mkdir()
    (tmp_path / "e.svs").symlink_to(tmp_path / "nowhere.svs")
    (tmp_path / "f.svs").symlink_to(tmp_path / "f.svs")
    os.mkfifo(tmp_path / "g.svs")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "h.svs"))
        found = look(tmp_path)
    reasons = {name: item.ignored for name, item in found.items()}
    assert reasons == {
        "a.svs": "", "notes.txt": NO_SLIDE, "thumb.jpg": NO_SLIDE, ".hidden.svs": HIDDEN, "b.svs.partial": UNFINISHED,
        "c.svs~": UNFINISHED, "d.svs": FOLDER, "e.svs": BROKEN, "f.svs": BROKEN, "g.svs": SPECIAL, "h.svs": SPECIAL,
    }  # fmt: skip


def test_a_folder_that_cannot_be_listed_hides_what_is_in_it_and_nothing_else(tmp_path, monkeypatch):
    write(tmp_path, **{"a.svs": "x", "share/b.svs": "x", "share/c.svs": "x", "z/d.svs": "x"})
    scandir = os.scandir

    class HangsUp:
        """A listing that ends in the middle, as one of a network share does."""

        def __init__(self, path):
            self._items = scandir(path)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._items.close()

        def __iter__(self):
            yield next(self._items)
            raise OSError(112, "Host is down")

    monkeypatch.setattr(os, "scandir", lambda path: HangsUp(path) if str(path).endswith("share") else scandir(path))
    listing = list_folder(str(tmp_path))
    assert listing.blind == {str(tmp_path / "share"): "Host is down"}
    names = [os.path.relpath(found.path, tmp_path) for found in slides_among(listing.entries) if not found.ignored]
    assert names == ["a.svs", "z/d.svs"]
    assert [entry.odd for entry in listing.entries if entry.odd] == [CLOSED]


def test_a_folder_that_is_not_there_is_blind(tmp_path):
    assert list(list_folder(str(tmp_path / "nowhere")).blind) == [str(tmp_path / "nowhere")]


def test_names_of_all_kinds_are_found_as_they_are(tmp_path):
    hostile = [
        b"new\nline.svs",
        b'it\'s "x".svs',
        b"-rf.svs",
        b"\xff\xfe.svs",
        "é 切片 🔬.svs".encode(),
        b"n" * 251 + b".svs",
        b" .svs",
    ]
    for name in hostile:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(b"x")
    assert {os.fsencode(name) for name in slides(tmp_path)} == set(hostile)


def test_entries_need_no_files(tmp_path):
    entries = [Entry("s3://lab/a.svs", 5, 7, "tag"), Entry("s3://lab/sub/b.txt", 1, 1, "t")]
    (slide, other) = slides_among(entries, Heads(lambda path, n_bytes: b""))
    assert slide.stamp == (5, 7, "tag")
    assert other.ignored == NO_SLIDE
