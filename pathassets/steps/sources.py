"""Sources: where a slide's pixels come from now: its file, or a local copy of what lies in an object store.

Belongs here: whether a slide's file is still the one that was registered, and a path that OpenSlide can open. Does not
belong: giving ids (`register`), pixels (`slides/`).
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathassets.errors import PathassetsError, Reason, SlideError
from pathassets.slides import identity, remote
from pathassets.slides.copies import Copies, OutOfTimeError
from pathassets.slides.parts import Found, Heads, is_of_many_files
from pathassets.slides.places import is_uri
from pathassets.slides.problems import LINK, link_target
from pathassets.store.cache import remembered

if TYPE_CHECKING:
    from pathassets.steps.session import Session

_BYTE = re.compile(rb"\\x([0-9a-f]{2})")  # see `places.sayable`
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def stamp_of(row: Mapping[str, Any]) -> tuple[int | None, int | None, str]:
    """Size, time and version of a slide's file as its row has them; see `Found.stamp`."""
    return row["size_bytes"], row["mtime_ns"], row["file_version"] or ""


def is_unread(row: Mapping[str, Any]) -> bool:
    """Whether a slide's content was never read, so that its hash stands for its path: its file could not be read so far."""
    return bool(row["content_sha256"] == identity.path_digest(row["path"]))


def is_there(session: Session, row: Mapping[str, Any]) -> bool | str:
    """Whether a slide's file lies where it was registered: True, False, or `changed` when another lies there.

    What lies in an object store is not asked for: its row says since when it is missing.
    """
    if is_uri(row["path"]):
        return row["missing_since"] is None
    try:
        check_unchanged(session, row)
    except SlideError as error:
        return "changed" if error.reason is Reason.FILE_CHANGED else False
    return True


def check_unchanged(session: Session, row: Mapping[str, Any]) -> None:
    """A file that was replaced under its name is another slide: its numbers must not enter under the old id.

    Raises:
        SlideError: `file_missing`, `file_changed`.
    """
    path = Path(row["path"])
    try:
        found = path.stat()
    except OSError as error:
        if error.errno in _GONE:
            raise _missing(row["path"]) from error
        return  # whoever opens it says why it cannot
    if row["size_bytes"] is None or is_unread(row) or not stat.S_ISREG(found.st_mode):
        return
    touched = found.st_mtime_ns != row["mtime_ns"] and row["mtime_ns"] is not None
    if found.st_size != row["size_bytes"] or (touched and not _same_content(session, path, row)):
        raise _changed(row["path"])


@contextmanager
def slide_file(session: Session, row: Mapping[str, Any]) -> Iterator[Path]:
    """The slide's file as a path that can be opened; a local copy stays until the block ends.

    Raises:
        SlideError: The file is gone, is another one now, or cannot be brought here.
    """
    if not is_uri(row["path"]):
        check_unchanged(session, row)
        yield Path(row["path"])
        return
    found = _found(session, row["path"])
    if found.stamp != stamp_of(row) and not is_unread(row) and content_of(session, found) != row["content_sha256"]:
        raise _changed(row["path"])
    with _local_copy(session, found) as path:
        yield path


@contextmanager
def file_at(session: Session, path: str) -> Iterator[Path]:
    """Like `slide_file`, for a file that has not been registered."""
    if not is_uri(path):
        yield Path(path)
        return
    with _local_copy(session, _found(session, path)) as local:
        yield local


def content_of(session: Session, found: Found, deadline: float = float("inf")) -> str:
    """Digest of a slide's content, see `identity.read_digest`.

    A remote file that has to be read whole is brought here once, for this and for whoever opens it next.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no file.
        OutOfTimeError: The deadline (of the monotonic clock) has passed; what was brought here is kept.
    """
    if not is_uri(found.path):
        # other names may be DICOM too, which only a look inside tells
        return identity.read_digest(found.path, found.parts if is_of_many_files(found.path) else None)
    cache = copies(session)
    if found.parts or found.size >= min(identity.WHOLE_BELOW_BYTES, cache.limit_bytes):
        return remote.remote_digest(found)
    with cache.held(found, deadline) as local:
        return identity.read_digest(local, ())


def told_apart(found: Found, content: str, others: Iterable[str]) -> str:
    """`content`, or the digest of all bytes where that of samples does not tell a large file from one of `others`.

    Files in object stores are not compared: both would have to be brought here.

    Raises:
        OSError: It cannot be read.
    """
    if not identity.is_sampled(found.size) or is_uri(found.path):
        return content
    there = (path for path in others if path != found.path and not is_uri(path) and os.path.isfile(path))
    if any(not identity.same_content(found.path, path) for path in there):
        return identity.read_digest(found.path, whole=True)
    return content


def copies(session: Session) -> Copies:
    """The study's local copies of remote slides."""
    return Copies(session.study.copies_path, int(session.study.cache_gb * 1e9))


@contextmanager
def _local_copy(session: Session, found: Found) -> Iterator[Path]:
    """A local copy; errors speak of the slide where its user knows it."""
    with ExitStack() as stack:
        try:
            path = stack.enter_context(copies(session).held(found))
        except OutOfTimeError as error:
            raise SlideError(
                f"{found.path}: its local copy is held by somebody else for an hour", reason=Reason.LOCKED
            ) from error
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise _unreadable(found.path, error) from error
        try:
            yield path
        except PathassetsError as error:
            error.message = error.message.replace(str(path), found.path)
            error.remedy = error.remedy.replace(str(path), found.path)
            error.args = (error.message,)
            raise


def _found(session: Session, uri: str) -> Found:
    try:
        return remote.found_at(uri, Heads(read=remote.read_head))
    except FileNotFoundError as error:
        raise _missing(uri) from error
    except OSError as error:
        raise _unreadable(uri, error) from error


def _same_content(session: Session, path: Path, row: Mapping[str, Any]) -> bool:
    try:
        found = remembered(session.root, "content", path, lambda file: identity.content_digest(os.path.abspath(file)))
        if found != row["content_sha256"] and identity.is_sampled(row["size_bytes"]):  # see `told_apart`
            found = remembered(session.root, "whole", path, lambda file: identity.read_digest(file, whole=True))
    except (OSError, ValueError):
        return False
    return found == row["content_sha256"]


def _missing(path: str) -> SlideError:
    remedy = "Put it back, or register it again where it is now."
    if "\\x" in path:
        remedy = "Its name is not UTF-8: rename it."
        if os.path.lexists(_BYTE.sub(lambda found: bytes.fromhex(found[1].decode()), os.fsencode(path))):
            return SlideError(f"{path} cannot be opened by its name", reason=Reason.FILE_UNREADABLE, remedy=remedy)
    target = link_target(path)
    what, remedy = (f"is a link to {target}, which is not there", LINK) if target else ("is gone", remedy)
    return SlideError(f"{path} {what}", reason=Reason.FILE_MISSING, remedy=remedy)


def _changed(path: str) -> SlideError:
    return SlideError(
        f"{path} is not the file that was registered: it has been replaced",
        reason=Reason.FILE_CHANGED,
        remedy="Run `pathassets run` on it again; it will be registered as a new slide.",
    )


def _unreadable(uri: str, error: OSError) -> SlideError:
    return SlideError(
        f"{uri} cannot be read: {error}",
        reason=Reason.FILE_UNREADABLE,
        remedy="Check the address, the network, and this machine's credentials for that store.",
    )
