"""Errands: work on shares and networks that may hang, each in a thread of its own.

Belongs here: not waiting for ever. Does not belong: the work.

What has not come back in time goes on; whoever asks for the same errand again gets the answer of the first, and there is
never a second one under way: a share that hangs costs one thread, not one for every look at it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from typing import Any


class StillAwayError(Exception):
    """An errand has not come back yet.

    Attributes:
        seconds: For how long it has been away.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer for {seconds:.0f} s")
        self.seconds = seconds


_away: dict[str, tuple[Future[Any], float]] = {}
_guard = threading.Lock()


def send(name: str, work: Callable[[], Any]) -> None:
    """Starts the errand `name`, unless it is on its way."""
    with _guard:
        if name in _away:
            return
        future: Future[Any] = Future()
        _away[name] = (future, time.monotonic())
    # a daemon: a thread that hangs must not keep the process from ending
    threading.Thread(target=_run, args=(future, work), name=name, daemon=True).start()


def answer(name: str, seconds: float) -> Any:
    """What the errand `name` brought, or raised.

    Raises:
        StillAwayError: It has not come back within `seconds`.
    """
    future, started = _away[name]
    try:
        future.exception(timeout=max(0.0, seconds))
    except NoAnswer:
        raise StillAwayError(time.monotonic() - started) from None
    with _guard:
        _away.pop(name, None)
    return future.result()


def _run(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001  handed to whoever asks
        future.set_exception(error)
