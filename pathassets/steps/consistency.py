"""Consistency: what the outcomes say held against the results that they speak of.

Belongs here: which results a step leaves behind, and whether they are those of its outcome. Does not belong: whether files
can be read and groups are whole (`store/verify.py`), repairing (`repair`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from pathassets.steps.nodes import Step
from pathassets.steps.outcomes import Outcome, Status
from pathassets.store import layout
from pathassets.store.census import Census
from pathassets.store.root import Root
from pathassets.store.verify import REPAIR, Fault, Finding

# Every table whose rows carry the digest of the step that wrote them.
TABLES_OF: dict[str, tuple[str, ...]] = {
    Step.SLIDE: ("slides",),
    Step.TISSUE: ("tissues",),
    Step.TILES: ("tiles",),
    Step.EMBEDDINGS: ("embeddings", "patch_tokens"),
    Step.SLIDE_VECTOR: ("slide_vectors",),
    Step.SPATIAL_DOMAINS: ("domains", "domain_summary", "derived_arrays"),
    Step.TEXT_SIMILARITY: ("text_scores",),
    Step.PREDICTIONS: ("predictions",),
}
_ONLY_WHEN_ASKED_FOR = {"patch_tokens": "dense"}
_NEVER_EMPTY = ("slides", "tissues", "tiles", "embeddings")
STEP_OF = {table: Step(step) for step, tables in TABLES_OF.items() for table in tables}


def check_outcomes(root: Root, census: Census) -> Iterator[Finding]:
    """Outcomes whose results are not there, or are others; files that cannot be read have been told of before."""
    for outcome in census.outcomes:
        if outcome["status"] == Status.FAILED:
            continue
        for table in tables_of(outcome):
            yield from _check_rows(census, outcome, table)
        if outcome["step"] == Step.TISSUE:
            yield from _check_mask(root, outcome["slide_id"])
    yield from _check_proofs(census)


def has_results(census: Census, outcome: Outcome) -> bool:
    """Whether every table that an outcome speaks of is there."""
    row = asdict(outcome)
    keys = (layout.table_key(table, outcome.slide_id, part_of(row)) for table in tables_of(row))
    return all(key in census.files for key in keys)


def tables_of(outcome: dict[str, Any]) -> list[str]:
    """The tables that an outcome's step has left behind with the options that it had."""
    options = json.loads(outcome["options"] or "{}")
    wanted = ((table, _ONLY_WHEN_ASKED_FOR.get(table)) for table in TABLES_OF.get(outcome["step"], ()))
    return [table for table, option in wanted if option is None or options.get(option)]


def part_of(outcome: dict[str, Any]) -> str:
    """The part of a table that holds the rows of an outcome's step."""
    if outcome["recipe"] is not None:
        return layout.recipe_part(outcome["recipe"])
    return outcome["tiling"] or layout.SHARED_PART


def outcome_key(outcome: dict[str, Any]) -> str:
    """The asset that an outcome is of, as in Dagster: `<tiling>/<recipe>/<step>`."""
    return "/".join(filter(None, (outcome["recipe"] or outcome["tiling"], outcome["step"])))


def _check_rows(census: Census, outcome: dict[str, Any], table: str) -> Iterator[Finding]:
    slide_id, asset = outcome["slide_id"], outcome_key(outcome)
    key = layout.table_key(table, slide_id, part_of(outcome))
    if key in census.unreadable:
        return
    facts = census.files.get(key)
    if facts is None:
        yield Finding(Fault.MISSING, key, f"{asset} was made, and its rows are not there", REPAIR, slide_id)
        return
    said = {digest for digest in (outcome["digest"], outcome["result_digest"]) if digest is not None}
    if said and not facts.digests <= said:
        strange = ", ".join(sorted(facts.digests - said))
        message = f"holds rows of {strange}; the outcome of {asset} speaks of {outcome['result_digest']}"
        yield Finding(Fault.CONTRADICTION, key, message, REPAIR, slide_id)
    elif not facts.rows and outcome["status"] != Status.EMPTY and table in _NEVER_EMPTY:
        yield Finding(Fault.MISSING, key, f"has no rows, and {asset} found some", REPAIR, slide_id)
    elif facts.rows and outcome["status"] == Status.EMPTY:
        yield Finding(Fault.CONTRADICTION, key, f"has {facts.rows} rows; {asset} found nothing", REPAIR, slide_id)


def _check_proofs(census: Census) -> Iterator[Finding]:
    """Rows that no outcome vouches for, as a run that was killed between the two leaves them."""
    proved = {(outcome["slide_id"], part_of(outcome), outcome["step"]) for outcome in census.outcomes}
    for key in census.files:
        table, slide_id = layout.table_slide(key) or ("", None)
        step, part = STEP_OF.get(table), layout.table_part(key)
        if slide_id is None or step in (None, Step.SLIDE) or (slide_id, part, step) in proved:
            continue
        if layout.table_key("outcomes", slide_id, part) not in census.unreadable:
            message = "no outcome says what these rows were made from"
            yield Finding(
                Fault.UNPROVED, key, message, "`pathassets run`; else `pathassets verify --repair`.", slide_id
            )


def _check_mask(root: Root, slide_id: str) -> Iterator[Finding]:
    key = layout.tissue_labels_key(slide_id)
    try:
        data = root.read_if_there(key)
        if data is None:
            yield Finding(Fault.MISSING, key, "tissue was found, and its label image is not there", REPAIR, slide_id)
            return
        with np.load(io.BytesIO(data), allow_pickle=False) as labels:
            labels["labels"].shape  # noqa: B018  reading it checks its checksum
    except Exception as error:  # noqa: BLE001  NumPy, zipfile and zlib each raise their own
        yield Finding(Fault.UNREADABLE, key, f"cannot be read: {error}", REPAIR, slide_id)
