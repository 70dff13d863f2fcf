"""Root: the handful of operations by which anything in the store is written, read, listed, locked or deleted.

Belongs here: what every root can do, and the choice of one. Does not belong: how a disk does it (`local_root`), how an
object store does it (`object_root`), which keys there are (`layout`) and what is in them.

A key is a relative path with forward slashes. What has a key is whole: it appears at once, or not at all.
"""

from __future__ import annotations

import os
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol, TypeVar

from pathassets.errors import ConfigError, Reason, StoreError

if TYPE_CHECKING:
    from zarr.abc.store import Store

S3 = "s3://"
DAY_S = 86_400.0
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{1,62}")
_MOVED = "Publish again if the study was moved: `pathassets publish`."
In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class Entry:
    """One stored thing.

    Attributes:
        key: Its key.
        etag: Changes whenever the content changes.
        size: Bytes.
        mtime: Seconds since 1970.
    """

    key: str
    etag: str
    size: int
    mtime: float


class Held(Protocol):
    """A lock that this process has."""

    def check(self) -> None:
        """Does nothing as long as the lock is ours.

        Raises:
            StoreError: `locked` when another process has taken it over, because this one was paused for too long.
        """


class Root(ABC):
    """The place that holds the store; `open_root` makes one.

    Attributes:
        uri: Its absolute address: a path, or `s3://bucket/prefix`.
        folder: Where other programs can read the files under their keys; None where they are no files.
    """

    uri: str
    folder: Path | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r})"

    # -- names -----------------------------------------------------------------------------------------------------

    def address(self, key: str) -> str:
        """The absolute address of `key`, as a column `uri` shows it.

        Raises:
            ValueError: `key` is absolute, empty or leaves the root.
        """
        return f"{self.uri}/{checked_key(key)}"

    def key_of(self, uri: str | Path) -> str:
        """The key of what is named by its key or by its absolute address.

        Raises:
            StoreError: `store_corrupt` when it lies elsewhere.
        """
        text = str(uri)
        if "://" not in text and not Path(text).is_absolute():
            return text
        if not text.startswith(f"{self.uri}/"):
            message = f"{text} does not lie in the store {self.uri}"
            raise StoreError(message, reason=Reason.STORE_CORRUPT, remedy=_MOVED)
        return text.removeprefix(f"{self.uri}/")

    # -- writing ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def put(self, key: str, data: bytes | memoryview) -> None:
        """Stores `data` under `key`, whole or not at all, and for good when this returns.

        Raises:
            StoreError: `disk_full`, `store_read_only`; `locked` when a lock that guards the key was lost.
            StoreUnreachableError: As every operation of a store that is asked through a network.
        """

    def put_if_changed(self, key: str, data: bytes) -> bool:
        """Like `put`, but leaves equal content alone; True when something was written."""
        if self.read_if_there(key) == data:
            return False
        self.put(key, data)
        return True

    @abstractmethod
    def staged(self, key: str) -> AbstractContextManager[Path]:
        """A path for a library to write a file to; it becomes `key` when the block ends well. Raises as `put` does."""

    @abstractmethod
    def workshop(self, prefix: str) -> AbstractContextManager[Path]:
        """A folder for a library to write many files to; when the block has ended well they lie below `prefix`.

        They appear one by one and last for good after `settle`: for groups that are not read before they have a marker.
        What lies directly in `prefix` already is in the folder, too.
        """

    @abstractmethod
    def settle(self, prefix: str) -> None:
        """Makes what lies below `prefix` last, however it was written, and removes what dead writers had begun there."""

    @abstractmethod
    def clear_leftovers(self, prefix: str) -> None:
        """Removes what dead writers had begun below `prefix`; whoever calls holds the lock of what lies there."""

    @abstractmethod
    def delete(self, prefix: str) -> bool:
        """Removes `prefix`, or all that lies below it; True when there was something."""

    @abstractmethod
    def delete_empty(self, prefix: str) -> None:
        """Removes the folder `prefix` where nothing lies in it any more."""

    def check_writable(self) -> None:
        """Tries to write, so that a run refuses to start instead of failing at its first result.

        Raises:
            StoreError: `disk_full`, `store_read_only`.
            StoreUnreachableError: Nobody answers.
        """
        key = f".probe.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
        self.put(key, b"x" * 4096)  # a block: an empty file fits on a full disk
        self.delete(key)

    # -- reading ---------------------------------------------------------------------------------------------------

    def read(self, key: str) -> bytes:
        """The bytes under `key`.

        Raises:
            StoreError: `store_corrupt` where there is nothing, or it cannot be read.
        """
        data = self.read_if_there(key)
        if data is None:
            raise StoreError(
                f"{self.address(key)} is missing",
                reason=Reason.STORE_CORRUPT,
                remedy="Run again with --force: what it belongs to is made anew.",
            )
        return data

    @abstractmethod
    def read_if_there(self, key: str) -> bytes | None:
        """The bytes under `key`; None where there is nothing."""

    @abstractmethod
    def sha256(self, key: str) -> str:
        """SHA-256 of the bytes under `key`, read back from where they lie; 64 hex digits. Raises as `read` does."""

    @abstractmethod
    def files(self, keys: Iterable[str]) -> AbstractContextManager[Path]:
        """A folder in which those of `keys` that are there lie as files under their keys, to be read until the block ends."""

    @abstractmethod
    def parquet(self, keys: Sequence[str]) -> list[Path] | list[bytes]:
        """What `polars.scan_parquet` takes for these keys."""

    @abstractmethod
    def zarr(self, prefix: str, *, durable: bool = False) -> Store:
        """What lies below `prefix` as a Zarr store.

        Args:
            prefix: Key of a Zarr group.
            durable: Each write is whole and for good when it returns, as with `put`; else only after `settle`.
        """

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether there is something under `key` or below it."""

    @abstractmethod
    def is_there(self) -> bool:
        """Whether anything was ever stored here."""

    @abstractmethod
    def entries(self, prefix: str = "") -> list[Entry]:
        """Everything stored below `prefix`, sorted by key; half-written things are not among it."""

    def keys(self, prefix: str = "") -> list[str]:
        """Keys of everything stored below `prefix`, sorted."""
        return [entry.key for entry in self.entries(prefix)]

    @abstractmethod
    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below `prefix`, sorted."""

    def map(self, function: Callable[[In], Out], items: Iterable[In]) -> list[Out]:
        """`function` of each item, in order; side by side where each waits for a network."""
        return [function(item) for item in items]

    # -- housekeeping ----------------------------------------------------------------------------------------------

    @abstractmethod
    def temp_files(self, older_than: float = DAY_S) -> list[Path]:
        """Half-written files that a killed process left behind more than `older_than` seconds ago."""

    @abstractmethod
    def sweep(self, older_than: float = DAY_S) -> int:
        """Deletes `temp_files`; their number."""

    @abstractmethod
    def lock(
        self, name: str, timeout: float = 0.0, waiting: Callable[[str], None] | None = None
    ) -> AbstractContextManager[Held]:
        """Holds the lock `name` for a block; a holder that dies, however it dies, does not keep it.

        Args:
            name: Letters, digits, `.`, `_`, `-`.
            timeout: Seconds to wait for its holder.
            waiting: Told who the holder is, each time that the lock could not be had; what it raises ends the waiting.

        Raises:
            StoreError: `locked` after `timeout`, naming the holder; `disk_full`, `store_read_only`.
        """


