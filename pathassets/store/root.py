"""Root: the handful of operations by which anything in the store is written, read, listed, locked or deleted.

Belongs here: atomic puts, listings, locks, and turning the operating system's errors into `StoreError`.
Does not belong: which keys there are (`layout`) and what is in them.

A key is a relative path with forward slashes. What has a key is whole: it was written under a hidden name in the
same folder, flushed to the disk and renamed. Keeping to these operations lets the root become an object store later.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pathassets.errors import Reason, StoreError

TEMP_SUFFIX = ".tmp"
DAY_S = 86_400.0
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EROFS, errno.EACCES, errno.EPERM}
_LOCK_POLL_S = (0.02, 0.5)


@dataclass(frozen=True)
class Entry:
    """One stored thing.

    Attributes:
        key: Its key.
        etag: Changes whenever the content is put again.
        size: Bytes.
        mtime: Seconds since 1970.
    """

    key: str
    etag: str
    size: int
    mtime: float


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


class Root:
    """The folder that holds the store.

    Args:
        path: The folder; it is made when something is first written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().resolve()

    def __repr__(self) -> str:
        return f"Root({str(self.path)!r})"

    def local(self, key: str) -> Path:
        """The file or folder of `key`, for libraries that need a path.

        Raises:
            ValueError: `key` is absolute, empty or leaves the root.
        """
        return self.path / checked_key(key)

    # -- writing ---------------------------------------------------------------------------------------------------

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Stores `data` under `key`, whole or not at all, and on the disk when this returns.

        Raises:
            StoreError: `disk_full`, `store_read_only`.
        """
        with self.staged(key) as temp:
            temp.write_bytes(data)

    def put_if_changed(self, key: str, data: bytes) -> bool:
        """Like `put`, but leaves an equal file alone; True when something was written."""
        if self.read_if_there(key) == data:
            return False
        self.put(key, data)
        return True

    @contextmanager
    def staged(self, key: str) -> Iterator[Path]:
        """A hidden path beside `key` for a library to write a file to; it becomes `key` when the block ends well.

        Raises:
            StoreError: `disk_full`, `store_read_only`.
        """
        target = self.local(key)
        temp = target.parent / temp_name(target.name)
        with translated(f"write {target}"):
            _make_folder(target.parent)
            try:
                yield temp
                _replace(temp, target)
            finally:
                temp.unlink(missing_ok=True)

    def delete(self, prefix: str) -> bool:
        """Removes a file or a whole folder; True when there was one."""
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

    def check_writable(self) -> None:
        """Tries to write, so that a run refuses to start instead of failing at its first result.

        Raises:
            StoreError: `disk_full`, `store_read_only`.
        """
        key = f".probe.{os.getpid()}.{uuid.uuid4().hex[:8]}{TEMP_SUFFIX}"
        self.put(key, b"x" * 4096)  # a block: an empty file fits on a full disk
        self.delete(key)

    def free_bytes(self) -> int:
        """Bytes free on the disk that holds, or will hold, the store."""
        folder = self.path
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    # -- reading ---------------------------------------------------------------------------------------------------

    def read(self, key: str) -> bytes:
        """The bytes under `key`.

        Raises:
            StoreError: `store_corrupt` where there is nothing, or it cannot be read.
        """
        data = self.read_if_there(key)
        if data is None:
            raise StoreError(
                f"{self.local(key)} is missing",
                reason=Reason.STORE_CORRUPT,
                remedy="Run again with --force: what it belongs to is made anew.",
            )
        return data

    def read_if_there(self, key: str) -> bytes | None:
        """The bytes under `key`; None where there is nothing."""
        path = self.local(key)
        with translated(f"read {path}", reading=True):
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def exists(self, key: str) -> bool:
        """Whether there is a file or folder under `key`."""
        return self.local(key).exists()

    def entries(self, prefix: str = "") -> list[Entry]:
        """Everything stored below `prefix`, sorted by key; half-written files are not among it."""
        folder = self.local(prefix) if prefix else self.path
        with translated(f"list {folder}", reading=True):
            found = [_entry(self.path, item) for item in _files(folder, temps=False)]
        return sorted((e for e in found if e is not None), key=lambda e: e.key)

    def keys(self, prefix: str = "") -> list[str]:
        """Keys of everything stored below `prefix`, sorted."""
        return [entry.key for entry in self.entries(prefix)]

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below `prefix`, sorted."""
        folder = self.local(prefix)
        with translated(f"list {folder}", reading=True):
            if not folder.is_dir():
                return []
            return sorted(item.name for item in os.scandir(folder) if item.is_dir() and not item.name.startswith("."))

    # -- housekeeping ----------------------------------------------------------------------------------------------

    def temp_files(self, older_than: float = DAY_S) -> list[Path]:
        """Half-written files that a killed process left behind more than `older_than` seconds ago."""
        limit = time.time() - older_than
        with translated(f"list {self.path}", reading=True):
            entries = (_entry(self.path, item) for item in _files(self.path, temps=True))
            return sorted(self.path / e.key for e in entries if e is not None and e.mtime < limit)

    def sweep(self, older_than: float = DAY_S) -> int:
        """Deletes `temp_files`; their number."""
        old = self.temp_files(older_than)
        for path in old:
            with translated(f"delete {path}"):
                path.unlink(missing_ok=True)
        return len(old)

    @contextmanager
    def lock(self, name: str, timeout: float = 0.0, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
        """Holds the lock `name`; the operating system gives it back when this process dies, however it dies.

        Args:
            name: Letters, digits, `.`, `_`, `-`.
            timeout: Seconds to wait for its holder.
            waiting: Told who the holder is, each time that the lock could not be had; what it raises ends the waiting.

        Raises:
            StoreError: `locked` after `timeout`, naming the holder; `disk_full`, `store_read_only`.
        """
        path = self.local(f"locks/{name}.lock")
        with translated(f"lock {path}"):
            _make_folder(path.parent)
            handle = _acquire(path, timeout, waiting)
        try:
            with translated(f"lock {path}"):
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is still held, see _acquire
            os.close(handle)


def checked_key(key: str) -> PurePosixPath:
    """`key` as a relative path that stays inside the root.

    Raises:
        ValueError: It is empty, absolute, or has a part such as `..`.
    """
    parts = key.split("/")
    if not key or "\0" in key or "\\" in key or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{key!r} is not a key of the store")
    return PurePosixPath(*parts)


def temp_name(name: str) -> str:
    """A hidden name that no listing and no glob shows, unique to this process and moment."""
    return f".{name[:80]}.{os.getpid()}.{uuid.uuid4().hex[:8]}{TEMP_SUFFIX}"


def put_new(path: Path, text: str) -> bool:
    """Writes a file that is not there, as a whole at once; False when another process was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(temp_name(path.name))
    temporary.write_text(text, encoding="utf-8")
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


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


def _make_folder(folder: Path) -> None:
    """Makes `folder`, each new level flushed into its parent: else a power cut loses the folder with the file."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for level in reversed(missing):
        level.mkdir(exist_ok=True)
        fsync_path(level.parent)


def _files(folder: Path, *, temps: bool) -> Iterator[os.DirEntry[str]]:
    """Files below `folder`: either the half-written ones or all others."""
    try:
        items = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for item in items:
        if item.is_dir(follow_symlinks=False):
            yield from _files(Path(item.path), temps=temps)
        elif _is_temp(item.name) == temps:
            yield item


def _is_temp(name: str) -> bool:
    return name.startswith(".") and name.endswith(TEMP_SUFFIX)


def _entry(root: Path, item: os.DirEntry[str]) -> Entry | None:
    try:
        stat = item.stat()
    except FileNotFoundError:  # replaced or deleted since it was listed
        return None
    key = Path(item.path).relative_to(root).as_posix()
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
                raise _locked(path) from None
            if waiting is not None:
                waiting(_holder(path))
            time.sleep(pause)
            pause = min(longest, pause * 2)


def _is_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _locked(path: Path) -> StoreError:
    return StoreError(
        f"{path.stem} is being worked on by {_holder(path)}",
        reason=Reason.LOCKED,
        remedy="Wait until it has finished, or end it; nothing has to be deleted.",
    )


def _holder(path: Path) -> str:
    """Who holds a lock, in words."""
    try:
        return path.read_text(errors="replace").strip() or "another process"
    except FileNotFoundError:
        return "another process"
