"""What a study names and cannot have: folders that may not be entered, rows of `slides.csv` that are about no slide."""

from __future__ import annotations

import os

import pytest

from pathassets.cli import running
from pathassets.cli.running import Request
from pathassets.config import Study
from pathassets.errors import ConfigError, Reason
from pathassets.steps.register import files_to_register, known_slides, register, unmatched_rows
from pathassets.steps.session import Session


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a slide, and one in it that may not be entered."""
    folder = tmp_path / "slides"
    (folder / "secret").mkdir(parents=True)
    (folder / "a.svs").write_bytes(b"a")
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    return folder


def test_a_folder_that_may_not_be_entered_is_told_and_becomes_no_slide(folder, tmp_path):
    session = Session(Study(tmp_path))
    files = files_to_register(session, [str(folder)])
    assert [entry.path for entry in register(session, files)] == [str(folder / "a.svs")]
    assert known_slides(session)["path"].to_list() == [str(folder / "a.svs")]
    ids, problems = running._registered(session, Request(home=tmp_path, paths=[str(folder)]))
    assert len(ids) == 1
    assert problems == [f"{folder}/secret: a folder that cannot be listed; give this user the right to enter it"]


def test_rows_of_the_manifest_without_a_slide_are_told(folder, tmp_path):
    (tmp_path / "slides.csv").write_text("path,cohort\na.svs,A\nslides/a.svs,A\ntypo.svs,B\nslides/gone.svs,B\n")
    assert unmatched_rows(Session(Study(tmp_path))) == []  # nothing is registered yet
    register(Session(Study(tmp_path)), [folder / "a.svs"])
    assert unmatched_rows(Session(Study(tmp_path))) == [
        "3 of 4 rows of slides.csv match no slide of this study: a.svs, typo.svs, slides/gone.svs"
    ]
    (tmp_path / "slides.csv").write_text("path,cohort\na.svs,A\n")
    assert unmatched_rows(Session(Study(tmp_path))) == []


def test_a_manifest_is_refused_for_a_resolution_that_no_slide_has(tmp_path):
    (tmp_path / "slides.csv").write_text("path,mpp\na.svs,1e9\n")
    with pytest.raises(ConfigError, match="line 2: has mpp = '1e9'") as caught:
        unmatched_rows(Session(Study(tmp_path)))
    assert caught.value.reason is Reason.MANIFEST_INVALID
    assert "0.05 to 10" in caught.value.remedy
