"""`pathassets dev`: Dagster's UI and daemon, and nothing exposed beyond this machine.

Belongs here: starting Dagster's own command. Does not belong: what it loads.
"""

from __future__ import annotations

import os
import subprocess
import sys

from pathassets.cli.console import say
from pathassets.config import Study


def serve(study: Study, port: int) -> int:
    """Runs Dagster for `study` until it is interrupted; returns its exit code."""
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(study.dagster_home),
        "PATHASSETS_HOME": str(study.home),
        "PYTHONWARNINGS": "ignore",
    }
    command = [
        sys.executable,
        "-m",
        "dagster",
        "dev",
        "-m",
        "pathassets.definitions",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    say(
        f"Dagster on http://127.0.0.1:{port}; drop slides into {', '.join(map(str, study.inbox_paths))}; Ctrl-C ends it"
    )
    process = subprocess.Popen(command, env=environment, cwd=study.home)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        return 0
