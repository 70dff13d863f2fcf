"""Finding slides: all of them, each once, in a fixed order, and nothing left out in silence."""

from __future__ import annotations

import os
import shutil

import pytest
from dicoms_for_tests import dicom

from pathassets.errors import Reason, SlideError
from pathassets.slides import find_slides, open_slide
from pathassets.slides.dicom import series_uid


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(found, folder):
    return [str(path.relative_to(folder)) for path in found]


def test_folders_are_searched_with_all_below(tmp_path):
    touch(tmp_path, "b.svs", "a.TIFF", "sub/deep/c.ome.tif", "sub/d.ndpi", "notes.txt", "e.jpg", "f.png", "g", "h.csv")
    assert names(find_slides([tmp_path]), tmp_path) == ["a.TIFF", "b.svs", "sub/d.ndpi", "sub/deep/c.ome.tif"]
    assert find_slides([tmp_path]) == find_slides([str(tmp_path)])


def test_hidden_and_unfinished_files_are_passed_over(tmp_path):
    touch(
        tmp_path,
        ".a.svs",
        "._b.svs",
        "~$c.svs",
        "d.svs.part",
        "e.svs.tmp",
        ".hidden/f.svs",
        "g.svs~",
        "store.zarr/h.tif",
        "ok.svs",
    )
    assert names(find_slides([tmp_path]), tmp_path) == ["ok.svs"]


def test_files_that_are_named_are_always_taken(tmp_path):
    touch(tmp_path, "a.jpg", "b", ".c.svs")
    given = [tmp_path / "b", tmp_path / "a.jpg", tmp_path / ".c.svs", tmp_path / "missing.svs"]
    assert find_slides(given) == given


def test_each_file_once(tmp_path):
    touch(tmp_path, "a.svs", "sub/b.svs")
    found = find_slides([tmp_path / "sub", tmp_path, tmp_path / "a.svs", tmp_path / "sub" / "b.svs"])
    assert names(found, tmp_path) == ["sub/b.svs", "a.svs"]


def test_relative_paths_become_absolute(tmp_path, monkeypatch):
    touch(tmp_path, "a.svs")
    monkeypatch.chdir(tmp_path)
    assert find_slides(["."]) == [tmp_path / "a.svs"]


def test_a_folder_with_a_slides_name_is_reported(tmp_path):
    (tmp_path / "x.svs").mkdir()
    touch(tmp_path, "y.svs/real.svs")
    assert names(find_slides([tmp_path]), tmp_path) == ["x.svs", "y.svs/real.svs"]
    assert find_slides([tmp_path / "x.svs"]) == [tmp_path / "x.svs"]
    with pytest.raises(SlideError) as caught:
        open_slide(tmp_path / "x.svs")
    assert caught.value.reason is Reason.NOT_A_SLIDE


def test_links_are_followed_and_circles_are_not(tmp_path):
    touch(tmp_path, "data/a.svs", "elsewhere/b.svs")
    (tmp_path / "data" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "self.svs").symlink_to(tmp_path / "data" / "self.svs")
    (tmp_path / "data" / "gone.svs").symlink_to(tmp_path / "nowhere.svs")
    assert names(find_slides([tmp_path / "data"]), tmp_path / "data") == [
        "a.svs",
        "gone.svs",
        "other/b.svs",
        "self.svs",
    ]


def test_a_folder_that_may_not_be_entered_is_reported(tmp_path, monkeypatch):
    touch(tmp_path, "a.svs", "secret/b.svs")
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert names(find_slides([tmp_path]), tmp_path) == ["a.svs", "secret"]


def test_a_folder_that_may_not_be_entered_is_a_matter_of_rights_and_not_of_its_name(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "secret").mkdir()
    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(SlideError) as caught:
        open_slide(tmp_path / "secret")
    assert caught.value.reason is Reason.FILE_UNREADABLE
    assert "right" in caught.value.remedy


