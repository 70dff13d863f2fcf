"""ObjectRoot: the store in a bucket of an object store that speaks S3.

Belongs here: requests, side by side where they are many, and turning their errors into `StoreError`. Does not belong: who
may take over a lock (`leases`), which keys there are (`layout`).

A put of an object is atomic and lasts when it is answered; a listing shows what was put before it. Where and as whom to ask
is told by the environment alone, as to every tool for S3: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_REGION. This module never sees their values.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pathassets.errors import ConfigError, Reason, StoreError, StoreUnreachableError
from pathassets.store import layout
from pathassets.store.leases import TERM_S, Leases
from pathassets.store.root import DAY_S, S3, Entry, Held, In, Out, Root, bucket_of, checked_key

try:
    import obstore
    from obstore.exceptions import (
        AlreadyExistsError,
        BaseError,
        PermissionDeniedError,
        PreconditionError,
        UnauthenticatedError,
    )
    from obstore.store import S3Store
except ImportError as error:
    raise ConfigError(
        f"a store in {S3} needs the package obstore, which is not installed", remedy="pip install 'pathassets[s3]'"
    ) from error

if TYPE_CHECKING:
    from obstore import ObjectMeta, OffsetRange, PutMode, SuffixRange
    from zarr.abc.store import Store

    Part = tuple[int, int] | OffsetRange | SuffixRange

PATIENCE_S = 60.0
AT_ONCE = 16
_LEASE_REQUEST_S = 10
_DATA_REQUEST_S = 120
_CONNECT_S = 5
_ANSWERS = (FileNotFoundError, AlreadyExistsError, PreconditionError)
_DOWN: set[str] = set()  # addresses that did not answer when this process last asked, whichever root it was that asked


class ObjectRoot(Root):
    """The objects of a bucket below a prefix.

    Args:
        uri: `s3://bucket/prefix`; the prefix may be empty.
        patience_s: Seconds for which a server that does not answer is asked again, before `store_unreachable`. What is asked
            next is then asked once, until there is an answer.
        lease_s: A lock's term: seconds after which a holder that has stopped writing is no longer one.

    Raises:
        ConfigError: The address names no bucket, or holds what is none of its business.
    """

    def __init__(self, uri: str, *, patience_s: float = PATIENCE_S, lease_s: float = TERM_S) -> None:
        bucket, prefix = bucket_of(uri)
        self.uri = f"{S3}{bucket}/{prefix}".rstrip("/")
        self.bucket = bucket
        self._patient = _client(bucket, prefix, _DATA_REQUEST_S, patience_s)
        self._hasty = _client(bucket, prefix, _DATA_REQUEST_S, 0)
        self._claims = _Claims(self, _client(bucket, prefix, _LEASE_REQUEST_S, 0))
        self._leases = Leases(self._claims, lease_s)

    @contextmanager
    def asking(self, action: str, *, writing: bool = False) -> Iterator[S3Store]:
        """The client for a request; see `translated` for what the request may raise."""
        client = self._hasty if self.uri in _DOWN else self._patient
        try:
            with translated(self.bucket, action, writing=writing):
                yield client
        except StoreUnreachableError:
            _DOWN.add(self.uri)
            raise
        except (*_ANSWERS, StoreError):
            _DOWN.discard(self.uri)
            raise
        else:
            _DOWN.discard(self.uri)

    # -- writing ---------------------------------------------------------------------------------------------------

    def put(self, key: str, data: bytes | memoryview) -> None:
        """See `Root.put`."""
        path = str(checked_key(key))
        self._leases.check(layout.guards(path))
        with self.asking(f"write {self.address(path)}", writing=True) as client:
            obstore.put(client, path, data)

    @contextmanager
    def staged(self, key: str) -> Iterator[Path]:
        """See `Root.staged`; the path is one of this machine's temporary files."""
        checked_key(key)
        with tempfile.TemporaryDirectory(prefix="pathassets-") as folder:
            temp = Path(folder) / "staged"
            yield temp
            self._upload(key, temp)

    @contextmanager
    def workshop(self, prefix: str) -> Iterator[Path]:
        """See `Root.workshop`; the folder is one of this machine's temporary ones."""
        with self.files(entry.key for entry in self.below(prefix)[1]) as folder:
            target = folder / prefix
            target.mkdir(parents=True, exist_ok=True)
            yield target
            paths = [path for path in target.rglob("*") if path.is_file()]
            self.map(lambda path: self._upload(path.relative_to(folder).as_posix(), path), paths)

    def settle(self, prefix: str) -> None:
        """Nothing to do: what was put lasts."""

    def clear_leftovers(self, prefix: str) -> None:
        """Nothing to do: what was not put whole is not there."""

    def delete(self, prefix: str) -> bool:
        """See `Root.delete`."""
        path = str(checked_key(prefix))
        self._leases.check(layout.guards(path))
        found = [entry.key for entry in self.entries(path)] + ([path] if self._size(path) is not None else [])
        if found:
            with self.asking(f"delete {self.address(path)}", writing=True) as client:
                obstore.delete(client, found)
        return bool(found)

    def delete_empty(self, prefix: str) -> None:
        """Nothing to do: there are no folders."""

    def check_writable(self) -> None:
        """Tries to write, and whether the server keeps its promise not to overwrite: locks rest on it.

        Raises:
            StoreError: `store_read_only`, `config_invalid` for a server without conditional writes.
            StoreUnreachableError: Nobody answers.
        """
        super().check_writable()
        name = f"probe-{uuid.uuid4().hex[:8]}"
        try:
            there = self._claims.create(name, b"1") is not None
            kept = self._claims.create(name, b"2") is None and self._claims.replace(name, b"3", '"0"') is None
        finally:
            self._claims.remove(name)
        if not (there and kept):
            message = f"the server of {self.uri} overwrites what it was asked not to overwrite"
            remedy = (
                "Take a server with conditional writes (If-None-Match, If-Match), as S3 has them: locks rest on them."
            )
            raise StoreError(message, reason=Reason.CONFIG_INVALID, remedy=remedy)

    # -- reading ---------------------------------------------------------------------------------------------------

    def read_if_there(self, key: str) -> bytes | None:
        """See `Root.read_if_there`."""
        return self.read_part(key, None)

    def read_part(self, key: str, part: Part | None) -> bytes | None:
        """Some of the bytes under `key`: from one to before another, from one on, or the last ones; None: all."""
        path = str(checked_key(key))
        with suppress(FileNotFoundError), self.asking(f"read {self.address(path)}") as client:
            return bytes(obstore.get(client, path, options={"range": part} if part else None).bytes())
        return None

    def sha256(self, key: str) -> str:
        """See `Root.sha256`."""
        return hashlib.sha256(self.read(key)).hexdigest()

    @contextmanager
    def files(self, keys: Iterable[str]) -> Iterator[Path]:
        """See `Root.files`; the folder is a temporary one that they are copied to."""
        with tempfile.TemporaryDirectory(prefix="pathassets-") as folder:
            self.map(lambda key: self._download(key, Path(folder)), keys)
            yield Path(folder)

    def parquet(self, keys: Sequence[str]) -> list[bytes]:
        """See `Root.parquet`; what was deleted since it was listed is left out."""
        return [data for data in self.map(self.read_if_there, keys) if data is not None]

    def zarr(self, prefix: str, *, durable: bool = False) -> Store:
        """See `Root.zarr`."""
        from pathassets.store.object_zarr import ObjectZarr

        return ObjectZarr(self, prefix)

    def exists(self, key: str) -> bool:
        """See `Root.exists`."""
        path = str(checked_key(key))
        return self._size(path) is not None or any(self.below(path))

    def is_there(self) -> bool:
        """See `Root.is_there`."""
        return any(self.below(""))

    def entries(self, prefix: str = "") -> list[Entry]:
        """See `Root.entries`."""
        path = str(checked_key(prefix)) if prefix else None
        with self.asking(f"list {self.uri}/{prefix}") as client:
            found = [_entry(item) for page in obstore.list(client, path) for item in page]
        return sorted(found, key=lambda e: e.key)

    def below(self, prefix: str) -> tuple[list[str], list[Entry]]:
        """Names of the folders directly below `prefix`, sorted, and what lies directly in it."""
        with self.asking(f"list {self.uri}/{prefix}") as client:
            found = obstore.list_with_delimiter(client, prefix or None)
        folders = [path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"]]
        return sorted(folders), [_entry(item) for item in found["objects"]]

    def folders(self, prefix: str) -> list[str]:
        """See `Root.folders`."""
        return self.below(str(checked_key(prefix)))[0]

    def map(self, function: Callable[[In], Out], items: Iterable[In]) -> list[Out]:
        """See `Root.map`."""
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="objects") as threads:
            return list(threads.map(function, items))

    # -- housekeeping ----------------------------------------------------------------------------------------------

    def temp_files(self, older_than: float = DAY_S) -> list[Path]:
        """None: what was not put whole is not there."""
        return []

    def sweep(self, older_than: float = DAY_S) -> int:
        """Nothing to delete."""
        return 0

    def lock(
        self, name: str, timeout: float = 0.0, waiting: Callable[[str], None] | None = None
    ) -> AbstractContextManager[Held]:
        """See `Root.lock`. What is put or deleted meanwhile under keys that the lock guards is put only while it is held."""
        return self._leases.hold(name, timeout, waiting)

    def _upload(self, key: str, path: Path) -> None:
        self._leases.check(layout.guards(key))
        with self.asking(f"write {self.address(key)}", writing=True) as client:
            obstore.put(client, key, path)

    def _download(self, key: str, folder: Path) -> None:
        data = self.read_if_there(key)
        if data is not None:
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def _size(self, path: str) -> int | None:
        with suppress(FileNotFoundError), self.asking(f"look at {self.address(path)}") as client:
            return int(obstore.head(client, path)["size"])
        return None


