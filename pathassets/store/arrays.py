"""Arrays: a slide's embeddings as a Zarr group, written shard by whole shard, resumed after any crash, read in batches.

Belongs here: the group of embeddings. Does not belong: what groups have in common (`groups`), later steps (`derived`).

Order is what makes a crash harmless: a shard's notes are on the disk before the shard, the shards before `obs`,
everything before the marker. What a resume goes by are the shard files that are there and whole: each is read back, with
checksums over its index and every chunk, because a disk that lied about a flush may leave a file empty or torn.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import polars as pl

from pathassets.errors import Reason, StoreError, StoreUnreachableError
from pathassets.store import layout
from pathassets.store.groups import ANNDATA, delete_group, is_done, mark_done, obs_frame, read_marker, write_elements
from pathassets.store.root import Root

if TYPE_CHECKING:
    import zarr

log = logging.getLogger(__name__)

NAME = "embeddings"
OK, UNREADABLE = "ok", "unreadable"
COORDINATES = "tile centres in level-0 pixels, x then y"
_MAX_CHUNK_ROWS = 256
_MIN_CHUNK_ROWS = 16


def fits(rows: np.ndarray, dtype: str) -> bool:
    """Whether all finite values of `rows` stay finite as `dtype`."""
    finite = rows[np.isfinite(rows)]
    return finite.size == 0 or float(np.abs(finite).max()) <= float(np.finfo(dtype).max)


class EmbeddingsWriter:
    """Writes one slide's embeddings; a context manager that holds the group's lock.

        with EmbeddingsWriter(root, slide_id, digest, n_tiles=n, dim=384) as writer:
            for i in writer.missing_shards():
                writer.write_shard(i, encoder(tiles[writer.rows_of(i)]))
            writer.finish(tiles_frame)

    Args:
        root: The store.
        slide_id: The slide.
        digest: Of everything that the numbers depend on; another digest is another group.
        n_tiles: Rows.
        dim: Length of an embedding.
        dtype: `float16` or `float32`.
        shard_rows: Rows per shard; an unfinished group with another value is started anew.
        lock_timeout: Seconds to wait for another writer of the same group.

    Attributes:
        n_bad: Tiles that could not be read, of shards that were there when the writer was entered.
    """

    def __init__(
        self,
        root: Root,
        slide_id: str,
        digest: str,
        *,
        n_tiles: int,
        dim: int,
        dtype: str = "float16",
        shard_rows: int = 512,
        lock_timeout: float = 0.0,
    ) -> None:
        self.root, self.slide_id, self.digest = root, slide_id, digest
        self.n_tiles, self.dim, self.dtype, self.shard_rows = n_tiles, dim, dtype, shard_rows
        self.group = layout.group_key(slide_id, digest, NAME)
        self.n_bad = 0
        self._lock_timeout = lock_timeout
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        lock = layout.array_lock(self.slide_id, self.digest, NAME)
        self._exit.enter_context(self.root.lock(lock, self._lock_timeout))
        self.n_bad = 0
        try:
            if not self.done:
                self._prepare()
            else:
                self.n_bad = int(read_marker(self.root, self.group)["n_bad"])
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    @property
    def uri(self) -> str:
        """Absolute address of the group."""
        return self.root.address(self.group)

    @property
    def done(self) -> bool:
        """Whether the group is finished; there is then nothing to write."""
        return is_done(self.root, self.group)

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-self.n_tiles // self.shard_rows)

    def rows_of(self, shard: int) -> slice:
        """The rows of a shard."""
        return slice(shard * self.shard_rows, min(self.n_tiles, (shard + 1) * self.shard_rows))

    def missing_shards(self) -> list[int]:
        """The shards that are still to be written, in order."""
        if self.done:
            return []
        there = set(self.root.keys(f"{self.group}/X"))
        return [i for i in range(self.n_shards) if self._shard_key(i) not in there]

    def write_shard(self, shard: int, rows: np.ndarray, notes: pl.DataFrame | None = None) -> None:
        """Stores one whole shard; when this returns, no crash can lose it.

        Args:
            shard: Its number.
            rows: Embeddings (k, dim), k as in `rows_of`; NaN where the tile could not be read.
            notes: k rows of what becomes part of `obs`: `status` (`ok` or `unreadable`), `reason` and whatever was measured.
                None: rows of NaN are unreadable, the others ok.

        Raises:
            ValueError: Wrong shapes.
            StoreError: `non_finite` when a row that is `ok` holds NaN or what `dtype` cannot hold; `disk_full`.
        """
        span = self.rows_of(shard)
        if rows.shape != (span.stop - span.start, self.dim):
            raise ValueError(f"shard {shard} takes ({span.stop - span.start}, {self.dim}), not {rows.shape}")
        notes = _default_notes(rows) if notes is None else notes
        if notes.height != len(rows) or "status" not in notes.columns:
            raise ValueError(f"notes of shard {shard} need {len(rows)} rows with a status")
        with np.errstate(over="ignore"):  # what overflows is found, and said, in the next line
            values = rows.astype(self.dtype)
        self._check_finite(shard, values, notes)
        self._put_notes(shard, notes)
        self._array[span] = values

    def finish(self, obs: pl.DataFrame, uns: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Writes `obs`, `obsm["spatial"]`, `var`, `uns`, then the marker; the group is then readable for ever.

        Args:
            obs: The tiles in order: `tile_id`, `x_px`, `y_px`, `size_px` (or `width_px` and `height_px`), and more.
            uns: Plain values that describe the group.

        Returns:
            The marker.

        Raises:
            StoreError: `internal` when shards are missing; `disk_full`.
        """
        if self.done:
            return read_marker(self.root, self.group)
        if self.missing_shards() or obs.height != self.n_tiles:
            what = f"{len(self.missing_shards())} shards of {self.group} are missing, or {obs.height} is not its rows"
            raise StoreError(f"cannot finish: {what}", reason=Reason.INTERNAL)
        notes = self._all_notes()
        full = obs.drop([name for name in notes.columns if name in obs.columns]).hstack(notes)
        write_elements(self.root, self.group, self._elements(full, dict(uns or {})))
        marker = mark_done(self.root, self.group, self._facts(notes))
        self.root.delete(layout.sidecar_prefix(self.group))
        return marker

    def _prepare(self) -> None:
        """Makes the empty group, or clears one that was begun under another plan."""
        plan_key = f"{layout.sidecar_prefix(self.group)}/plan.json"
        plan = json.dumps([self.n_tiles, self.dim, self.dtype, self.shard_rows]).encode()
        if self.root.read_if_there(plan_key) != plan:
            delete_group(self.root, self.group)
            self.root.put(plan_key, plan)
        self.root.clear_leftovers(layout.array_folder(self.slide_id, self.digest))
        for key in (f"{self.group}/zarr.json", f"{self.group}/X/zarr.json"):
            if not _is_json(self.root.read_if_there(key)):
                self.root.delete(key)
        self._array = self._open_array()
        for shard in set(range(self.n_shards)) - set(self.missing_shards()):
            if not self._is_whole(shard):
                log.warning("%s: shard %d is torn and is computed again", self.group, shard)
                self.root.delete(self._shard_key(shard))

    def _is_whole(self, shard: int) -> bool:
        """Whether a shard and its notes can be read, and agree on which rows are good; its bad ones are counted."""
        try:
            rows, notes = np.asarray(self._array[self.rows_of(shard)]), self._notes(shard)
            is_whole = notes.height == len(rows) and not _not_finite(rows, notes).any()
        except StoreUnreachableError:
            raise
        except Exception:  # noqa: BLE001  a torn file makes libraries say what they like
            return False
        self.n_bad += int((notes["status"] != OK).sum()) if is_whole else 0
        return is_whole

    def _open_array(self) -> zarr.Array:
        import zarr
        from zarr.codecs import ZstdCodec

        store = self.root.zarr(self.group, durable=True)
        if not self.root.exists(f"{self.group}/zarr.json"):
            zarr.create_group(store, zarr_format=3, attributes=ANNDATA)
        if self.root.exists(f"{self.group}/X/zarr.json"):
            return zarr.open_array(store, path="X", mode="r+").with_config({"write_empty_chunks": True})
        return zarr.create_array(
            store,
            name="X",
            shape=(self.n_tiles, self.dim),
            dtype=self.dtype,
            chunks=(_chunk_rows(self.shard_rows), self.dim),
            shards=(self.shard_rows, self.dim),
            compressors=ZstdCodec(level=1, checksum=True),
            fill_value=float("nan"),
            attributes={"encoding-type": "array", "encoding-version": "0.2.0"},
            config={"write_empty_chunks": True},
        )

    def _shard_key(self, shard: int) -> str:
        return f"{self.group}/X/c/{shard}/0"

    def _notes_key(self, shard: int) -> str:
        return f"{layout.sidecar_prefix(self.group)}/{shard}.parquet"

    def _put_notes(self, shard: int, notes: pl.DataFrame) -> None:
        buffer = io.BytesIO()
        notes.write_parquet(buffer)
        self.root.put(self._notes_key(shard), buffer.getvalue())

    def _notes(self, shard: int) -> pl.DataFrame:
        return pl.read_parquet(io.BytesIO(self.root.read(self._notes_key(shard))))

    def _all_notes(self) -> pl.DataFrame:
        parts = [self._notes(i) for i in range(self.n_shards)]
        return pl.concat(parts, how="diagonal_relaxed") if parts else _default_notes(np.zeros((0, self.dim)))

    def _check_finite(self, shard: int, values: np.ndarray, notes: pl.DataFrame) -> None:
        wrong = _not_finite(values, notes)
        if wrong.any():
            raise StoreError(
                f"{int(wrong.sum())} tiles of {self.slide_id} have values that are not numbers in {self.dtype}",
                reason=Reason.NON_FINITE,
                remedy='Set dtype = "float32", or precision = "fp32", in the recipe\'s embeddings options.',
            )

    def _elements(self, obs: pl.DataFrame, uns: dict[str, Any]) -> dict[str, Any]:
        import pandas as pd

        described = {"slide_id": self.slide_id, "digest": self.digest, "coordinates": COORDINATES, **uns}
        return {
            "obs": obs_frame(obs),
            "var": pd.DataFrame(index=[str(i) for i in range(self.dim)]),
            "obsm": {"spatial": tile_centres(obs)},
            "uns": described,
        }

    def _facts(self, notes: pl.DataFrame) -> dict[str, Any]:
        return {
            "slide_id": self.slide_id,
            "digest": self.digest,
            "rows": self.n_tiles,
            "dim": self.dim,
            "dtype": self.dtype,
            "shard_rows": self.shard_rows,
            "n_bad": int((notes["status"] != OK).sum()),
        }


