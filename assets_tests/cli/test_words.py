"""What commands say of a study without slides, of one that may not be written, and of moments."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

import dagster as dg
import pytest
from sqlalchemy.exc import OperationalError

from pathassets.cli.arguments import study_at
from pathassets.cli.explaining import FILE, _file, as_plain
from pathassets.cli.keeping import verify_study
from pathassets.cli.main import _in_our_words
from pathassets.cli.reporting import print_outcomes, print_status
from pathassets.cli.running import publish_study
from pathassets.config import init_home
from pathassets.defs.health import storage_state
from pathassets.defs.launch import set_up
from pathassets.errors import ConfigError, Reason, StudyError
from pathassets.steps.provenance import Account, State

DENIED = OperationalError("INSERT", {}, sqlite3.OperationalError("attempt to write a readonly database"))


@pytest.mark.parametrize(
    "command",
    [
        lambda study: print_status(study, as_json=False),
        lambda study: print_outcomes(study, everything=False, as_json=False),
        lambda study: verify_study(study, deep=False, repairing=False, as_json=False),
        publish_study,
    ],
    ids=["status", "outcomes", "verify", "publish"],
)
def test_a_study_as_init_leaves_it_has_no_slides_and_says_how_to_add_some(tmp_path, command, capsys):
    init_home(tmp_path)
    assert command(study_at(tmp_path)) == 0
    assert f"no slides in {tmp_path} yet; add some with `pathassets run" in capsys.readouterr().out


def test_a_folder_without_settings_is_no_study(tmp_path):
    with pytest.raises(StudyError, match="no study"):
        study_at(tmp_path)


def test_a_database_that_may_not_be_written_is_no_internal_error():
    try:
        raise RuntimeError("Dagster wraps it") from DENIED
    except RuntimeError as error:
        told = _in_our_words(error)
    assert told.reason is Reason.STORE_READ_ONLY
    assert "report" not in told.remedy
    assert _in_our_words(RuntimeError("other")).reason is Reason.INTERNAL


@pytest.mark.parametrize(
    "error", [DENIED, OperationalError("x", {}, sqlite3.OperationalError("database is malformed"))]
)
def test_the_doctor_does_not_speak_of_servers_where_there_is_none(tmp_path, monkeypatch, error):
    init_home(tmp_path)
    study = study_at(tmp_path)
    set_up(study)

    def refuse(*_):
        raise error

    monkeypatch.setattr(dg.DagsterInstance, "from_ref", refuse)
    with pytest.raises(ConfigError) as found:
        storage_state(study)
    assert "server" not in found.value.remedy
    assert "may" in found.value.remedy


def test_moments_in_json_say_that_they_are_utc():
    moment = datetime(2026, 1, 2, 3, 4, 5)  # as tables keep it
    account = Account("slide", "a", State.CURRENT, "", "", (), {"at": moment}, {}, {}, {}, ())
    assert as_plain(account)["made"]["at"] == "2026-01-02T03:04:05+00:00"
    assert "created_at" in FILE
    told = _file({"created_at": moment, "content_sha256": "0" * 64, "path": "a.svs"})
    assert told["registered_at"] == moment.replace(tzinfo=UTC).isoformat()