@pytest.mark.parametrize("with_folder", [True, False])
def test_an_mrxs_without_its_folder_says_what_is_missing(tmp_path, with_folder):
    (tmp_path / "case.mrxs").write_bytes(b"\xff\xd8\xff\xe0 a preview")
    if with_folder:
        touch(tmp_path, "case/Data0000.dat")
    with pytest.raises(SlideError) as caught:
        open_slide(tmp_path / "case.mrxs")
    assert caught.value.reason is Reason.FILE_UNREADABLE
    assert "case/Slidedat.ini is missing" in caught.value.message
    assert "Copy the folder case/" in caught.value.remedy


def test_a_link_that_leads_nowhere_is_said_to_be_one(tmp_path):
    (tmp_path / "a.svs").symlink_to(tmp_path / "elsewhere.svs")
    with pytest.raises(SlideError) as caught:
        open_slide(tmp_path / "a.svs")
    assert caught.value.reason is Reason.FILE_MISSING
    assert f"is a link to {tmp_path}/elsewhere.svs" in caught.value.message


def test_parts_of_mrxs_are_no_slides(tmp_path):
    touch(tmp_path, "s.mrxs", "s/Data0000.dat", "s/Slidedat.ini", "s/preview.tif", "t.vsi", "_t_/stack1/frame_t.ets")
    assert names(find_slides([tmp_path]), tmp_path) == ["s.mrxs", "t.vsi"]


def test_formats_that_nobody_reads_are_found_so_that_their_users_are_told(tmp_path):
    touch(tmp_path, "a.czi", "b.isyntax", "c.kfb")
    assert len(find_slides([tmp_path])) == 3
    with pytest.raises(SlideError) as caught:
        open_slide(tmp_path / "a.czi")
    assert caught.value.reason is Reason.NOT_A_SLIDE
    assert "onvert" in caught.value.remedy


@pytest.mark.parametrize("explicit", [True, False])
def test_the_series_of_a_dicom_file(tmp_path, explicit):
    path = tmp_path / "a.dcm"
    path.write_bytes(dicom("1.2.3", explicit))
    assert series_uid(path) == "1.2.3"


def test_the_series_of_a_real_dicom_file(odd):
    assert (series_uid(odd / "highdicom_sm_image.dcm") or "").startswith("1.")


def test_damaged_dicom_heads_have_no_series(tmp_path):
    path = tmp_path / "a.dcm"
    whole = dicom("1.2.3")
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        assert series_uid(path) in (None, "1.2.3", "1.2.", "1.2", "1.", "1")
    assert series_uid(tmp_path / "missing.dcm") is None


def test_a_dicom_series_is_one_slide(tmp_path):
    for name, uid in (
        ("x/3.dcm", "1.5"),
        ("x/1.dcm", "1.5"),
        ("x/2.dcm", "1.6"),
        ("y/1.dcm", "1.5"),
        ("x/4.dcm", "1.6"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(dicom(uid))
    touch(tmp_path, "x/broken.dcm")
    assert names(find_slides([tmp_path]), tmp_path) == ["x/1.dcm", "x/2.dcm", "x/broken.dcm", "y/1.dcm"]
    by_glob = sorted((tmp_path / "x").glob("*.dcm"))
    assert names(find_slides(by_glob), tmp_path) == ["x/1.dcm", "x/2.dcm", "x/broken.dcm"]


def test_the_real_folders(data_dir):
    assert len(find_slides([data_dir / "slides"])) == 4
    assert len(find_slides([data_dir / "odd-slides"])) == 12


def test_names_that_hurt(cmu, tmp_path):
    hurtful = ['it\'s "x".svs', "a;b$(c).svs", "é 切片.svs", "-rf.svs", "new\nline.svs", " lead.svs"]
    for name in hurtful:
        shutil.copy(cmu, tmp_path / name)
    assert sorted(path.name for path in find_slides([tmp_path])) == sorted(hurtful)
