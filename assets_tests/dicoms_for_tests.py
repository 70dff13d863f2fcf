"""Heads of DICOM files, made up."""

from __future__ import annotations

import struct


def element(group, number, vr, value, explicit=True) -> bytes:
    value += b"\0" * (len(value) % 2)
    if not explicit:
        return struct.pack("<HHI", group, number, len(value)) + value
    if vr == b"SQ":
        return struct.pack("<HH2sHI", group, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def dicom(uid: str, explicit: bool = True, decoy: bool = True) -> bytes:
    syntax = b"1.2.840.10008.1.2.1" if explicit else b"1.2.840.10008.1.2"
    data = bytes(128) + b"DICM" + element(2, 0x10, b"UI", syntax)
    data += element(8, 0x60, b"CS", b"SM", explicit)
    if decoy:  # a sequence of undefined length whose item names another series
        item = element(0x20, 0xE, b"UI", b"9.9.9", explicit)
        head = (
            struct.pack("<HH2sHI", 8, 0x1115, b"SQ", 0, 0xFFFFFFFF)
            if explicit
            else struct.pack("<HHI", 8, 0x1115, 0xFFFFFFFF)
        )
        data += head + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + item
        data += struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    data += element(0x20, 0xD, b"UI", b"1.1", explicit) + element(0x20, 0xE, b"UI", uid.encode(), explicit)
    return data + element(0x28, 0x10, b"US", b"\0\1", explicit) + bytes(50)
