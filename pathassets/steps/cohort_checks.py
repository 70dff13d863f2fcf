"""Cohort checks: what there is to say of all slides together.

Belongs here: which checks there are, and where their numbers come from. Does not belong: statistics (`core/cohort.py`),
thresholds (`core/checks.py`), single slides (`checks`), telling Dagster (`defs/checks.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from pathassets.core import checks
from pathassets.core.checks import Verdict
from pathassets.core.cohort import MIN_GROUP_SLIDES, MIN_SLIDES, group_effect, outlier_scores
from pathassets.recipes import Recipe
from pathassets.steps.outcomes import Status, known_outcomes
from pathassets.steps.session import Session
from pathassets.steps.slide_map import current_vectors

# How slides were made, by what readers say and by the names that laboratories give to columns of `slides.csv`. What was
# found in the patient is no batch: those columns are meant to make a difference.
TECHNICAL = (
    "vendor", "mpp", "objective_power", "scanner", "scanner_model", "scanner_id", "stain", "stainer", "staining_date", "batch",
    "site", "center", "centre", "institution", "hospital", "lab", "laboratory", "protocol", "fixation",
)  # fmt: skip
RECENT, EARLIER = "recent", "earlier"
DAY = timedelta(days=1)
# "Recent" are as many of the slides registered last.
RECENT_SHARE = 0.2


@dataclass(frozen=True)
class CohortCheck:
    """A check on all slides.

    Attributes:
        name: `[a-z_]+`.
        description: What is checked, the threshold, and why there.
    """

    name: str
    description: str


OUTLIER_SLIDES = CohortCheck(
    "outlier_slides",
    "No slide is unlike all others. Of each slide's vector, the mean cosine distance to its three nearest slides is taken, as a "
    "logarithm, and turned into a modified z-score: distance from the median over slides in units of the median absolute "
    f"deviation. Above {checks.MAX_OUTLIER_SCORE} (Iglewicz and Hoaglin 1993) a slide deserves a look: another stain or organ, "
    f"out of focus, little tissue. Needs {MIN_SLIDES} slides; each slide's score is in the table slide_map.",
)
BATCH_EFFECTS = CohortCheck(
    "batch_effects",
    "Slides do not differ by how they were made. For the reader's vendor, mpp and objective_power, for technical columns of "
    "slides.csv (scanner, stain, site, batch, ...) and for the newest fifth of slides against the others (drift), PERMANOVA "
    "(Anderson 2001) on cosine distances of slide vectors tells which share of all differences lies between groups. It fails "
    f"above {checks.MAX_GROUP_SHARE:.0%} where chance gives as much in at most {checks.MIN_P:.0%} of 999 permutations. Groups of "
    f"fewer than {MIN_GROUP_SLIDES} slides are left out. Where scanner and diagnosis go together the statistic cannot tell "
    "them apart.",
)
FAILED_SLIDES = CohortCheck(
    "failed_slides",
    "No slide has failed since yesterday; each one that has is named with its reason, and all are in outcomes.",
)
MAP_CHECKS = (OUTLIER_SLIDES, BATCH_EFFECTS)


def judge_map(session: Session, recipe: Recipe) -> dict[CohortCheck, Verdict]:
    """What the slides' vectors of one recipe say about the cohort."""
    frame = current_vectors(session, recipe)
    vectors = np.asarray(frame["vector"].to_list(), np.float32)
    scores = outlier_scores(vectors) if len(frame) else None
    named = None if scores is None else dict(zip(frame["slide_id"], scores.tolist(), strict=True))
    effects = {
        column: group_effect(vectors, groups) for column, groups in _groupings(session, frame["slide_id"]).items()
    }
    return {OUTLIER_SLIDES: checks.outlier_slides(named), BATCH_EFFECTS: checks.batch_effects(effects)}


def judge_day(session: Session, now: datetime | None = None) -> Verdict:
    """Which slides have failed since this time yesterday."""
    since = (now or datetime.now(UTC)).replace(tzinfo=None) - DAY  # tables hold UTC without saying so
    outcomes = known_outcomes(session)  # every snapshot asks: what it has just seen is not opened again
    rows = outcomes.filter((pl.col("status") == Status.FAILED) & (pl.col("created_at") >= since)).sort(
        "slide_id", "step"
    )
    told = {row["slide_id"]: f"{row['step']}: {row['reason']}: {row['message']}" for row in rows.iter_rows(named=True)}
    return checks.failed_slides(told)


def _groupings(session: Session, slide_ids: pl.Series) -> dict[str, list[str | None]]:
    """For each technical column that tells slides apart, the groups of `slide_ids`."""
    slides = session.tables.scan("slides").collect()
    slides = slide_ids.to_frame("slide_id").join(slides, on="slide_id", how="left", maintain_order="left")
    columns = [name for name in slides.columns if name.lower() in TECHNICAL and slides[name].n_unique() > 1]
    found = {name: [_group(value) for value in slides[name].to_list()] for name in columns}
    return found | ({"age": _ages(slides)} if "created_at" in slides.columns else {})


def _group(value: object) -> str | None:
    """Scanners of one kind differ in the last digits of their resolution."""
    return None if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def _ages(slides: pl.DataFrame) -> list[str | None]:
    place = slides["created_at"].rank("ordinal")
    edge = (1 - RECENT_SHARE) * len(slides)
    return [None if p is None else RECENT if p > edge else EARLIER for p in place.to_list()]
