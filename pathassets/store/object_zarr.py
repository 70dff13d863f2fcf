"""ObjectZarr: a part of an object store as a Zarr store.

Belongs here: that one class. Imported only when arrays are touched: Zarr takes a while to load.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.common import concurrent_map
from zarr.core.config import config

if TYPE_CHECKING:
    from pathassets.store.object_root import ObjectRoot, Part


class ObjectZarr(Store):
    """What lies below a prefix, asked for as the root asks: with its patience, its errors and its locks.

    Args:
        root: The store.
        prefix: Key of the Zarr group.
        read_only: Nothing may be written.
    """

    supports_writes = True
    supports_deletes = True
    supports_listing = True

    def __init__(self, root: ObjectRoot, prefix: str, *, read_only: bool = False) -> None:
        super().__init__(read_only=read_only)
        self._root, self._prefix = root, prefix

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectZarr) and str(other) == str(self)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        return self._root.address(self._prefix)

    def with_read_only(self, read_only: bool = False) -> ObjectZarr:
        """The same, to be written or not."""
        return ObjectZarr(self._root, self._prefix, read_only=read_only)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The bytes under a key, or some of them; None where there are none."""
        data = await asyncio.to_thread(self._root.read_part, self._key(key), _part(byte_range))
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Several at once."""
        asked = [(key, prototype, part) for key, part in key_ranges]
        return await concurrent_map(asked, self.get, config.get("async.concurrency"))

    async def exists(self, key: str) -> bool:
        """Whether there is something under a key."""
        return await asyncio.to_thread(self._root.exists, self._key(key))

    async def set(self, key: str, value: Buffer) -> None:
        """Stores a whole value."""
        self._check_writable()
        await asyncio.to_thread(self._root.put, self._key(key), value.to_bytes())

    async def delete(self, key: str) -> None:
        """Removes a value."""
        self._check_writable()
        await asyncio.to_thread(self._root.delete, self._key(key))

    async def list(self) -> AsyncIterator[str]:
        """All keys."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """All keys that begin so."""
        for key in await asyncio.to_thread(self._root.keys, self._prefix):
            name = key.removeprefix(f"{self._prefix}/")
            if name.startswith(prefix):
                yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names directly below a prefix."""
        folders, entries = await asyncio.to_thread(self._root.below, self._key(prefix))
        for name in [*folders, *(entry.key.rpartition("/")[2] for entry in entries)]:
            yield name

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{key}".rstrip("/")


def _part(asked: ByteRequest | None) -> Part | None:
    match asked:
        case None:
            return None
        case RangeByteRequest():
            return asked.start, asked.end
        case OffsetByteRequest():
            return {"offset": asked.offset}
        case SuffixByteRequest():
            return {"suffix": asked.suffix}
    raise TypeError(f"{asked!r} is no part of a value")
