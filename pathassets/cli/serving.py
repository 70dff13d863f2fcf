"""`pathassets dev`: Dagster's UI and daemon, and nothing exposed beyond this machine.

Belongs here: starting Dagster's own command. Does not belong: what it loads.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from pathassets.cli.console import say
from pathassets.config import Study
from pathassets.errors import ConfigError


def _check_port(port: int) -> None:
    """Refuses a port that is taken: Dagster's daemon would run on without its web server."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(f"port {port} cannot be had: {error}", remedy="Name another one with --port.") from error


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
    say(f"Dagster on http://127.0.0.1:{port}; drop slides into {', '.join(study.inbox_places)}; Ctrl-C ends it")
    _check_port(port)
    process = subprocess.Popen(command, env=environment, cwd=study.home)
    signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGINT))  # else Dagster lives on without us
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        return 0