def open_root(uri: str | Path) -> Root:
    """The root at a folder's path or at `s3://bucket/prefix`; nothing is made or asked before it is used.

    Raises:
        ConfigError: The address is of no kind that is known, or what its kind needs is not installed.
    """
    if "://" in str(uri):
        from pathassets.store.object_root import ObjectRoot

        return ObjectRoot(str(uri))
    from pathassets.store.local_root import LocalRoot

    return LocalRoot(uri)


def bucket_of(uri: str) -> tuple[str, str]:
    """Bucket and prefix of `s3://bucket/prefix`; the prefix may be empty.

    Raises:
        ConfigError: It is of another kind, names no bucket, or holds what is none of its business.
    """
    bucket, _, prefix = uri.removeprefix(S3).strip("/").partition("/")
    if not uri.startswith(S3) or not _BUCKET.fullmatch(bucket) or any(sign in prefix for sign in "?#*[]"):
        raise ConfigError(
            f"{uri.partition('://')[0]}://... is no address of a store",
            remedy="Name a folder, or s3://bucket/prefix; credentials and endpoint go into the environment (AWS_*).",
        )
    return bucket, str(checked_key(prefix)) if prefix else ""


def checked_key(key: str) -> PurePosixPath:
    """`key` as a relative path that stays inside the root.

    Raises:
        ValueError: It is empty, absolute, or has a part such as `..`.
    """
    parts = key.split("/")
    if not key or "\0" in key or "\\" in key or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{key!r} is not a key of the store")
    return PurePosixPath(*parts)


def locked(name: str, holder: str) -> StoreError:
    """What is raised for a lock that somebody else has."""
    return StoreError(
        f"{name} is being worked on by {holder}",
        reason=Reason.LOCKED,
        remedy="Wait until it has finished, or end it; nothing has to be deleted.",
    )
