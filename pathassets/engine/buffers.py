"""Buffers: memory for batches of tiles, reused, and never more of it than the machine has to spare.

Belongs here: allocation and the budget. Does not belong: what is written into a buffer.
"""

from __future__ import annotations

import threading
from math import prod

import numpy as np

Shape = tuple[int, int, int, int]


class Buffers:
    """A pool of uint8 batches; a thread that wants one waits while the budget is spent.

    Args:
        most: Largest number of buffers in use.
        memory_share: Largest share of the free memory that they may take.
        pinned: In page-locked memory, from which a CUDA device copies while it computes.
    """

    def __init__(self, most: int, memory_share: float, *, pinned: bool) -> None:
        self._most, self._share, self._pinned = most, memory_share, pinned
        self._free: list[np.ndarray] = []
        self._in_use = 0
        self._closed = False
        self._changed = threading.Condition()

    def take(self, shape: Shape) -> np.ndarray | None:
        """A buffer of this shape, as soon as there is room for it; None when the pool is closed."""
        with self._changed:
            while not self._closed and self._in_use >= self._allowed(prod(shape)):
                self._changed.wait(timeout=0.2)  # other programs give memory back without telling us
            if self._closed:
                return None
            self._in_use += 1
            return self._fitting(shape)

    def give_back(self, buffer: np.ndarray) -> None:
        """Returns a buffer; its holder must not use it any more."""
        with self._changed:
            self._in_use -= 1
            self._free.append(buffer)
            self._changed.notify()

    def forget(self) -> None:
        """A buffer whose holder never comes back no longer counts; its memory is lost to the pool."""
        with self._changed:
            self._in_use -= 1
            self._changed.notify()

    def close(self) -> None:
        """Lets everyone go who waits."""
        with self._changed:
            self._closed = True
            self._free.clear()
            self._changed.notify_all()

    def _allowed(self, n_bytes: int) -> int:
        """One buffer always, so that a full machine is slow and not stuck."""
        room = free_memory() * self._share
        held = (self._in_use + len(self._free)) * n_bytes
        return max(1, min(self._most, int((room + held) // n_bytes)))

    def _fitting(self, shape: Shape) -> np.ndarray:
        self._free = [buffer for buffer in self._free if buffer.shape == shape]
        if self._free:
            return self._free.pop()
        return _pinned(shape) if self._pinned else np.empty(shape, np.uint8)


def free_memory() -> int:
    """Bytes that can be allocated without swapping, as the system sees it this moment."""
    import psutil

    return int(psutil.virtual_memory().available)


def _pinned(shape: Shape) -> np.ndarray:
    import torch

    return torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
