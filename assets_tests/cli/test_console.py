"""Watchers of a run: several slides may be on their way at once."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from pathassets.cli import console
from pathassets.cli.console import Bar, Lines


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(console, "say", lines.append)
    return lines


def test_lines_tell_each_quarter_of_each_slide_once(said):
    watcher = Lines()
    for done in range(0, 101, 5):
        watcher.tiles("a", done, 100)
        watcher.tiles("b", done // 2, 100)
    assert len([line for line in said if " a:" in line]) == 4
    assert len([line for line in said if " b:" in line]) == 2


def test_a_bar_for_each_slide_that_is_embedded_as_long_as_it_is():
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"),
        console=Console(file=io.StringIO()),
    ) as progress:  # fmt: skip
        bar = Bar(progress, 2)
        for name in ("a", "[b]"):
            bar.slide(name, "tissue")
        bar.tiles("a", 5, 10)
        bar.tiles("[b]", 10, 10)
        bar.tiles("a", 7, 10)
        assert {task.description: task.completed for task in progress.tasks[2:]} == {"a": 7, "\\[b]": 10}
        bar.slide("[b]", "embeddings")
        assert [task.description for task in progress.tasks[2:]] == ["a"]


def test_many_rows_are_aligned_one_line_each(capsys):
    from pathassets.cli.console import MANY, print_rows

    rows = [{"slide_id": f"s-{i}", "tiles": 1.5, "path": None if i else "x" * 300} for i in range(MANY + 1)]
    print_rows(rows, ("slide_id", "tiles", "path"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == MANY + 2
    assert lines[0].split() == ["slide_id", "tiles", "path"]
    assert lines[1].split() == ["s-0", "1.5", "x" * 300]
    assert lines[-1].split() == [f"s-{MANY}", "1.5"]
