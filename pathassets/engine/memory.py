"""Memory: how much of it there is to spare this moment, and what a run may hold of it.

Belongs here: measuring, and one budget for all that a run's devices wait with. Does not belong: buffers (`buffers`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
# Names of limit, usage, and (in memory.stat) of the file cache that the kernel gives up before it kills.
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


class Budget:
    """Memory that several holders share: no more than a share of what would be free without them.

    Args:
        share: 0 to 1.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._held = 0
        self._lock = threading.Lock()

    def spend(self, n_bytes: int, make: Callable[[], np.ndarray], *, anyway: bool = False) -> np.ndarray | None:
        """What `make` gives, which takes so much more memory than is held; None when that is too much now.

        Args:
            n_bytes: 0 for what is held already.
            make: Called while nobody else spends; its memory must be touched, or the next look would not see it gone.
            anyway: Even if it is too much.
        """
        with self._lock:
            if not anyway and self._held + n_bytes > self._share * (free_memory() + self._held):
                return None
            made = make()
            self._held += n_bytes
            return made

    def give_back(self, n_bytes: int) -> None:
        """So much has been given back to the system."""
        with self._lock:
            self._held -= n_bytes


def free_memory(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> int:
    """Bytes that can be had without swapping or being killed: of the machine, and of the container or batch job around us.

    Args:
        cgroups: Where control groups are mounted.
        own: Which of them this process is in.
    """
    import psutil

    available = int(psutil.virtual_memory().available)
    return min([available, *_rooms(cgroups, own, available)])


def _rooms(cgroups: Path, own: Path, enough: int) -> Iterator[int]:
    """What is left in those of the process's control groups and the ones above them, version 1 and 2, that leave less than
    `enough`; inside a container the process's own path may not be there, but its top is."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # no Linux
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and "memory" not in controllers.split(","):
            continue
        top, names = (cgroups / "memory", V1) if controllers else (cgroups, V2)
        folder = top / path.lstrip("/")
        for group in (folder, *folder.parents):
            if group.is_relative_to(top) and (room := _room(group, names, enough)) is not None:
                yield room


def _room(group: Path, names: tuple[str, str, str], enough: int) -> int | None:
    """Limit less usage; the file cache does not count as used. None where there is no limit, or one that leaves enough."""
    limit, usage, cache = names
    try:
        most = (group / limit).read_text().strip()
        room = None if most == "max" else int(most) - int((group / usage).read_text())
        if room is None or room >= enough:
            return None  # not asked how much of it is cache: the kernel takes a millisecond to count that
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, room + int(stat.get(cache, 0)))
    except (OSError, ValueError):
        return None
