"""Dagster's databases in a new home: made once, whoever comes first."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from pathassets.config import Study, init_home
from pathassets.defs.launch import SET_UP, open_instance, set_up
from pathassets.store.local_root import LocalRoot

N = 6


@pytest.fixture
def study(tmp_path) -> Study:
    init_home(tmp_path / "home")
    return Study(tmp_path / "home")


def test_many_at_once_make_them_once(study):
    together = Barrier(N)

    def one(_: int) -> int:
        together.wait()
        with open_instance(study) as instance:
            return instance.get_runs_count()

    with ThreadPoolExecutor(N) as pool:
        assert list(pool.map(one, range(N))) == [0] * N
    assert (study.dagster_home / SET_UP).exists()


def test_the_first_is_waited_for_and_then_nothing_is_to_be_done(study):
    with ThreadPoolExecutor(1) as pool:
        with LocalRoot(study.dagster_home).lock("set-up"):
            waiting = pool.submit(set_up, study)
            assert not waiting.done()
            assert not (study.dagster_home / "history" / "runs.db").exists()
        waiting.result(60)
    assert (study.dagster_home / "history" / "runs.db").exists()
    (study.dagster_home / "dagster.yaml").write_text("no settings: [")
    set_up(study)


def test_a_home_is_made_once_by_many_at_once(tmp_path):
    together = Barrier(N)

    def one(_: int) -> list[str]:
        together.wait()
        return [path.name for path in init_home(tmp_path / "home", with_inbox=False)]

    with ThreadPoolExecutor(N) as pool:
        made = [name for names in pool.map(one, range(N)) for name in names]
    assert sorted(made) == ["dagster.yaml", "pathassets.toml"]
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == [".dagster", "pathassets.toml"]
