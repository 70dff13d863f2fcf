"""Many processes on one study at once, and kills at random moments, at small size; `benchmarks/scale.py` does it large."""

from __future__ import annotations

import pytest
from support.commands import answer
from support.crowd import CONFIG, crowd, draw, kills, start

pytestmark = pytest.mark.e2e


def test_runs_at_once_and_readers_lose_nothing(tmp_path):
    found = crowd(tmp_path, n_runs=4, n_slides=3, n_readers=2)
    assert found.clean, found.told()
    assert found.exits == {0: 4}
    assert found.reads > 20


def test_kills_at_random_moments_damage_nothing(tmp_path):
    found = kills(tmp_path, 5, seed=7)
    assert found.clean, found.told()
    assert found.kills == {"run": 3, "publisher": 1, "daemon": 1}


def test_runs_that_start_at_once_in_a_new_home(tmp_path):
    """Each of them makes the home, Dagster's databases and the store, unless another was first."""
    slides = draw(tmp_path / "in", 4)
    home = tmp_path / "home"
    home.mkdir()
    (home / "pathassets.toml").write_text(CONFIG)
    runs = [start("run", slide, "--home", home) for slide in slides]
    said = [run.communicate(timeout=900)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * len(runs), said
    assert answer(home, "SELECT count(*) AS n FROM embeddings") == [{"n": 4}]
