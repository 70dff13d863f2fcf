"""What happens to files in the inbox, and what becomes of their slides; the real sensor on a real instance."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time

import pytest
from dicoms_for_tests import dicom
from support.inbox import Inbox

from pathassets.errors import SlideError
from pathassets.slides.identity import content_digest
from pathassets.steps import inbox as inbox_module
from pathassets.steps import register as register_module
from pathassets.steps import sighting
from pathassets.steps.chain import run_node
from pathassets.steps.inbox import INCOMPLETE_SECONDS, Limits, look
from pathassets.steps.nodes import chain
from pathassets.steps.session import Session


@pytest.fixture
def inbox(study, instance):
    return Inbox(study.home, instance)


def news(inbox, **options):
    """What one more look has to say."""
    return look(Session(inbox.study), inbox.partitions(), **options).news


def probe(inbox, slide_id):
    """Runs the step `slide`, as a run would."""
    session = Session(inbox.study)
    return run_node(session, slide_id, chain(inbox.study)[0], {}).outcome


# -- slides of many files ----------------------------------------------------------------------------------------------


def test_mrxs_waits_until_its_parts_lie_still(inbox):
    inbox.drop("a.mrxs", "index")
    assert "1 of them lack parts" in inbox.state(inbox.ticks(3))
    inbox.drop("a/Slidedat.ini", "s")
    for size in (10, 20, 30):
        inbox.drop("a/Data0000.dat", "x" * size)
        assert not inbox.tick().run_requests
    assert len(inbox.tick().run_requests) == 1
    assert inbox.names() == {"a": "a.mrxs"}


def test_mrxs_whose_parts_never_come_is_told_after_some_hours(inbox):
    inbox.drop("a.mrxs", "index")
    session = Session(inbox.study)
    start = time.time()
    assert look(session, [], now=lambda: start).news == [f"{inbox.folder}/a.mrxs waits for its folder"]
    assert look(session, [], now=lambda: start + INCOMPLETE_SECONDS - 1).news == []
    assert look(session, [], now=lambda: start - 10**6).registered == {}  # a clock that was set back
    assert len(look(session, [], now=lambda: start + INCOMPLETE_SECONDS + 1).registered) == 1


def test_a_dicom_series_waits_until_all_of_it_lies_still_and_is_one_slide(inbox):
    inbox.drop("scan/1.dcm", dicom("1.5"))
    inbox.tick()
    inbox.drop("scan/2.dcm", dicom("1.5"))
    assert not inbox.tick().run_requests
    inbox.drop("scan/2.dcm", dicom("1.5") + b"more")
    assert not inbox.tick().run_requests
    assert len(inbox.tick().run_requests) == 1
    assert inbox.names() == {"1": "scan/1.dcm"}


def test_a_dicom_series_that_gets_more_files_is_another_slide(inbox):
    inbox.drop("scan/1.dcm", dicom("1.5"))
    inbox.ticks(3)
    inbox.drop("scan/2.dcm", dicom("1.5"))
    inbox.ticks(3)
    old, new = sorted(inbox.rows().values(), key=lambda row: row["missing_since"] is None)
    assert (old["path"], new["path"]) == (str(inbox.folder / "scan/1.dcm"),) * 2
    assert old["missing_since"] is not None
    assert len(inbox.partitions()) == 2


# -- what is no slide --------------------------------------------------------------------------------------------------


def test_what_is_no_slide_is_left_alone_and_said_once(inbox):
    for name in ("notes.txt", "thumb.jpg", "list.csv", ".DS_Store", "._a.svs", "b.svs.partial", "~$c.svs"):
        inbox.drop(name, "x")
    (inbox.folder / "folder.svs").mkdir()
    (inbox.folder / "nowhere.svs").symlink_to("nothing.svs")
    (inbox.folder / "circle").symlink_to(inbox.folder)
    (inbox.folder / "self.svs").symlink_to("self.svs")
    os.mkfifo(inbox.folder / "pipe.svs")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(inbox.folder / "socket.svs"))
        said = news(inbox)
        assert len(said) == 6
        assert sorted(line.split(":")[0] for line in said) == [
            "left alone, a folder with a slide's name",
            "left alone, a link that leads nowhere",
            "left alone, hidden",
            "left alone, no ordinary file",
            "left alone, no slide by its name",
            "left alone, unfinished by its name",
        ]
        assert news(inbox) == []
        assert news(inbox) == []
    assert inbox.rows() == {}
    inbox.drop("more.txt", "x")
    assert news(inbox) == ["left alone, no slide by its name: more.txt"]


def test_a_file_gets_its_true_name_when_it_is_finished(inbox):
    inbox.drop("a.svs.partial", "whole")
    inbox.ticks(2)
    os.rename(inbox.folder / "a.svs.partial", inbox.folder / "a.svs")
    assert len(inbox.ticks(2).run_requests) == 1


def test_thousands_of_others_are_one_line(inbox):
    for i in range(2000):
        inbox.drop(f"{i:04d}.jpg", "x")
    assert news(inbox) == [
        "left alone, no slide by its name: 0000.jpg, 0001.jpg, 0002.jpg, 0003.jpg, 0004.jpg and 1995 more"
    ]


# -- names -------------------------------------------------------------------------------------------------------------


def test_hostile_names_become_slides_with_safe_ids(inbox):
    names = [
        "new\nline.svs",
        'it\'s "x".svs',
        "-rf.svs",
        "é 切片 🔬.svs",
        "n" * 251 + ".svs",
        " .svs",
        "$(rm).svs",
        "%2e%2e.svs",
    ]
    for name in names:
        inbox.drop(name, name)
    groups = inbox.groups(inbox.ticks(2))
    assert sum(map(len, groups)) == len(names)
    assert {row["path"] for row in inbox.rows().values()} == {str(inbox.folder / name) for name in names}
    assert not inbox.ticks(2).run_requests


def test_a_name_that_is_no_text_is_registered_once_and_told(inbox):
    with open(os.path.join(os.fsencode(inbox.folder), b"\xff\xfe.svs"), "wb") as file:
        file.write(b"x")
    assert len(inbox.ticks(2).run_requests) == 1
    (slide_id,) = inbox.rows()
    assert not inbox.ticks(3).run_requests
    assert inbox.rows()[slide_id]["missing_since"] is None
    outcome = probe(inbox, slide_id)
    assert (outcome.reason, outcome.remedy) == ("file_unreadable", "Its name is not UTF-8: rename it.")


def test_a_line_of_the_log_stays_one(inbox):
    inbox.drop("new\nline.txt", "x")
    assert "\n" not in "".join(news(inbox))


# -- the same content, the same name -----------------------------------------------------------------------------------


def test_two_files_under_one_name_in_turn_before_it_lay_still(inbox):
    inbox.drop("a.svs", "first", mtime=1000)
    inbox.tick()
    inbox.drop("a.svs", "other", mtime=1001)
    inbox.tick()
    assert inbox.rows() == {}
    inbox.tick()
    assert [row["size_bytes"] for row in inbox.rows().values()] == [5]
    assert len(inbox.asked) == 1


def test_a_file_replaced_in_place_is_a_new_slide_and_the_old_one_is_marked(inbox, slide_file):
    path = inbox.folder / "a.tiff"
    shutil.copy(slide_file, path)
    inbox.ticks(2)
    (old,) = inbox.rows()
    assert probe(inbox, old).status == "ok"
    path.write_bytes(slide_file.read_bytes() + b"more")
    inbox.ticks(2)
    new = next(slide_id for slide_id in inbox.rows() if slide_id != old)
    assert inbox.asked == [old, new]
    assert inbox.rows()[old]["missing_since"] is not None
    assert inbox.rows()[new]["missing_since"] is None
    outcome = probe(inbox, old)
    assert (outcome.status, outcome.reason) == ("flagged", "file_changed")
    assert not inbox.ticks(3).run_requests
    shutil.copy(slide_file, path)  # and back again
    inbox.ticks(2)
    assert inbox.rows()[old]["missing_since"] is None
    assert inbox.rows()[new]["missing_since"] is not None
    assert inbox.asked == [old, new, old]
    assert probe(inbox, old).status == "ok"


def test_a_file_replaced_by_one_of_its_size_does_not_enter_under_its_id(inbox, slide_file):
    path = inbox.folder / "a.tiff"
    shutil.copy(slide_file, path)
    inbox.ticks(2)
    (slide_id,) = inbox.rows()
    content = bytearray(slide_file.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert probe(inbox, slide_id).reason == "file_changed"
    with pytest.raises(SlideError), Session(inbox.study).open_slide(slide_id):
        pass


def test_a_copy_elsewhere_is_another_path_of_the_slide_and_is_read_once(inbox, monkeypatch):
    inbox.drop("a.svs", "content", mtime=1000)
    inbox.ticks(2)
    inbox.drop("copy/a.svs", "content", mtime=2000)
    read = []
    real = register_module.content_of
    monkeypatch.setattr(
        register_module, "content_of", lambda s, found, deadline: read.append(found.path) or real(s, found, deadline)
    )
    inbox.ticks(4)
    assert len(read) == 1
    (row,) = inbox.rows().values()
    assert row["other_paths"] == [str(inbox.folder / "copy" / "a.svs")]
    assert len(inbox.asked) == 1


def test_the_same_content_under_another_name_is_linked(inbox):
    inbox.drop("a.svs", "content")
    inbox.drop("b.svs", "content")
    inbox.ticks(3)
    rows = {slide_id.rpartition("-")[0]: row for slide_id, row in inbox.rows().items()}
    assert rows["b"]["duplicate_of"] == rows["a"]["slide_id"]
    assert rows["a"]["duplicate_of"] is None


def test_a_file_that_was_touched_is_the_same_slide(inbox, slide_file):
    path = inbox.folder / "a.tiff"
    shutil.copy(slide_file, path)
    inbox.ticks(2)
    (slide_id,) = inbox.rows()
    os.utime(path, (5000, 5000))
    assert probe(inbox, slide_id).status == "ok"  # before the sensor has looked again
    inbox.ticks(3)
    assert list(inbox.rows()) == [slide_id]
    assert inbox.rows()[slide_id]["mtime_ns"] == 5000 * 10**9
    assert inbox.asked == [slide_id]


@pytest.mark.parametrize("moment", [-5.0, 0.0, 4e9], ids=["before 1970", "1970", "in a hundred years"])
def test_clocks_that_are_wrong_change_nothing(inbox, moment):
    inbox.drop("a.svs", "x", mtime=moment)
    inbox.ticks(2)
    assert len(inbox.asked) == 1
    inbox.ticks(2)
    assert len(inbox.asked) == 1


# -- moved, gone, back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["sub/a.tiff", "renamed.tiff", "sub/renamed.tiff"])
def test_a_moved_file_keeps_its_slide(inbox, slide_file, target):
    shutil.copy(slide_file, inbox.folder / "a.tiff")
    inbox.ticks(2)
    (slide_id,) = inbox.rows()
    probe(inbox, slide_id)
    (inbox.folder / "sub").mkdir()
    os.rename(inbox.folder / "a.tiff", inbox.folder / target)
    inbox.ticks(4)
    (row,) = inbox.rows().values()
    assert (row["slide_id"], row["path"], row["missing_since"]) == (slide_id, str(inbox.folder / target), None)
    assert inbox.asked == [slide_id]
    assert probe(inbox, slide_id).status == "ok"


def test_a_moved_file_whose_name_another_one_takes(inbox):
    inbox.drop("a.svs", "first", mtime=1000)
    inbox.ticks(2)
    (first,) = inbox.rows()
    os.rename(inbox.folder / "a.svs", inbox.folder / "b.svs")
    inbox.drop("a.svs", "second", mtime=1000)
    inbox.ticks(4)
    rows = inbox.rows()
    assert rows[first]["path"] == str(inbox.folder / "b.svs")
    assert rows[first]["missing_since"] is None
    (second,) = set(rows) - {first}
    assert rows[second]["path"] == str(inbox.folder / "a.svs")


def test_a_vanished_file_is_marked_what_it_gave_is_kept_and_it_can_come_back(inbox, slide_file):
    path = inbox.folder / "a.tiff"
    shutil.copy2(slide_file, path)
    inbox.ticks(2)
    (slide_id,) = inbox.rows()
    good = probe(inbox, slide_id)
    before = inbox.rows()[slide_id]
    os.remove(path)
    inbox.tick()
    assert inbox.rows()[slide_id]["missing_since"] is None, "one look is not enough: shares blink"
    inbox.tick()
    row = inbox.rows()[slide_id]
    assert row["missing_since"] is not None
    assert {**row, "missing_since": None} == before
    assert inbox.outcomes() == {slide_id: ("flagged", "file_missing")}
    assert probe(inbox, slide_id).result_digest == good.result_digest
    assert not inbox.ticks(2).run_requests
    assert inbox.partitions() == [slide_id]
    shutil.copy2(slide_file, path)
    result = inbox.ticks(2)
    assert inbox.rows()[slide_id]["missing_since"] is None
    assert inbox.asked == [slide_id, slide_id]
    assert probe(inbox, slide_id).says_the_same(good)
    assert not inbox.ticks(2).run_requests, result


def test_a_file_that_comes_back_with_another_time_is_the_same_slide(inbox):
    path = inbox.drop("a.svs", "content", mtime=1000)
    inbox.ticks(2)
    os.remove(path)
    inbox.ticks(2)
    inbox.drop("a.svs", "content", mtime=2000)
    inbox.ticks(2)
    (row,) = inbox.rows().values()
    assert (row["missing_since"], row["mtime_ns"]) == (None, 2000 * 10**9)
    assert inbox.asked == [row["slide_id"]] * 2


def test_a_file_that_was_never_worked_on_fails_when_it_is_gone(inbox):
    path = inbox.drop("a.svs", "content")
    inbox.ticks(2)
    os.remove(path)
    inbox.ticks(2)
    assert list(inbox.outcomes().values()) == [("failed", "file_missing")]


def test_a_slide_with_another_copy_goes_on_with_that(inbox):
    path = inbox.drop("a.svs", "content", mtime=1000)
    inbox.drop("copy/a.svs", "content", mtime=2000)
    inbox.ticks(3)
    os.remove(path)
    inbox.ticks(3)
    (row,) = inbox.rows().values()
    assert (row["path"], row["other_paths"], row["missing_since"]) == (str(inbox.folder / "copy" / "a.svs"), [], None)
    assert row["mtime_ns"] == 2000 * 10**9
    assert len(inbox.asked) == 1


def test_a_copy_that_goes_is_forgotten(inbox):
    inbox.drop("a.svs", "content", mtime=1000)
    copy = inbox.drop("copy/a.svs", "content", mtime=2000)
    inbox.ticks(3)
    os.remove(copy)
    inbox.ticks(3)
    (row,) = inbox.rows().values()
    assert (row["other_paths"], row["missing_since"]) == ([], None)


def test_a_slide_that_a_run_holds_is_changed_when_it_lets_go(inbox):
    inbox.drop("a.svs", "content")
    inbox.ticks(2)
    (slide_id,) = inbox.rows()
    os.rename(inbox.folder / "a.svs", inbox.folder / "moved.svs")
    with Session(inbox.study).root.lock(f"slide-{slide_id}"):
        inbox.ticks(3)
        assert inbox.rows()[slide_id]["path"] == str(inbox.folder / "a.svs")
    inbox.ticks(3)
    (row,) = inbox.rows().values()
    assert (row["path"], row["missing_since"]) == (str(inbox.folder / "moved.svs"), None)


def test_thousands_that_go_at_once_are_marked_in_portions(inbox, monkeypatch):
    monkeypatch.setattr(inbox_module, "Limits", lambda: Limits(files=3))
    paths = [inbox.drop(f"{i}.svs") for i in range(8)]
    inbox.ticks(4)
    for path in paths:
        os.remove(path)
    inbox.tick()
    counts = [sum(row["missing_since"] is not None for row in inbox.rows().values()) for _ in range(3) if inbox.tick()]
    assert counts == [3, 6, 8]


# -- places that cannot be seen ----------------------------------------------------------------------------------------


def test_a_folder_that_disappears_marks_nobody_and_stops_nothing(inbox, tmp_path):
    share = tmp_path / "share"
    share.mkdir()
    (share / "s.svs").write_text("shared")
    inbox.settings = {"inbox": ["inbox", str(share)]}
    inbox.ticks(2)
    os.rename(share, tmp_path / "away")
    inbox.drop("a.svs")
    assert "share cannot be listed: No such file or directory" in inbox.state(inbox.tick())
    assert len(inbox.tick().run_requests) == 1
    inbox.ticks(3)
    assert all(row["missing_since"] is None for row in inbox.rows().values())
    os.rename(tmp_path / "away", share)
    assert news(inbox) == [f"{share} can be listed again"]
    assert not inbox.tick().run_requests


def test_a_share_that_hangs_up_hides_its_folder_and_is_said_once(inbox, monkeypatch):
    for name in ("share/s.svs", "share/t.svs", "share/notes.txt", "a.svs"):
        inbox.drop(name)
    inbox.ticks(3)
    inbox.drop("share/waiting.svs")
    inbox.tick()
    scandir = os.scandir

    def hangs_up(path):
        if str(path).endswith("share"):
            raise OSError(112, "Host is down")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", hangs_up)
    inbox.drop("b.svs")
    assert news(inbox) == [f"{inbox.folder}/share cannot be listed: Host is down"]
    assert news(inbox) == ["registered: " + next(i for i in inbox.rows() if i.startswith("b-"))]
    for _ in range(3):
        assert news(inbox) == []
    assert all(row["missing_since"] is None for row in inbox.rows().values())
    monkeypatch.setattr(os, "scandir", scandir)
    said = news(inbox)
    assert f"{inbox.folder}/share can be listed again" in said
    assert not [line for line in said if "notes.txt" in line], "it was said before"


def test_a_manifest_that_is_invalid_is_said_in_its_own_words(inbox):
    (inbox.home / "slides.csv").write_text("path,mpp\na.svs,fast\n")
    (line,) = news(inbox)
    assert line.startswith("slides.csv cannot be used: ")
    assert "line 2: has mpp = 'fast'" in line
    assert "such as 0.25" in line
    assert "line 2" in inbox.state(inbox.tick())


def test_a_share_that_never_answers_costs_one_thread_and_the_others_go_on(inbox, tmp_path, monkeypatch):
    share = tmp_path / "hangs"
    share.mkdir()
    (share / "s.svs").write_text("shared")
    inbox.settings = {"inbox": ["inbox", str(share)]}
    answers = threading.Event()
    asked = []
    real = sighting.list_folder

    def hang(place):
        if place == str(share):
            asked.append(place)
            answers.wait(60)
        return real(place)

    monkeypatch.setattr(sighting, "list_folder", hang)
    monkeypatch.setattr(inbox_module, "Limits", lambda: Limits(listing_seconds=0.5))
    inbox.drop("a.svs")
    assert "hangs cannot be listed: no answer for" in inbox.state(inbox.tick())
    assert len(inbox.tick().run_requests) == 1
    inbox.ticks(2)
    assert asked == [str(share)]
    answers.set()
    inbox.ticks(3)
    assert sorted(inbox.names().values()) == [str(share / "s.svs"), "a.svs"]


# -- files that misbehave ----------------------------------------------------------------------------------------------


def break_content(monkeypatch, name, what):
    """Reading the content of one file goes wrong."""
    real = register_module.content_of

    def content_of(session, found, deadline=float("inf")):
        if found.path.endswith(name):
            what(found)
        return real(session, found, deadline)

    monkeypatch.setattr(register_module, "content_of", content_of)


def test_whatever_one_file_raises_is_its_own_affair(inbox, monkeypatch):
    def explode(found):
        raise RuntimeError("a library broke\nin two lines")

    break_content(monkeypatch, "b.svs", explode)
    for name in ("a.svs", "b.svs", "c.svs"):
        inbox.drop(name)
    inbox.ticks(2)
    assert sorted(inbox.names()) == ["a", "b", "c"]
    assert list(inbox.outcomes().values()) == [("failed", "internal")]
    assert len(inbox.asked) == 3
    assert not inbox.ticks(2).run_requests


def test_a_file_that_cannot_be_read_is_tried_again_and_then_told(inbox, monkeypatch):
    def unreadable(found):
        raise OSError(5, "Input/output error")

    break_content(monkeypatch, "b.svs", unreadable)
    inbox.drop("a.svs")
    inbox.drop("b.svs")
    inbox.ticks(2)
    assert sorted(inbox.names()) == ["a"]
    inbox.ticks(2)
    assert sorted(inbox.names()) == ["a"]
    inbox.ticks(1)
    assert sorted(inbox.names()) == ["a", "b"]
    assert not inbox.ticks(2).run_requests


def test_a_file_that_was_unreadable_for_a_moment_gets_the_id_of_its_content(inbox, monkeypatch):
    from pathassets.slides import slide_id

    def unreadable(found):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        break_content(patched, "a.svs", unreadable)
        path = inbox.drop("a.svs", "content")
        inbox.ticks(3)
    inbox.ticks(1)
    assert list(inbox.rows()) == [slide_id(path)]


def test_a_file_that_was_told_as_unreadable_gets_its_content_and_a_run_as_soon_as_it_can_be_read(inbox, monkeypatch):
    def unreadable(found):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        break_content(patched, "a.svs", unreadable)
        path = inbox.drop("a.svs", "content")
        inbox.ticks(6)
        (slide_id,) = inbox.rows()
        assert slide_id in inbox.asked
        assert inbox.state(inbox.tick()) == "no new files"
    inbox.asked.clear()
    inbox.tick()
    assert list(inbox.rows()) == [slide_id]
    assert inbox.rows()[slide_id]["content_sha256"] == content_digest(path)
    assert inbox.asked == [slide_id]
    assert not inbox.ticks(2).run_requests


def test_a_file_that_changes_while_it_is_read_waits(inbox, monkeypatch):
    with monkeypatch.context() as patched:
        break_content(patched, "a.svs", lambda found: inbox.drop("a.svs", "changed", mtime=9000))
        inbox.drop("a.svs", "content", mtime=8000)
        inbox.ticks(2)
        assert inbox.rows() == {}
    inbox.ticks(2)
    assert [row["mtime_ns"] for row in inbox.rows().values()] == [9000 * 10**9]


def test_a_file_that_goes_between_two_looks_is_nobody(inbox):
    path = inbox.drop("a.svs")
    inbox.tick()
    os.remove(path)
    inbox.ticks(2)
    assert inbox.rows() == {}
    assert inbox.state(inbox.tick()) == "no new files"


def test_a_damaged_row_heals(inbox):
    inbox.drop("a.svs", "content")
    inbox.ticks(2)
    (slide_id,) = inbox.rows()
    (inbox.home / "store" / "tables" / "slides" / f"slide_id={slide_id}" / "part.parquet").write_bytes(b"torn")
    inbox.ticks(2)
    assert list(inbox.rows()) == [slide_id]
