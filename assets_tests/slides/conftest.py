"""Fixtures of the slides' tests: real slides by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.object_store import bucket, no_server, s3_address  # noqa: F401  fixtures

REAL = ("CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs", "her2st_C2_HE_pyr.tif", "molluscum_HE_skin.tif")


@pytest.fixture(params=REAL)
def real_slide(request, data_dir) -> Path:
    """Each of the real slides in turn."""
    return data_dir / "slides" / request.param


@pytest.fixture
def cmu(data_dir) -> Path:
    """The small Aperio slide."""
    return data_dir / "slides" / "CMU-1-Small-Region.svs"


@pytest.fixture
def odd(data_dir) -> Path:
    """The folder of odd files."""
    return data_dir / "odd-slides"
