"""Slides in object stores: what lies at a URI, and its bytes.

Belongs here: fsspec, and what its stores call size, time and state of an object. Does not belong: local copies
(`copies`), which files are one slide (`parts`). Nothing of fsspec is imported before a URI is asked for.

Credentials and endpoints are those of the store's own library: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ~/.aws, fsspec's
configuration files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from pathassets.slides.discover import Entry, Listing, is_passed_over
from pathassets.slides.identity import joined_digest, own_digest
from pathassets.slides.parts import Found, Heads, is_of_many_files, slides_among
from pathassets.slides.places import folder_of

_TIMES = ("LastModified", "mtime", "updated", "last_modified", "modified", "created")
_VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "generation")
# A store that does not answer is given up soon: a look at the inbox comes again, and s3fs itself tries six times.
_PATIENCE = {"config_kwargs": {"connect_timeout": 10, "read_timeout": 30, "retries": {"total_max_attempts": 1}}}


def list_place(uri: str) -> Listing:
    """All objects below `uri`; never raises, a place that cannot be listed is `blind`."""
    try:
        with translated():
            store, base = _store(uri)
            store.invalidate_cache()
            found = store.find(base, detail=True)
    except OSError as error:
        return Listing(blind={uri: str(error) or type(error).__name__})
    entries = [entry for name, info in found.items() if (entry := _entry(uri, base, name, info)) is not None]
    return Listing(sorted(entries, key=lambda entry: entry.path.split("/")))


def found_at(uri: str, heads: Heads | None = None) -> Found:
    """The slide at `uri` as a listing would show it, with its parts.

    Args:
        uri: The object that names the slide.
        heads: What is known of the insides of DICOM and VMS files.

    Raises:
        OSError: It is not there, or the store cannot be asked.
    """
    own = entry_at(uri)
    if not is_of_many_files(uri):
        return Found.of_one(own)
    with translated():
        store, path = _store(uri)
        place = folder_of(uri)
        base = store._strip_protocol(place)
        beside = store.ls(base, detail=True)
        inside = store.find(path.rpartition(".")[0], detail=True).values() if uri.lower().endswith(".mrxs") else ()
        entries = [_entry(place, base, info["name"], info) for info in (*beside, *inside)]
    heads = heads or Heads(read=read_head)
    there = sorted({entry for entry in entries if entry is not None}, key=lambda entry: entry.path.split("/"))
    return next((found for found in slides_among(there, heads) if found.path == uri), Found.of_one(own))


def entry_at(uri: str) -> Entry:
    """The object at `uri` as it is now.

    Raises:
        OSError: It is not there, or the store cannot be asked.
    """
    with translated():
        store, path = _store(uri)
        store.invalidate_cache(store._parent(path))
        found = _entry(uri, path, path, store.info(path))
    if found is None:
        raise FileNotFoundError(f"{uri} is no object")
    return found


def read_range(uri: str, start: int, n_bytes: int) -> bytes:
    """`n_bytes` of an object from `start` on; fewer at its end.

    Raises:
        OSError: It cannot be read.
    """
    with translated():
        store, path = _store(uri)
        data: bytes = store.cat_file(path, start=start, end=start + n_bytes)
        return data


def read_head(uri: str, n_bytes: int) -> bytes:
    """The first bytes of an object; none where it cannot be read."""
    try:
        return read_range(uri, 0, n_bytes)
    except OSError:
        return b""


def remote_digest(found: Found) -> str:
    """`identity.read_digest` of a slide in a store, without a local copy: all of it is read below 1 GB.

    Raises:
        OSError: It cannot be read.
    """
    own = own_digest(found.size, lambda start, n_bytes: read_range(found.path, start, n_bytes))
    return joined_digest(own, found.path, found.parts)


@contextmanager
def translated() -> Iterator[None]:
    """Turns what stores' libraries raise into `OSError`: no credentials, no such host, a library that is missing."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # botocore's errors, and those of every other store, have no common parent
        text = (str(error).splitlines() or [""])[0]
        raise OSError(f"{type(error).__name__}: {text}" if text else type(error).__name__) from error


def _store(uri: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    options = _PATIENCE if uri.lower().startswith(("s3://", "s3a://")) else {}
    store, path = url_to_fs(uri, **options)
    return store, path


def _entry(place: str, base: str, name: str, info: Mapping[str, Any]) -> Entry | None:
    """An object as an entry; None for what is none, and for what lies in folders that are passed over."""
    inner = name[len(base) :]
    if info.get("type") != "file" or not name.startswith(base) or name.endswith("/"):
        return None
    if any(is_passed_over(folder) for folder in inner.split("/")[:-1]):
        return None
    version = next((str(info[key]).strip('"') for key in _VERSIONS if info.get(key)), "")
    moment = _mtime_ns(info)
    if version:
        moment -= moment % 10**9  # S3's listings and heads differ in the part of the second
    return Entry(f"{place.rstrip('/')}{inner}", int(info.get("size") or 0), moment, version)


def _mtime_ns(info: Mapping[str, Any]) -> int:
    """When an object was last changed; 0 where its store does not say so."""
    value = next((info[key] for key in _TIMES if info.get(key)), None)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return 0
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return round(value * 1e9) if isinstance(value, int | float) else 0
