"""Sharded: an array of a slide's tiles in a Zarr group, written shard by whole shard.

Belongs here: one array: its making, its shards' keys. Does not belong: what it means, when a group is finished (`arrays`).
"""

from __future__ import annotations

import json
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from pathassets.store.groups import ANNDATA, ARRAY, MAPPING
from pathassets.store.root import Root

if TYPE_CHECKING:
    import zarr

_MAX_CHUNK_ROWS = 256
_MIN_CHUNK_ROWS = 16
_MAX_CHUNK_VALUES = 1 << 21


class ShardedRows:
    """An array with a row for each tile; values that are not written yet are NaN.

    Args:
        root: The store.
        group: Key of the group.
        path: Of the array in it, as `X` or `obsm/predictions`.
        shape: Rows, then the shape of a row.
        dtype: Type of the numbers.
        shard_rows: Rows of a shard file.
    """

    def __init__(
        self, root: Root, group: str, path: str, *, shape: tuple[int, ...], dtype: str, shard_rows: int
    ) -> None:
        self.root, self.group, self.path = root, group, path
        self.shape, self.dtype, self.shard_rows = shape, dtype, shard_rows

    def open(self) -> None:
        """Makes the group and the array, or finds them as they were left."""
        import zarr

        parents = [f"{self.group}/{part}" for part in self.path.split("/")[:-1]]
        for key in (self.group, *parents, f"{self.group}/{self.path}"):
            if not _is_json(self.root.read_if_there(f"{key}/zarr.json")):
                self.root.delete(f"{key}/zarr.json")
        store = self.root.zarr(self.group, durable=True)
        if not self.root.exists(f"{self.group}/zarr.json"):
            zarr.create_group(store, zarr_format=3, attributes=ANNDATA)
        for parent in parents:
            if not self.root.exists(f"{parent}/zarr.json"):
                name = parent.removeprefix(f"{self.group}/")
                zarr.create_group(store, path=name, zarr_format=3, attributes=MAPPING)
        self._array = self._opened(store)

    def shard_key(self, shard: int) -> str:
        """Key of a shard's file."""
        return "/".join([self.group, self.path, "c", str(shard), *"0" * (len(self.shape) - 1)])

    def missing(self) -> set[int]:
        """Shards of which there is no file."""
        there = set(self.root.keys(f"{self.group}/{self.path}"))
        return {i for i in range(-(-self.shape[0] // self.shard_rows)) if self.shard_key(i) not in there}

    def write(self, span: slice, rows: np.ndarray) -> None:
        """Stores the rows of one whole shard, (k, ...) as they are or flat; no crash can lose them then."""
        self._array[span] = rows.reshape(len(rows), *self.shape[1:])

    def read(self, span: slice) -> np.ndarray:
        """Rows as they are stored, checksums over index and chunks included."""
        return np.asarray(self._array[span])

    def _opened(self, store: object) -> zarr.Array:
        import zarr
        from zarr.codecs import ZstdCodec

        if self.root.exists(f"{self.group}/{self.path}/zarr.json"):
            found = zarr.open_array(store, path=self.path, mode="r+")
            return found.with_config({"write_empty_chunks": True})
        return zarr.create_array(
            store,
            name=self.path,
            shape=self.shape,
            dtype=self.dtype,
            chunks=(chunk_rows(self.shard_rows, prod(self.shape[1:])), *self.shape[1:]),
            shards=(self.shard_rows, *self.shape[1:]),
            compressors=ZstdCodec(level=1, checksum=True),
            fill_value=float("nan"),
            attributes=ARRAY,
            config={"write_empty_chunks": True},
        )


def fits(rows: np.ndarray, dtype: str) -> bool:
    """Whether all finite values of `rows` stay finite as `dtype`."""
    finite = rows[np.isfinite(rows)]
    return finite.size == 0 or float(np.abs(finite).max()) <= float(np.finfo(dtype).max)


def finite_rows(rows: np.ndarray) -> np.ndarray:
    """Which rows (k, ...) hold numbers only: bool (k,)."""
    return np.asarray(np.isfinite(rows).all(axis=tuple(range(1, rows.ndim))))


def chunk_rows(shard_rows: int, row_values: int = 1) -> int:
    """Rows read at least when one is wanted: a divisor of the shard, or the shard where it has no useful one."""
    most = min(shard_rows, _MAX_CHUNK_ROWS, max(1, _MAX_CHUNK_VALUES // row_values))
    best = max(d for d in range(1, most + 1) if shard_rows % d == 0)
    return best if best >= min(most, _MIN_CHUNK_ROWS) else shard_rows


def _is_json(data: bytes | None) -> bool:
    try:
        return bool(json.loads(data or b""))
    except ValueError:
        return False
