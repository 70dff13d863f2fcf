"""A slide's report: what it is, where its tissue and domains lie, which tiles speak for what, what made it all.

Belongs here: the sections of one slide. Does not belong: the page (`page`), the study's report (`cohort`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import polars as pl

from pathassets import __version__
from pathassets.core import palette
from pathassets.core.qc import QC_COLUMNS
from pathassets.errors import PathassetsError, Reason, SlideError
from pathassets.exports.adopted import adopted_recipes
from pathassets.exports.gather import SlideFeatures, gather
from pathassets.exports.pictures import overlay_pictures, thumbnail_picture, tissue_picture
from pathassets.exports.places import Places, file_name
from pathassets.figures import overlays
from pathassets.figures.slide_pictures import load_thumbnail
from pathassets.recipes import Recipe
from pathassets.report.crops import best_of_term, crops, nearest_to_mean
from pathassets.report.labels import labels
from pathassets.report.page import Cell, Picture, Section, Table, facts, html, percent
from pathassets.report.problems import problems
from pathassets.report.provenance import UNTRAINED, steps_made
from pathassets.steps.embedded import recipe_part
from pathassets.steps.session import Session
from pathassets.steps.sources import is_unread

if TYPE_CHECKING:
    from pathassets.slides import Slide

_EMBEDDED = {
    "encoder": "encoder",
    "n_tiles": "tiles",
    "n_bad_tiles": "tiles that could not be read",
    "tile_px": "edge of a tile, px",
    "mpp": "µm per px of tiles",
    "dim": "numbers per tile",
    "precision": "computed in",
    "device": "on",
    "weights_sha256": "weights, sha256",
    "digest": "digest of the embeddings",
}
_CONTIGUITY = (
    "Contiguity: of all neighbours of a domain's tiles, how many lie in it too; tiles strewn at random have little."
)


def slide_report(session: Session, slide_id: str) -> str:
    """One HTML file about a slide.

    Raises:
        SlideError: `upstream_failed` when nothing was made of the slide yet.
    """
    row = session.slide_row(slide_id)
    outcomes = session.tables.scan("outcomes", slide_id).collect()
    if outcomes.is_empty():
        remedy = "`pathassets run` makes it."
        raise SlideError(f"there is nothing about {slide_id} yet", reason=Reason.UPSTREAM_FAILED, remedy=remedy)
    outcomes = outcomes.sort("created_at", nulls_last=True)
    with ExitStack() as stack:
        slide, why_not = _opened(session, slide_id, stack)
        sections = [*_about(session, slide_id, row), problems(session, outcomes)]
        for recipe in _recipes(session, slide_id):
            sections += _recipe(session, slide_id, recipe, slide, why_not)
        sections.append(_quality(session, slide_id))
        sections.append(steps_made(outcomes, Places(session)))
    lead = f"{session.study.name}, by pathassets {__version__}. Not for diagnosis."
    return html(f"Slide {slide_id}", sections, lead)


def _opened(session: Session, slide_id: str, stack: ExitStack) -> tuple[Slide | None, str]:
    """The slide for pictures of tiles; a report can do without."""
    try:
        return stack.enter_context(session.open_slide(slide_id)), ""
    except PathassetsError as error:
        return None, f"No pictures of tiles, because the slide cannot be opened now [{error.reason}]."


def _about(session: Session, slide_id: str, row: dict[str, Any]) -> Iterator[Section]:
    tissues = session.tables.read("tissues", slide_id)
    named = {
        "file": file_name(row["path"]), **labels(session, row),
        "vendor": row["vendor"], "width, px": row["width_px"], "height, px": row["height_px"], "µm per px": row["mpp"],
        "resolution from": row["mpp_origin"], "objective": row["objective_power"], "levels": row["n_levels"],
        "pieces of tissue": len(tissues) if tissues is not None else None,
        "tissue, mm²": float(tissues["area_mm2"].sum()) if tissues is not None else None,
        "tissue found by": tissues["method"][0] if tissues is not None and len(tissues) else None,
        "content, sha256": "never read" if is_unread(row) else row["content_sha256"],
    }  # fmt: skip
    rgb = load_thumbnail(session, slide_id)
    pictures = []
    if rgb is not None:
        pictures.append(Picture(thumbnail_picture(session, slide_id, rgb), "the slide"))
        outlined = tissue_picture(session, slide_id, rgb)
        pictures += [Picture(outlined, "tissue and its holes")] if outlined else []
    yield Section("The slide", table=facts(named), pictures=pictures)


def _recipes(session: Session, slide_id: str) -> list[Recipe]:
    """The study's recipes, and those of features that were adopted for this slide."""
    adopted = adopted_recipes(session, slide_id)
    here = [r for r in adopted if session.tables.exists("embeddings", slide_id, recipe_part(r))]
    return [*session.study.recipes, *here]


