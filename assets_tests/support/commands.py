"""Commands run as a user runs them, and what they left behind."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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


def answer(home: Path, query: str) -> list[dict]:
    """Rows of a query, through the command line."""
    run = run_command("sql", query, "--home", home, "--format", "json")
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and time of every file of a study that is a result (Dagster's own state is not)."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".dagster" not in path.parts and "locks" not in path.parts
    }
