"""Outcomes: what became of each step of each slide, and the proof that a result is current.

Belongs here: reading and writing rows of `outcomes`. Does not belong: deciding whether a step must run (`chain`).
A step's outcome is written after its results; its digest therefore says that they are there. A row is replaced only
when it says something new, so that a run that changes nothing changes no byte.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

import polars as pl

from pathassets import __version__
from pathassets.errors import Reason
from pathassets.steps.made_from import LIBRARIES, library_versions
from pathassets.steps.nodes import Node
from pathassets.steps.session import Session
from pathassets.store.index import indexed

COLUMNS = ("slide_id", "tiling", "recipe", "step", "status", "reason", "message", "remedy", "created_at")


class Status(StrEnum):
    """The column `status` of `outcomes`."""

    OK = "ok"
    FLAGGED = "flagged"  # usable; the reason deserves a look
    EMPTY = "empty"  # nothing to work on, which is a valid result
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """One row of `outcomes`.

    Attributes:
        digest: Of everything the step was made from, as asked for.
        result_digest: What steps downstream depend on; another than `digest` where the plan changed on the way.
        options: What `digest` covers, by name, as JSON (see `made_from`); so do `inputs`.
        libraries: Versions, as JSON; like `seconds` and what follows no part of what an outcome says.
    """

    slide_id: str
    tiling: str | None
    recipe: str | None
    step: str
    status: str
    reason: str | None = None
    message: str | None = None
    remedy: str | None = None
    digest: str | None = None
    result_digest: str | None = None
    options: str | None = None
    inputs: str | None = None
    libraries: str | None = None
    seconds: float | None = None
    code_version: str | None = None
    run_id: str | None = None
    created_at: datetime | None = None
    pathassets_version: str | None = None

    @property
    def usable(self) -> bool:
        """Whether steps downstream may go on."""
        return self.status != Status.FAILED

    def says_the_same(self, other: Outcome) -> bool:
        """Equal but for when, by which run and with which versions it was made."""
        return self._said() == other._said()

    def _said(self) -> Outcome:
        return replace(self, libraries=None, seconds=None, run_id=None, created_at=None, pathassets_version=None)


def outcome_part(node: Node) -> str:
    """The file of `outcomes` that holds a node's row: shared steps in one, each tiling's and recipe's in its own."""
    return "__".join(node.scope) or "part"


def load_outcome(session: Session, slide_id: str, node: Node) -> Outcome | None:
    """The recorded outcome of a node for a slide, or None."""
    frame = session.tables.read("outcomes", slide_id, outcome_part(node))
    if frame is None:
        return None
    rows = frame.filter(pl.col("step") == str(node.step)).to_dicts()
    return Outcome(**rows[0]) if rows else None


def known_outcomes(session: Session, *, remember: bool = False) -> pl.DataFrame:
    """What became of each step of every slide, `COLUMNS` of it, opening no file that a publication has seen.

    Args:
        session: The study.
        remember: See `store.index.indexed`.
    """
    return indexed(session.tables, "outcomes", COLUMNS, remember=remember)


def record_outcome(session: Session, node: Node, outcome: Outcome) -> None:
    """Writes the outcome, unless the recorded one says the same."""
    part = outcome_part(node)
    frame = session.tables.read("outcomes", outcome.slide_id, part)
    old = frame.to_dicts() if frame is not None else []
    for row in old:
        if row["step"] == outcome.step and Outcome(**row).says_the_same(outcome):
            return
    stamped = replace(
        outcome,
        libraries=library_versions(LIBRARIES.get(node.step, ())),
        run_id=session.run_id,
        created_at=datetime.now(UTC),
        pathassets_version=__version__,
    )
    rows = [row for row in old if row["step"] != outcome.step] + [asdict(stamped)]
    session.tables.write("outcomes", rows, slide_id=outcome.slide_id, part=part)


def failure(slide_id: str, node: Node, reason: Reason, message: str, remedy: str) -> Outcome:
    """The outcome of a step that failed; without a digest, so that it is tried again."""
    tiling, recipe, step = node.names
    return Outcome(
        slide_id=slide_id,
        tiling=tiling,
        recipe=recipe,
        step=step,
        status=str(Status.FAILED),
        reason=str(reason),
        message=message,
        remedy=remedy or None,
    )
