"""What numba compiles at import is kept for the next process; where nothing can be kept the import ends all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
import numba
@numba.njit(["f4(f4)"])
def half(x):
    return x / 2
"""
SCRIPT = """
from numba.core import event
from pathassets.core import compiled
with event.install_recorder("numba:compile") as seen:
    compiled._import_kept("distances")
import distances, numba
assert distances.half(4.0) == 2.0
assert numba.njit.__name__ == "njit", "numba is as it was"
print(len(seen.buffer))
"""


def compilations(folder: Path, **environment: str) -> int:
    """How much a fresh process compiles while it imports the module."""
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


def test_a_second_process_compiles_nothing(tmp_path):
    (tmp_path / "distances.py").write_text(MODULE)
    assert compilations(tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "kept")) > 0
    assert compilations(tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "kept")) == 0


@pytest.mark.parametrize("place", ["/dev/null/kept", "/proc/kept"])
def test_where_nothing_can_be_kept_it_is_compiled_again(tmp_path, place):
    (tmp_path / "distances.py").write_text(MODULE)
    assert compilations(tmp_path, NUMBA_CACHE_DIR=place) > 0
