"""What a measured process prints: one line of JSON that its parent reads.

Belongs here: clocks and memory of one process. Does not belong: any library that is measured; only the standard library is
imported, so that every peer's environment can load it.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

MARK = "measured "


def measure(work: Callable[[], int], warm_up: Callable[[], object]) -> None:
    """Runs `work`, which returns how many tiles it dealt with, and prints what that took; `warm_up` comes first.

    CPU seconds are those of the process, its threads and its children; memory is what came on top of what was there before.
    """
    warm_up()
    before_mb, cpu, wall = _resident_mb(), _cpu_seconds(), time.perf_counter()
    tiles = work()
    seen = {
        "tiles": tiles,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": _cpu_seconds() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mb,
    }
    print(MARK + json.dumps(seen), flush=True)


def _cpu_seconds() -> float:
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
