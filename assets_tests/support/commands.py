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
    return _without_traceback(run)


def run_here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`pathassets ...` within this process: most of a short command's time goes into imports.

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
        except SystemExit as ended:  # the only way that it ends
            code = ended.code
    return _without_traceback(subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue()))


def _without_traceback(run: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert "Traceback" not in run.stdout + run.stderr
    return run


@contextmanager
def _logging_as_before() -> Iterator[None]:
    """Takes back what `console.log_to` leaves to the end of its process."""
    root, ours = logging.getLogger(), logging.getLogger("pathassets")
    handlers, levels, raises = list(root.handlers), (root.level, ours.level), logging.raiseExceptions
    try:
        yield
    finally:
        for left in set(root.handlers) - set(handlers):
            left.close()
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        ours.setLevel(levels[1])
        logging.captureWarnings(False)
        logging.raiseExceptions = raises


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
