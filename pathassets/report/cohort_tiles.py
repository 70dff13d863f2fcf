"""Tiles of many slides: those of the whole study that look most like a term, and one for a domain from each of several slides.

Belongs here: choosing them, reading each slide once. Does not belong: one slide's tiles (`crops`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import polars as pl

from pathassets.errors import PathassetsError
from pathassets.exports.gather import SlideFeatures, gather
from pathassets.recipes import Recipe
from pathassets.report.asking import asked
from pathassets.report.crops import SHOWN, crops, nearest_to_mean
from pathassets.report.page import Picture, Section
from pathassets.steps.session import Session
from pathassets.store.census import readable

MAX_GROUPS = 16
"""Terms, and labels of domains, of which tiles are shown."""


def tiles_of_terms(session: Session, recipe: Recipe, embeddings: pl.DataFrame) -> Iterator[Section]:
    """The tiles of all slides that look most like each term."""
    of = pl.col("recipe") == recipe.key
    terms = asked(session, "text_scores", lambda rows: rows.filter(of).select("term").unique().sort("term"))["term"]
    if len(terms):
        note = _note("its probability among the terms asked for, not of a finding", terms.to_list())
        yield Section("Terms", note, level=3)
    wanted = {term: _best(session, term, of, embeddings) for term in terms.head(MAX_GROUPS)}
    pictures = _by_term(session, recipe, wanted)
    for term in wanted:
        yield Section(f"Tiles of all slides that look most like: {term}", pictures=pictures.get(term, []), level=3)


def _best(session: Session, term: str, of: pl.Expr, embeddings: pl.DataFrame) -> list[tuple[str, int, float]]:
    """Slide, tile, probability; scores of older embeddings speak of other numbers."""
    current = embeddings.select("slide_id", embeddings_digest="digest").lazy()
    by = ["probability", "slide_id", "tile_id"]
    found = asked(
        session,
        "text_scores",
        lambda rows: (
            rows.filter(of & (pl.col("term") == term) & pl.col("probability").is_finite())
            .join(current, on=["slide_id", "embeddings_digest"], how="semi")
            .top_k(SHOWN, by=by, reverse=[False, True, True])
            .sort(by, descending=[True, False, False])
        ),
    )
    return list(found.select("slide_id", "tile_id", "probability").iter_rows())


def _by_term(
    session: Session, recipe: Recipe, wanted: dict[str, list[tuple[str, int, float]]]
) -> dict[str, list[Picture]]:
    """Pictures by term in their order; each slide is opened once, and one that cannot be is left out."""
    slides = sorted({slide for rows in wanted.values() for slide, _, _ in rows})
    found: dict[tuple[str, int, str], Picture] = {}
    for slide_id in slides:
        with suppress(PathassetsError):
            features = gather(session, slide_id, recipe)
            row_of = {tile: row for row, tile in enumerate(features.tiles["tile_id"])}
            with session.open_slide(slide_id) as slide:
                for term, rows in wanted.items():
                    for of, tile, score in rows:
                        if of == slide_id and tile in row_of:
                            for picture in crops(slide, features, [(row_of[tile], score)]):
                                found[of, tile, term] = _of(picture, slide_id)
    return {
        term: [found[slide, tile, term] for slide, tile, _ in rows if (slide, tile, term) in found]
        for term, rows in wanted.items()
    }


def tiles_of_domains(session: Session, recipe: Recipe, embeddings: pl.DataFrame) -> Iterator[Section]:
    """For each label the slides that have most of it, and of each the tile nearest to the mean of its domain."""
    summary = readable(session.tables, "domain_summary").filter(pl.col("recipe") == recipe.key)
    current = embeddings.select("slide_id", embeddings_digest="digest")
    summary = summary.join(current, on=["slide_id", "embeddings_digest"], how="semi")
    if summary.is_empty():
        return
    variant = summary.sort("variant")["variant"][0]
    of = summary.filter(pl.col("variant") == variant).sort(
        ["share", "slide_id", "domain"], descending=[True, False, False]
    )
    labels = sorted(of["label"].unique().to_list(), key=lambda label: label or "")
    wanted = {label: of.filter(of["label"].eq_missing(label)).unique("slide_id", keep="first", maintain_order=True).head(SHOWN)
              for label in labels[:MAX_GROUPS]}  # fmt: skip
    yield Section(
        f"Domains across slides ({variant})", _note("its cosine with the mean of its slide's domain", labels), level=3
    )
    pictures = _by_domain(session, recipe, str(variant), wanted)
    for label, rows in wanted.items():
        shown = [pictures[key] for key in rows.select("slide_id", "domain").iter_rows() if key in pictures]
        yield Section(f"{variant}: {label or 'domains without a label'}", pictures=shown, level=3)


def _by_domain(
    session: Session, recipe: Recipe, variant: str, wanted: dict[str | None, pl.DataFrame]
) -> dict[tuple[str, int], Picture]:
    keys = sorted({key for rows in wanted.values() for key in rows.select("slide_id", "domain").iter_rows()})
    found: dict[tuple[str, int], Picture] = {}
    for slide_id in sorted({slide for slide, _ in keys}):
        with suppress(PathassetsError):
            features = gather(session, slide_id, recipe)
            with session.open_slide(slide_id) as slide:
                for of, domain in keys:
                    if of == slide_id and variant in features.domains:
                        for picture in crops(slide, features, _nearest(features, variant, domain)):
                            found[of, domain] = _of(picture, slide_id)
    return found


def _nearest(features: SlideFeatures, variant: str, domain: int) -> list[tuple[int, float]]:
    of = features.domains[variant]["domain"]
    return nearest_to_mean(features, of, domain)[:1] if (of == domain).any() else []


def _of(picture: Picture, slide_id: str) -> Picture:
    return replace(picture, caption=f"{slide_id}, {picture.caption}")


def _note(what: str, groups: list[str]) -> str:
    left = len(groups) - MAX_GROUPS
    more = f" The first {MAX_GROUPS} of {len(groups)} are shown." if left > 0 else ""
    return f"Below a tile: its slide, its number, {what}. Tiles whose slide cannot be opened now are left out.{more}"
