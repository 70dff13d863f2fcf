"""A drawn slide of 5,000 tiles, and processes that embed it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.damage import damage
from support.embedders import Embedder

# compressed tiles of the drawn slide that are damaged: 128 of its tiles cannot be read
BAD = (3, 17)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    from pathassets.slides.synthetic import synthetic_slide

    path = tmp_path_factory.mktemp("drawn") / "drawn.tiff"
    synthetic_slide(path, seed=3, width_px=2560, height_px=2016)
    damage(path, BAD)
    return path


@pytest.fixture
def embedder(drawn) -> Iterator[Callable[..., Embedder]]:
    """Makes embedders of the drawn slide into a store."""
    if not sys.platform.startswith("linux"):
        pytest.skip("processes are made by fork and watched in /proc")
    made = []

    def make(store: Path, **options: str) -> Embedder:
        made.append(Embedder(store, drawn, **options))
        return made[-1]

    yield make
    for found in made:
        found.close()
