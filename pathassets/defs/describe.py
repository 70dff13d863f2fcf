"""Metadata: what Dagster's UI shows of a result: numbers that plot, schemas, small pictures, links.

Belongs here: choosing and wrapping. Does not belong: drawing (`figures/`), computing (`steps/`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from pathassets import links
from pathassets.recipes import Recipe
from pathassets.steps.chain import StepResult
from pathassets.steps.embedded import embeddings_row, recipe_part
from pathassets.steps.nodes import Step
from pathassets.steps.session import Session
from pathassets.store.schema import table_spec

if TYPE_CHECKING:
    from pathassets.exports.kept import Kept
    from pathassets.figures.cohort_pictures import StoredMosaic
    from pathassets.report.folder import Reports
    from pathassets.steps.cohort_map import CohortMap
    from pathassets.steps.slide_map import SlideMap
    from pathassets.steps.terms import Terms
    from pathassets.store.results import Published

log = logging.getLogger(__name__)

Metadata = dict[str, Any]
TABLE_OF = {
    Step.SLIDE: "slides",
    Step.TISSUE: "tissues",
    Step.TILES: "tiles",
    Step.EMBEDDINGS: "embeddings",
    Step.SLIDE_VECTOR: "slide_vectors",
    Step.SPATIAL_DOMAINS: "domains",
    Step.TEXT_SIMILARITY: "text_scores",
    Step.PREDICTIONS: "predictions",
}


def columns(table: str) -> Metadata:
    """A table's columns as Dagster shows them."""
    schema = [
        dg.TableColumn(name, type=kind, description=text) for name, kind, text in table_spec(table).column_schema()
    ]
    return {"dagster/column_schema": dg.TableSchema(columns=schema), "table": table}


def static(step: Step) -> Metadata:
    """What is known of an asset before it has run."""
    return columns(TABLE_OF[step])


def with_dashboard(text: str, url: str) -> str:
    """An asset's description, which ends in a link to the dashboard where its address is known."""
    return f"{text} [In the dashboard]({url})" if url else text


def materialised(session: Session, result: StepResult) -> Metadata:
    """What is shown of a slide's asset that is there; a picture that cannot be drawn does not undo the result."""
    outcome = result.outcome
    assert outcome is not None
    metadata: Metadata = {"status": outcome.status, "unchanged": result.unchanged}
    if outcome.reason:
        metadata |= {"reason": outcome.reason, "message": outcome.message or ""}
    metadata |= _DESCRIBERS[result.node.step](session, result) | _dashboard(session, result)
    try:
        metadata |= _pictures(session, result)
    except Exception as error:
        log.warning("no picture of %s of %s", result.node.key, result.slide_id, exc_info=error)
    return {name: value for name, value in metadata.items() if value is not None}


def _dashboard(session: Session, result: StepResult) -> Metadata:
    """Where the dashboard shows the slide, once it is published."""
    base, node = session.study.dashboard_url, result.node
    if not base:
        return {}
    return {
        "dashboard": dg.MetadataValue.url(links.dashboard_slide(base, result.slide_id, "/".join(node.scope) or None))
    }


def _slide(session: Session, result: StepResult) -> Metadata:
    row = session.slide_row(result.slide_id)
    names = (
        "vendor",
        "reader",
        "width_px",
        "height_px",
        "n_levels",
        "objective_power",
        "mpp",
        "mpp_origin",
        "size_bytes",
    )
    return {"path": dg.MetadataValue.path(row["path"]), **{name: row[name] for name in names}}


def _tissue(session: Session, result: StepResult) -> Metadata:
    frame = session.tables.read("tissues", result.slide_id)
    assert frame is not None
    row = session.slide_row(result.slide_id)
    slide_mm2 = row["width_px"] * row["height_px"] * row["mpp"] ** 2 / 1e6
    area = float(frame["area_mm2"].sum())
    method = frame["method"][0] if len(frame) else None
    return {
        "dagster/partition_row_count": len(frame), "pieces": len(frame), "tissue_mm2": area,
        "tissue_share": area / slide_mm2, "method": method,
    }  # fmt: skip


