"""Logs as JSON: one object a line, with the slide, the step and the run that a line is about.

Belongs here: how a log record becomes a line, and what a record is about. Does not belong: what the user sees (`cli/console`).
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

SUBJECTS = ("slide_id", "step", "run_id")
DETAILS = ("reason", "remedy", "done", "total")
PLAIN = "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"

_run_of_process: list[str | None] = [None]  # threads of the engine and of libraries inherit no context
_about: ContextVar[dict[str, str | None] | None] = ContextVar("pathassets_log_about", default=None)


@contextmanager
def about(**subjects: str | None) -> Iterator[None]:
    """Lines that this thread logs inside the block are about `slide_id`, `step`, `run_id`."""
    token = _about.set({**(_about.get() or {}), **subjects})
    try:
        yield
    finally:
        _about.reset(token)


def begin_run(run_id: str | None) -> None:
    """From now on this process works for `run_id`, whatever thread logs a line."""
    _run_of_process[0] = run_id


class JsonLines(logging.Formatter):
    """`time` (ISO 8601, UTC), `level`, `logger`, `message`, `slide_id`, `step`, `run_id`; a line never holds a line break.

    What is not known is null. `exception` holds a traceback; `reason`, `remedy`, `done` and `total` are there where
    a line is about a failure or about progress.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        context = _about.get() or {}
        dagster: dict[str, Any] = getattr(record, "dagster_meta", None) or {}
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": dagster.get("orig_message") or record.getMessage(),
            "slide_id": getattr(record, "slide_id", None) or context.get("slide_id"),
            "step": getattr(record, "step", None) or context.get("step") or dagster.get("step_key"),
            "run_id": context.get("run_id") or dagster.get("run_id") or _run_of_process[0],
        }
        line |= {name: getattr(record, name) for name in DETAILS if hasattr(record, name)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def formatter(log_format: str) -> logging.Formatter:
    """The formatter of `json` or of `text`."""
    return JsonLines() if log_format == "json" else logging.Formatter(PLAIN)


def to_stderr() -> logging.Handler:
    """A handler that writes JSON lines to the standard error output."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    return handler


def begin_json() -> None:
    """Sends this process's log to the standard error output as JSON, unless it goes there already."""
    root = logging.getLogger()
    if not any(isinstance(handler.formatter, JsonLines) for handler in root.handlers):
        root.addHandler(to_stderr())
        logging.getLogger("pathassets").setLevel(logging.INFO)