class _Claims:
    """The conditional writes of `leases.Objects`: asked once, because an answer that is late is worth nothing.

    Reading is patient: a lock is not refused because the network was away for a moment.
    """

    def __init__(self, root: ObjectRoot, client: S3Store) -> None:
        self._root, self._client = root, client

    def read(self, name: str) -> tuple[bytes, str] | None:
        """See `leases.Objects`."""
        with suppress(FileNotFoundError), self._root.asking(self._action(name)) as client:
            found = obstore.get(client, _lease_key(name))
            return bytes(found.bytes()), found.meta["e_tag"] or ""
        return None

    def create(self, name: str, data: bytes) -> str | None:
        """See `leases.Objects`."""
        with suppress(AlreadyExistsError):
            return self._put(name, data, "create")
        return None

    def replace(self, name: str, data: bytes, etag: str) -> str | None:
        """See `leases.Objects`."""
        with suppress(PreconditionError):
            return self._put(name, data, {"e_tag": etag})
        return None

    def remove(self, name: str) -> None:
        """See `leases.Objects`."""
        with translated(self._root.bucket, self._action(name), writing=True):
            obstore.delete(self._client, _lease_key(name))

    def _put(self, name: str, data: bytes, mode: PutMode) -> str:
        with translated(self._root.bucket, self._action(name), writing=True):
            return obstore.put(self._client, _lease_key(name), data, mode=mode, use_multipart=False)["e_tag"] or ""

    def _action(self, name: str) -> str:
        return f"lock {name} in {self._root.uri}"


