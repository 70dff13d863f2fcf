"""The assets `exports/<format>`: only where the settings name a format, in a job of their own."""

from __future__ import annotations

import dagster as dg
import pytest
from exports.conftest import Made

from pathassets.config import CONFIG_FILE, Study
from pathassets.definitions import build_defs
from pathassets.defs.export_assets import export_key
from pathassets.defs.launch import Launcher, open_instance


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    made = Made(tmp_path_factory.mktemp("study"))
    settings = made.home / CONFIG_FILE
    settings.write_text(
        settings.read_text().replace("[study]", '[study]\nexports = ["qupath", "anndata-zarr", "qupath"]')
    )
    return Study(made.home)


def test_dagster_makes_them_and_says_where(study: Study):
    with open_instance(study) as instance:
        launcher = Launcher(study, instance, build_defs)
        launched = launcher.cohort(sorted(launcher.asset_keys("key:exports/*")))
        events = {
            name: instance.get_latest_materialization_event(export_key(name)).asset_materialization
            for name in ("qupath", "anndata-zarr")
        }
    assert launched.problems == []
    for name, event in events.items():
        assert event.metadata["path"].value == str(study.home / "exports" / name)
        assert event.metadata["slides"].value == 1
        assert event.metadata["files"].value == event.metadata["written"].value > 0
        assert [key.partition("-")[0] for key in event.metadata["left_out"].value] == ["bad"]


def test_they_run_at_night_and_in_no_other_job(study: Study):
    definitions = build_defs(study)
    [schedule] = [one for one in definitions.schedules if one.name == "exports_nightly"]
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    keys = {export_key("qupath"), export_key("anndata-zarr")}
    assert set(definitions.resolve_job_def("exports").asset_layer.executable_asset_keys) == keys
    for job in ("cohort", "slides", "publish", "reports"):
        assert not keys & set(definitions.resolve_job_def(job).asset_layer.executable_asset_keys), job


def test_a_study_that_names_none_has_none(tmp_path):
    definitions = build_defs(Study(tmp_path))
    assert "exports_nightly" not in {one.name for one in definitions.schedules}
    assert not [key for key in definitions.resolve_asset_graph().get_all_asset_keys() if key.path[0] == "exports"]
