"""`pathassets doctor`: each thing that is wrong has a line with a fix, and looking changes nothing."""

from __future__ import annotations

import json

import pytest
from support.commands import run_command

from pathassets.cli import doctor, machine
from pathassets.config import CONFIG_FILE, Study, init_home
from pathassets.recipes import Recipe, TextOptions
from pathassets.steps.register import register
from pathassets.steps.session import Session

TINY = """
[study]
device = "cpu"
[[recipes]]
encoder = "timm/test_vit"
random_weights = true
"""


@pytest.fixture
def study(tmp_path) -> Study:
    init_home(tmp_path)
    (tmp_path / CONFIG_FILE).write_text(TINY)
    return Study(tmp_path)


def lines(study: Study) -> dict[str, doctor.Line]:
    return {line.check: line for line in doctor.diagnose(study)}


def test_a_good_study_has_no_failed_line_and_is_not_changed(study):
    before = sorted(study.home.rglob("*"))
    found = lines(study)
    assert [line for line in found.values() if line.status == "failed"] == []
    assert sorted(study.home.rglob("*")) == before
    wanted = (
        "python",
        "dagster",
        "torch",
        "home",
        "disk",
        "store",
        "inbox",
        "memory",
        "cores",
        "open files",
        "clock",
        "device",
    )
    assert set(wanted) < set(found)
    assert found["Dagster's storage"].finding == "SQLite, not made yet"
    assert found["weights of px224_mpp050/timm_test_vit"].status == "ok"


def test_whatever_is_not_well_says_what_to_do(study, monkeypatch):
    (study.home / "inbox").rmdir()
    (study.dagster_home / "dagster.yaml").write_text("run_retries: {enabled: true}\n")
    monkeypatch.setenv("PATHASSETS_ALERT_WEBHOOK", "ftp://user:hunter2@host/secret")
    monkeypatch.setattr(machine, "open_files", lambda: (256, 4096))
    monkeypatch.setattr(machine, "memory_gb", lambda: (0.5, 8.0))
    monkeypatch.setattr(machine, "shared_memory_gb", lambda: 0.064)
    monkeypatch.setattr(machine, "clock_skew_s", lambda folder: -90.0)
    monkeypatch.setattr(doctor, "MIN_FREE_GB", 1e9)
    found = lines(study)
    warned = (
        "inbox",
        "disk",
        "memory",
        "open files",
        "shared memory",
        "clock",
        "Dagster's daemon",
        "Dagster's settings",
    )
    assert {check: found[check].status for check in warned} == dict.fromkeys(warned, "warning")
    assert found["alerts"].status == "failed"
    assert "ulimit -n 4096" in found["open files"].fix
    assert "run_monitoring.free_slots_after_run_end_seconds" in found["Dagster's settings"].finding
    assert all(line.fix for line in found.values() if line.status != "ok")
    assert "hunter2" not in str(found)


def test_a_manifest_that_is_invalid_or_about_other_slides_is_told(study):
    path = study.home / "slides.csv"
    path.write_text("path,mpp\na.svs,0.25\n")
    assert lines(study)["slides.csv"].status == "ok"
    path.write_text("path,mpp\na.svs,fast\n")
    found = lines(study)["slides.csv"]
    assert (found.status, "line 2" in found.finding) == ("failed", True)
    (study.home / "inbox" / "b.svs").write_bytes(b"b")
    register(Session(study), [study.home / "inbox" / "b.svs"])
    path.write_text("path,mpp\na.svs,0.25\n")
    found = lines(study)["slides.csv"]
    assert (found.status, "match no slide of this study: a.svs" in found.finding) == ("warning", True)
    assert "bare name" in found.fix


def test_a_library_of_another_version_or_that_is_missing_fails():
    found = list(doctor._libraries(["numpy<1", "no-such-library>=3", 'ray>=99; extra == "ray"', "duckdb>=1"]))
    assert [(line.check, line.status) for line in found] == [
        ("numpy", "failed"), ("no-such-library", "failed"), ("duckdb", "ok"),
    ]  # fmt: skip
    assert found[1].fix == "pip install 'no-such-library>=3'"


def test_dagster_s_packages_must_be_of_one_release(monkeypatch):
    versions = {"dagster": "1.13.27", "dagster-webserver": "1.13.28", "dagster-postgres": "0.29.27"}
    monkeypatch.setattr(doctor, "_version", versions.get)
    assert [line.check for line in doctor._family()] == ["dagster-webserver"]


def test_a_storage_that_cannot_be_reached_is_said_without_its_password(study, monkeypatch):
    pytest.importorskip("dagster_postgres")
    monkeypatch.setenv("DOCTORS_PASSWORD", "hunter2")
    (study.dagster_home / "dagster.yaml").write_text(
        "storage:\n  postgres:\n    postgres_db:\n      hostname: 127.0.0.1\n      port: 9\n      username: u\n"
        "      db_name: d\n      password: {env: DOCTORS_PASSWORD}\n"
    )
    found = lines(study)
    assert found["Dagster's storage"].status == "failed"
    assert "variables" in found["Dagster's storage"].fix
    assert "hunter2" not in str(found)
    assert "Dagster's daemon" not in found, "it cannot be asked"


@pytest.mark.e2e
def test_programs_get_json_and_an_exit_code(study):
    run = run_command("doctor", "--home", study.home, "--json")
    assert run.returncode == 0, run.stdout + run.stderr
    assert {"check", "status", "finding", "fix"} == set(json.loads(run.stdout)[0])
    (study.home / CONFIG_FILE).write_text(TINY.replace("random_weights = true", 'weights = "gone.safetensors"'))
    run = run_command("doctor", "--home", study.home, "--json")
    assert run.returncode == 1
    failed = [line for line in json.loads(run.stdout) if line["status"] == "failed"]
    assert [line["check"] for line in failed] == ["weights of px224_mpp050/timm_test_vit"]
    assert failed[0]["fix"]


def test_the_clock_of_a_disk_is_compared_with_ours(tmp_path, monkeypatch):
    assert abs(machine.clock_skew_s(tmp_path)) < 1.0
    ours = machine.time.time
    monkeypatch.setattr(machine.time, "time", lambda: ours() - 100.0)
    assert 99.0 < machine.clock_skew_s(tmp_path) < 101.0


def test_words_that_cannot_be_read_are_a_warning_with_the_remedy(study):
    lacking = tuple(
        doctor._words(Recipe(tiling=study.used_tilings[0], encoder="conch", text=TextOptions(terms=("mucosa",))))
    )
    assert [(line.status, line.check.partition(" ")[0]) for line in lacking] == [(doctor.WARNING, "words")]
    assert "conch/projected" in lacking[0].fix
    own = tuple(doctor._words(Recipe(tiling=study.used_tilings[0], text=TextOptions(terms=("mucosa",)))))
    assert [line.status for line in own] == [doctor.OK]
    for silent in (
        Recipe(tiling=study.used_tilings[0], encoder="uni", text=TextOptions(terms=("a",))),
        Recipe(tiling=study.used_tilings[0], encoder="conch"),
    ):
        assert not list(doctor._words(silent)), "nobody asked for words"
