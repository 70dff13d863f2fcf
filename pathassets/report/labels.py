"""Labels: what a study's `slides.csv` says of a slide: patient, cohort, diagnosis and whatever columns there are.

Belongs here: choosing those columns. Does not belong: reading the file (`slides/manifest.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pathassets.exports.places import PATH_COLUMNS, Places
from pathassets.steps.session import Session
from pathassets.store.schema import TABLES


def labels(session: Session, row: Mapping[str, Any], places: Places | None = None) -> dict[str, Any]:
    """Name and value of every label of a slide, without paths.

    Args:
        session: The study.
        row: The slide's row of `slides`; the manifest speaks for slides that failed before they had labels.
        places: What reduces paths; made where it is not given.
    """
    own = {column.name for column in TABLES["slides"].columns} | {*PATH_COLUMNS}
    said = session.manifest_entry(row["path"]) | {name: value for name, value in row.items() if value is not None}
    known = {name: value for name, value in said.items() if name not in own and value not in (None, "")}
    plain: dict[str, Any] = (places or Places(session)).plain(known)
    return plain
