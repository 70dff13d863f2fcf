"""A bounded cache of decoded tiles, shared by all slides of a process.

Belongs here: what is kept and what is dropped. Does not belong: decoding.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

# A row of tiles of the widest slides (200,000 px) is 150 MB: a pass in grid order then decodes each tile once.
CACHE_BYTES = 256 * 2**20


class TileCache:
    """Least recently used arrays, up to `max_bytes` together. Safe between threads.

    Args:
        max_bytes: What the arrays may take together; a larger array is handed on and not kept.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._tiles: OrderedDict[Hashable, NDArray[np.uint8]] = OrderedDict()
        self._under_way: dict[Hashable, Future[NDArray[np.uint8]]] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The array under `key`, made by `make` if it is not there; do not write to it.

        When several threads want it at once, one makes it and the others wait; they share its error, too.
        """
        with self._lock:
            found = self._tiles.get(key)
            if found is not None:
                self._tiles.move_to_end(key)
                return found
            under_way = self._under_way.get(key)
            if under_way is None:
                mine = self._under_way[key] = Future[NDArray[np.uint8]]()
        return under_way.result() if under_way is not None else self._make(key, make, mine)

    def _make(
        self, key: Hashable, make: Callable[[], NDArray[np.uint8]], promise: Future[NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        try:
            made = make()
            self._keep(key, made)
        except BaseException as error:
            promise.set_exception(error)
            raise
        else:
            promise.set_result(made)
            return made
        finally:
            with self._lock:
                del self._under_way[key]

    def forget(self, owner: object) -> None:
        """Drops what was kept under keys that are tuples beginning with `owner`."""
        with self._lock:
            for key in [key for key in self._tiles if isinstance(key, tuple) and key[0] is owner]:
                self._bytes -= self._tiles.pop(key).nbytes

    @property
    def nbytes(self) -> int:
        """Bytes kept now."""
        return self._bytes

    def _keep(self, key: Hashable, tile: NDArray[np.uint8]) -> None:
        if tile.nbytes > self._max_bytes:
            return
        with self._lock:
            self._tiles[key] = tile
            self._bytes += tile.nbytes
            while self._bytes > self._max_bytes:
                _, dropped = self._tiles.popitem(last=False)
                self._bytes -= dropped.nbytes


SHARED = TileCache()
