"""The asset `report`: files in the study's home, made by a job that nobody starts unasked; one bad slide holds up none."""

from __future__ import annotations

import dagster as dg
import pytest
from exports.conftest import Made

from pathassets.config import Study
from pathassets.definitions import build_defs
from pathassets.defs.launch import Launcher, open_instance
from pathassets.defs.report_asset import REPORT_JOB, REPORT_KEY
from pathassets.report import folder
from pathassets.report.folder import write_reports
from pathassets.steps.forget import forget, what_goes
from pathassets.steps.session import Session

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    return Made(tmp_path_factory.mktemp("study"))


def test_dagster_writes_them_and_says_where(made: Made):
    with open_instance(made.study) as instance:
        launched = Launcher(made.study, instance, build_defs).cohort([tuple(REPORT_KEY.path)])
        event = instance.get_latest_materialization_event(REPORT_KEY).asset_materialization
    assert launched.problems == []
    path = made.home / "reports" / "study.html"
    assert event.metadata["path"].value == str(path)
    assert event.metadata["slides"].value == 2
    assert event.metadata["left_out"].value == {}
    assert made.slide_id in path.read_text()
    assert "Not for diagnosis" in (made.home / "reports" / f"{made.slide_id}.html").read_text()
    assert not [p for p in (made.home / "reports").iterdir() if p.name.startswith(".")], "nothing half-written"


def test_what_has_not_changed_is_not_written_again(made: Made, monkeypatch):
    write_reports(made.session)
    before = {p: p.stat().st_mtime_ns for p in (made.home / "reports").iterdir()}
    monkeypatch.setattr(folder, "slide_report", lambda *_: pytest.fail("made again"))
    assert write_reports(made.session).written == []
    assert {p: p.stat().st_mtime_ns for p in (made.home / "reports").iterdir()} == before


def test_a_slide_that_fails_is_named_and_holds_up_no_other(tmp_path, monkeypatch):
    made = Made(tmp_path)
    whole = folder.slide_report

    def report(session, slide_id):
        if slide_id == made.slide_id:
            raise ZeroDivisionError("in the middle of it")
        return whole(session, slide_id)

    monkeypatch.setattr(folder, "slide_report", report)
    found = write_reports(made.session)
    assert list(found.left_out) == [made.slide_id]
    assert found.path.is_file()
    assert (tmp_path / "reports" / f"{made.bad_id}.html").is_file()
    monkeypatch.setattr(folder, "slide_report", whole)
    assert f"{made.slide_id}.html" in write_reports(made.session).written, (
        "it is tried again, though nothing has changed"
    )


def test_a_slide_whose_tables_are_damaged_holds_up_no_other(tmp_path):
    made = Made(tmp_path)
    for table in ("tiles", "tissues", "domain_summary"):
        for path in (tmp_path / "store" / "tables" / table / f"slide_id={made.slide_id}").glob("*.parquet"):
            path.write_bytes(b"PAR1 no table PAR1")
    found = write_reports(made.session)
    assert made.bad_id in (tmp_path / "reports" / "study.html").read_text()
    assert made.slide_id in found.left_out
    assert (tmp_path / "reports" / f"{made.bad_id}.html").is_file()


def test_a_forgotten_slide_has_no_report(tmp_path):
    made = Made(tmp_path)
    write_reports(made.session)
    assert what_goes(made.session, made.slide_id)["reports"]["files"] == 1
    forget(made.session, made.slide_id)
    assert not (tmp_path / "reports" / f"{made.slide_id}.html").exists()
    (tmp_path / "reports" / "mine.html").write_text("a user's own")
    write_reports(made.session)
    assert made.slide_id not in (tmp_path / "reports" / "study.html").read_text()
    assert (tmp_path / "reports" / "mine.html").exists()


def test_nobody_makes_them_unasked(made: Made):
    definitions = build_defs(Study(made.home))
    [schedule] = [s for s in definitions.schedules if s.name == "report_nightly"]
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    assert schedule.job_name == REPORT_JOB
    for job in ("cohort", "slides", "publish"):
        assert REPORT_KEY not in definitions.resolve_job_def(job).asset_layer.executable_asset_keys


def test_a_study_without_slides_says_so(tmp_path):
    from pathassets.errors import ConfigError

    with pytest.raises(ConfigError, match="no slides"):
        write_reports(Session(Study(tmp_path)))
    assert not (tmp_path / "reports").exists()
