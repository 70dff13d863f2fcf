"""`pathassets dev` and `pathassets dashboard`: what is looked at in a browser, and nothing exposed beyond this machine.

Belongs here: starting Dagster's own command and the dashboard's server, and ending both. Does not belong: what they load.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from pathassets.cli.console import say
from pathassets.config import Study
from pathassets.errors import ConfigError

HOST = "127.0.0.1"
# How long whoever was told to end may take before it is ended.
GRACE_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
# Said once more of SIGINT: a shell starts what shall run in the background deaf to it.
_ENDS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def _check_port(port: int) -> None:
    """Refuses a port that is taken: Dagster's daemon would run on without its web server."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except OSError as error:
            raise ConfigError(f"port {port} cannot be had: {error}", remedy="Name another one with --port.") from error


def serve(study: Study, port: int, dashboard_port: int) -> int:
    """Runs Dagster, and the dashboard beside it, until they are interrupted; returns Dagster's exit code.

    Args:
        study: The study.
        port: Of Dagster's UI.
        dashboard_port: Of the dashboard; 0 = none. Where it is taken, Dagster runs alone.
    """
    from pathassets.defs.launch import set_up

    _check_port(port)
    say(f"Dagster on http://{HOST}:{port}; drop slides into {', '.join(study.inbox_places)}; Ctrl-C ends it")
    dashboard = dashboard_port if _can_have(dashboard_port) else 0
    environment = _environment(study, port, dashboard)
    dagster = ["dagster", "dev", "-m", "pathassets.definitions", "-h", HOST, "-p", str(port)]
    commands = [dagster]
    if dashboard:
        commands.append(["pathassets", "dashboard", "--home", str(study.home), "--port", str(dashboard)])
    set_up(study)
    with _running(commands, environment, study) as processes:
        return processes[0].wait()
    return 0  # it was interrupted


def _can_have(port: int) -> bool:
    """Whether the dashboard can be served; a word where it cannot."""
    if not port:
        return False
    try:
        _check_port(port)
    except ConfigError as error:
        say(f"no dashboard: {error.message}; name another one with --dashboard-port")
        return False
    return True


def _environment(study: Study, port: int, dashboard: int) -> dict[str, str]:
    """What both processes are told: the study, and where the other one is, unless the settings know better."""
    told = {
        "DAGSTER_HOME": str(study.dagster_home),
        "PATHASSETS_HOME": str(study.home),
        "PATHASSETS_DAGSTER_URL": study.dagster_url or f"http://{HOST}:{port}",
        "PATHASSETS_DASHBOARD_URL": study.dashboard_url or (f"http://{HOST}:{dashboard}" if dashboard else ""),
        "PYTHONWARNINGS": "ignore",
    }
    return {**os.environ, **told}


@contextmanager
def _running(
    commands: Sequence[Sequence[str]], environment: dict[str, str], study: Study
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Python modules as processes, which are all ended at the end, whatever ends it; Ctrl-C is such an end, and no error.

    Each is the head of a group of its own: a terminal's Ctrl-C reaches them once, through here, and in order.
    """
    processes: list[subprocess.Popen[bytes]] = []
    for name in _ENDS:
        signal.signal(name, _interrupt)
    try:
        for command in commands:
            line = [sys.executable, "-m", *command]
            processes.append(
                subprocess.Popen(
                    line, env=environment, cwd=study.home, start_new_session=True, preexec_fn=_end_with_parent
                )
            )
        yield processes
    except KeyboardInterrupt:
        pass
    finally:
        _end(processes)


def _end_with_parent() -> None:
    """Where the kernel can tell a child that its parent was killed (Linux), the child is interrupted, too: no port stays taken."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Tells all to end, and ends whoever does not; a second Ctrl-C does not wait."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    for process in processes:
        try:
            process.wait(GRACE_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


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
    server = make_server(HOST, port, make_app(study).server, threaded=True, request_handler=KeepsConnections)
    say(f"dashboard on http://{HOST}:{port}; Ctrl-C ends it")
    for name in _ENDS:
        signal.signal(name, signal.default_int_handler)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()
    return 0
