"""A bounded cache of decoded tiles, shared by all slides of a process.

Belongs here: what is kept and what is dropped. Does not belong: decoding.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# A row of tiles of the widest slides (200,000 px) is 150 MB: a pass in grid order then decodes each tile once.
CACHE_BYTES = 256 * 2**20


@dataclass
class _Shelf:
    """What one owner has kept, the least recently used first."""

    tiles: OrderedDict[Hashable, NDArray[np.uint8]] = field(default_factory=OrderedDict)
    nbytes: int = 0

    def put(self, key: Hashable, tile: NDArray[np.uint8]) -> None:
        self.tiles[key] = tile
        self.nbytes += tile.nbytes

    def drop_oldest(self) -> int:
        """Drops a tile; tells how many bytes that were."""
        _, dropped = self.tiles.popitem(last=False)
        self.nbytes -= dropped.nbytes
        return dropped.nbytes


class TileCache:
    """Arrays of several owners: of each no more than it will want again, of all no more than `max_bytes`.

    An owner's least recently used arrays go first, and of owners that have too much together the one that has not asked for
    longest. Safe between threads.

    Args:
        max_bytes: What the arrays may take together; a larger array is handed on and not kept.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._shelves: OrderedDict[Hashable, _Shelf] = OrderedDict()
        self._under_way: dict[tuple[Hashable, Hashable], Future[NDArray[np.uint8]]] = {}
        self._lock = threading.Lock()

    def get(
        self, owner: Hashable, key: Hashable, make: Callable[[], NDArray[np.uint8]], enough: int
    ) -> NDArray[np.uint8]:
        """The owner's array under `key`, made by `make` if it is not there; do not write to it.

        When several threads want it at once, one makes it and the others wait; they share its error, too.

        Args:
            owner: Who asks.
            key: The owner's name for the array.
            make: Makes it.
            enough: Bytes of arrays that the owner may want again. What it keeps beyond them would only push everything else
                out of the processor's caches, and each new array would take memory that was never touched.
        """
        with self._lock:
            shelf = self._shelves.get(owner)
            found = shelf.tiles.get(key) if shelf is not None else None
            if shelf is not None and found is not None:
                self._shelves.move_to_end(owner)
                shelf.tiles.move_to_end(key)
                return found
            under_way = self._under_way.get((owner, key))
            if under_way is None:
                mine = self._under_way[owner, key] = Future[NDArray[np.uint8]]()
        return under_way.result() if under_way is not None else self._make(owner, key, make, enough, mine)

    def _make(
        self,
        owner: Hashable,
        key: Hashable,
        make: Callable[[], NDArray[np.uint8]],
        enough: int,
        promise: Future[NDArray[np.uint8]],
    ) -> NDArray[np.uint8]:
        try:
            made = make()
            self._keep(owner, key, made, enough)
        except BaseException as error:
            promise.set_exception(error)
            raise
        else:
            promise.set_result(made)
            return made
        finally:
            with self._lock:
                del self._under_way[owner, key]

    def forget(self, owner: Hashable) -> None:
        """Drops what an owner has kept."""
        with self._lock:
            shelf = self._shelves.pop(owner, None)
            self._bytes -= shelf.nbytes if shelf is not None else 0

    @property
    def nbytes(self) -> int:
        """Bytes kept now."""
        return self._bytes

    def _keep(self, owner: Hashable, key: Hashable, tile: NDArray[np.uint8], enough: int) -> None:
        if tile.nbytes > self._max_bytes:
            return
        with self._lock:
            shelf = self._shelves.setdefault(owner, _Shelf())
            self._shelves.move_to_end(owner)
            shelf.put(key, tile)
            self._bytes += tile.nbytes
            while shelf.nbytes > enough and len(shelf.tiles) > 1:
                self._bytes -= shelf.drop_oldest()
            while self._bytes > self._max_bytes:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        idle = next(iter(self._shelves))
        self._bytes -= self._shelves[idle].drop_oldest()
        if not self._shelves[idle].tiles:
            del self._shelves[idle]


SHARED = TileCache()
