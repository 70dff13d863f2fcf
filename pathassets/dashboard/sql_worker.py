"""The SQL box in a process of its own: a question that takes the machine's memory, or cannot be interrupted, costs that process.

Belongs here: starting, asking and ending it. Does not belong: what may be asked (`sql_box`, which runs in there with all its fences).

DuckDB's limit of memory does not count long texts and lists, and not every function of it can be interrupted.
"""

from __future__ import annotations

import io
import json
import os
import selectors
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

import polars as pl

from pathassets.config import Study
from pathassets.dashboard.catalog import Catalog
from pathassets.dashboard.sql_box import ROWS, SECONDS, Answer, ask
from pathassets.errors import ConfigError, PathassetsError, Reason, StudyError

# Twice what DuckDB's own limit lets it have; a look so often lets it take little more.
MEMORY_BYTES = 2_000_000_000
LOOK_SECONDS = 0.05
# After DuckDB was asked to stop.
GRACE_SECONDS = 3.0
START_SECONDS = 120.0
_TOO_MUCH = "this needs more memory than a question may take"
# Questions that are answered at once; each may take the memory above.
AT_ONCE = 3
_LESS = "Ask for less: fewer rows in the joins, shorter texts, a LIMIT inside."
_LENGTH = struct.Struct("<Q")


class Worker:
    """Answers questions about one study, one at a time.

    Args:
        home: The study's folder.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, sql: str, *, seconds: float = SECONDS, rows: int = ROWS) -> Answer:
        """See `sql_box.ask`.

        Raises:
            ConfigError: As there; also where the process had to be ended.
            StudyError: As there.
        """
        question = {"sql": sql, "seconds": seconds, "rows": rows}
        with self._lock:
            try:
                process = self._running()
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(json.dumps(question).encode() + b"\n")
                process.stdin.flush()
                reply = _received(process, seconds + GRACE_SECONDS)
            except TimeoutError as error:
                self.end()
                raise ConfigError(f"stopped after {seconds:g} s", remedy=_LESS) from error
            except (OSError, EOFError, MemoryError) as error:
                self.end()
                raise ConfigError(_TOO_MUCH, remedy=_LESS) from error
        return _answer(reply)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            code = "from pathassets.dashboard.sql_worker import main; main()"
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", code, str(self._home)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is the server's, whose end this one sees
            )
            _received(self._process, START_SECONDS)  # it has begun: that counts for no question
        return self._process

    def end(self) -> None:
        """Ends its process; the next question starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None


class Workers:
    """A few workers, each started when it is first needed: one long question holds up nobody else.

    Args:
        home: The study's folder.
    """

    def __init__(self, home: Path) -> None:
        self._all = [Worker(home) for _ in range(AT_ONCE)]
        self._idle = list(self._all)
        self._lock = threading.Lock()

    def ask(self, sql: str, **limits: Any) -> Answer:
        """See `Worker.ask`.

        Raises:
            ConfigError: As there; also, at once, where all are at work.
            StudyError: As there.
        """
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        if worker is None:
            raise ConfigError(f"{AT_ONCE} other questions are being answered", remedy="Ask again in a few seconds.")
        try:
            return worker.ask(sql, **limits)
        finally:
            with self._lock:
                self._idle.append(worker)  # taken again first: the others need not be started

    def end(self) -> None:
        """Ends their processes."""
        for worker in self._all:
            worker.end()


_WORKERS: dict[Path, Workers] = {}
_STARTING = threading.Lock()


def ask_worker(catalog: Catalog, sql: str) -> Answer:
    """The answer to one SELECT, from this process's workers for the study."""
    home = catalog.study.home
    with _STARTING:
        workers = _WORKERS.setdefault(home, Workers(home))
    return workers.ask(sql)


def _received(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """The next message.

    Raises:
        TimeoutError: There is none within `seconds`.
        MemoryError: It has taken more than `MEMORY_BYTES` for it.
        EOFError: There will be none.
    """
    stream = process.stdout
    assert stream is not None
    _wait(process, stream, time.monotonic() + seconds)
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    wanted = _LENGTH.unpack(head)[0]
    data = stream.read(wanted)
    if len(data) < wanted:
        raise EOFError
    return data


def _wait(process: subprocess.Popen[bytes], stream: IO[bytes], end: float) -> None:
    import psutil

    seen = psutil.Process(process.pid)
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while not selector.select(LOOK_SECONDS):
            if time.monotonic() > end:
                raise TimeoutError
            if process.poll() is None and seen.memory_info().rss > MEMORY_BYTES:
                raise MemoryError


def _answer(reply: bytes) -> Answer:
    head, _, body = reply.partition(b"\n")
    told: dict[str, Any] = json.loads(head)
    if "message" in told:
        kind = ConfigError if told["reason"] == Reason.CONFIG_INVALID else StudyError
        raise kind(told["message"], reason=Reason(told["reason"]), remedy=told["remedy"])
    return Answer(pl.read_ipc(io.BytesIO(body)), told["cut"], told["seconds"])


# -- in the other process --------------------------------------------------------------------------------------------


def main() -> None:
    """Answers what comes on standard input, until it ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries that show their progress must not be taken for an answer
    catalog = Catalog(Study(sys.argv[1]))
    _send(out, b"")
    for line in sys.stdin.buffer:
        _send(out, _reply(catalog, json.loads(line)))


def _reply(catalog: Catalog, question: dict[str, Any]) -> bytes:
    begun = time.perf_counter()
    try:
        answer = ask(catalog, question["sql"], seconds=question["seconds"], rows=question["rows"])
        body = io.BytesIO()
        answer.frame.write_ipc(body)
        told: dict[str, Any] = {"cut": answer.cut, "seconds": answer.seconds}
        return json.dumps(told).encode() + b"\n" + body.getvalue()
    except PathassetsError as error:
        told = {"message": error.message, "reason": str(error.reason), "remedy": error.remedy}
    except MemoryError:
        told = {"message": _TOO_MUCH, "reason": str(Reason.CONFIG_INVALID), "remedy": _LESS}
    told["seconds"] = time.perf_counter() - begun
    return json.dumps(told).encode() + b"\n"


def _send(out: IO[bytes], data: bytes) -> None:
    out.write(_LENGTH.pack(len(data)) + data)
    out.flush()