def _tiles(session: Session, result: StepResult) -> Metadata:
    frame = _read(session, result, "tiles")
    means = {f"mean_{name}": _mean(frame, name) for name in ("tissue_share", "brightness", "sharpness", "pen_share")}
    return {"dagster/partition_row_count": len(frame), "tiles": len(frame), **means}


def _mean(frame: pl.DataFrame, column: str) -> float | None:
    values = frame[column].drop_nulls().drop_nans()
    return float(values.mean()) if len(values) else None  # type: ignore[arg-type]


def _embeddings(session: Session, result: StepResult) -> Metadata:
    row = _row(session, result)
    if row is None:
        return {"dagster/partition_row_count": 0, "tiles": 0}
    names = ("encoder", "dim", "dtype", "precision", "precision_cosine", "precision_max_rel_error", "batch_size", "device",
             "weights_sha256", "random_weights", "n_bad_tiles", "seconds")  # fmt: skip
    rate = {"tiles_per_second": row["n_tiles"] / row["seconds"]} if row["seconds"] else {}
    timings = _read(session, result, "timings")
    stages = {f"{stage}_seconds": seconds for stage, seconds in timings.select("stage", "seconds").iter_rows()}
    return {
        "dagster/partition_row_count": row["n_tiles"], "tiles": row["n_tiles"], "dagster/uri": row["uri"],
        **{name: row[name] for name in names}, **rate, **stages,
    }  # fmt: skip


def _slide_vector(session: Session, result: StepResult) -> Metadata:
    frame = _read(session, result, "slide_vectors")
    methods = ", ".join(frame["method"].unique(maintain_order=True)) if len(frame) else ""
    return {"dagster/partition_row_count": len(frame), "vectors": len(frame), "methods": methods}


def _spatial_domains(session: Session, result: StepResult) -> Metadata:
    summary = _read(session, result, "domain_summary")
    counts = {f"domains_{name}": len(frame) for (name,), frame in summary.group_by("variant", maintain_order=True)}
    shown = summary.select("variant", "domain", "n_tiles", "share", "contiguity", "label")
    rows = _read(session, result, "domains")
    return {"dagster/partition_row_count": len(rows), **counts, "summary": _markdown(shown.head(40))}


def _text_similarity(session: Session, result: StepResult) -> Metadata:
    scores = _read(session, result, "text_scores")
    means = scores.group_by("term", maintain_order=True).agg(
        pl.col("probability").mean().alias("mean probability"),
        pl.col("cosine").mean().alias("mean cosine"),
        pl.col("cosine").max().alias("max cosine"),
    )
    return {"dagster/partition_row_count": len(scores), "terms": len(means), "scores": _markdown(means)}


def _predictions(session: Session, result: StepResult) -> Metadata:
    rows = _read(session, result, "predictions")
    best = rows.sort("probability", descending=True).unique("tile_id", keep="first")
    counts = best.group_by("class").agg(pl.len().alias("tiles")).sort("tiles", "class", descending=[True, False])
    return {"dagster/partition_row_count": len(rows), "tiles": len(best), "most_probable": _markdown(counts.head(40))}


_DESCRIBERS = {
    Step.SLIDE: _slide,
    Step.TISSUE: _tissue,
    Step.TILES: _tiles,
    Step.EMBEDDINGS: _embeddings,
    Step.SLIDE_VECTOR: _slide_vector,
    Step.SPATIAL_DOMAINS: _spatial_domains,
    Step.TEXT_SIMILARITY: _text_similarity,
    Step.PREDICTIONS: _predictions,
}


def _read(session: Session, result: StepResult, table: str) -> pl.DataFrame:
    recipe, tiling = result.node.recipe, result.node.tiling
    assert tiling is not None
    part = tiling.name if recipe is None else recipe_part(recipe)
    frame = session.tables.read(table, result.slide_id, part)
    return frame if frame is not None else table_spec(table).empty()


def _row(session: Session, result: StepResult) -> Mapping[str, Any] | None:
    assert result.node.recipe is not None
    return embeddings_row(session, result.slide_id, result.node.recipe)


def _markdown(frame: pl.DataFrame) -> dg.MarkdownMetadataValue:
    """A frame as a Markdown table; a bar or a line break in a term must not end its cell."""
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + " --- |" * len(frame.columns)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in frame.iter_rows()]
    return dg.MetadataValue.md("\n".join(lines))


