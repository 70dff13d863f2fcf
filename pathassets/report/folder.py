"""Folder: the reports of a whole study in its home: one about the study, one about each slide.

Belongs here: which reports are written anew, which stay, which go. Does not belong: what stands in them (`slide`, `cohort`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pathassets import __version__
from pathassets.errors import PathassetsError, Reason
from pathassets.exports.files import Target
from pathassets.recipes import digest
from pathassets.report.cohort import cohort_report
from pathassets.report.slide import slide_report
from pathassets.steps.forget import REPORTS
from pathassets.steps.naming import slide_ids
from pathassets.steps.session import Session
from pathassets.store.census import readable

log = logging.getLogger(__name__)

STUDY_REPORT = "study.html"
MADE_FROM = "made_from.json"
# What would fail for every other report too.
_ENDS_ALL = {Reason.DISK_FULL, Reason.STORE_READ_ONLY}


@dataclass
class Reports:
    """What there is after a look at all slides.

    Attributes:
        path: The study's report.
        slides: Slides whose report is there.
        written: Files that are new or say something else than before.
        left_out: Why a slide has no new report, by slide.
    """

    path: Path
    slides: int = 0
    written: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def write_reports(session: Session) -> Reports:
    """Writes `<home>/reports/study.html` and `<slide>.html` for each slide of which something has changed.

    A slide whose report cannot be made is named and holds up no other; its last report stays.

    Raises:
        ConfigError: There are no slides.
        StoreError: The disk is full or cannot be written.
    """
    target = Target(session.study.home / REPORTS, force=True)
    target.put_bytes(STUDY_REPORT, cohort_report(session).encode())
    found = Reports(target.path / STUDY_REPORT)
    before, made_from = _made_from(target), _tokens(session)
    for slide_id in slide_ids(session):
        file = target.path / f"{slide_id}.html"
        if before.get(slide_id) != made_from.get(slide_id) or not file.is_file():
            why = _write(session, slide_id, target)
            if why:
                found.left_out[slide_id] = why
                made_from.pop(slide_id, None)
        found.slides += file.is_file()
    _remove_forgotten(target, set(before) - set(slide_ids(session)))
    target.put_json(MADE_FROM, made_from)
    found.written = [key for key in target.written if key != MADE_FROM]
    return found


def _write(session: Session, slide_id: str, target: Target) -> str:
    """Why it could not be; empty where it could."""
    try:
        target.put_bytes(f"{slide_id}.html", slide_report(session, slide_id).encode())
    except PathassetsError as error:
        if error.reason in _ENDS_ALL:
            raise
        return f"{error.message} [{error.reason}]"
    except Exception as error:
        log.exception("no report of %s", slide_id)
        return f"{type(error).__name__} [{Reason.INTERNAL}]"
    return ""


def _tokens(session: Session) -> dict[str, str]:
    """For each slide a digest of all that its report tells: its outcomes hold the digests of everything else."""
    outcomes = readable(session.tables, "outcomes").sort("tiling", "recipe", "step", nulls_last=True)
    columns = ("tiling", "recipe", "step", "status", "reason", "result_digest", "created_at")
    rows = {str(slide): frame.select(columns).rows() for (slide,), frame in outcomes.group_by("slide_id")}
    return {
        slide_id: digest(__version__, [[str(value) for value in row] for row in of]) for slide_id, of in rows.items()
    }


def _made_from(target: Target) -> Mapping[str, str]:
    """What the reports that are there were made from; a note that cannot be read counts for none."""
    try:
        found = json.loads((target.path / MADE_FROM).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remove_forgotten(target: Target, slides: set[str]) -> None:
    """Reports of slides that the study knows no more; nothing that is not noted as ours."""
    for slide_id in slides:
        (target.path / f"{Path(slide_id).name}.html").unlink(missing_ok=True)
