"""Studies of synthetic slides, made once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import Command, run_here


@pytest.fixture(scope="session")
def pathassets() -> Command:
    """The command within this process; tests that kill, wait or run several start processes of their own."""
    return run_here


@pytest.fixture(scope="session")
def slides(tmp_path_factory) -> list[Path]:
    """Two small synthetic slides of different stains."""
    from pathassets.slides.synthetic import synthetic_slide

    folder = tmp_path_factory.mktemp("slides")
    paths = [folder / f"synthetic_{seed}.tiff" for seed in (1, 2)]
    for seed, path in enumerate(paths, 1):
        synthetic_slide(path, seed=seed, width_px=2048, height_px=1792)
    return paths


@pytest.fixture(scope="session")
def study(tmp_path_factory, slides, pathassets) -> Path:
    """A finished study of the two slides, with the cohort's assets. Tests must not change it."""
    home = tmp_path_factory.mktemp("study")
    run = pathassets("run", *slides, "--home", home, "--select", "*")
    assert run.returncode == 0, run.stdout + run.stderr
    return home


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder that the user postgres may enter, with room for the names of sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="pa-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
