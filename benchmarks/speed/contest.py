"""Contests: processes that take turns, and the ratios between neighbours.

Belongs here: starting a contender on so many cores and reading what it says. Does not belong: who the contenders are.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.speed.child import MARK

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 1200


@dataclass(frozen=True)
class Contender:
    """A command of a module that prints one measured line; `cores` of 0 means all."""

    python: str
    module: str
    args: tuple[str, ...]
    cores: int


@dataclass(frozen=True)
class Sample:
    """One run."""

    tiles: int
    cpu_ms: float
    wall_ms: float
    peak_mb: float


def contest(contenders: dict[str, Contender], rounds: int) -> dict[str, list[Sample]]:
    """Each contender once in every round, in turns; every other round the other way about."""
    found: dict[str, list[Sample]] = {name: [] for name in contenders}
    for number in range(rounds):
        order = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        for name in order:
            found[name].append(_sample(contenders[name]))
    return found


def median_ratio(found: dict[str, list[Sample]], one: str, other: str, what: str) -> float:
    """Median over rounds of `one`'s share of `other`'s cost in the same round."""
    pairs = zip(found[one], found[other], strict=True)
    return median(getattr(a, what) / getattr(b, what) for a, b in pairs)


def run_module(python: str, module: str, args: Sequence[str], *, cores: int) -> dict[str, float]:
    """Runs `python -m module args` on so many cores, and gives what it measured.

    Raises:
        RuntimeError: It printed no measured line.
    """
    done = subprocess.run(
        [python, "-m", module, *args],
        cwd=ROOT,
        env={**os.environ, **({"OMP_NUM_THREADS": str(cores)} if cores else {})},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        preexec_fn=_pin(cores) if cores else None,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not lines:
        raise RuntimeError(f"{module} {' '.join(args)} measured nothing:\n{done.stderr[-2000:]}")
    seen: dict[str, float] = json.loads(lines[-1].removeprefix(MARK))
    return seen


def _sample(contender: Contender) -> Sample:
    seen = run_module(contender.python, contender.module, contender.args, cores=contender.cores)
    per_tile = 1000 / seen["tiles"]
    return Sample(int(seen["tiles"]), seen["cpu_s"] * per_tile, seen["wall_s"] * per_tile, seen["peak_mb"])


def _pin(cores: int) -> Callable[[], None]:
    def pin() -> None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])

    return pin
