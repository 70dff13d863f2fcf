"""Which DICOM files belong to one slide: the series number in a file's header.

Belongs here: reading that one element. Does not belong: DICOM pixels (OpenSlide reads them).

Layout as in DICOM PS3.5 (2024), sections 7.1 (elements), 7.5 (sequences), and PS3.10, section 7.1 (file head).
"""

from __future__ import annotations

import struct
from pathlib import Path

HEAD_BYTES = 2**18
_PREAMBLE = 128
_SERIES_UID = (0x0020, 0x000E)
_TRANSFER_SYNTAX = (0x0002, 0x0010)
_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_UNDEFINED = 0xFFFFFFFF
_ITEM_GROUP, _END_OF_ITEM, _END_OF_SEQUENCE = 0xFFFE, 0xE00D, 0xE0DD

Tag = tuple[int, int]


def is_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM files do; False for files that cannot be read."""
    return _head(path)[_PREAMBLE : _PREAMBLE + 4] == b"DICM"


def series_uid(path: Path) -> str | None:
    """SeriesInstanceUID of a DICOM file; None when it cannot be told."""
    return series_in(_head(path))


def series_in(data: bytes) -> str | None:
    """SeriesInstanceUID in the first bytes of a DICOM file; None when it is not in them."""
    if data[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        return None
    try:
        meta, start = _find(data, _PREAMBLE + 4, _TRANSFER_SYNTAX, explicit=True, last_group=0x0002)
        if meta in (_DEFLATED, _BIG_ENDIAN):
            return None
        uid, _ = _find(data, start, _SERIES_UID, explicit=meta != _IMPLICIT_LITTLE, last_group=0x0020)
    except (struct.error, IndexError):
        return None
    return uid


def _head(path: Path) -> bytes:
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def _find(data: bytes, at: int, wanted: Tag, *, explicit: bool, last_group: int) -> tuple[str | None, int]:
    """Text of the element `wanted`, and where the first element of a group behind `last_group` begins."""
    found = None
    while at + 8 <= len(data):
        tag, length, value_at = _element(data, at, explicit)
        if tag[0] > last_group:
            break
        if tag == wanted:
            if value_at + length > len(data):
                break  # cut off: half a number is another series
            found = data[value_at : value_at + length].rstrip(b"\0 ").decode("ascii", "replace")
        at = _behind(data, value_at, length, explicit)
    return found, at


def _element(data: bytes, at: int, explicit: bool) -> tuple[Tag, int, int]:
    """Tag, length, and where the value begins."""
    group, element = struct.unpack_from("<HH", data, at)
    if not explicit or group == _ITEM_GROUP:
        return (group, element), struct.unpack_from("<I", data, at + 4)[0], at + 8
    if data[at + 4 : at + 6] in _LONG_VRS:
        return (group, element), struct.unpack_from("<I", data, at + 8)[0], at + 12
    return (group, element), struct.unpack_from("<H", data, at + 6)[0], at + 8


def _behind(data: bytes, value_at: int, length: int, explicit: bool) -> int:
    """Where the next element begins; sequences and items of undefined length end with a mark of their own."""
    if length != _UNDEFINED:
        return value_at + length
    depth, at = 1, value_at
    while depth:
        tag, length, inner_at = _element(data, at, explicit)
        if tag[0] == _ITEM_GROUP and tag[1] in (_END_OF_ITEM, _END_OF_SEQUENCE):
            depth -= 1
            at = inner_at
        elif length == _UNDEFINED:
            depth += 1
            at = inner_at
        else:
            at = inner_at + length
    return at
