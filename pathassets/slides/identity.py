"""Slide ids: names that follow a file's content, safe in a path, a URL and a partition key.

Belongs here: hashing files and their parts, slugs. Does not belong: who has which id (the store), opening slides.

A slide id is `<slug of the file's stem>-<8 hex digits of its content>`. Equal names in two folders do not collide, the
same file under two paths is found, a changed file is a new slide.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pathassets.slides.discover import Entry
from pathassets.slides.parts import parts_of
from pathassets.slides.places import folder_of

MAX_SLUG = 48
# Below, a file is hashed whole: a second or two. Above, its size, head, tail and ranges between.
WHOLE_BELOW_BYTES = 10**9
SAMPLE_BYTES = 2**20
N_RANGES = 64
_CHUNK = 2**22


def slide_id(path: str | Path) -> str:
    """The id of the slide file at `path`; of its absolute path when it cannot be read at all."""
    return make_slide_id(path, content_digest(path))


def make_slide_id(path: str | Path, content: str, *, digits: int = 8) -> str:
    """The id of a slide file whose content has the digest `content`; more digits where 8 are taken by other content."""
    return f"{slug(Path(path).stem)}-{content[:digits]}"


def slug(stem: str) -> str:
    """`stem` in `[a-z0-9_-]`, at most 48 characters; `slide` where nothing is left of it."""
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode("ascii").lower()
    return re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_")[:MAX_SLUG].rstrip("-_") or "slide"


def content_digest(path: str | Path, parts: Sequence[Entry] | None = None) -> str:
    """SHA-256 (64 hex digits) of what makes a slide file the slide that it is; of its path where it cannot be read.

    Args:
        path: The file.
        parts: Its other files; looked for when None.
    """
    try:
        return read_digest(path, parts)
    except (OSError, ValueError):
        return path_digest(os.path.abspath(path))


def is_sampled(size: int) -> bool:
    """Whether the digest of a file of `size` bytes covers samples of it only."""
    return size >= WHOLE_BELOW_BYTES


def read_digest(path: str | Path, parts: Sequence[Entry] | None = None, *, whole: bool = False) -> str:
    """SHA-256 of the content of a slide file.

    A file below 1 GB: of its bytes. A larger one: of its size, first and last MB, and 64 ranges between, unless `whole`.
    Formats of many files (MRXS, DICOM series, VMS): of that and the names and sizes of the parts.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no file.
    """
    path = Path(path).absolute()
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path} is no file")  # reading from a pipe would never end
    with path.open("rb") as file:

        def read(start: int, n_bytes: int) -> bytes:
            file.seek(start)
            return file.read(n_bytes)

        own = own_digest(found.st_size, read, whole=whole)
    return joined_digest(own, str(path), parts_of(str(path)) if parts is None else parts)


def path_digest(path: str) -> str:
    """What stands for the content of a file that cannot be read."""
    return hashlib.sha256(b"path\0" + path.encode("utf-8", "surrogateescape")).hexdigest()


def own_digest(size: int, read: Callable[[int, int], bytes], *, whole: bool = False) -> str:
    """Digest of one file of `size` bytes, of samples of a large one unless `whole`; `read` gives bytes from a start on."""
    digest = hashlib.sha256()
    if whole or not is_sampled(size):
        for start in range(0, size, _CHUNK):
            digest.update(read(start, min(_CHUNK, size - start)))
        return digest.hexdigest()
    digest.update(f"sampled\0{size}\0".encode())
    for start in _sample_starts(size):
        digest.update(read(start, SAMPLE_BYTES))
    return digest.hexdigest()


def joined_digest(own: str, path: str, parts: Sequence[Entry]) -> str:
    """Digest of a slide whose naming file at `path` has the digest `own`."""
    if not parts:
        return own
    listed = [f"{part.path[len(folder_of(path)) + 1 :]}\0{part.size}" for part in parts]
    return hashlib.sha256("\0".join(["parts", own, *listed]).encode("utf-8", "surrogateescape")).hexdigest()


def same_content(a: str | Path, b: str | Path) -> bool:
    """Whether two slide files are the same byte by byte, parts included; False when one cannot be read."""
    a, b = Path(a), Path(b)
    if not (a.is_file() and b.is_file()):
        return False
    try:
        parts_a, parts_b = part_files(a), part_files(b)
        names_a = [part.relative_to(a.parent).as_posix() for part in parts_a]
        names_b = [part.relative_to(b.parent).as_posix() for part in parts_b]
        return len(names_a) == len(names_b) and all(
            _same_bytes(one, other) for one, other in zip([a, *parts_a], [b, *parts_b], strict=True)
        )
    except OSError:
        return False


def part_files(path: Path) -> list[Path]:
    """The other files of a slide of many files, sorted; none for ordinary slides."""
    return [Path(part.path) for part in parts_of(str(path))]


def _sample_starts(size: int) -> Iterator[int]:
    """Head, `N_RANGES` ranges evenly between, tail."""
    last = max(0, size - SAMPLE_BYTES)
    return (last * i // (N_RANGES + 1) for i in range(N_RANGES + 2))


def _same_bytes(a: Path, b: Path) -> bool:
    if a.stat().st_size != b.stat().st_size:
        return False
    with a.open("rb") as file_a, b.open("rb") as file_b:
        while True:
            chunk = file_a.read(_CHUNK)
            if chunk != file_b.read(_CHUNK):
                return False
            if not chunk:
                return True
