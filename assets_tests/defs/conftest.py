"""A small study with a tiny untrained encoder, on an instance of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from support.object_store import bucket, no_server, s3_address  # noqa: F401  fixtures
from support.studies import TINY

from pathassets.config import CONFIG_FILE, Study

CONFIG = f"""
[study]
slides_per_run = 4
device = "cpu"
{TINY}"""


@pytest.fixture(scope="session")
def slide_file(tmp_path_factory) -> Path:
    from pathassets.slides.synthetic import synthetic_slide

    path = tmp_path_factory.mktemp("slides") / "good.tiff"
    synthetic_slide(path, seed=3, width_px=1536, height_px=1280)
    return path


@pytest.fixture
def study(tmp_path) -> Study:
    (tmp_path / CONFIG_FILE).write_text(CONFIG)
    (tmp_path / "inbox").mkdir()
    return Study(tmp_path)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def instance_on_disk() -> Iterator[dg.DagsterInstance]:
    """For schedules, which open theirs by reference."""
    with dg.instance_for_test() as instance:
        yield instance
