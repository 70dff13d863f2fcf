"""Compiled: umap-learn imported so that what numba compiles for it is kept from one process to the next.

Belongs here: that import. Does not belong: calls of umap-learn and scanpy (`manifold`).

umap-learn and pynndescent, which it imports, have numba compile a good part of themselves on the way to the first graph, and
ask it to keep nearly nothing: some twenty seconds of every process that looks for domains or lays out slides.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

_LOCK = threading.Lock()


def import_umap() -> None:
    """Imports umap-learn; whoever needs it, scanpy too, finds it imported."""
    with _LOCK:
        if "umap" not in sys.modules:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ImportWarning)  # its own, that it has no Tensorflow
                _import_kept("umap")


def _import_kept(name: str) -> None:
    """Imports a module whose functions numba keeps where it keeps others: beside the module, or in the user's cache."""
    try:
        with _keeping():
            importlib.import_module(name)
    except Exception as error:  # noqa: BLE001  no folder that can be written, a full disk, a cache of another user's
        log.info("what numba compiles for %s cannot be kept: %s", name, error)
        importlib.import_module(name)


@contextmanager
def _keeping() -> Iterator[None]:
    """Functions that `numba.njit` decorates are kept, unless they say otherwise."""
    import numba

    plain = numba.njit

    def kept(*signatures: Any, **options: Any) -> Any:
        return plain(*signatures, **{"cache": True, **options})

    numba.njit = kept
    try:
        yield
    finally:
        numba.njit = plain
