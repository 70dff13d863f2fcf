"""Tables: polars frames in, Parquet files out: one file per table, slide and part, replaced as a whole.

Belongs here: writing, reading and scanning rows. Does not belong: what columns there are (`schema`), SQL (`results`).

A column `uri` names something in the store: a key in the file, so that a study can be moved, an absolute address in frames.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from pathassets.errors import Reason, StoreError
from pathassets.store import layout
from pathassets.store.root import Root
from pathassets.store.schema import VOLATILE, table_spec
from pathassets.store.spec import TIME, TableSpec

Rows = pl.DataFrame | Sequence[Mapping[str, Any]]
# Measured on 15,000 files of a few rows: 1.5 s in lots of 256, 42 s all at once.
_FILES_OF_A_SCAN = 256


class Tables:
    """The tables of one store.

    Args:
        root: The store.
    """

    def __init__(self, root: Root) -> None:
        self.root = root

    def write(self, table: str, rows: Rows, *, slide_id: str | None = None, part: str = layout.SHARED_PART) -> bool:
        """Replaces one file of a table; a file that says the same already is left alone, byte for byte.

        "The same" disregards `run_id` and `created_at`. An empty `created_at` is filled in.

        Args:
            table: Its name.
            rows: All rows of the file, in the order wanted.
            slide_id: Whose rows; None for tables of the whole study. Filled in where the rows lack it.
            part: See `layout`.

        Returns:
            Whether something was written.

        Raises:
            StoreError: `internal` when the rows are not as the schema says; `disk_full`, `store_read_only`.
            ValueError: No such table, or an impossible slide id or part.
        """
        spec = _spec(table, slide_id)
        frame = self._stored(spec, spec.conform(_frame(rows, spec, slide_id)))
        _check_slide(spec, frame, slide_id)
        key = layout.table_key(table, slide_id, part)
        if self._says_the_same(key, frame):
            return False
        self.root.put(key, _parquet(_stamped(frame)))
        return True

    def read(self, table: str, slide_id: str | None = None, part: str = layout.SHARED_PART) -> pl.DataFrame | None:
        """One file of a table; None where there is none.

        Raises:
            StoreError: `store_corrupt` when the file is damaged.
        """
        spec = _spec(table, slide_id)
        key = layout.table_key(table, slide_id, part)
        data = self.root.read_if_there(key)
        return None if data is None else self._shown(spec, _aligned(spec, self._parsed(key, data)))

    def check(self, key: str) -> None:
        """Reads a table's file with all its checksums.

        Raises:
            StoreError: `store_corrupt` when its bytes are not those that were written.
        """
        import pyarrow
        import pyarrow.parquet

        try:
            pyarrow.parquet.read_table(io.BytesIO(self.root.read(key)), page_checksum_verification=True)
        except (pyarrow.ArrowException, OSError) as error:
            raise self._damaged(key, error) from error

    def scan(self, table: str, slide_id: str | None = None) -> pl.LazyFrame:
        """All rows of a table as they are at this moment, or one slide's; without rows, still with all columns.

        Raises:
            StoreError: `store_corrupt` when a file of an open table is damaged.
        """
        spec = table_spec(table)
        keys = self.keys(table, slide_id)
        if keys and spec.open:
            return self._shown(spec, self._union(spec, keys)).lazy()
        frames = [
            pl.scan_parquet(
                sources,
                schema=spec.polars_schema,
                missing_columns="insert",
                extra_columns="ignore",
                hive_partitioning=False,
                glob=False,
            )
            for some in in_lots(keys)
            if (sources := self.root.parquet(some))
        ]
        return pl.concat(frames).with_columns(self._absolute(spec)) if frames else spec.empty().lazy()

    def exists(self, table: str, slide_id: str | None = None, part: str = layout.SHARED_PART) -> bool:
        """Whether the file is there."""
        return self.root.exists(layout.table_key(table, slide_id, part))

    def delete(self, table: str, slide_id: str | None = None, part: str | None = None) -> bool:
        """Removes one file, or all of a slide (part None); True when there was something."""
        if part is not None:
            return self.root.delete(layout.table_key(table, slide_id, part))
        return self.root.delete(layout.table_key(table, slide_id).rpartition("/")[0])

    def keys(self, table: str, slide_id: str | None = None) -> list[str]:
        """Keys of a table's files, or of those of one slide, sorted."""
        return [key for key in self.root.keys(layout.table_prefix(table, slide_id)) if _has_rows(key)]

    def ensure_schema_files(self) -> None:
        """Writes, for every table, the file without rows that tells SQL its columns."""
        from pathassets.store.schema import TABLES

        for name, spec in TABLES.items():
            self.root.put_if_changed(layout.schema_file_key(name), _parquet(spec.empty()))

    def _says_the_same(self, key: str, frame: pl.DataFrame) -> bool:
        data = self.root.read_if_there(key)
        if data is None:
            return False
        try:
            old = self._parsed(key, data)
        except StoreError:
            return False
        return _without_volatile(old).equals(_without_volatile(frame))

    def _parsed(self, key: str, data: bytes) -> pl.DataFrame:
        try:
            return pl.read_parquet(io.BytesIO(data), hive_partitioning=False)
        except (pl.exceptions.PolarsError, OSError, pl.exceptions.PanicException) as error:
            raise self._damaged(key, error) from error

    def _damaged(self, key: str, error: Exception) -> StoreError:
        return StoreError(
            f"{self.root.address(key)} is damaged: {error}",
            reason=Reason.STORE_CORRUPT,
            remedy="`pathassets verify --repair`, then `pathassets run`.",
        )

    def _union(self, spec: TableSpec, keys: list[str]) -> pl.DataFrame:
        contents = self.root.map(self.root.read, keys)
        frames = [_aligned(spec, self._parsed(key, data)) for key, data in zip(keys, contents, strict=True)]
        return pl.concat(frames, how="diagonal_relaxed")

    def _stored(self, spec: TableSpec, frame: pl.DataFrame) -> pl.DataFrame:
        if "uri" not in spec.names:
            return frame
        return frame.with_columns(pl.col("uri").str.strip_prefix(f"{self.root.uri}/"))

    def _shown(self, spec: TableSpec, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(self._absolute(spec))

    def _absolute(self, spec: TableSpec) -> list[pl.Expr]:
        if "uri" not in spec.names:
            return []
        return [pl.format("{}/{}", pl.lit(self.root.uri), pl.col("uri")).alias("uri")]


def in_lots(keys: list[str], size: int | None = None) -> Iterator[list[str]]:
    """So many files at a time; None = as many as one scan of polars should get: its work for each grows with their number."""
    size = size or _FILES_OF_A_SCAN
    for begin in range(0, len(keys), size):
        yield keys[begin : begin + size]


def _spec(table: str, slide_id: str | None) -> TableSpec:
    spec = table_spec(table)
    if spec.study != (slide_id is None):
        raise ValueError(f"the table {table} is kept per {'study' if spec.study else 'slide'}; slide_id = {slide_id!r}")
    return spec


def _frame(rows: Rows, spec: TableSpec, slide_id: str | None) -> pl.DataFrame:
    frame = rows if isinstance(rows, pl.DataFrame) else _from_dicts(rows, spec)
    if slide_id is not None and "slide_id" not in frame.columns:
        frame = frame.with_columns(pl.lit(slide_id).alias("slide_id"))
    # an extra column without a value has no type yet: it must not decide the type for other slides
    unknown = [name for name in frame.columns if name not in spec.names and frame[name].null_count() == frame.height]
    return frame.drop(unknown) if spec.open else frame


def _from_dicts(rows: Sequence[Mapping[str, Any]], spec: TableSpec) -> pl.DataFrame:
    if not rows:
        return spec.empty()
    names = list(dict.fromkeys(name for row in rows for name in row))
    types = {column.name: column.dtype for column in spec.columns if column.name in names}
    plain = [{name: _plain(row.get(name)) for name in names} for row in rows]
    try:
        return pl.DataFrame(plain, schema_overrides=types, infer_schema_length=None)
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise StoreError(f"the table {spec.name} cannot take these rows: {error}", reason=Reason.INTERNAL) from error


def _plain(value: Any) -> Any:
    """Times in UTC without saying so, as the schema has them."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


def _aligned(spec: TableSpec, frame: pl.DataFrame) -> pl.DataFrame:
    """A frame that an older version wrote, with the columns of today."""
    missing = [pl.lit(None, dtype=c.dtype).alias(c.name) for c in spec.columns if c.name not in frame.columns]
    full = frame.with_columns(missing) if missing else frame
    extras = [name for name in full.columns if name not in spec.names] if spec.open else []
    return full.select([*spec.names, *extras])


def _check_slide(spec: TableSpec, frame: pl.DataFrame, slide_id: str | None) -> None:
    if slide_id is not None and not (frame["slide_id"] == slide_id).all():
        raise StoreError(f"rows of another slide in {spec.name} of {slide_id}", reason=Reason.INTERNAL)


def _stamped(frame: pl.DataFrame) -> pl.DataFrame:
    now = datetime.now(UTC).replace(tzinfo=None)
    return frame.with_columns(pl.col("created_at").fill_null(pl.lit(now, dtype=TIME)))


def _without_volatile(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.drop(VOLATILE, strict=False)


def _parquet(frame: pl.DataFrame) -> bytes:
    """The frame as a file whose pages carry checksums, which polars does not write: a flipped bit would be another number."""
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(
        frame.to_arrow(), buffer, compression="zstd", compression_level=3, write_page_checksum=True
    )
    return buffer.getvalue()


def _has_rows(key: str) -> bool:
    return key.endswith(".parquet") and layout.table_slide(key) is not None
