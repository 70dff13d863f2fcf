"""Cohort provenance: the same account for what belongs to the whole study: terms, slide maps, the snapshot.

Belongs here: `term_embeddings`, `slide_map`, `cohort_map`, `results`. Does not belong: a slide's assets (`provenance`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import polars as pl

from pathassets.errors import PathassetsError, StoreError
from pathassets.recipes import Recipe
from pathassets.steps import cohort_map
from pathassets.steps.embedded import recipe_part
from pathassets.steps.provenance import NOT_RECORDED, Account, Change, Looking, State, option_changes
from pathassets.steps.slide_map import current_vectors, map_digest, map_options
from pathassets.steps.terms import terms_digest, terms_inputs, terms_options
from pathassets.store import layout
from pathassets.store.query import connect
from pathassets.store.results import last_published, needs_publishing

COHORT = '`pathassets run --select "*"` makes it.'


def cohort_accounts(session: Looking) -> dict[str, Callable[[], Account]]:
    """The study's unpartitioned assets by key, each with what makes its account."""
    found: dict[str, Callable[[], Account]] = {}
    for recipe in session.study.recipes:
        found[f"{recipe.key}/slide_map"] = partial(map_account, session, recipe)
        found[f"{recipe.key}/cohort_map"] = partial(tile_map_account, session, recipe)
        if recipe.text.terms:
            found[f"{recipe.key}/term_embeddings"] = partial(terms_account, session, recipe)
    return {**found, "results": partial(results_account, session)}


def terms_account(session: Looking, recipe: Recipe) -> Account:
    """The account of a recipe's term embeddings."""
    asset = f"{recipe.key}/term_embeddings"
    frame = _read(session, "term_embeddings", recipe)
    if not isinstance(frame, pl.DataFrame):
        return _absent(asset, frame)
    first = frame.row(0, named=True)
    holds = {"terms": frame["term"].to_list(), "dim": len(first["vector"])}
    try:
        wanted, inputs = terms_digest(session, recipe), terms_inputs(session, recipe)
    except PathassetsError as error:
        return _account(asset, first, State.UNTOLD, holds, why=error.message, remedy=error.remedy)
    if wanted == first["digest"]:
        return _account(asset, first, State.CURRENT, holds)
    changes = option_changes(first, terms_options(recipe), inputs)
    remedy = "`pathassets run` makes it, when a slide is compared with words."
    return _account(asset, first, State.CHANGED, holds, changes, remedy=remedy)


def map_account(session: Looking, recipe: Recipe) -> Account:
    """The account of a recipe's slide map; what it was made from is the embeddings of each slide on it."""
    asset = f"{recipe.key}/slide_map"
    frame = _read(session, "slide_map", recipe)
    if not isinstance(frame, pl.DataFrame):
        return _absent(asset, frame)
    first = frame.row(0, named=True)
    shown = dict(frame.select("slide_id", "embeddings_digest").unique(maintain_order=True).iter_rows())
    holds = {"slides": len(shown), "methods": frame["method"].unique(maintain_order=True).to_list()}
    vectors = current_vectors(session, recipe)
    if map_digest(recipe, vectors) == first["digest"]:
        return _account(asset, first, State.CURRENT, holds, inputs=shown)
    now = dict(vectors.select("slide_id", "embeddings_digest").iter_rows())
    changes = _other_slides(shown, now) or option_changes(first, map_options(recipe), {"slides": len(now)})
    return _account(asset, first, State.CHANGED, holds, changes, remedy=COHORT, inputs=shown)


def tile_map_account(session: Looking, recipe: Recipe) -> Account:
    """The account of a recipe's cohort map; it is made from the embeddings of each slide on it."""
    asset = f"{recipe.key}/cohort_map"
    frame = _read(session, "cohort_map", recipe)
    if not isinstance(frame, pl.DataFrame):
        return _absent(asset, frame)
    first = frame.row(0, named=True)
    shown = dict(frame.select("slide_id", "embeddings_digest").unique(maintain_order=True).iter_rows())
    holds = {"slides": len(shown), "tiles": frame.height, "method": first["method"]}
    rows = cohort_map.current_embeddings(session, recipe)
    if cohort_map.map_digest(recipe, rows) == first["digest"]:
        return _account(asset, first, State.CURRENT, holds, inputs=shown)
    now = dict(rows.filter(pl.col("n_tiles") > 0).select("slide_id", "digest").iter_rows())
    sizes = {"slides": len(now), "tiles": frame.height}
    changes = _other_slides(shown, now) or option_changes(first, cohort_map.map_options(), sizes)
    return _account(asset, first, State.CHANGED, holds, changes, remedy=COHORT, inputs=shown)


def _other_slides(shown: dict[str, str], now: dict[str, str]) -> tuple[Change, ...]:
    """Slides whose embeddings are others than those that a map shows."""
    slides = (slide for slide in sorted({*shown, *now}) if shown.get(slide) != now.get(slide))
    return tuple(Change(slide, shown.get(slide), now.get(slide)) for slide in slides)


def results_account(session: Looking) -> Account:
    """The account of the SQL snapshot."""
    path = layout.results_path(session.study.home)
    if not path.exists():
        return Account("results", None, State.MISSING, f"{path} is not there", "`pathassets publish` makes it.")
    published = last_published(session.study.home)
    stat = path.stat()
    holds = {"path": str(path), "size_bytes": stat.st_size, "rows": published.rows, "skipped": published.skipped}
    made = {"at": pl.Series([int(stat.st_mtime * 1e6)]).cast(pl.Datetime("us"))[0]}
    if needs_publishing(session.root, session.study.home):
        why, remedy = "is older than the store", "`pathassets publish` makes it."
        return Account("results", None, State.CHANGED, why, remedy, made=made, holds=holds)
    try:
        connect(session.study.home, root=session.root).close()
    except PathassetsError as error:
        return Account("results", None, State.DAMAGED, error.message, error.remedy, made=made, holds=holds)
    return Account("results", None, State.CURRENT, made=made, holds=holds)


def _read(session: Looking, table: str, recipe: Recipe) -> pl.DataFrame | StoreError | None:
    try:
        frame = session.tables.read(table, None, recipe_part(recipe))
    except StoreError as error:
        return error
    return None if frame is None or frame.is_empty() else frame


def _absent(asset: str, error: StoreError | None) -> Account:
    if error is not None:
        return Account(asset, None, State.DAMAGED, error.message, error.remedy)
    return Account(asset, None, State.MISSING, "was never made", COHORT)


def _account(
    asset: str,
    row: dict[str, Any],
    state: State,
    holds: dict[str, Any],
    changes: tuple[Change, ...] = (),
    *,
    why: str = "",
    remedy: str = "",
    inputs: dict[str, Any] | None = None,
) -> Account:
    options = json.loads(row["options"]) if row["options"] else {}
    made = {
        "at": row["created_at"],
        "run_id": row["run_id"],
        "digest": row["digest"],
        "result_digest": row["digest"],
        "code_version": row["code_version"],
        "algorithm_version": options.pop("algorithm_version", None),
        "pathassets_version": row["pathassets_version"],
        "libraries": json.loads(row["libraries"]) if row["libraries"] else {},
    }
    recorded = inputs or (json.loads(row["inputs"]) if row["inputs"] else {})
    why = why or ("" if row["options"] else f"what it was made from {NOT_RECORDED}")
    return Account(asset, None, state, why, remedy, changes, made, options, recorded, holds)
