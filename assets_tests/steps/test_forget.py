"""A slide that is forgotten leaves nothing in the store, and its file where it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pathassets.config import Study
from pathassets.errors import ConfigError, StoreError
from pathassets.steps.annotations import annotation_path
from pathassets.steps.forget import comes_back, forget, known_slide, what_goes
from pathassets.steps.register import register
from pathassets.steps.session import Session
from pathassets.steps.slide_map import make_slide_map
from pathassets.store import layout


@pytest.fixture
def session(finished, tmp_path) -> Session:
    home = tmp_path / "home"
    shutil.copytree(finished.study.home, home)
    session = Session(Study(home))
    make_slide_map(session, session.study.recipes[0])
    return session


def test_everything_of_a_slide_goes_and_nothing_of_the_others(session, finished, tmp_path):
    other = tmp_path / "other.tiff"
    shutil.copy(finished.slide, other)
    with other.open("ab") as file:
        file.write(b"\0")
    second = register(session, [other])[0].slide_id
    going = what_goes(session, finished.slide_id)
    assert set(going) == {"tables", "arrays", "masks", "figures"}
    assert going["arrays"]["files"] > 10
    forget(session, finished.slide_id)
    assert not [
        entry.key for entry in session.root.entries() if finished.slide_id in entry.key and "cache" not in entry.key
    ]
    assert what_goes(session, finished.slide_id) == {}
    for table in ("slides", "outcomes", "embeddings", "slide_map"):
        assert finished.slide_id not in session.tables.scan(table).collect()["slide_id"], table
    assert session.tables.scan("slides").collect()["slide_id"].to_list() == [second]
    assert finished.slide.exists()


def test_what_was_drawn_for_it_goes_too_and_what_was_drawn_for_others_stays(session, finished):
    drawn = annotation_path(session.study.home, finished.slide_id)
    other = annotation_path(session.study.home, "other-00000000")
    drawn.parent.mkdir()
    for path in (drawn, other):
        path.write_text("{}")
    assert what_goes(session, finished.slide_id)["annotations"]["files"] == 1
    forget(session, finished.slide_id)
    assert not drawn.exists()
    assert other.exists()
    assert what_goes(session, finished.slide_id) == {}
    register(session, [finished.slide])
    assert session.mask_path(finished.slide_id) is None, "registered again, it is not silently given the old drawing"


def test_a_drawing_that_was_left_behind_can_be_forgotten(session, finished, monkeypatch):
    """Where `forget` is killed before it comes to the drawing, the tissue made from it is gone before it, never after."""
    drawn = annotation_path(session.study.home, finished.slide_id)
    drawn.parent.mkdir()
    drawn.write_text("{}")

    unlink = Path.unlink

    def killed(path: Path, **options: bool) -> None:
        if path == drawn:
            assert session.tables.read("tissues", finished.slide_id) is None
            raise KeyboardInterrupt
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        forget(session, finished.slide_id)
    monkeypatch.setattr(Path, "unlink", unlink)
    assert drawn.exists()
    assert known_slide(session, finished.slide_id) == finished.slide_id
    forget(session, finished.slide_id)
    assert not drawn.exists()


def test_a_forgotten_slide_can_be_registered_again_as_the_same(session, finished):
    forget(session, finished.slide_id)
    assert register(session, [finished.slide])[0].slide_id == finished.slide_id


def test_a_slide_that_is_half_forgotten_can_be_forgotten(session, finished):
    session.root.delete(layout.table_key("slides", finished.slide_id))
    session.root.delete(f"tables/outcomes/slide_id={finished.slide_id}")
    assert known_slide(session, finished.slide_id) == finished.slide_id
    forget(session, finished.slide_id)
    assert what_goes(session, finished.slide_id) == {}
    with pytest.raises(ConfigError):
        known_slide(session, finished.slide_id)
    assert known_slide(session, finished.slide_id, partitions=[finished.slide_id]) == finished.slide_id


@pytest.mark.parametrize("text", ["../..", "..", "study", "", "slide_id=x", "a/b", "\n", "x" * 5000])
def test_no_name_leads_out_of_the_slide(session, text):
    with pytest.raises(ConfigError):
        known_slide(session, text)


def test_a_slide_that_is_being_worked_on_is_not_forgotten(session, finished, monkeypatch):
    monkeypatch.setattr("pathassets.steps.forget.LOCK_SECONDS", 0.1)
    with session.root.lock(layout.slide_lock(finished.slide_id)), pytest.raises(StoreError, match="being worked on"):
        forget(session, finished.slide_id)
    assert session.tables.scan("slides").collect().height == 1


def test_a_file_in_the_inbox_comes_back_and_its_user_is_told(session, finished):
    assert comes_back(session, finished.slide_id) is None
    inside = session.study.home / "inbox" / finished.slide.name
    row = session.slide_row(finished.slide_id) | {"path": str(inside)}
    session.tables.write("slides", [row], slide_id=finished.slide_id)
    assert str(inside) in (comes_back(session, finished.slide_id) or "")
    inside.unlink()
    assert comes_back(session, finished.slide_id) is None
