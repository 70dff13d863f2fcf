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
from math import prod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import polars as pl

from pathassets.errors import Reason, StoreError, StoreUnreachableError
from pathassets.store import layout
from pathassets.store.groups import delete_group, is_done, mark_done, obs_frame, read_marker, write_elements
from pathassets.store.patch_tokens import Grid, PatchTokens
from pathassets.store.root import Root
from pathassets.store.sharded import ShardedRows, finite_rows

if TYPE_CHECKING:
    import zarr

log = logging.getLogger(__name__)

OK, UNREADABLE = "ok", "unreadable"
COORDINATES = "tile centres in level-0 pixels, x then y"
PREDICTIONS = "obsm/predictions"


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
        n_classes: Probabilities that follow the embedding in each row; they go into `obsm["predictions"]`, float32.
        grid: Shape of a tile's patch tokens, which follow those; they go into a group of their own (`patch_tokens`).
        shard_rows: Rows per shard; an unfinished group with another value is started anew.
        again: Write in the second of the two places, see `layout.group_places`.
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
        n_classes: int = 0,
        grid: Grid | None = None,
        shard_rows: int = 512,
        again: bool = False,
        lock_timeout: float = 0.0,
    ) -> None:
        self.root, self.slide_id, self.digest = root, slide_id, digest
        self.n_tiles, self.dim, self.dtype, self.shard_rows = n_tiles, dim, dtype, shard_rows
        self.group = layout.group_places(slide_id, digest, layout.EMBEDDINGS)[again]
        self.tokens = None
        if grid is not None:
            self.tokens = PatchTokens(
                root, slide_id, digest, n_tiles=n_tiles, grid=grid, dtype=dtype, shard_rows=shard_rows, again=again
            )
        self._x = self._rows("X", dim, dtype)
        self._parts = [self._x]
        if n_classes:
            self._parts.append(self._rows(PREDICTIONS, n_classes, "float32"))
        if self.tokens is not None:
            self._parts.append(self.tokens.rows)
        self._ends: list[int] = np.cumsum([prod(array.shape[1:]) for array in self._parts]).tolist()
        self.n_bad = 0
        self._lock_timeout = lock_timeout
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        lock = layout.array_lock(self.slide_id, self.digest, layout.group_name(self.group))
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
        """Whether the group is finished, and that of the tokens; there is then nothing to write."""
        return is_done(self.root, self.group) and (self.tokens is None or self.tokens.done)

    @property
    def groups(self) -> list[str]:
        """Keys of what it writes: the embeddings, and their tokens."""
        return [self.group, *([self.tokens.group] if self.tokens is not None else [])]

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-self.n_tiles // self.shard_rows)

    def rows_of(self, shard: int) -> slice:
        """The rows of a shard."""
        return slice(shard * self.shard_rows, min(self.n_tiles, (shard + 1) * self.shard_rows))

    def missing_shards(self) -> list[int]:
        """The shards that are still to be written, in order."""
        return [] if self.done else sorted(self._x.missing())

    def write_shard(self, shard: int, rows: np.ndarray, notes: pl.DataFrame | None = None) -> None:
        """Stores one whole shard; when this returns, no crash can lose it.

        Args:
            shard: Its number.
            rows: Embeddings (k, dim), k as in `rows_of`, and what follows them; NaN where the tile could not be read.
            notes: k rows of what becomes part of `obs`: `status` (`ok` or `unreadable`), `reason` and whatever was measured.
                None: rows of NaN are unreadable, the others ok.

        Raises:
            ValueError: Wrong shapes.
            StoreError: `non_finite` when a row that is `ok` holds NaN or what `dtype` cannot hold; `disk_full`.
        """
        span = self.rows_of(shard)
        if rows.shape != (span.stop - span.start, self._ends[-1]):
            raise ValueError(f"shard {shard} takes ({span.stop - span.start}, {self._ends[-1]}), not {rows.shape}")
        notes = _default_notes(rows) if notes is None else notes
        if notes.height != len(rows) or "status" not in notes.columns:
            raise ValueError(f"notes of shard {shard} need {len(rows)} rows with a status")
        parts = np.split(rows, self._ends[:-1], axis=1)
        with np.errstate(over="ignore"):  # what overflows is found, and said, in the next line
            values = [part.astype(wanted.dtype) for wanted, part in zip(self._parts, parts, strict=True)]
        for part in values:
            self._check_finite(shard, part, notes)
        self._put_notes(shard, notes)
        for array, part in zip(self._parts[::-1], values[::-1], strict=True):  # the embeddings last: they are the proof
            array.write(span, part)

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
        described = {"slide_id": self.slide_id, "digest": self.digest, "coordinates": COORDINATES, **(uns or {})}
        if self.tokens is not None:
            self.tokens.finish(full, tile_centres(full), described)
        write_elements(self.root, self.group, self._elements(full, described))
        marker = mark_done(self.root, self.group, self._facts(notes))
        self.root.delete(layout.sidecar_prefix(self.group))
        return marker

    def _prepare(self) -> None:
        """Makes the empty group, or clears one that was begun under another plan, or has lost its tokens."""
        plan_key = f"{layout.sidecar_prefix(self.group)}/plan.json"
        plan = json.dumps([self.n_tiles, self.dim, self.dtype, self.shard_rows]).encode()
        if self.root.read_if_there(plan_key) != plan or is_done(self.root, self.group):
            for group in self.groups:
                delete_group(self.root, group)
            self.root.put(plan_key, plan)
        self.root.clear_leftovers(layout.array_folder(self.slide_id, self.digest))
        for array in self._parts:
            array.open()
        again = self._x.missing()
        for shard in sorted(set(range(self.n_shards)) - again):
            if not self._is_whole(shard):
                log.warning("%s: shard %d is torn and is computed again", self.group, shard)
                again.add(shard)
        for array in self._parts:  # Zarr would read what it is about to write over
            for shard in again - array.missing():
                self.root.delete(array.shard_key(shard))

    def _rows(self, path: str, width: int, dtype: str) -> ShardedRows:
        shape = (self.n_tiles, width)
        return ShardedRows(self.root, self.group, path, shape=shape, dtype=dtype, shard_rows=self.shard_rows)

    def _is_whole(self, shard: int) -> bool:
        """Whether a shard and its notes can be read, and agree on which rows are good; its bad ones are counted."""
        try:
            span, notes = self.rows_of(shard), self._notes(shard)
            is_whole = notes.height == span.stop - span.start
            for array in self._parts:
                is_whole = is_whole and not _not_finite(array.read(span), notes).any()
        except StoreUnreachableError:
            raise
        except Exception:  # noqa: BLE001  a torn file makes libraries say what they like
            return False
        self.n_bad += int((notes["status"] != OK).sum()) if is_whole else 0
        return is_whole

    def _shard_key(self, shard: int) -> str:
        return self._x.shard_key(shard)

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
        return pl.concat(parts, how="diagonal_relaxed") if parts else _default_notes(np.zeros((0, 1)))

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

        return {
            "obs": obs_frame(obs),
            "var": pd.DataFrame(index=[str(i) for i in range(self.dim)]),
            "obsm/spatial": tile_centres(obs),
            "uns": uns,
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

    def iter_predictions(self, batch: int = 4096) -> Iterator[np.ndarray]:
        """The classifier's probabilities in order, `batch` rows at a time, float32 (k, classes); bad tiles are NaN.

        Raises:
            StoreError: `store_corrupt` when there are none, or their bytes are not those that were written.
        """
        import zarr

        try:
            array = zarr.open_array(self.root.zarr(self.group), path=PREDICTIONS, mode="r")
            for start in range(0, self.n_tiles, batch):
                yield np.asarray(array[start : start + batch])
        except (ValueError, RuntimeError, OSError) as error:
            raise self._corrupt(f"has no predictions that can be read ({error})") from error

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
    status = pl.Series("status", np.where(finite_rows(rows), OK, UNREADABLE).tolist(), dtype=pl.String)
    return pl.DataFrame([status, pl.Series("reason", [None] * len(rows), dtype=pl.String)])


def _not_finite(rows: np.ndarray, notes: pl.DataFrame) -> np.ndarray:
    """Which rows (k, ...) hold what is no number although their tile could be read: bool (k,)."""
    return ~finite_rows(rows) & (notes["status"] == OK).to_numpy()
