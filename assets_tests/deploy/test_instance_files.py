"""Dagster's instance files: the installed Dagster takes every setting, and no two of them say different things."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.instance.ref import InstanceRef

from pathassets.templates import DAGSTER_YAML

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([ROOT / "dagster.yaml", *(ROOT / "deploy").glob("*/dagster.yaml")])
COMMON = ("telemetry", "nux", "run_monitoring", "run_retries", "retention")
# A node may have to be started, and an image of gigabytes has to reach it, before a run can start there.
ALLOWED = {
    ("ray", "run_monitoring", "start_timeout_seconds"),
    ("kubernetes", "run_monitoring", "start_timeout_seconds"),
}


def settings(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_repository_and_a_study_s_home_have_the_same_settings():
    assert (ROOT / "dagster.yaml").read_text(encoding="utf-8") == DAGSTER_YAML


def test_every_setting_says_why():
    lines = [line for line in DAGSTER_YAML.splitlines() if ":" in line and not line.lstrip().startswith("#")]
    values = [line for line in lines if line.split("#")[0].rstrip()[-1] != ":"]
    assert [line for line in values if "#" not in line] == []


def test_dagster_does_as_it_is_told(tmp_path):
    (tmp_path / "dagster.yaml").write_text(DAGSTER_YAML)
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path))) as instance:
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_start_timeout_seconds == 300
        assert instance.run_monitoring_max_runtime_seconds == 86400
        assert instance.run_monitoring_max_resume_run_attempts == 0
        assert instance.run_monitoring_settings["free_slots_after_run_end_seconds"] == 60
        assert (instance.run_retries_enabled, instance.run_retries_max_retries) == (True, 1)
        assert instance.run_retries_retry_on_asset_or_op_failure is False
        config = instance.get_concurrency_config()
        assert config.run_queue_config.max_concurrent_runs == 8
        assert (config.pool_config.pool_granularity.value, config.pool_config.default_pool_limit) == ("op", 1)
        assert instance.telemetry_enabled is False


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_all_instance_files_agree_on_how_runs_are_watched(path):
    ours, wanted = settings(path), yaml.safe_load(DAGSTER_YAML)
    for section in COMMON:
        for name, value in wanted[section].items():
            if (path.parent.name, section, name) not in ALLOWED:
                assert ours[section][name] == value, (section, name)


def test_a_key_that_dagster_does_not_know_would_be_found(tmp_path):
    (tmp_path / "dagster.yaml").write_text(DAGSTER_YAML.replace("max_resume_run_attempts", "max_resume_attempts"))
    with pytest.raises(dg.DagsterInvalidConfigError):
        InstanceRef.from_dir(str(tmp_path))
