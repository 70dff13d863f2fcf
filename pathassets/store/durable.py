"""DurableStore: a Zarr store whose every write goes through `LocalRoot`: whole, flushed to the disk, or not there.

Belongs here: that one class. Imported only when arrays are written: Zarr takes a while to load.
"""

from __future__ import annotations

import asyncio

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore, WrapperStore

from pathassets.store.local_root import LocalRoot


class DurableStore(WrapperStore[LocalStore]):
    """A folder of the store as a Zarr store.

    Zarr's own local store renames what it has not flushed: after a power cut a shard file could be there and be empty,
    and a resume, which goes by the files that are there, would keep it.

    Args:
        root: The store.
        prefix: Key of the Zarr group.
    """

    def __init__(self, root: LocalRoot, prefix: str) -> None:
        super().__init__(LocalStore(root.local(prefix)))
        self._root, self._prefix = root, prefix

    async def set(self, key: str, value: Buffer, byte_range: ByteRequest | None = None) -> None:
        """Stores a whole value."""
        await asyncio.to_thread(self._root.put, f"{self._prefix}/{key}", value.to_bytes())
