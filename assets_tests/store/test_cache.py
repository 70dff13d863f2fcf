from __future__ import annotations

import os
from pathlib import Path

import pytest

from pathassets.store import layout, open_root
from pathassets.store.cache import file_sha256, remembered


def test_a_value_is_computed_again_only_when_the_file_changes(tmp_path: Path):
    root, file, calls = open_root(tmp_path / "store"), tmp_path / "weights.bin", []

    def compute(path: Path) -> str:
        calls.append(path)
        return file_sha256(path)

    file.write_bytes(b"one")
    first = remembered(root, "sha256", file, compute)
    assert remembered(root, "sha256", file, compute) == first
    assert len(calls) == 1
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert remembered(root, "sha256", file, compute) != first
    assert len(calls) == 2
    other = tmp_path / "other.bin"
    other.write_bytes(b"two")
    remembered(root, "sha256", other, compute)
    assert len(calls) == 3


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'"x"'])
def test_a_damaged_cache_is_no_cache(tmp_path: Path, damage: bytes):
    root, file = open_root(tmp_path / "store"), tmp_path / "w"
    file.write_bytes(b"x")
    value = remembered(root, "sha256", file, file_sha256)
    root.put(layout.cache_key("sha256", str(file)), damage)
    assert remembered(root, "sha256", file, file_sha256) == value


def test_a_store_that_cannot_be_written_still_gives_the_value(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"in the way")
    assert remembered(open_root(blocked / "store"), "sha256", blocked, file_sha256) == file_sha256(blocked)
    with pytest.raises(FileNotFoundError):
        remembered(open_root(tmp_path / "store"), "sha256", tmp_path / "gone", file_sha256)
