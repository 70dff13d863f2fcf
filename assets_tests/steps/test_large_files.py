"""Files of 1 GB and more are hashed by samples; two that agree in these are compared whole, and each keeps its slide."""

from __future__ import annotations

import os
import shutil

import pytest

from pathassets.config import Study
from pathassets.slides import identity
from pathassets.steps.register import register
from pathassets.steps.session import Session
from pathassets.steps.sources import is_there


@pytest.fixture
def session(tmp_path, monkeypatch):
    """Large files from 10 kB on."""
    monkeypatch.setattr(identity, "WHOLE_BELOW_BYTES", 10_000)
    monkeypatch.setattr(identity, "SAMPLE_BYTES", 16)
    return Session(Study(tmp_path / "home"))


@pytest.fixture
def twins(tmp_path):
    """Two files that differ in one byte, which no sample holds."""
    one, other = tmp_path / "a.svs", tmp_path / "b" / "a.svs"
    other.parent.mkdir()
    one.write_bytes(b"x" * 100_000)
    other.write_bytes(b"x" * 50_100 + b"y" + b"x" * 49_899)
    assert identity.content_digest(one) == identity.content_digest(other)
    return one, other


def ids(session, *files):
    return [entry.slide_id for entry in register(session, files)]


def test_two_files_whose_samples_agree_are_two_slides(session, twins):
    first, second = ids(session, *twins)
    assert first != second
    assert ids(session, *twins) == [first, second]
    for one in (first, second):
        assert session.slide_row(one)["other_paths"] == []
        assert session.slide_row(one)["duplicate_of"] is None


def test_each_of_them_is_known_again_when_it_was_touched(session, twins):
    first, second = ids(session, *twins)
    for path in twins:
        os.utime(path, (5000, 5000))
    assert all(is_there(session, session.slide_row(one)) is True for one in (first, second))
    assert ids(session, *twins) == [first, second]


def test_the_second_is_still_itself_when_it_was_moved(session, twins, tmp_path):
    _first, second = ids(session, *twins)
    moved = twins[1].rename(tmp_path / "moved.svs")
    assert ids(session, moved) == [second]


def test_a_true_copy_is_another_path_of_its_slide(session, twins, tmp_path):
    (first,) = ids(session, twins[0])
    copy = tmp_path / "c" / "a.svs"
    copy.parent.mkdir()
    shutil.copy(twins[0], copy)
    assert ids(session, copy) == [first]
    assert session.slide_row(first)["other_paths"] == [str(copy)]


def test_a_change_that_the_size_shows_is_seen(session, twins):
    _, second = ids(session, *twins)
    with twins[1].open("ab") as file:
        file.write(b"z")
    assert is_there(session, session.slide_row(second)) == "changed"
