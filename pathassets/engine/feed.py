"""Feed: batches of several slides as one queue, so that the next slide is read while the last tiles of this one are computed.

Belongs here: order. Does not belong: reading, computing.
"""

from __future__ import annotations

import threading
from collections import deque

from pathassets.engine.run import Batch, Run


class Feed:
    """Runs in order, their batches one after the other; threads take from it at the same time.

    Args:
        changed: Told when runs come and go; shared by feeds of which somebody waits for any.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self._runs: deque[Run] = deque()
        self._closed = False
        self._changed = changed

    def put(self, run: Run, *, in_front: bool = False) -> None:
        """Adds a run: at the end, or in front of the others when a slide is started anew."""
        with self._changed:
            if in_front:
                self._runs.appendleft(run)
            else:
                self._runs.append(run)
            self._changed.notify_all()

    def next(self) -> Batch | None:
        """The next batch; waits while there is no run; None when the feed is closed."""
        with self._changed:
            while not self._closed:
                batch = self._runs[0].next_batch() if self._runs else None
                if batch is not None:
                    return batch
                if self._runs:
                    self._runs.popleft()
                    self._changed.notify_all()
                else:
                    self._changed.wait()
            return None

    @property
    def is_dry(self) -> bool:
        """Whether every batch has been handed out: there is room for a run. To be asked under `changed`."""
        return not self._runs

    def close(self) -> None:
        """Lets everyone go who waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
