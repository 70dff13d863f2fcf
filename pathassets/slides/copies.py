"""Local copies of remote slides: OpenSlide needs files.

Belongs here: one bounded folder of copies, whole or not there, shared by all processes of a study. Does not belong: what a
store says of an object (`remote`), which slide is wanted.

    <folder>/<token>/           a copy: the file that names the slide, and its parts beside it
    <folder>/<token>.part/      a copy on its way
    <folder>/<token>.lock       shared by those who read the copy, exclusive to who makes or removes it; holds its size

The token follows name and state of the object, so that another state is another copy. A lock is the operating system's:
a process that is killed holds none.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from pathassets.errors import Reason, SlideError
from pathassets.slides.discover import Entry
from pathassets.slides.parts import Found
from pathassets.slides.places import folder_of, name_of, suffix_of
from pathassets.slides.remote import entry_at, read_range

BLOCK_BYTES = 2**24
WAIT_SECONDS = 3600.0
_POLL_S = (0.02, 1.0)
_MAX_NAME = 200  # bytes; a store's names may be longer than a file system's

Read = Callable[[str, int, int], bytes]
Look = Callable[[str], Entry]


class OutOfTimeError(Exception):
    """The deadline has passed; what has been copied so far is kept and gone on with."""


class Copies:
    """The local copies of a study's remote slides.

    Args:
        folder: Where they lie; made when the first one comes.
        limit_bytes: What they may take together. The least recently used ones that nobody reads give way.
        read: Gives bytes of an object: name, start, number.
        look: Gives an object as it is now.
    """

    def __init__(self, folder: Path, limit_bytes: int, read: Read = read_range, look: Look = entry_at) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._read, self._look = read, look

    @contextmanager
    def held(self, found: Found, deadline: float = float("inf")) -> Iterator[Path]:
        """The slide's file as a path, brought here if need be; it stays until the block ends.

        Args:
            found: The slide as its store has it now.
            deadline: Moment of the monotonic clock at which bringing it is put off.

        Raises:
            OSError: It cannot be read, or is not what `found` says.
            OutOfTimeError: The deadline has passed.
            SlideError: `disk_full`: it is larger than the limit, or others hold all there is.
        """
        token = _token(found)
        self.folder.mkdir(parents=True, exist_ok=True)
        end = min(deadline, time.monotonic() + WAIT_SECONDS)
        while True:
            with self._locked(token, fcntl.LOCK_SH, end) as lock:
                if (self.folder / token).is_dir():
                    os.utime(lock)
                    yield self.folder / token / _local_name(found)
                    return
            with self._locked(token, fcntl.LOCK_EX, end) as lock:
                if not (self.folder / token).is_dir():
                    self._bring(found, token, lock, end, deadline)

    def total_bytes(self) -> int:
        """What the copies take, those on their way counted whole."""
        return sum(_noted(lock) for lock in self.folder.glob("*.lock"))

    def _bring(self, found: Found, token: str, lock: int, end: float, deadline: float) -> None:
        wanted = [found.own, *found.parts]
        self._make_room(sum(entry.size for entry in wanted), token, lock, end, deadline)
        temp = self.folder / f"{token}.part"
        for entry in wanted:
            self._copy(entry, temp / _inside(found, entry), deadline)
        if any(self._look(entry.path) != entry for entry in wanted):
            shutil.rmtree(temp)
            raise OSError(f"{found.path} was changed while it was read")
        for folder, _, _ in os.walk(temp):
            _flush(Path(folder))
        os.rename(temp, self.folder / token)
        _flush(self.folder)

    def _copy(self, entry: Entry, target: Path, deadline: float) -> None:
        """One object block by block; goes on where an earlier try was ended."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("r+b" if target.exists() else "w+b") as file:
            # The last block that is there may not have reached the disk before a power cut.
            blocks = min(os.fstat(file.fileno()).st_size, entry.size) // BLOCK_BYTES
            for start in range(max(0, blocks - 1) * BLOCK_BYTES, entry.size, BLOCK_BYTES):
                if time.monotonic() > deadline:
                    raise OutOfTimeError(f"{name_of(entry.path)}: {start} of {entry.size} bytes are here")
                data = self._read(entry.path, start, min(BLOCK_BYTES, entry.size - start))
                if len(data) != min(BLOCK_BYTES, entry.size - start):
                    raise OSError(f"{entry.path} is shorter than its store says")
                file.seek(start)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            file.truncate(entry.size)

    # -- room --------------------------------------------------------------------------------------------------------

    def _make_room(self, n_bytes: int, token: str, lock: int, end: float, deadline: float) -> None:
        """Notes that `token` will take `n_bytes`, once old copies have given way."""
        if n_bytes > self.limit_bytes:
            raise _no_room(f"a slide of {n_bytes / 1e9:.2f} GB", self.limit_bytes)
        for _ in _until(end):
            with self._locked("room", fcntl.LOCK_EX, end):
                if self._give_way(n_bytes, token):
                    os.ftruncate(lock, 0)
                    os.pwrite(lock, str(n_bytes).encode(), 0)
                    return
        if time.monotonic() >= deadline:
            raise OutOfTimeError("no room yet beside the slides that are being read")
        raise _no_room("slides that are being read", self.limit_bytes)

    def _give_way(self, n_bytes: int, token: str) -> bool:
        locks = [lock for lock in self.folder.glob("*.lock") if lock.stem not in (token, "room")]
        taken = sum(_noted(lock) for lock in locks)
        for lock in sorted(locks, key=_last_used):
            if taken + n_bytes <= self.limit_bytes:
                break
            size = _noted(lock)
            if self._remove(lock):
                taken -= size
        return taken + n_bytes <= self.limit_bytes

    def _remove(self, lock: Path) -> bool:
        """Removes a copy, or what came of it; False when somebody reads or makes it."""
        handle = _open(lock)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.with_suffix(".part"), ignore_errors=True)
            if lock.with_suffix("").is_dir():
                # under another name first: a copy that is half removed must not be taken for one
                os.rename(lock.with_suffix(""), lock.with_suffix(".part"))
                shutil.rmtree(lock.with_suffix(".part"))
            lock.unlink(missing_ok=True)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
        return True

    @contextmanager
    def _locked(self, token: str, mode: int, end: float) -> Iterator[int]:
        """Holds the lock of a copy; gives its open file."""
        lock = self._lock(self.folder / f"{token}.lock", mode, end)
        try:
            yield lock
        finally:
            os.close(lock)

    def _lock(self, path: Path, mode: int, end: float) -> int:
        for _ in _until(end):
            handle = _open(path)
            with suppress(BlockingIOError):
                fcntl.flock(handle, mode | fcntl.LOCK_NB)
                if _is_file(handle, path):
                    return handle
            os.close(handle)
        raise OutOfTimeError(f"{path} is held by somebody else")


