"""Folder: the reports of a whole study in its home: one about the study, one about each slide.

Belongs here: which reports there are. Does not belong: which are written anew (`exports/kept`), what stands in them
(`slide`, `cohort`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from pathassets.errors import PathassetsError, Reason
from pathassets.exports.files import Target
from pathassets.exports.kept import KeptFolder
from pathassets.report.cohort import cohort_report
from pathassets.report.slide import slide_report
from pathassets.steps.forget import REPORTS
from pathassets.steps.naming import slide_ids
from pathassets.steps.session import Session
from pathassets.store.layout import STUDY

log = logging.getLogger(__name__)

STUDY_REPORT = "study.html"
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
    folder, slides = KeptFolder(session, session.study.home / REPORTS), slide_ids(session)
    of_study = Target(folder.path, force=True)
    of_study.put_bytes(STUDY_REPORT, cohort_report(session).encode())
    folder.settle(STUDY, of_study, whole=True)
    found = Reports(folder.path / STUDY_REPORT)
    for slide_id, target in folder.due(slides):
        why = _write(session, slide_id, target)
        folder.settle(slide_id, target, whole=not why)
        if why:
            found.left_out[slide_id] = why
    folder.close()
    found.slides, found.written = folder.slides, folder.written
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
