"""Fixtures shared by all tests: where the real data is, and when it may be absent."""

from __future__ import annotations

import gc
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.s3 import BUCKET, S3Server


def pytest_collection_finish() -> None:
    """What is imported by now stays: looking through it again and again for garbage takes a tenth of the tests' time."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An object store on this machine, empty at first; see `s3`."""
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The object store, up, and found by this process and its children through the environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    s3_server.up()
    return s3_server


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """Address of a place in the object store that no other test uses."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"
