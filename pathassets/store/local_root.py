"""LocalRoot: the store in a folder of a disk.

Belongs here: atomic puts by renaming, flushing, locks of the operating system, and turning its errors into `StoreError`.
Does not belong: object stores (`object_root`), which keys there are (`layout`).

What has a key was written under a hidden name in the same folder, flushed to the disk and renamed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from pathassets.errors import Reason, StoreError
from pathassets.store.root import DAY_S, Entry, Held, Root, checked_key, locked

if TYPE_CHECKING:
    from zarr.abc.store import Store

TEMP_SUFFIX = ".tmp"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EROFS, errno.EACCES, errno.EPERM}
_SQLITE_DENIED = "attempt to write a readonly database"
_LOCK_POLL_S = (0.02, 0.5)


@contextmanager
def translated(action: str, *, reading: bool = False) -> Iterator[None]:
    """Turns an `OSError` into a `StoreError` that says what was being done, why it failed and what to do.

    Args:
        action: What is being done, as in "cannot write /data/store/x".
        reading: Nothing is being written, so a refusal does not mean that the store is read-only.
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise _store_error(error, action, reading) from error


def _store_error(error: OSError, action: str, reading: bool) -> StoreError:
    message = f"cannot {action}: {error.strerror or error}"
    if error.errno in _FULL:
        return StoreError(message, reason=Reason.DISK_FULL, remedy="Free some space on that disk and run again.")
    if error.errno in _DENIED and not reading:
        remedy = "Make the folder writable for this user, or choose another with --home."
        return StoreError(message, reason=Reason.STORE_READ_ONLY, remedy=remedy)
    remedy = "Check its rights and the disk, then run `pathassets verify`."
    return StoreError(message, reason=Reason.STORE_CORRUPT, remedy=remedy)


def read_only_database(error: BaseException | None, place: object) -> StoreError | None:
    """What is to be said where SQLite was refused to write below `place`; None for any other error."""
    while error is not None and _SQLITE_DENIED not in str(error):
        error = error.__cause__ or error.__context__
    if error is None:
        return None
    remedy = "Make the folder writable for this user, or copy the study: Dagster opens no SQLite that it may not write."
    return StoreError(f"{place} cannot be written", reason=Reason.STORE_READ_ONLY, remedy=remedy)


class LocalRoot(Root):
    """The folder that holds the store.

    Args:
        path: The folder; it is made when something is first written.

    Attributes:
        path: It, absolute.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = self.folder = Path(path).expanduser().resolve()
        self.uri = self.path.as_posix()

    def local(self, key: str) -> Path:
        """The file or folder of `key`.

        Raises:
            ValueError: `key` is absolute, empty or leaves the root.
        """
        return self.path / checked_key(key)

    # -- writing ---------------------------------------------------------------------------------------------------

    def put(self, key: str, data: bytes | memoryview) -> None:
        """See `Root.put`."""
        with self.staged(key) as temp:
            temp.write_bytes(data)

    @contextmanager
    def staged(self, key: str) -> Iterator[Path]:
        """See `Root.staged`; the path is a hidden one beside `key`."""
        target = self.local(key)
        temp = target.parent / temp_name(target.name)
        with translated(f"write {target}"):
            _make_folder(target.parent)
            try:
                yield temp
                _replace(temp, target)
            finally:
                temp.unlink(missing_ok=True)

    @contextmanager
    def workshop(self, prefix: str) -> Iterator[Path]:
        """See `Root.workshop`; the folder is that of `prefix` itself."""
        folder = self.local(prefix)
        with translated(f"write {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            yield folder

    def settle(self, prefix: str) -> None:
        """See `Root.settle`."""
        folder = self.local(prefix)
        with translated(f"write {folder}"):
            self.clear_leftovers(prefix)
            _flush(folder)

    def clear_leftovers(self, prefix: str) -> None:
        """See `Root.clear_leftovers`; leftovers are named as we and as Zarr name them."""
        for pattern in (f".*{TEMP_SUFFIX}", "*.partial"):
            for path in self.local(prefix).rglob(pattern):
                path.unlink(missing_ok=True)

    def delete(self, prefix: str) -> bool:
        """See `Root.delete`."""
        path = self.local(prefix)
        with translated(f"delete {path}"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=False)
                return True
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True

    def delete_empty(self, prefix: str) -> None:
        """See `Root.delete_empty`."""
        with suppress(OSError):  # it holds something again, or is gone
            self.local(prefix).rmdir()

    def free_bytes(self) -> int:
        """Bytes free on the disk that holds, or will hold, the store."""
        folder = self.path
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    # -- reading ---------------------------------------------------------------------------------------------------

    def read_if_there(self, key: str) -> bytes | None:
        """See `Root.read_if_there`."""
        path = self.local(key)
        with translated(f"read {path}", reading=True):
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def sha256(self, key: str) -> str:
        """See `Root.sha256`."""
        path = self.local(key)
        with translated(f"read {path}", reading=True), path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @contextmanager
    def files(self, keys: Iterable[str]) -> Iterator[Path]:
        """See `Root.files`; the folder is the store itself."""
        yield self.path

    def parquet(self, keys: Sequence[str]) -> list[Path]:
        """See `Root.parquet`."""
        return [self.local(key) for key in keys]

    def zarr(self, prefix: str, *, durable: bool = False) -> Store:
        """See `Root.zarr`."""
        from zarr.storage import LocalStore

        from pathassets.store.durable import DurableStore

        return DurableStore(self, prefix) if durable else LocalStore(self.local(prefix))

    def exists(self, key: str) -> bool:
        """See `Root.exists`."""
        return self.local(key).exists()

    def is_there(self) -> bool:
        """See `Root.is_there`."""
        return self.path.exists()

    def entries(self, prefix: str = "") -> list[Entry]:
        """See `Root.entries`."""
        folder = self.local(prefix) if prefix else self.path
        with translated(f"list {folder}", reading=True):
            found = [_entry(self.path, item) for item in _files(folder, temps=False)]
        return sorted((e for e in found if e is not None), key=attrgetter("key"))

    def folders(self, prefix: str) -> list[str]:
        """See `Root.folders`."""
        folder = self.local(prefix)
        with translated(f"list {folder}", reading=True):
            if not folder.is_dir():
                return []
            return sorted(item.name for item in os.scandir(folder) if item.is_dir() and not item.name.startswith("."))

    # -- housekeeping ----------------------------------------------------------------------------------------------

    def temp_files(self, older_than: float = DAY_S) -> list[Path]:
        """See `Root.temp_files`."""
        limit = time.time() - older_than
        with translated(f"list {self.path}", reading=True):
            entries = (_entry(self.path, item) for item in _files(self.path, temps=True))
            return sorted(self.path / e.key for e in entries if e is not None and e.mtime < limit)

    def sweep(self, older_than: float = DAY_S) -> int:
        """See `Root.sweep`."""
        old = self.temp_files(older_than)
        for path in old:
            with translated(f"delete {path}"):
                path.unlink(missing_ok=True)
        return len(old)

    @contextmanager
    def lock(self, name: str, timeout: float = 0.0, waiting: Callable[[str], None] | None = None) -> Iterator[Held]:
        """See `Root.lock`; the operating system gives it back when this process dies."""
        path = self.local(f"locks/{name}.lock")
        with translated(f"lock {path}"):
            _make_folder(path.parent)
            handle = _acquire(path, timeout, waiting)
        try:
            with translated(f"lock {path}"):
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            yield _Flock()
        finally:
            path.unlink(missing_ok=True)  # while it is still held, see _acquire
            os.close(handle)


class _Flock:
    """A lock of the operating system: ours until we give it back, however long we are paused."""

    def check(self) -> None:
        """Nothing to do."""


def temp_name(name: str) -> str:
    """A hidden name that no listing and no glob shows, unique to this process and moment."""
    return f".{name[:80]}.{os.getpid()}.{uuid.uuid4().hex[:8]}{TEMP_SUFFIX}"


def put_new(path: Path, content: str | bytes) -> bool:
    """Writes a file that is not there, as a whole at once; False when another process was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(temp_name(path.name))
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def remove_path(path: Path) -> None:
    """Removes a file, or a folder with all below; nothing where there is nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def fsync_path(path: Path) -> None:
    """Flushes a file's content, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(temp: Path, target: Path) -> None:
    fsync_path(temp)
    os.replace(temp, target)
    fsync_path(target.parent)


