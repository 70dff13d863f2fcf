"""Jobs: the stream of slides as several threads take from it.

Belongs here: who gets the next one. Does not belong: what becomes of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from pathassets.engine.contract import Job, Prepare


class Jobs:
    """Jobs in order; whoever takes one that is still to be made makes it, while others make theirs.

    Args:
        items: Jobs, or functions that make them; iterated by one thread at a time.
        on_stop: Told that there will be no more, so that a function that waits for something can give up.
    """

    def __init__(self, items: Iterable[Job | Prepare], on_stop: Callable[[], None] = lambda: None) -> None:
        self._items, self._on_stop = iter(items), on_stop
        self._stopped = False
        self._taking = threading.Lock()

    def next(self) -> Job | None:
        """The next job that needs a device; None after the last.

        Raises:
            BaseException: From the items, or from making one; nobody gets another one then.
        """
        try:
            while (item := self._take()) is not None:
                job = item() if callable(item) else item
                if job is not None:
                    return job
            return None
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """There are no more."""
        self._stopped = True
        self._on_stop()

    def _take(self) -> Job | Prepare | None:
        with self._taking:
            return None if self._stopped else next(self._items, None)
