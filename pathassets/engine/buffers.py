"""Buffers: memory for batches of tiles, reused, and never more of it than the machine has to spare.

Belongs here: a device's pool. Does not belong: how much there is to spare (`memory`), what is written into a buffer.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from math import prod

import numpy as np

from pathassets.engine.memory import Budget

Shape = tuple[int, int, int, int]


class Buffers:
    """A pool of uint8 batches; a thread that wants one waits while too many are out or the budget is spent.

    Args:
        most: Largest number of buffers in use.
        budget: Shared with the pools of other devices; looked at for every batch.
        pinned: In page-locked memory, from which a CUDA device copies while it computes.
    """

    def __init__(self, most: int, budget: Budget, *, pinned: bool) -> None:
        self._most, self._budget, self._pinned = most, budget, pinned
        self._free: list[np.ndarray] = []
        self._in_use = 0
        self._closed = False
        self._changed = threading.Condition()

    def take(self, shape: Shape) -> np.ndarray | None:
        """A buffer of this shape, as soon as there is room for it; None when the pool is closed."""
        with self._changed:
            while not self._closed:
                buffer = self._found(shape)
                if buffer is not None:
                    self._in_use += 1
                    return buffer
                self._changed.wait(timeout=0.2)  # other programs give memory back without telling us
            return None

    def give_back(self, buffer: np.ndarray) -> None:
        """Returns a buffer; its holder must not use it any more."""
        with self._changed:
            self._in_use -= 1
            self._free.append(buffer)
            if self._closed:
                self._release()
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
            self._release()
            self._changed.notify_all()

    def _found(self, shape: Shape) -> np.ndarray | None:
        """One buffer always, so that a full machine is slow and not stuck."""
        if self._in_use >= self._most:
            return None
        self._release([buffer for buffer in self._free if buffer.shape == shape])
        first = self._in_use == 0
        if self._free:
            found = self._budget.spend(0, self._free.pop, anyway=first)
        else:
            found = self._budget.spend(prod(shape), lambda: self._new(shape), anyway=first)
        if found is None:
            self._release()  # somebody else needs the memory more
        return found

    def _new(self, shape: Shape) -> np.ndarray:
        return _pinned(shape) if self._pinned else np.full(shape, 255, np.uint8)  # touched, hence really taken

    def _release(self, keep: Sequence[np.ndarray] = ()) -> None:
        """Gives the memory of waiting buffers back to the system, but for some."""
        before = sum(buffer.nbytes for buffer in self._free)
        self._free = list(keep)
        self._budget.give_back(before - sum(buffer.nbytes for buffer in keep))


def _pinned(shape: Shape) -> np.ndarray:
    import torch

    return torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