def _recipe(session: Session, slide_id: str, recipe: Recipe, slide: Slide | None, why_not: str) -> Iterator[Section]:
    try:
        features = gather(session, slide_id, recipe)
    except PathassetsError as error:
        yield Section(recipe.key, f"{error.message}.")
        return
    row, rgb = features.row, load_thumbnail(session, slide_id)
    named = {title: row[name] for name, title in _EMBEDDED.items()}
    untrained = UNTRAINED if row["random_weights"] else ""
    pictures = [Picture(image, name) for name, image in overlay_pictures(features, rgb)] if rgb is not None else []
    yield Section(recipe.key, untrained, facts(named), pictures)
    yield from _domains(session, features, slide, why_not)
    yield from _terms(features, slide)


def _domains(session: Session, features: SlideFeatures, slide: Slide | None, why_not: str) -> Iterator[Section]:
    summary = session.tables.read("domain_summary", features.slide_id, features.part)
    for variant, frame in features.domains.items():
        of = summary.filter(pl.col("variant") == variant) if summary is not None else None
        rows = of.sort("domain").to_dicts() if of is not None else []
        yield Section(f"Domains ({variant})", f"{_CONTIGUITY} {why_not}", _domain_table(rows), level=3)
        if slide is None:
            continue
        for row in rows:
            chosen = nearest_to_mean(features, frame["domain"], row["domain"])
            name = overlays.domain_title(row["domain"], {row["domain"]: row["label"]})
            title = f"{variant}: tiles nearest to the mean of domain {name}"
            yield Section(
                title, "Below a tile: its cosine with that mean.", pictures=crops(slide, features, chosen), level=3
            )


def _domain_table(rows: list[dict[str, Any]]) -> Table:
    columns = ("domain", "label", "tiles", "share of tiles, %", "contiguity, %", "pieces")
    cells = [
        [
            Cell(row["domain"], palette.domain_colour(row["domain"])), Cell(row["label"]), Cell(row["n_tiles"]),
            Cell(percent(row["share"])), Cell(percent(row["contiguity"])), Cell(row["n_pieces"]),
        ]
        for row in rows
    ]  # fmt: skip
    return Table(columns, cells)


def _terms(features: SlideFeatures, slide: Slide | None) -> Iterator[Section]:
    if slide is None:
        return
    if features.terms:
        yield Section(
            "Terms", "Below a tile: its probability among the terms asked for, which is not one of a finding.", level=3
        )
    for term in features.terms:
        found = crops(slide, features, best_of_term(features, term))
        yield Section(f"Tiles that look most like: {term}", pictures=found, level=3)


def _quality(session: Session, slide_id: str) -> Section:
    tiles = session.tables.scan("tiles", slide_id).collect()
    columns = ("tiling", "measure", "least", "median", "most", "what it is, and its unit")
    rows = []
    for (tiling,), frame in tiles.group_by("tiling", maintain_order=True):
        for name, what in QC_COLUMNS.items():
            values = frame[name].drop_nulls().drop_nans()
            if len(values):
                numbers = (values.min(), values.median(), values.max())
                rows.append([Cell(tiling), Cell(name.replace("_", " ")), *map(Cell, numbers), Cell(what)])
    return Section("Quality of the tiles", table=Table(columns, rows))
