"""Slide ids: names that follow a file's content, safe in a path, a URL and a partition key.

Belongs here: hashing files and their parts, slugs. Does not belong: who has which id (the store), opening slides.

A slide id is `<slug of the file's stem>-<8 hex digits of its content>`. Equal names in two folders do not collide, the
same file under two paths is found, a changed file is a new slide.
"""

from __future__ import annotations

import hashlib
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from pathassets.slides.dicom import is_dicom, series_uid

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


def content_digest(path: str | Path) -> str:
    """SHA-256 (64 hex digits) of what makes a slide file the slide that it is.

    A file below 1 GB: of its bytes. A larger one: of its size, first and last MB, and 64 ranges between. Formats of many
    files (MRXS, DICOM series, VMS): of that and the names and sizes of the parts. What cannot be read: of its path.
    """
    path = Path(path).absolute()
    try:
        own = _file_digest(path)
        parts = [f"{part.relative_to(path.parent)}\0{part.stat().st_size}" for part in part_files(path)]
    except (OSError, ValueError):
        return hashlib.sha256(b"path\0" + str(path).encode("utf-8", "surrogateescape")).hexdigest()
    if not parts:
        return own
    return hashlib.sha256("\0".join(["parts", own, *parts]).encode("utf-8", "surrogateescape")).hexdigest()


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
    suffix = path.suffix.lower()
    if suffix in (".mrxs", ".vms", ".vmu"):
        folder = path.with_suffix("")
        return sorted(part for part in folder.rglob("*") if part.is_file()) if folder.is_dir() else []
    if suffix == ".dcm" or is_dicom(path):
        uid = series_uid(path)
        files = sorted(part for part in path.parent.iterdir() if part.is_file() and part.name != path.name)
        return [part for part in files if uid is not None and series_uid(part) == uid]
    return []


def _file_digest(path: Path) -> str:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path} is no file")  # reading from a pipe would never end
    size = found.st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if size < WHOLE_BELOW_BYTES:
            for chunk in iter(lambda: file.read(_CHUNK), b""):
                digest.update(chunk)
            return digest.hexdigest()
        digest.update(f"sampled\0{size}\0".encode())
        for start in _sample_starts(size):
            file.seek(start)
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


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
