"""A PostgreSQL server of one test's own: its data in a temporary folder, its port on the loopback device."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.daemon import free_port

PASSWORD = "not-a-secret"
SETTINGS = Path(__file__).resolve().parents[2] / "deploy" / "postgres" / "dagster.yaml"


def find_binaries() -> Path | None:
    """The newest PostgreSQL's folder of programs: on the path, or where Debian keeps it."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class Server:
    """A server that can be stopped and started again.

    Attributes:
        environment: The variables that deploy/postgres/dagster.yaml asks for.
    """

    def __init__(self, folder: Path, binaries: Path) -> None:
        self._folder, self._binaries = folder, binaries
        self.environment = {
            "PATHASSETS_PG_HOST": "127.0.0.1",
            "PATHASSETS_PG_PORT": str(free_port()),
            "PATHASSETS_PG_USER": "dagster",
            "PATHASSETS_PG_PASSWORD": PASSWORD,
            "PATHASSETS_PG_DATABASE": "postgres",
        }

    def make(self) -> None:
        """An empty cluster with one user."""
        self._folder.mkdir(mode=0o700)
        secret = self._folder.with_suffix(".pw")
        secret.write_text(PASSWORD)
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            for path in (self._folder, secret):
                shutil.chown(path, "postgres", "postgres")
        self._as_owner("initdb", "-D", self._folder, "-U", "dagster", "-A", "scram-sha-256", f"--pwfile={secret}", "-N")

    def start(self) -> None:
        """Starts it and waits until it answers."""
        port = self.environment["PATHASSETS_PG_PORT"]
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={self._folder} -c fsync=off"
        self._as_owner("pg_ctl", "-D", self._folder, "-l", self._folder / "log", "-o", options, "-w", "start")

    def stop(self) -> None:
        """Ends it at once, as a power cut would: connections are lost, the log is replayed at the next start."""
        self._as_owner("pg_ctl", "-D", self._folder, "-m", "immediate", "-w", "stop")

    @property
    def is_running(self) -> bool:
        return (self._folder / "postmaster.pid").exists()

    def _as_owner(self, program: str, *arguments: object) -> None:
        who = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*who, str(self._binaries / program), *map(str, arguments)]
        run = subprocess.run(command, cwd="/", capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        assert run.returncode == 0, run.stdout + run.stderr


@contextmanager
def postgres_running(folder: Path) -> Iterator[Server]:
    """A server at work; the test is skipped where there is no PostgreSQL."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    pytest.importorskip("dagster_postgres", reason="pip install 'pathassets[postgres]'")
    server = Server(folder, binaries)
    server.make()
    server.start()
    try:
        yield server
    finally:
        if server.is_running:
            server.stop()