@contextmanager
def translated(bucket: str, action: str, *, writing: bool = False) -> Iterator[None]:
    """Turns what a request raises into a `StoreError` that says what was being done, why it failed and what to do.

    What is an answer passes: `FileNotFoundError` for a missing object, and refused conditional writes.

    Args:
        bucket: What is asked for.
        action: What is being done, as in "cannot write s3://bucket/x".
        writing: A refusal means that the store is read-only.
    """
    try:
        yield
    except (FileNotFoundError, BaseError) as error:
        if isinstance(error, _ANSWERS) and _code(error) != "NoSuchBucket":
            raise
        raise _store_error(error, bucket, action, writing) from error


def _client(bucket: str, prefix: str, request_s: float, patience_s: float) -> S3Store:
    return S3Store(
        bucket,
        prefix=prefix or None,
        client_options={
            "allow_http": True,  # where the endpoint says so
            "connect_timeout": timedelta(seconds=_CONNECT_S),
            "timeout": timedelta(seconds=request_s),
        },
        retry_config={
            "max_retries": 1000 if patience_s else 0,
            "retry_timeout": timedelta(seconds=patience_s),
            "backoff": {"max_backoff": timedelta(seconds=5)},
        },
    )


def _lease_key(name: str) -> str:
    return f"locks/{checked_key(name)}.lock"


def _entry(item: ObjectMeta) -> Entry:
    return Entry(item["path"], item["e_tag"] or "", item["size"], item["last_modified"].timestamp())


def _code(error: Exception) -> str:
    """The word by which the server said what is wrong; empty where it did not."""
    found = re.search("<Code>([A-Za-z0-9]+)</Code>", str(error))
    return found[1] if found else ""


def _said(error: Exception) -> str:
    """Which server was asked, and what went wrong, from all that the library tells."""
    line = str(error).partition("\n")[0]
    servers = re.findall(r"Error performing [A-Z]+ (\w+://[^/\s]+)", line)
    return f"{servers[-1]}: {line.rpartition(' - ')[2]}" if servers else line


def _store_error(error: Exception, bucket: str, action: str, writing: bool) -> StoreError | StoreUnreachableError:
    code = _code(error)
    message = f"cannot {action}: {code or _said(error)}"
    if code == "NoSuchBucket":
        remedy = "Make the bucket, or correct `store` in pathassets.toml and AWS_ENDPOINT_URL."
        return StoreUnreachableError(f"there is no bucket {bucket}", remedy=remedy)
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)):
        remedy = "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do in this bucket."
        if writing:
            return StoreError(message, reason=Reason.STORE_READ_ONLY, remedy=remedy)
        return StoreUnreachableError(message, remedy=remedy)
    if "StorageFull" in code or "QuotaExceeded" in code:
        return StoreError(message, reason=Reason.DISK_FULL, remedy="Free some space there and run again.")
    remedy = (
        "Check AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and the network, then run again; what is done stays."
    )
    return StoreUnreachableError(message, remedy=remedy)
