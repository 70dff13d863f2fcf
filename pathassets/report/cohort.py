"""A study's report: its slides side by side, what deserves a look, how slides lie to each other, what made it all.

Belongs here: the sections of a study. Does not belong: the page (`page`), a slide's report (`slide`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from pathassets import __version__
from pathassets.core import palette
from pathassets.errors import ConfigError, StoreError
from pathassets.figures import images, overlays
from pathassets.figures.maps import slide_map_image
from pathassets.figures.slide_pictures import load_thumbnail
from pathassets.recipes import Recipe
from pathassets.report.page import Cell, Picture, Section, Table, facts, html, records
from pathassets.report.problems import problems
from pathassets.steps.embedded import recipe_part
from pathassets.steps.naming import slide_ids
from pathassets.steps.session import Session
from pathassets.store.census import readable

THUMBNAIL_PX = 96
THUMBNAIL_BYTES = 4_000


def cohort_report(session: Session) -> str:
    """One HTML file about a study.

    Raises:
        ConfigError: There are no slides.
    """
    ids = slide_ids(session)
    if not ids:
        raise ConfigError("there are no slides in this study", remedy="Add some with `pathassets run PATH`.")
    outcomes = readable(session.tables, "outcomes")
    sections = [_slides(session, ids, outcomes), problems(session, outcomes, of_many=True)]
    for recipe in session.study.recipes:
        sections += _recipe(session, recipe)
    sections += _encoders(session)
    lead = f"{len(ids)} slides, by pathassets {__version__}. Not for diagnosis."
    return html(f"Study {session.study.name}", sections, lead)


def _slides(session: Session, ids: list[str], outcomes: pl.DataFrame) -> Section:
    tissues = readable(session.tables, "tissues")
    area = dict(tissues.group_by("slide_id").agg(pl.col("area_mm2").sum()).iter_rows())
    tiles = _tiles(session)
    slides = {row["slide_id"]: row for row in readable(session.tables, "slides").iter_rows(named=True)}
    worst = {slide_id: _worst(frame) for (slide_id,), frame in outcomes.group_by("slide_id")}
    rows = []
    for slide_id in ids:
        row: dict[str, Any] = slides.get(slide_id, {})
        values = (row.get("mpp"), area.get(slide_id), tiles.get(slide_id), worst.get(slide_id, "not made yet"))
        rows.append([Cell(slide_id, picture=_small(session, slide_id)), *map(Cell, values)])
    return Section("Slides", table=Table(("slide", "µm per px", "tissue, mm²", "tiles", "status"), rows))


def _tiles(session: Session) -> dict[str, int]:
    """Tiles of each slide; millions of rows are counted without reading them, unless a file is damaged."""
    try:
        return dict(session.tables.scan("tiles").group_by("slide_id").len().collect().iter_rows())
    except (StoreError, pl.exceptions.PolarsError):
        return dict(readable(session.tables, "tiles").group_by("slide_id").len().iter_rows())


def _small(session: Session, slide_id: str) -> bytes | None:
    rgb = load_thumbnail(session, slide_id)
    return None if rgb is None else images.encode(images.shrink(rgb, THUMBNAIL_PX), THUMBNAIL_BYTES)


def _worst(outcomes: pl.DataFrame) -> str:
    found = set(outcomes["status"])
    return next((status for status in ("failed", "empty", "flagged") if status in found), "ok")


def _recipe(session: Session, recipe: Recipe) -> Iterator[Section]:
    points = session.tables.read("slide_map", None, recipe_part(recipe))
    pictures = []
    if points is not None and len(points):
        pictures = [
            Picture(slide_map_image(points, method), f"slides by their vectors, {method}")
            for method in points["method"].unique(maintain_order=True)
        ]
    of = pl.col("recipe") == recipe.key
    embeddings = readable(session.tables, "embeddings").filter(of)
    weights = embeddings["weights_sha256"].drop_nulls().unique().sort().to_list()
    named = {
        "encoder": recipe.encoder,
        "slides": len(embeddings),
        "tiles": embeddings["n_tiles"].sum(),
        "weights, sha256": ", ".join(weights),
    }
    mixed = "Slides were made with different weights: their vectors do not compare." if len(weights) > 1 else ""
    yield Section(recipe.key, mixed, facts(named), pictures)
    summary = readable(session.tables, "domain_summary").filter(of).sort("slide_id", "variant", "domain")
    for (variant,), frame in summary.group_by("variant", maintain_order=True):
        yield Section(f"Domains of each slide ({variant})", table=_domains(frame), level=3)


def _domains(frame: pl.DataFrame) -> Table:
    rows = [
        [
            Cell(row["slide_id"]), Cell(overlays.domain_title(row["domain"], {row["domain"]: row["label"]}),
            palette.domain_colour(row["domain"])), Cell(row["n_tiles"]), Cell(row["share"]), Cell(row["contiguity"]),
        ]
        for row in frame.iter_rows(named=True)
    ]  # fmt: skip
    return Table(("slide", "domain", "tiles", "share", "contiguity"), rows)


def _encoders(session: Session) -> Iterator[Section]:
    cards = readable(session.tables, "encoders")
    named = {recipe.encoder for recipe in session.study.recipes}
    used = cards.filter(pl.col("name").is_in(list(named))).to_dicts()
    columns = ("name", "dim", "description", "licence", "citation", "sha256")
    if used:
        yield Section("Encoders", table=records(used, columns))
