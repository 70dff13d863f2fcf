"""Cache: values that are dear to compute from a file, remembered until the file changes.

Belongs here: remembering by path, size and time. Does not belong: what is computed. Losing the cache loses nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from pathassets.errors import StoreError
from pathassets.store import layout
from pathassets.store.root import Root


def remembered(root: Root, kind: str, path: Path, compute: Callable[[Path], str]) -> str:
    """`compute(path)`, or what it gave when the file had the same path, size and time.

    A store that cannot be written remembers nothing, and says nothing about it.

    Args:
        root: The store.
        kind: Which value of the file: `[a-z0-9_]+`.
        path: The file.
        compute: Gives the value.

    Raises:
        OSError: The file is not there, or cannot be read.
    """
    stat = path.stat()
    name = str(path.absolute())
    stamp, key = [name, stat.st_size, stat.st_mtime_ns], layout.cache_key(kind, name)
    known = _known(root, key)
    if known.get("stamp") == stamp:
        return str(known["value"])
    value = compute(path)
    try:
        root.put(key, json.dumps({"stamp": stamp, "value": value}).encode())
    except StoreError:
        return value
    return value


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _known(root: Root, key: str) -> dict:
    try:
        known = json.loads(root.read_if_there(key) or b"{}")
    except (StoreError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
