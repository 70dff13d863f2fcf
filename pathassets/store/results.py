"""Results: `results.duckdb`, a snapshot of all tables for SQL, published by renaming a finished file.

Belongs here: when a snapshot is made, from what, and how it appears. Does not belong: the SQL that fills it (`ingest`).

Readers hold the file that they opened, writers never touch it: nobody waits for anybody. The file is read-only by
mode, because a write-ahead log that somebody leaves beside it would silently be replayed into its successor.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pathassets.errors import Reason, StoreError
from pathassets.store import layout
from pathassets.store.ingest import INTERNAL, VIEWS, Ingest, StoreState, create_live_view, create_tables, read_state
from pathassets.store.local_root import LocalRoot, fsync_path, temp_name, translated
from pathassets.store.root import Held, Root
from pathassets.store.schema import TABLES
from pathassets.store.tables import Tables

if TYPE_CHECKING:
    import duckdb

SNAPSHOT_FORMAT = 1
LOCK = "publish"


@dataclass(frozen=True)
class Published:
    """What publishing did.

    Attributes:
        path: The snapshot.
        changed: Whether it was replaced; False = it was current and no byte has changed.
        n_slides: Slides that were taken in anew.
        rows: Rows of each table.
        skipped: Files that could not be read, and why; their rows are missing.
    """

    path: Path
    changed: bool
    n_slides: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def publish(root: Root, home: str | Path, *, full: bool = False, timeout: float = 600.0) -> Published:
    """Brings `results.duckdb` up to date with the store; does nothing when it is.

    Args:
        root: The store.
        home: The folder of `results.duckdb`.
        full: Make it from nothing, not from the last snapshot.
        timeout: Seconds to wait for another process that is publishing.

    Raises:
        StoreError: `locked`, `disk_full`, `store_read_only`; the last snapshot is then still there.
    """
    home = Path(home).expanduser().resolve()
    work = _Work(root, home, read_state(root))
    if full or not work.is_current():
        with root.lock(LOCK, timeout) as lock:
            Tables(root).ensure_schema_files()
            if _Record.read(home) != work.record:  # another publisher came first
                work = _Work(root, home, read_state(root))
            if full or not work.is_current():
                return work.publish(full, lock)
    return Published(work.target, False, rows=work.record.rows, skipped=work.record.skipped)


def needs_publishing(root: Root, home: str | Path) -> bool:
    """Whether the snapshot lacks something that the store has, or is not there."""
    return not _Work(root, Path(home).expanduser().resolve(), read_state(root)).is_current()


def last_published(home: str | Path) -> Published:
    """What the last publication noted of itself; no rows where there was none."""
    record = _Record.read(Path(home))
    return Published(layout.results_path(home), False, rows=record.rows, skipped=record.skipped)


@dataclass(frozen=True)
class _Record:
    """What the last publication noted beside the snapshot, so that finding nothing to do costs no SQL.

    Attributes:
        shape: Digest of the tables' and views' descriptions and of where the store lies; another shape is made from nothing.
        state: Digest of shape and files.
        snapshot: Etag of the file that was published.
    """

    shape: str = ""
    state: str = ""
    snapshot: str | None = None
    rows: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, home: Path) -> _Record:
        """The record; an empty one when there is none that can be used."""
        try:
            return cls(**json.loads(LocalRoot(home).read_if_there(layout.PUBLISHED) or b"{}"))
        except (ValueError, TypeError):
            return cls()

    def write(self, home: Path) -> None:
        """Puts it beside the snapshot."""
        LocalRoot(home).put(layout.PUBLISHED, json.dumps(asdict(self), sort_keys=True).encode())


class _Work:
    """One publication."""

    def __init__(self, root: Root, home: Path, state: StoreState) -> None:
        self.root, self.home, self.state = root, home, state
        self.target = layout.results_path(home)
        self.prefix = layout.uri_prefix(root.uri, home)
        self.record = _Record.read(home)
        tables = [(spec.name, spec.description, spec.column_schema()) for spec in TABLES.values()]
        self.shape = _digest(SNAPSHOT_FORMAT, tables, VIEWS, root.uri, self.prefix)
        self.digest = _digest(self.shape, sorted(state.files.items()))

    def is_current(self) -> bool:
        """Whether the snapshot is the one that was published last, from just these files."""
        if self.record.state != self.digest or self.record.snapshot != _etag(self.target):
            return False
        return not _wal(self.target).exists() and all(map(self._still_damaged, self.record.skipped))

    def publish(self, full: bool, lock: Held) -> Published:
        """Makes the next snapshot beside the last and puts it in its place, if the lock is still held."""
        trusted = self.record.shape == self.shape and self.record.snapshot == _etag(self.target)
        with translated(f"write {self.target}"):
            self.home.mkdir(parents=True, exist_ok=True)
            _clear(self.home, f".{layout.RESULTS}.*")  # of dead publishers: this one holds the lock
            temp = self.home / temp_name(layout.RESULTS)
            try:
                published = self._build(temp, from_last=trusted and not full)
                lock.check()
                self._appear(temp)
            finally:
                _clear(self.home, f"{temp.name}*")
        _Record(self.shape, self.digest, _etag(self.target), published.rows, published.skipped).write(self.home)
        return published

    def _build(self, temp: Path, *, from_last: bool) -> Published:
        import duckdb

        if from_last:
            shutil.copyfile(self.target, temp)  # the content, not the mode: the last one is read-only
        try:
            with _duckdb_errors(self.target):
                return self._fill(temp, from_last)
        except duckdb.Error as error:
            if not from_last:
                raise _store_error(error, self.target) from error
            _clear(self.home, f"{temp.name}*")
            return self._build(temp, from_last=False)

    def _fill(self, temp: Path, from_last: bool) -> Published:
        import duckdb

        con = duckdb.connect(str(temp), config={"enable_external_file_cache": False})  # each file is read once
        try:
            before = _ingested(con) if from_last else {}
            if not from_last:
                create_tables(con)
            ingest = Ingest(con, self.root, self.prefix, self.state)
            n_slides = ingest.run(before)
            for spec in TABLES.values():
                if spec.name in ingest.replaced or not from_last:
                    create_live_view(con, self.root, self.prefix, spec)
            rows = {name: _count(con, name) for name in TABLES}
            con.execute("CHECKPOINT")
        finally:
            con.close()
        return Published(self.target, True, n_slides, rows, ingest.skipped)

    def _appear(self, temp: Path) -> None:
        fsync_path(temp)
        temp.chmod(0o444)
        _wal(self.target).unlink(missing_ok=True)
        os.replace(temp, self.target)
        _wal(self.target).unlink(missing_ok=True)
        fsync_path(self.home)

    def _still_damaged(self, key: str) -> bool:
        import duckdb

        con = duckdb.connect()
        try:
            return Ingest(con, self.root, self.prefix, self.state).damage(key) is not None
        finally:
            con.close()


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _etag(path: Path) -> str | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}"


def _wal(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


def _clear(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _ingested(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    return dict(con.execute(f"SELECT key, etag FROM {INTERNAL}.ingested").fetchall())


def _count(con: duckdb.DuckDBPyConnection, table: str) -> int:
    row = con.execute(f"SELECT count(*) FROM main.{table}").fetchone()
    return int(row[0]) if row else 0


@contextmanager
def _duckdb_errors(target: Path) -> Iterator[None]:
    """A full disk is no reason to try again from nothing."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        translated_error = _store_error(error, target)
        if translated_error.reason is Reason.DISK_FULL:
            raise translated_error from error
        raise


def _store_error(error: Exception, target: Path) -> StoreError:
    text = str(error).partition("\n")[0]
    if "No space left" in text:
        remedy = "Free some space on that disk and run again."
        return StoreError(f"cannot write {target}: the disk is full", reason=Reason.DISK_FULL, remedy=remedy)
    if "Read-only file system" in text or "Permission denied" in text:
        remedy = "Make the folder writable for this user, or choose another with --home."
        return StoreError(f"cannot write {target}", reason=Reason.STORE_READ_ONLY, remedy=remedy)
    remedy = "Run `pathassets verify`, then `pathassets publish`."
    return StoreError(f"cannot make {target}: {text}", reason=Reason.STORE_CORRUPT, remedy=remedy)
