"""What the machine around us allows: open files, shared memory, memory, cores, a clock that agrees with the disk's.

Belongs here: measuring. Does not belong: deciding what is too little (`doctor`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def open_files() -> tuple[int, int] | None:
    """The limits of open files, as they are and as they may be raised to; None where there are none."""
    try:
        import resource
    except ImportError:  # no Unix
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft, hard


def shared_memory_gb() -> float | None:
    """Size of /dev/shm; None where there is none."""
    try:
        return shutil.disk_usage("/dev/shm").total / 1e9  # noqa: S108  it is measured, not written
    except OSError:
        return None


def memory_gb() -> tuple[float, float]:
    """Memory that is free for us and that the machine has, GB: a container or batch job may have been given less."""
    import psutil

    memory = psutil.virtual_memory()
    try:
        room = int((CGROUP / "memory.max").read_text()) - int((CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no limit, or another kind of control groups
        room = memory.available
    return min(room, memory.available) / 1e9, memory.total / 1e9


def cores() -> tuple[float, int]:
    """Cores that we may use, by affinity and quota, and that the machine has."""
    all_cores = os.cpu_count() or 1
    ours: float = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else all_cores
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
        ours = min(ours, int(quota) / int(period)) if quota != "max" else ours
    except (OSError, ValueError):
        pass
    return ours, all_cores


def clock_skew_s(folder: Path) -> float:
    """How far the clock of the disk that holds `folder` is ahead of this machine's, seconds.

    Raises:
        OSError: Nothing can be written there.
    """
    before = time.time()
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".pathassets-clock-") as probe:
        probe.write(b"x")
        probe.flush()
        written = os.stat(probe.name).st_mtime
    after = time.time()
    return min(0.0, written - before) + max(0.0, written - after)
