"""What the user sees: messages, tables, progress; and the log that takes what the user should not have to read.

Belongs here: rendering. Does not belong: deciding what is shown.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from pathassets.environment import log_format
from pathassets.errors import PathassetsError
from pathassets.logs import formatter, to_stderr

log = logging.getLogger(__name__)

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

MANY = 500
COLOURS = {"ok": "green", "flagged": "yellow", "empty": "yellow", "failed": "red"}


def say(text: str) -> None:
    """One line for the user; `text` may come from a file's name, so it is no markup."""
    out.print(escape(text), highlight=False)


def complain(error: PathassetsError) -> None:
    """An error in the words of the user; in the log's own format where that is JSON."""
    if log_format() == "json":
        log.error(error.message, extra={"reason": str(error.reason), "remedy": error.remedy})
        return
    err.print(f"[red]error[/red] {escape(error.message)} {escape(f'[{error.reason}]')}", highlight=False)
    if error.remedy:
        err.print(f"      {escape(error.remedy)}", highlight=False)


def print_json(value: Any) -> None:
    """For programs."""
    sys.stdout.write(json.dumps(_strict(value), indent=2, default=str, allow_nan=False) + "\n")


def _strict(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, list | tuple) else value


def no_slides(home: Path) -> str:
    """What is said of a study that nothing was added to yet."""
    return f"no slides in {home} yet; add some with `pathassets run PATH --home {home}`"


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, title: str | None = None) -> None:
    """Rows as a table; long values wrap instead of being cut. Many rows are aligned only, which takes far less time."""
    if len(rows) > MANY:
        _print_aligned(rows, columns)
        return
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for name in columns:
        table.add_column(escape(name), overflow="fold")
    for row in rows:
        colour = COLOURS.get(str(row.get("status")), "")
        cells = [escape(_text(row.get(name))) for name in columns]
        table.add_row(*cells, style=colour if colour == "red" else "")
    Console(soft_wrap=False, width=None if out.is_terminal else 200).print(table)


def _print_aligned(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    lines = [list(columns), *([_text(row.get(name)) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        sys.stdout.write("  ".join(map(str.ljust, line, widths)).rstrip() + "\n")


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Lines:
    """A watcher for logs: a line for each slide, and for each quarter of its tiles."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._told: dict[str, int] = {}  # several slides may be on their way at once

    def slide(self, slide_id: str, step: str) -> None:
        """A step of a slide begins."""
        if slide_id not in self._seen:
            self._seen.add(slide_id)
            say(f"  {slide_id}")

    def tiles(self, slide_id: str, done: int, total: int) -> None:
        """`done` of `total` tiles are embedded."""
        quarter = 4 * done // max(total, 1)
        if quarter != self._told.get(slide_id, 0):
            self._told[slide_id] = quarter
            say(f"  {slide_id}: {done} of {total} tiles embedded")

    def waits(self, what: str, holder: str) -> None:
        """Another process works on a slide, or has the device, and is waited for."""
        say(f"  {what}: waiting for {holder}")


class Records:
    """A watcher for programs: what happens becomes lines of the log."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}

    def slide(self, slide_id: str, step: str) -> None:
        """A step of a slide begins."""
        log.info("step begins", extra={"slide_id": slide_id, "step": step})

    def tiles(self, slide_id: str, done: int, total: int) -> None:
        """`done` of `total` tiles are embedded; told for each tenth of a slide."""
        tenth = 10 * done // max(total, 1)
        if tenth != self._told.get(slide_id):
            self._told[slide_id] = tenth
            log.info("tiles embedded", extra={"slide_id": slide_id, "step": "embeddings", "done": done, "total": total})

    def waits(self, what: str, holder: str) -> None:
        """Another process works on a slide, or has the device, and is waited for."""
        log.info("waiting", extra={"for": what, "holder": holder})


class Bar:
    """A watcher for terminals: a bar for the slides, a line for what begins, a bar for each slide that is being embedded."""

    def __init__(self, progress: Progress, slides: int) -> None:
        self._progress = progress
        self._slides: TaskID = progress.add_task("slides", total=slides, rate="")
        self._step: TaskID = progress.add_task("", total=None, rate="", visible=False)
        self._tiles: dict[str, TaskID] = {}
        self._seen: set[str] = set()

    def slide(self, slide_id: str, step: str) -> None:
        """A step of a slide begins."""
        self._seen.add(slide_id)
        self._progress.update(self._slides, completed=len(self._seen) - 1)
        if slide_id in self._tiles:
            self._progress.remove_task(self._tiles.pop(slide_id))
        self._progress.update(self._step, description=escape(f"{slide_id} {step}"), visible=True)

    def tiles(self, slide_id: str, done: int, total: int) -> None:
        """`done` of `total` tiles are embedded."""
        if slide_id not in self._tiles:
            self._tiles[slide_id] = self._progress.add_task(escape(slide_id), total=total, rate="")
        bar = self._tiles[slide_id]
        speed = next(task.speed for task in self._progress.tasks if task.id == bar)
        rate = f"{done} of {total} tiles" + (f", {speed:.0f}/s" if speed else "")
        self._progress.update(bar, completed=done, total=total, rate=rate)

    def waits(self, what: str, holder: str) -> None:
        """Another process works on a slide, or has the device, and is waited for."""
        self._progress.update(self._step, description=escape(f"{what}: waiting for {holder}"), visible=True)


@contextmanager
def watching(slides: int, *, quiet: bool) -> Iterator[Any]:
    """A watcher that fits where the output goes; None when nothing is to be said."""
    if log_format() == "json":
        yield Records()
    elif quiet:
        yield None
    elif not out.is_terminal:
        yield Lines()
    else:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=out, transient=True) as progress:
            yield Bar(progress, slides)


def log_to(path: Path | None) -> None:
    """Sends this package's and Dagster's log, and all warnings, to a file (None = nowhere) and away from the terminal."""
    warnings.simplefilter("ignore")
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers.clear()
    handler: logging.Handler = logging.NullHandler()
    with suppress(OSError):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(path, delay=False)
    handler.setFormatter(formatter(log_format()))
    root.addHandler(handler)
    if log_format() == "json":
        root.addHandler(to_stderr())
    root.setLevel(logging.WARNING)
    logging.getLogger("pathassets").setLevel(logging.INFO)
    logging.raiseExceptions = False  # a full disk must not print a traceback for each line of the log
    os.environ.setdefault("TQDM_DISABLE", "1")
