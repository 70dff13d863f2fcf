"""Cohort: one row per slide with all that its page of the dashboard shows.

Belongs here: putting tables together. Does not belong: the grid (`pages/cohort`), thumbnails (`routes`).
"""

from __future__ import annotations

import polars as pl

from pathassets.core.qc import INKED
from pathassets.dashboard.catalog import Catalog, tiling_of
from pathassets.steps.nodes import Step
from pathassets.store import layout

TOP_DOMAINS = 3
PROBLEMS = ("failed", "flagged", "empty")

_TISSUE = "SELECT slide_id, round(sum(area_mm2), 3) AS tissue_mm2, count(*) AS pieces FROM results.tissues GROUP BY 1"
_TILES = f"""
    SELECT slide_id, count(*) AS tiles, round(100 * avg((pen_share > {INKED})::INT), 1) AS inked_percent,
           round(median(sharpness), 5) AS sharpness
    FROM results.tiles WHERE tiling = ? GROUP BY 1"""
_DOMAINS = f"""
    SELECT slide_id, max(domains)::BIGINT AS domains, string_agg(part, ', ' ORDER BY share DESC) AS looks_like FROM (
        SELECT *, coalesce(label, 'domain ' || domain) || ' ' || round(100 * share)::INT || ' %' AS part,
               count(*) OVER (PARTITION BY slide_id) AS domains
        FROM results.domain_summary WHERE recipe = ? AND variant = ?
        QUALIFY row_number() OVER (PARTITION BY slide_id ORDER BY share DESC) <= {TOP_DOMAINS}
    ) GROUP BY 1"""
_STEPS = """
    SELECT slide_id, step, status || coalesce(': ' || reason, '') AS said, status, reason, remedy, run_id, created_at
    FROM results.outcomes
    WHERE (tiling IS NULL OR tiling = ?) AND (recipe IS NULL OR recipe = ?)"""


def rows(catalog: Catalog, recipe: str | None) -> pl.DataFrame:
    """One row per registered slide.

    Args:
        catalog: The study.
        recipe: Whose tiles, domains and outcomes; None where there is none yet.

    Returns:
        `slide_id`, `file`, sizes in mm and px, `mpp`, `tissue_mm2`, `tiles`, `domains`, `looks_like`, quality, `problem` (what
        needs a look, reasons), `run` (the last one that made something of it), `step_<step>` for each step,
        `label_<column>` for each column of the manifest.
    """
    recipe = recipe or ""
    slides = (
        catalog.slides()
        .rename({name: f"label_{name}" for name in catalog.labels()})
        .with_columns(
            width_mm=(pl.col("width_px") * pl.col("mpp") / 1000).round(2),
            height_mm=(pl.col("height_px") * pl.col("mpp") / 1000).round(2),
            gone=pl.col("missing_since").is_not_null(),
            thumbnail=pl.col("slide_id").is_in(_with_thumbnail(catalog)),
        )
    )
    variant = _variant(catalog, recipe)
    outcomes = catalog.frame(_STEPS, tiling_of(recipe), recipe)
    joined = slides
    for frame in (
        catalog.frame(_TISSUE),
        catalog.frame(_TILES, tiling_of(recipe)),
        catalog.frame(_DOMAINS, recipe, variant),
        _problems(outcomes),
        _by_step(outcomes),
        _last_runs(outcomes),
    ):
        joined = joined.join(frame, on="slide_id", how="left", maintain_order="left")
    return joined.select(
        "slide_id", "file", "width_mm", "height_mm", "width_px", "height_px", "mpp", "mpp_origin", "objective_power",
        "vendor", "tissue_mm2", "pieces", "tiles", "domains", "looks_like", "inked_percent", "sharpness", "problem",
        "gone", "thumbnail", "run",
        *(f"step_{step}" for step in Step), *(f"label_{name}" for name in catalog.labels()),
    )  # fmt: skip


def _with_thumbnail(catalog: Catalog) -> list[str]:
    root = catalog.session.root
    return [slide for slide in catalog.slides()["slide_id"] if root.exists(layout.thumbnail_key(slide))]


def _variant(catalog: Catalog, recipe: str) -> str:
    found = catalog.frame("SELECT DISTINCT variant FROM results.domain_summary WHERE recipe = ? ORDER BY 1", recipe)
    return found["variant"][0] if len(found) else ""


def _problems(outcomes: pl.DataFrame) -> pl.DataFrame:
    """Reasons of what is not plainly ok, each once; what only follows from another failure is left out."""
    bad = outcomes.filter(pl.col("status").is_in(PROBLEMS) & (pl.col("reason") != "upstream_failed"))
    return bad.group_by("slide_id").agg(problem=pl.col("reason").unique(maintain_order=True).str.join(", "))


def _last_runs(outcomes: pl.DataFrame) -> pl.DataFrame:
    known = outcomes.filter(pl.col("run_id").is_not_null())
    return known.group_by("slide_id").agg(run=pl.col("run_id").sort_by("created_at", nulls_last=False).last())


def _by_step(outcomes: pl.DataFrame) -> pl.DataFrame:
    """A column for each step: `ok`, `failed: no_tissue`; empty where the step has not been tried."""
    wanted = [
        pl.col("said").filter(pl.col("step") == str(step)).first().cast(pl.String).alias(f"step_{step}")
        for step in Step
    ]
    return outcomes.group_by("slide_id").agg(wanted)