def _is_file(handle: int, path: Path) -> bool:
    """Whoever removes a copy removes its lock's file: what is held then is no lock any more."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _until(end: float) -> Iterator[None]:
    """Tries, with growing pauses between, until the moment `end`; at least one."""
    pause, longest = _POLL_S
    while True:
        yield
        if time.monotonic() >= end:
            return
        time.sleep(pause)
        pause = min(longest, pause * 2)


def _token(found: Found) -> str:
    text = "\0".join([found.path, *map(str, found.stamp)])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _local_name(found: Found) -> str:
    """The file's own name, where a file system can take it: messages name it, and parts are found by it."""
    name = name_of(found.path)
    if found.parts or (len(name.encode()) <= _MAX_NAME and name not in ("", ".", "..") and "\0" not in name):
        return name
    return f"slide{suffix_of(name)}"


def _inside(found: Found, entry: Entry) -> str:
    """Where a file lies within the copy.

    Raises:
        OSError: It would lie outside.
    """
    if entry.path == found.path:
        return _local_name(found)
    inner = entry.path[len(folder_of(found.path)) + 1 :]
    if not inner or inner.startswith("/") or "\0" in inner or ".." in PurePosixPath(inner).parts:
        raise OSError(f"{entry.path} has a name that no file can have")
    return inner


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _noted(lock: Path) -> int:
    """The size that a lock's file notes; 0 before there is one."""
    with suppress(OSError, ValueError):
        return int(lock.read_text() or 0)
    return 0


def _last_used(lock: Path) -> float:
    try:
        return lock.stat().st_mtime
    except OSError:
        return 0.0


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _no_room(what: str, limit_bytes: int) -> SlideError:
    return SlideError(
        f"the cache of remote slides (cache_gb = {limit_bytes / 1e9:g}) has no room beside {what}",
        reason=Reason.DISK_FULL,
        remedy="Raise cache_gb in pathassets.toml, or read fewer slides at once.",
    )
