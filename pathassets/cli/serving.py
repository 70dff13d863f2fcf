"""`pathassets dev` and `pathassets dashboard`: what is looked at in a browser, and nothing exposed beyond this machine.

Belongs here: starting Dagster's own command, and the dashboard's server. Does not belong: what they load.
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
    from pathassets.defs.launch import set_up

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
    set_up(study)
    process = subprocess.Popen(command, env=environment, cwd=study.home)
    signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGINT))  # else Dagster lives on without us
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        return 0


def serve_dashboard(study: Study, port: int) -> int:
    """Serves the dashboard of `study` on this machine's own address until it is interrupted; returns the exit code."""
    import logging

    from werkzeug.serving import WSGIRequestHandler, make_server

    from pathassets.dashboard.app import make_app

    class KeepsConnections(WSGIRequestHandler):
        """A view is dozens of tiles: a connection for each would cost more than they do."""

        protocol_version = "HTTP/1.1"

    _check_port(port)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each tile is no log
    server = make_server("127.0.0.1", port, make_app(study).server, threaded=True, request_handler=KeepsConnections)
    say(f"dashboard on http://127.0.0.1:{port}; Ctrl-C ends it")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()
    return 0
