"""Processes that embed one slide into one store, made as often as a test likes; see `engine/child.py`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from engine import child

from pathassets.store import layout, open_root
from support.streams import wait_until

N = 5000
GROUP = layout.group_key(child.NAME, child.DIGEST, "embeddings")
TESTS = Path(__file__).resolve().parents[1]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Embedder:
    """One process after the other.

    Args:
        store: The store's folder.
        slide: The slide; its first 5,000 tiles are embedded.
        name: Of the file of notes, beside the store.
    """

    def __init__(self, store: Path, slide: Path, name: str = "notes") -> None:
        self.root, self.notes = open_root(store), store.with_suffix(f".{name}")
        self.notes.touch()
        command = [sys.executable, "-W", "ignore", "-u", child.__file__, store, slide, str(N)]
        environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
        self._server = subprocess.Popen(
            [*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.process, self.is_running = 0, False
        assert self._said() == "1 threads", "a process with threads must not fork"

    def start(self, *, patience: float = 0.0, flush_seconds: float = 0.0) -> int:
        """Makes a process; its number."""
        self._server.stdin.write(f"{self.notes} {patience} {flush_seconds}\n")
        self._server.stdin.flush()
        self.process, self.is_running = int(self._said()), True
        return self.process

    def ended(self) -> int:
        """Waits for the process; its exit status, negative for a signal."""
        status = int(self._said())
        self.is_running = False
        return status

    def signal(self, number: int) -> None:
        """Sends a signal to the process, if there is one still."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, number)

    def pause(self) -> None:
        """Stops the process until it gets SIGCONT."""
        self.signal(signal.SIGSTOP)
        wait_until(lambda: Path(f"/proc/{self.process}/stat").read_text().rpartition(") ")[2].startswith("T"))

    def close(self) -> None:
        if self.is_running:
            self.signal(signal.SIGKILL)
        self._server.stdin.close()
        self._server.wait(60)

    def computed(self) -> list[int]:
        """Tiles of every batch that its processes have computed."""
        return [int(line) for line in self.notes.read_text().split()]

    def said(self) -> str:
        """Why a process could not go on."""
        return Path(f"{self.notes}.said").read_text()

    def shards(self) -> dict[int, tuple[int, int]]:
        """Shards on the disk, with what changes when one is written again."""
        found = {}
        for path in (self.root.local(GROUP) / "X" / "c").glob("*/0"):
            stat = path.stat()
            found[int(path.parent.name)] = (stat.st_ino, stat.st_mtime_ns)
        return found

    def begun(self, folder: str) -> bool:
        """Whether the last process has begun to write something in a folder beside or in the group."""
        base = self.root.local(layout.array_folder(child.NAME, child.DIGEST))
        with contextlib.suppress(FileNotFoundError):  # a name that is renamed while it is listed
            return next((base / folder).rglob(f".*.{self.process}.*.tmp"), None) is not None
        return False

    def is_finishing(self) -> bool:
        return (self.root.local(GROUP) / "obs").exists()

    def _said(self) -> str:
        line = self._server.stdout.readline().strip()
        assert line, "the server has died"
        return line