def _cell(value: Any) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _pictures(session: Session, result: StepResult) -> Metadata:
    from pathassets.figures.slide_pictures import picture, write_page

    metadata: Metadata = {}
    markdown = picture(session, result.slide_id, result.node)
    if markdown:
        metadata["preview"] = dg.MetadataValue.md(markdown)
    if result.node.step in (Step.SPATIAL_DOMAINS, Step.TEXT_SIMILARITY) and result.node.recipe is not None:
        page = write_page(session, result.slide_id, result.node.recipe)
        if page is not None:
            url = page if "://" in page else Path(page).as_uri()
            metadata |= {"interactive": dg.MetadataValue.url(url), "page": dg.MetadataValue.path(page)}
    return metadata


def terms(result: Terms) -> Metadata:
    """What is shown of term embeddings."""
    unknown = {term: list(words) for term, words in zip(result.terms, result.unknown_words, strict=True) if words}
    return {
        "dagster/row_count": len(result.terms),
        "logit_scale": result.logit_scale,
        "unknown_words": dg.MetadataValue.json(unknown),
    }


def slide_map(session: Session, recipe: Recipe, result: SlideMap) -> Metadata:
    """What is shown of a slide map."""
    from pathassets.figures.slide_pictures import map_picture

    metadata: Metadata = {"dagster/row_count": result.n_slides * len(result.methods), "slides": result.n_slides}
    markdown = map_picture(session, recipe)
    return metadata | ({"preview": dg.MetadataValue.md(markdown)} if markdown else {}) | atlas(session, recipe)


def cohort_map(session: Session, recipe: Recipe, result: CohortMap, mosaic: StoredMosaic | None) -> Metadata:
    """What is shown of a cohort map."""
    metadata: Metadata = {
        "dagster/row_count": result.n_tiles, "slides": result.n_slides, "tiles": result.n_tiles, "method": result.method,
        "left_out": dg.MetadataValue.json(list(result.left_out)),
    }  # fmt: skip
    if mosaic is not None:
        from pathassets.figures.cohort_pictures import mosaic_preview

        metadata |= {"cells": len(mosaic.cells), "cells_unread": mosaic.unread}
        metadata["preview"] = dg.MetadataValue.md(mosaic_preview(mosaic))
    return metadata | atlas(session, recipe)


def atlas(session: Session, recipe: Recipe) -> Metadata:
    """Where the dashboard shows the cohort by a recipe."""
    base = session.study.dashboard_url
    return {"dashboard": dg.MetadataValue.url(links.dashboard_atlas(base, recipe.key))} if base else {}


def reports(session: Session, result: Reports) -> Metadata:
    """What is shown of a study's reports: where they are, and the map of slides that stands in them."""
    from pathassets.figures.slide_pictures import map_picture

    metadata: Metadata = {
        "path": dg.MetadataValue.path(str(result.path)),
        "open": dg.MetadataValue.url(result.path.as_uri()),
        "slides": result.slides,
        "written": len(result.written),
        "left_out": dg.MetadataValue.json(result.left_out),
        "size_bytes": result.path.stat().st_size,
    }
    pictures = (map_picture(session, recipe) for recipe in session.study.recipes)
    markdown = next(filter(None, pictures), None)
    return metadata | ({"preview": dg.MetadataValue.md(markdown)} if markdown else {})


def export(result: Kept) -> Metadata:
    """What is shown of an export: where its files are, how many are new, what is not among them."""
    return {
        "path": dg.MetadataValue.path(str(result.path)),
        "slides": result.slides,
        "files": result.files,
        "written": len(result.written),
        "left_out": dg.MetadataValue.json(result.left_out),
    }


def snapshot(result: Published) -> Metadata:
    """What is shown of the snapshot."""
    counts = pl.DataFrame({"table": list(result.rows), "rows": list(result.rows.values())})
    return {
        "path": dg.MetadataValue.path(str(result.path)),
        "changed": result.changed,
        "size_bytes": result.path.stat().st_size,
        "tables": _markdown(counts),
        "skipped": dg.MetadataValue.json(result.skipped),
    }
