"""Slides whose file could not be read when they were registered: their path names them until it can."""

from __future__ import annotations

import os

import pytest

from pathassets.cli.explaining import explain
from pathassets.config import Study
from pathassets.slides import identity
from pathassets.steps import register as register_module
from pathassets.steps.register import register
from pathassets.steps.session import Session
from pathassets.steps.sources import is_there, is_unread


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.svs"
    path.write_bytes(b"content")
    return path


@pytest.fixture
def closed(monkeypatch):
    """Files that may not be read, by path."""
    paths: set[str] = set()
    real = register_module.content_of

    def content_of(session, found, deadline=float("inf")):
        if found.path in paths:
            raise PermissionError(13, "Permission denied")
        return real(session, found, deadline)

    monkeypatch.setattr(register_module, "content_of", content_of)
    return paths


def enter(home, *files):
    return [entry.slide_id for entry in register(Session(Study(home)), files)]


def row(home, slide_id):
    return Session(Study(home)).slide_row(slide_id)


@pytest.mark.parametrize("touched", [False, True])
def test_a_slide_keeps_its_id_and_gets_its_content_when_it_can_be_read(home, file, closed, touched):
    closed.add(str(file))
    (slide_id,) = enter(home, file)
    assert is_unread(row(home, slide_id))
    assert enter(home, file) == [slide_id]  # still closed
    closed.clear()
    if touched:
        os.utime(file, (5000, 5000))
        assert is_there(Session(Study(home)), row(home, slide_id)) is True
    assert enter(home, file) == [slide_id]
    found = row(home, slide_id)
    assert found["content_sha256"] == identity.content_digest(file)
    os.utime(file, (9000, 9000))
    assert is_there(Session(Study(home)), found) is True
    assert enter(home, file) == [slide_id]
    assert Study(home).scan("slides").collect().height == 1


def test_a_share_that_was_offline_makes_no_second_slide(home, file):
    content = file.read_bytes()
    file.unlink()
    (slide_id,) = enter(home, file)
    file.write_bytes(content)
    assert enter(home, file) == [slide_id]
    assert row(home, slide_id)["content_sha256"] == identity.content_digest(file)


def test_its_duplicate_is_found(home, file, closed, tmp_path):
    copy = tmp_path / "b.svs"
    copy.write_bytes(file.read_bytes())
    closed.add(str(copy))
    first, second = enter(home, file, copy)
    assert row(home, second)["duplicate_of"] is None
    closed.clear()
    assert enter(home, file, copy) == [first, second]
    assert row(home, second)["duplicate_of"] == first


def test_a_file_that_changed_and_could_not_be_read_for_a_while_is_its_old_slide_when_it_is_the_same(home, file, closed):
    (known,) = enter(home, file)
    closed.add(str(file))
    os.utime(file, (5000, 5000))
    (unread,) = enter(home, file)
    assert unread != known
    closed.clear()
    assert enter(home, file) == [known]
    assert row(home, known)["missing_since"] is None


def test_explain_does_not_take_the_path_s_hash_for_the_file_s(home, file, closed, capsys):
    closed.add(str(file))
    (slide_id,) = enter(home, file)
    explain(Study(home), slide_id, None, as_json=False)
    said = capsys.readouterr().out
    assert "never read: the id stands for the path" in said
    assert row(home, slide_id)["content_sha256"][:16] not in said
    closed.clear()
    enter(home, file)
    explain(Study(home), slide_id, None, as_json=False)
    assert identity.content_digest(file) in capsys.readouterr().out