def _flush(folder: Path) -> None:
    """Flushes all files and folders below `folder`, and its own name."""
    for parent, _, files in os.walk(folder):
        for name in files:
            fsync_path(Path(parent) / name)
        fsync_path(Path(parent))
    fsync_path(folder.parent)


def _make_folder(folder: Path) -> None:
    """Makes `folder`, each new level flushed into its parent: else a power cut loses the folder with the file."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for level in reversed(missing):
        level.mkdir(exist_ok=True)
        fsync_path(level.parent)


def _files(folder: str | Path, *, temps: bool) -> Iterator[os.DirEntry[str]]:
    """Files below `folder`: either the half-written ones or all others."""
    try:
        items = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for item in items:
        if item.is_dir(follow_symlinks=False):
            yield from _files(item.path, temps=temps)
        elif _is_temp(item.name) == temps:
            yield item


def _is_temp(name: str) -> bool:
    return name.startswith(".") and name.endswith(TEMP_SUFFIX)


def _entry(root: Path, item: os.DirEntry[str]) -> Entry | None:
    try:
        stat = item.stat()
    except FileNotFoundError:  # replaced or deleted since it was listed
        return None
    key = item.path[len(str(root)) :].lstrip(os.sep)  # what pathlib would do takes longer than asking the disk
    # the inode tells two files of one size apart that were put within one tick of the clock
    return Entry(key, f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}", stat.st_size, stat.st_mtime)


def _acquire(path: Path, timeout: float, waiting: Callable[[str], None] | None) -> int:
    """Waits for the lock on `path`; the open descriptor holds it.

    Whoever gives a lock back removes its file, so that a store does not fill with them. What a waiter then gets is the
    lock on a file that is no longer there: it has to try again on the one that is.
    """
    deadline, (pause, longest) = time.monotonic() + timeout, _LOCK_POLL_S
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_file(handle, path):
                return handle
            os.close(handle)
        except BlockingIOError:
            os.close(handle)
            if time.monotonic() >= deadline:
                raise locked(path.stem, _holder(path)) from None
            if waiting is not None:
                waiting(_holder(path))
            time.sleep(pause)
            pause = min(longest, pause * 2)


def _is_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    """Who holds a lock, in words."""
    try:
        return path.read_text(errors="replace").strip() or "another process"
    except FileNotFoundError:
        return "another process"
