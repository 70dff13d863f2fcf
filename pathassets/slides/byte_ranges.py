"""Ranges of bytes of a file, for many threads at once.

Belongs here: the descriptor. Does not belong: which ranges.
"""

from __future__ import annotations

import os
from pathlib import Path


class ByteRanges:
    """An open file without a position that threads could fight over.

    The descriptor is closed when the last reader lets go of this object, not before: a number that is closed while
    another thread is about to read from it may already belong to another file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self._size = os.fstat(self._descriptor).st_size

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset` on.

        Raises:
            EOFError: The file ends before.
        """
        # asked first: memory for what a damaged index claims could be more than there is
        data = os.pread(self._descriptor, count, offset) if offset + count <= self._size else b""
        if len(data) < count:
            raise EOFError(f"{count:,} bytes from {offset:,} on reach past the file's end")
        return data
