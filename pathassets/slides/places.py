"""Places: folders and object stores by one kind of name, a text that is an absolute path or a URI.

Belongs here: telling the two apart, taking names apart. Does not belong: looking into places (`discover`, `remote`).
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

_URI = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_uri(place: str) -> bool:
    """Whether `place` is a URI such as `s3://lab/slides`, not a path."""
    return _URI.match(place) is not None


def has_password(uri: str) -> bool:
    """Whether a URI carries a password, which would be written into every table."""
    try:
        return urlsplit(uri).password is not None
    except ValueError:
        return False


def absolute(place: str | os.PathLike[str]) -> str:
    """`place` as it stands in the column `path`: a URI unchanged, a path absolute, in characters that a table can take.

    A name that is not UTF-8 cannot stand in a table: its bytes are spelled out, and its slide is refused as missing.
    """
    text = os.fspath(place)
    return text.rstrip("/") if is_uri(text) else sayable(os.path.abspath(text))


def sayable(name: str) -> str:
    """`name` with bytes that are not UTF-8 spelled out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace") if not name.isascii() else name


def folder_of(path: str) -> str:
    """The folder that `path` is in."""
    return path.rpartition("/")[0] or "/"


def name_of(path: str) -> str:
    """The last part of `path`."""
    return path.rpartition("/")[2]


def suffix_of(path: str) -> str:
    """The extension of `path` in lower case with its point, or nothing; a hidden file has none."""
    stem, point, extension = name_of(path).rpartition(".")
    return f".{extension}".lower() if point and stem and extension else ""


def is_inside(path: str, folder: str) -> bool:
    """Whether `path` lies somewhere below `folder`."""
    return path.startswith(f"{folder.rstrip('/')}/")
