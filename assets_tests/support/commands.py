"""Commands run as a user runs them, and what they left behind."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

Command = Callable[..., subprocess.CompletedProcess[str]]
PATHASSETS = [sys.executable, "-W", "ignore", "-m", "pathassets"]


def run_command(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """`pathassets ...` in a process of its own; the test decides what its exit code should be."""
    environment = {**os.environ, "PATHASSETS_DEVICE": "cpu"}
    run = subprocess.run(
        [*PATHASSETS, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=900,
        check=False,
        **options,
    )
    assert "Traceback" not in run.stdout + run.stderr
    return run


def run_here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`pathassets ...` within this process: four fifths of a short command's time are imports.

    For tests of what a command does to a study; how a process begins and ends is for `run_command`.
    """
    from pathassets.cli import main

    command = ["pathassets", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", command),
        mock.patch.dict(os.environ, {"PATHASSETS_DEVICE": "cpu"}),
        warnings.catch_warnings(),
        _logging_as_before(),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    assert "Traceback" not in out.getvalue() + err.getvalue()
    return subprocess.CompletedProcess(command, int(code or 0), out.getvalue(), err.getvalue())


@contextmanager
def _logging_as_before() -> Iterator[None]:
    """Takes away the handlers that a command leaves to the end of its process."""
    loggers = [logging.getLogger(name) for name in (None, "pathassets", "dagster", "py.warnings")]
    before = [(one, list(one.handlers), one.level, one.propagate) for one in loggers]
    try:
        yield
    finally:
        for one, handlers, level, propagate in before:
            one.handlers[:], one.propagate = handlers, propagate
            one.setLevel(level)


def answer(home: Path, query: str) -> list[dict]:
    """Rows of a query, through the command line."""
    run = run_here("sql", query, "--home", home, "--format", "json")
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and time of every file of a study that is a result (Dagster's own state is not)."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".dagster" not in path.parts and "locks" not in path.parts
    }
