"""Many processes on one study at once, and processes that are killed.

What `e2e/test_crowd.py` does small and `benchmarks/scale.py` large.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from pathassets import Study
from support.commands import PATHASSETS, answer, run_command
from support.daemon import free_port, instance_of, make_home
from support.studies import TINY
from support.weekend import write_slide

CONFIG = f'[study]\ndevice = "cpu"\n[tissue]\nmethod = "none"\n{TINY}'
READER = Path(__file__).with_name("crowd_reader.py")
PUBLISHER = """
import sys
from pathassets.config import Study
from pathassets.steps.session import Session
from pathassets.store.results import publish
study = Study(sys.argv[1])
while True:
    publish(Session(study).root, study.home, full=True)
"""
ORDER = ("run", "publisher", "run", "daemon", "run", "publisher", "publisher")
LONGEST_RUN = 30.0  # of which a random share passes before the kill, s
_FORCED: tuple[tuple[str, ...], ...] = ((), ("--force",))
LOCKED = ("locked", "Conflicting lock", "Could not set lock")


@dataclass
class Found:
    """What came of it.

    Attributes:
        exits: How the runs ended, and how often.
        complaints: Words of runs that speak of locks, of readers that were refused, of counts that are not right.
        reads: Reads that were answered.
        torn: Reads that saw half of something.
        kills: Who was killed, and how often.
        verify: Exit code of `pathassets verify --deep` at the end.
    """

    exits: dict[int, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    reads: int = 0
    torn: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    verify: int = -1
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Nothing was lost, refused or torn."""
        return set(self.exits) <= {0} and not self.complaints and not self.torn and self.verify == 0

    def told(self) -> dict[str, Any]:
        """For printing."""
        return {**asdict(self), "complaints": self.complaints[:20], "clean": self.clean}


