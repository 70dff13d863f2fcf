"""What there is to spare: the machine's memory, and that of every control group around the process."""

from __future__ import annotations

import psutil
import pytest

from pathassets.engine import memory
from pathassets.engine.memory import Budget, free_memory

MB = 2**20


@pytest.fixture
def group(tmp_path):
    """Writes a control group's files below a fake `/sys/fs/cgroup`."""

    def write(path, limit, usage, cache=0, version=2):
        folder = tmp_path / "sys" / path
        folder.mkdir(parents=True, exist_ok=True)
        names = memory.V2 if version == 2 else memory.V1
        (folder / names[0]).write_text(f"{limit}\n")
        (folder / names[1]).write_text(f"{usage}\n")
        (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cache}\n")

    return write


def free(tmp_path, own):
    (tmp_path / "own").write_text(own)
    return free_memory(tmp_path / "sys", tmp_path / "own")


def test_version_2_bounds_by_limit_less_usage_without_the_file_cache(tmp_path, group):
    group("batch/job", 100 * MB, 70 * MB, cache=30 * MB)
    assert free(tmp_path, "0::/batch/job\n") == 60 * MB


def test_the_tightest_group_above_counts(tmp_path, group):
    group("batch/job/step", "max", 10 * MB)
    group("batch/job", 100 * MB, 50 * MB)
    group("batch", 1000 * MB, 980 * MB)
    assert free(tmp_path, "0::/batch/job/step\n") == 20 * MB


def test_version_1_and_the_other_controllers_beside_it(tmp_path, group):
    group("memory/docker/abc", 64 * MB, 60 * MB, cache=MB, version=1)
    assert free(tmp_path, "5:devices:/\n4:memory:/docker/abc\n0::/\n") == 5 * MB


def test_inside_a_container_the_groups_path_is_the_hosts(tmp_path, group):
    group("memory", 64 * MB, 60 * MB, version=1)
    assert free(tmp_path, "4:memory:/docker/abc\n") == 4 * MB
    group("", 32 * MB, 31 * MB)
    assert free(tmp_path, "0::/../../elsewhere\n") == MB


def test_more_than_the_limit_in_use_is_nothing_left(tmp_path, group):
    group("x", 10 * MB, 11 * MB)
    assert free(tmp_path, "0::/x\n") == 0


@pytest.mark.parametrize("own", ["", "0::/nowhere\n"])
def test_without_limits_it_is_the_machines(tmp_path, own, monkeypatch):
    machine = psutil.virtual_memory()._replace(available=123 * MB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    assert free(tmp_path, own) == 123 * MB
    assert free_memory(tmp_path, tmp_path / "no such file") == 123 * MB


def test_this_machine_has_some():
    assert 0 < free_memory() <= psutil.virtual_memory().total


def test_holders_share_one_budget(monkeypatch):
    free = {"bytes": 1000}
    monkeypatch.setattr(memory, "free_memory", lambda: free["bytes"])
    budget = Budget(0.5)

    def spend(n):
        def make():
            free["bytes"] -= n
            return n

        return budget.spend(n, make)

    assert [spend(200), spend(200)] == [200, 200]
    assert spend(200) is None, "three would be more than half of the thousand that were free"
    assert spend(100) == 100
    assert spend(1) is None
    budget.give_back(200)
    free["bytes"] += 200
    assert spend(150) == 150
