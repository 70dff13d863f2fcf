"""Files: how an export reaches its folder: whole or not at all, never over something else.

Belongs here: the one way in which exports write. Does not belong: what is written.
"""

from __future__ import annotations

import filecmp
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pathassets.errors import ConfigError, StoreError
from pathassets.store.local_root import LocalRoot, fsync_path, remove_path, temp_name, translated

Make = Callable[[Path], None]


class Target:
    """The folder that an export goes to.

    Args:
        folder: It is made when something is first written.
        force: Replace files that hold something else.

    Attributes:
        written: Keys that were written, in order.
        unchanged: Keys whose file was there and says the same.
    """

    def __init__(self, folder: str | Path, *, force: bool = False) -> None:
        self._root, self._force = LocalRoot(folder), force
        self.written: list[str] = []
        self.unchanged: list[str] = []
        self._seen: set[str] = set()

    @property
    def path(self) -> Path:
        """The folder, absolute."""
        return self._root.path

    def sweep(self) -> None:
        """Removes what killed processes have left half-written."""
        if self.path.is_dir():
            self._root.sweep()

    def put(self, key: str, make: Make) -> None:
        """Lets `make` write a file or a folder to a hidden path, which becomes `key` when that ends well.

        Args:
            key: A relative path with forward slashes.
            make: Writes to the path that it is given, where there is nothing yet.

        Raises:
            ConfigError: `key` is there, holds something else, and may not be replaced.
            StoreError: `disk_full`, `store_read_only`.
            ValueError: `key` would leave the folder.
        """
        target = self._root.local(key)
        temp = target.parent / temp_name(target.name)
        with _told(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                make(temp)
                is_new = self._settle(temp, target)
            finally:
                remove_path(temp)
        if key not in self._seen:  # what several slides share is one file
            self._seen.add(key)
            (self.written if is_new else self.unchanged).append(key)

    def put_json(self, key: str, value: Mapping[str, Any]) -> None:
        """Like `put`, for an object as JSON."""
        text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, default=str) + "\n"
        self.put(key, lambda path: _write(path, text.encode()))

    def put_bytes(self, key: str, data: bytes) -> None:
        """Like `put`, for bytes."""
        self.put(key, lambda path: _write(path, data))

    def _settle(self, temp: Path, target: Path) -> bool:
        """Moves what was written into place; whether it is new."""
        _flush(temp)
        if not os.path.lexists(target):
            os.rename(temp, target)
        elif same(temp, target):
            return False
        elif not self._force:
            raise ConfigError(
                f"{target} is there and holds something else",
                remedy="Replace it with --force, or choose another folder.",
            )
        else:
            _swap(temp, target)
        fsync_path(target.parent)
        return True


def same(one: Path, other: Path) -> bool:
    """Whether two files, or two folders with all below, hold the same bytes."""
    if one.is_dir() != other.is_dir():
        return False
    if not one.is_dir():
        return filecmp.cmp(one, other, shallow=False)
    names = _names(one)
    return names == _names(other) and all(filecmp.cmp(one / name, other / name, shallow=False) for name in names)


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _swap(temp: Path, target: Path) -> None:
    """Replaces a file in one step; a folder in two, between which it is absent but never half."""
    if not target.is_dir() and not temp.is_dir():
        os.replace(temp, target)
        return
    old = target.parent / temp_name(target.name)
    os.rename(target, old)
    os.rename(temp, target)
    remove_path(old)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _flush(path: Path) -> None:
    for found in (path, *path.rglob("*")) if path.is_dir() else (path,):
        fsync_path(found)


@contextmanager
def _told(target: Path) -> Iterator[None]:
    """An error of the disk in the words of this command."""
    try:
        with translated(f"write {target}"):
            yield
    except StoreError as error:
        error.remedy = error.remedy.replace("--home", "--to")
        raise