def start(*arguments: object) -> subprocess.Popen[str]:
    """`pathassets ...`, not waited for."""
    command = [*PATHASSETS, *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def draw(folder: Path, n_slides: int) -> list[Path]:
    """Small slides of noise."""
    folder.mkdir(parents=True)
    return [write_slide(folder / f"slide_{i}.tiff", i) for i in range(n_slides)]


def crowd(folder: Path, *, n_runs: int = 16, n_slides: int = 8, n_readers: int = 4, seconds: float = 0.0) -> Found:
    """`n_runs` runs at once over slides of which each is asked for by several of them, half of them with --force.

    Readers open `results.duckdb` anew again and again, and one connection stays open all the time. As many runs start again
    until `seconds` have passed.
    """
    found, begun = Found(), time.monotonic()
    slides = draw(folder / "in", n_slides)
    study = make_home(folder / "home", config=CONFIG)
    with instance_of(study) as instance:  # as many devices as runs: nobody waits for another's
        instance.event_log_storage.set_concurrency_slots("gpu", n_runs)
    first = run_command("run", slides[0], "--home", study.home)
    assert first.returncode == 0, first.stdout + first.stderr
    with reading(study, ["fresh"] * n_readers + ["held"], found):
        pairs = [(slides[i % n_slides], slides[(i + 1) % n_slides]) for i in range(n_runs)]
        while True:
            _collect(
                [start("run", *pair, "--home", study.home, *_FORCED[i % 2]) for i, pair in enumerate(pairs)], found
            )
            if time.monotonic() - begun >= seconds:
                break
    _judge(study, n_slides, found)
    found.seconds = time.monotonic() - begun
    return found


def _collect(runs: Sequence[subprocess.Popen[str]], found: Found) -> None:
    codes = Counter(found.exits)
    for run in runs:
        said = run.communicate(timeout=1800)[0]
        codes[run.returncode] += 1
        found.complaints += [line for line in said.splitlines() if any(word in line for word in LOCKED)]
        if run.returncode:
            found.complaints.append(said[-2000:])
    found.exits = dict(codes)


@contextmanager
def reading(study: Study, kinds: Sequence[str], found: Found) -> Iterator[None]:
    """Readers of the snapshot, one of each kind; what they saw goes into `found`."""
    commands = [[sys.executable, str(READER), str(study.results_path), kind] for kind in kinds]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    try:
        yield
    finally:
        for reader in readers:
            reader.send_signal(signal.SIGTERM)
        for kind, reader in zip(kinds, readers, strict=True):
            saw = json.loads(reader.communicate(timeout=120)[0])
            found.reads += saw["reads"]
            found.torn += saw["torn"]
            found.complaints += [f"{kind} reader: {error}" for error in saw["errors"]]
            if not saw["reads"]:
                found.complaints.append(f"{kind} reader: not one read")


def _judge(study: Study, n_slides: int, found: Found) -> None:
    """Every slide once, in the snapshot and in the store, and the study's own judgement on itself."""
    wanted = [{"rows": n_slides, "slides": n_slides}]
    for table in ("embeddings", "live.embeddings"):
        rows = answer(study.home, f"SELECT count(*) AS rows, count(DISTINCT slide_id) AS slides FROM {table}")
        if rows != wanted:
            found.complaints.append(f"{table}: {rows} instead of {wanted}")
    for table in ("tiles", "live.tiles"):
        twice = f"SELECT slide_id, tile_id FROM {table} GROUP BY ALL HAVING count(*) > 1"
        if answer(study.home, twice):
            found.complaints.append(f"{table}: rows twice")
    log = study.log_path.read_text() if study.log_path.exists() else ""
    found.complaints += [line for line in log.splitlines() if "database is locked" in line]
    verdict = run_command("verify", "--deep", "--home", study.home)
    found.verify = verdict.returncode
    if verdict.returncode:
        found.complaints.append(verdict.stdout[-2000:])


class Killer:
    """Starts processes on a study and kills them at random moments.

    Attributes:
        found: What came of it.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.found = Found()
        self._random = random.Random(seed)
        self._study = make_home(folder / "home", config=CONFIG)
        self._folder = folder / "in"
        self._made = 4
        begun = time.monotonic()
        run = run_command("run", *draw(self._folder, self._made), "--home", self._study.home)
        assert run.returncode == 0, run.stdout + run.stderr
        self._run_seconds = min(time.monotonic() - begun, LONGEST_RUN)

    def kill(self, who: str) -> None:
        """One kill -9; who has ended before does not count and is started again."""
        while True:
            process, seconds = getattr(self, f"_{who}")()
            try:
                process.wait(self._random.uniform(0.1, 1.0) * seconds)
            except subprocess.TimeoutExpired:
                break
            finally:
                _kill_family(process)
        self.found.kills[who] = self.found.kills.get(who, 0) + 1

    def check(self) -> None:
        """The study as the kills have left it: nothing is damaged; that Dagster has not heard of a result yet is harmless."""
        verdict = run_command("verify", "--json", "--home", self._study.home)
        for finding in json.loads(verdict.stdout)["findings"]:
            if not finding["harmless"]:
                self.found.complaints.append(f"after {self.found.kills}: {finding}")

    def end(self) -> Found:
        """One whole run over all slides there are, and the last judgement."""
        run = run_command("run", self._folder, self._study.home / "inbox", "--home", self._study.home)
        self.found.exits = {run.returncode: 1}
        if run.returncode:
            self.found.complaints.append(run.stdout[-2000:])
        assert run_command("adopt", "--home", self._study.home).returncode == 0
        _judge(self._study, self._made, self.found)
        return self.found

    def _run(self) -> tuple[subprocess.Popen[Any], float]:
        fresh = [self._fresh(self._folder) for _ in range(2)]
        return _silent([*PATHASSETS, "run", *fresh, "--home", self._study.home]), self._run_seconds

    def _publisher(self) -> tuple[subprocess.Popen[Any], float]:
        return _silent([sys.executable, "-W", "ignore", "-c", PUBLISHER, self._study.home]), 8.0

    def _daemon(self) -> tuple[subprocess.Popen[Any], float]:
        ports = ("--port", free_port(), "--dashboard-port", 0)
        process = _silent([*PATHASSETS, "dev", "--home", self._study.home, *ports])
        self._fresh(self._study.home / "inbox")
        return process, 45.0

    def _fresh(self, folder: Path) -> Path:
        """One more slide."""
        self._made += 1
        return write_slide(folder / f"fresh_{self._made}.tiff", self._made)


def kills(folder: Path, n: int, seed: int, *, say: Callable[[str], object] = print) -> Found:
    """`n` kills -9 of runs, daemons and publishers at random moments; the study is looked at after every fifth."""
    begun, killer = time.monotonic(), Killer(folder, seed)
    for i in range(n):
        killer.kill(ORDER[i % len(ORDER)])
        if i % 5 == 4:
            killer.check()
            say(f"{time.monotonic() - begun:6.0f} s  {killer.found.kills}, complaints: {len(killer.found.complaints)}")
    found = killer.end()
    found.seconds = time.monotonic() - begun
    return found


def _silent(command: Sequence[object]) -> subprocess.Popen[Any]:
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def _kill_family(process: subprocess.Popen[Any]) -> None:
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    for one in (*family, process):
        try:
            one.send_signal(signal.SIGKILL)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    psutil.wait_procs(family, timeout=30)
    process.wait()
