"""Exports that are kept: slides of which nothing has changed are not looked at, nothing stays that is no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from pathassets.config import CONFIG_FILE, ExportFormat, Study
from pathassets.errors import ConfigError
from pathassets.exports import kept
from pathassets.exports.kept import NOTE, keep_export
from pathassets.exports.run import FORMATS, TABLE_FORMATS
from pathassets.steps.forget import forget, what_goes

from .conftest import Made


@pytest.fixture
def mine(made: Made, tmp_path) -> Made:
    """A study to be changed."""
    return made.copied(tmp_path / "study")


def files(folder: Path) -> dict[str, int]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != NOTE)
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in found}


def test_the_settings_know_every_format():
    assert set(get_args(ExportFormat)) == {*FORMATS, *TABLE_FORMATS}


def test_a_format_that_there_is_not_is_refused_in_plain_words(tmp_path):
    (tmp_path / CONFIG_FILE).write_text('[study]\nexports = ["powerpoint"]\n')
    with pytest.raises(ConfigError, match=r"exports.*anndata.*qupath"):
        Study(tmp_path)


@pytest.mark.parametrize("name", [*FORMATS, *TABLE_FORMATS])
def test_every_format_is_made_once_and_then_left_alone(mine: Made, name: str):
    first = keep_export(mine.session, name)
    folder = mine.home / "exports" / name
    before = files(folder)
    assert first.written
    assert before
    assert not list(folder.rglob(".*")), "nothing half-written"
    again = keep_export(mine.session, name)
    assert again.written == []
    assert again.files == first.files == len(first.written)
    assert files(folder) == before
    left = {mine.bad_id} if name in ("anndata", "qupath") else set()
    assert left <= set(again.left_out)
    assert str(mine.home) not in str(list(again.left_out.values()))


def test_a_slide_of_which_nothing_has_changed_is_not_looked_at(mine: Made, monkeypatch):
    keep_export(mine.session, "anndata")
    looked = []
    monkeypatch.setattr(kept, "export_slides", lambda session, form, slides, *_: looked.extend(slides) or [])
    keep_export(mine.session, "anndata")
    assert looked == [mine.bad_id], "what was left out is tried again"


def test_a_file_that_somebody_deleted_comes_back(mine: Made):
    keep_export(mine.session, "anndata")
    file = mine.home / "exports" / "anndata" / mine.part / f"{mine.slide_id}.h5ad"
    file.unlink()
    assert keep_export(mine.session, "anndata").written == [f"{mine.part}/{mine.slide_id}.h5ad"]
    assert file.is_file()


def test_files_of_a_recipe_that_is_no_more_go_and_a_users_own_stay(mine: Made):
    keep_export(mine.session, "anndata-zarr")
    folder = mine.home / "exports" / "anndata-zarr"
    (folder / "mine.txt").write_text("a user's own")
    (mine.home / CONFIG_FILE).write_text("recipes = []\n")
    keep_export(type(mine.session)(Study(mine.home)), "anndata-zarr")
    assert set(files(folder)) == {"mine.txt"}


def test_a_forgotten_slide_has_no_files(mine: Made):
    keep_export(mine.session, "anndata-zarr")
    keep_export(mine.session, "csv")
    assert what_goes(mine.session, mine.slide_id)["exports"]["files"] > 1
    forget(mine.session, mine.slide_id)
    assert not list((mine.home / "exports").rglob(f"*{mine.slide_id}*"))
    keep_export(mine.session, "csv")
    keep_export(mine.session, "anndata-zarr")
    assert mine.slide_id not in (mine.home / "exports" / "csv" / "tiles.csv").read_text()
    assert mine.slide_id not in (mine.home / "exports" / "anndata-zarr" / NOTE).read_text()


def test_a_mistake_of_ours_costs_one_slide(mine: Made, monkeypatch):
    whole = kept.export_slides

    def export(session, form, slides, recipes, target):
        if slides == [mine.bad_id]:
            raise ZeroDivisionError("in the middle of it")
        return whole(session, form, slides, recipes, target)

    monkeypatch.setattr(kept, "export_slides", export)
    found = keep_export(mine.session, "trident")
    assert found.left_out == {mine.bad_id: "ZeroDivisionError [internal]"}
    assert found.slides == 1


@pytest.mark.parametrize(
    "note", ["", "[]", '{"a": "b"}', json.dumps({"a": {"made_from": "x", "files": ["../slides.csv"]}})]
)
def test_a_note_of_somebody_elses_removes_nothing(mine: Made, note: str):
    (mine.home / "exports" / "trident").mkdir(parents=True)
    (mine.home / "exports" / "trident" / NOTE).write_text(note)
    (mine.home / "exports" / "slides.csv").write_text("a user's own")
    assert keep_export(mine.session, "trident").slides == 1
    assert (mine.home / "exports" / "slides.csv").is_file()
