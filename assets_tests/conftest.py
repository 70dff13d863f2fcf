"""Fixtures shared by all tests: where the real data is, and when it may be absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def find_data_dir() -> Path | None:
    """The folder of real slides: PATHASSETS_TEST_DATA, or `../shared/data` beside the repository."""
    given = os.environ.get("PATHASSETS_TEST_DATA")
    path = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    return path if path.is_dir() else None


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real slides, odd files, labelled tiles and weights; the test is skipped where they are not there."""
    path = find_data_dir()
    if path is None:
        if os.environ.get("PATHASSETS_REQUIRE_DATA"):
            pytest.fail("PATHASSETS_REQUIRE_DATA is set, but there is no test data beside the repository")
        pytest.skip("no real slides here: set PATHASSETS_TEST_DATA to a folder that holds them")
    return path