class Embeddings:
    """A finished group of embeddings, read in batches.

    Args:
        root: The store.
        uri: The group's key or absolute address, as in the column `uri`.

    Raises:
        StoreError: `store_corrupt` when the group is unfinished, gone, lacks a file or has an empty one; when it is read,
            also for bytes that are not those that were written.
    """

    def __init__(self, root: Root, uri: str | Path) -> None:
        self.root, self.group = root, root.key_of(uri)
        self.marker = read_marker(root, self.group)
        self.n_tiles, self.dim = int(self.marker["rows"]), int(self.marker["dim"])
        self.dtype, self.digest = str(self.marker["dtype"]), str(self.marker["digest"])
        # Zarr would silently fill a lost or empty shard with NaN
        there = {entry.key.removeprefix(f"{self.group}/") for entry in root.entries(self.group) if entry.size}
        lost = [name for name in self.marker["files"] if name not in there]
        if lost:
            raise self._corrupt("has lost " + lost[0] + (f" and {len(lost) - 1} more" if lost[1:] else ""))

    def iter_rows(self, batch: int = 4096) -> Iterator[np.ndarray]:
        """The embeddings in order, `batch` rows at a time, float32 (k, dim); bad tiles are NaN."""
        for start in range(0, self.n_tiles, batch):
            yield self.rows(start, min(self.n_tiles, start + batch))

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to before `stop` as float32.

        Raises:
            StoreError: `store_corrupt` when their bytes are not those that were written.
        """
        try:
            return np.asarray(self._array[start:stop], dtype=np.float32)
        except (ValueError, RuntimeError, OSError) as error:
            raise self._corrupt(f"cannot be read between rows {start} and {stop} ({error})") from error

    def read(self) -> np.ndarray:
        """All embeddings at once, float32 (n_tiles, dim)."""
        return self.rows(0, self.n_tiles)

    @cached_property
    def obs(self) -> pl.DataFrame:
        """The tiles: columns of `tiles`, `status`, `reason`, what was measured."""
        import anndata
        import zarr

        with self.root.files(self.root.keys(f"{self.group}/obs")) as folder:
            frame = anndata.io.read_elem(zarr.open_group(folder / self.group / "obs", mode="r"))
        table = pl.from_pandas(frame)
        # a column of text without any text has lost its type on the way
        return table.with_columns(pl.col(pl.Categorical, pl.Enum, pl.Null).cast(pl.String))

    @property
    def ok(self) -> np.ndarray:
        """Which tiles count: bool (n_tiles,)."""
        return (self.obs["status"] == OK).to_numpy()

    @cached_property
    def _array(self) -> zarr.Array:
        import zarr

        return zarr.open_array(self.root.zarr(self.group), path="X", mode="r")

    def _corrupt(self, what: str) -> StoreError:
        remedy = "Run again with --force: the slide is embedded anew."
        return StoreError(f"{self.root.address(self.group)} {what}", reason=Reason.STORE_CORRUPT, remedy=remedy)


def read_embeddings(root: Root, uri: str | Path) -> Embeddings:
    """Opens a finished group; see `Embeddings`."""
    return Embeddings(root, uri)


def tile_centres(tiles: pl.DataFrame) -> np.ndarray:
    """Centres of tiles in level-0 pixels: float64 (n, 2), x then y."""
    width, height = (name if name in tiles.columns else "size_px" for name in ("width_px", "height_px"))
    x, y = tiles["x_px"] + tiles[width] / 2, tiles["y_px"] + tiles[height] / 2
    return np.column_stack([x.to_numpy(), y.to_numpy()]).astype(np.float64)


def _default_notes(rows: np.ndarray) -> pl.DataFrame:
    good = np.isfinite(rows).all(axis=1)
    status = pl.Series("status", np.where(good, OK, UNREADABLE).tolist(), dtype=pl.String)
    return pl.DataFrame([status, pl.Series("reason", [None] * len(rows), dtype=pl.String)])


def _not_finite(rows: np.ndarray, notes: pl.DataFrame) -> np.ndarray:
    """Which rows (k, dim) hold what is no number although their tile could be read: bool (k,)."""
    wrong: np.ndarray = ~np.isfinite(rows).all(axis=1) & (notes["status"] == OK).to_numpy()
    return wrong


def _is_json(data: bytes | None) -> bool:
    try:
        return bool(json.loads(data or b""))
    except ValueError:
        return False


def _chunk_rows(shard_rows: int) -> int:
    """Rows read at least when one is wanted: a divisor of the shard, or the shard where it has no useful one."""
    best = max(d for d in range(1, min(shard_rows, _MAX_CHUNK_ROWS) + 1) if shard_rows % d == 0)
    return best if best >= _MIN_CHUNK_ROWS else shard_rows
