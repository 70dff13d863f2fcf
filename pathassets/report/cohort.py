"""A study's report: its slides side by side, what deserves a look, how slides lie to each other, what made it all.

Belongs here: which sections a study has, in which order, and what each recipe shows. Does not belong: the page (`page`), rows of
slides (`cohort_slides`), tiles of many slides (`cohort_tiles`), what made it (`provenance`), a slide's report (`slide`).
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from pathassets import __version__
from pathassets.errors import ConfigError
from pathassets.figures import images
from pathassets.figures.cohort_pictures import read_mosaic
from pathassets.figures.named_map import named_map
from pathassets.recipes import Recipe
from pathassets.report.cohort_slides import domains, quality, slides
from pathassets.report.cohort_tiles import tiles_of_domains, tiles_of_terms
from pathassets.report.page import Picture, Section, html
from pathassets.report.problems import problems
from pathassets.report.provenance import UNTRAINED, moment, study_made
from pathassets.steps.embedded import recipe_part
from pathassets.steps.naming import slide_ids
from pathassets.steps.session import Session
from pathassets.store.census import readable

MOSAIC_PX, MOSAIC_BYTES = 960, 250_000
NAMED = 12


def cohort_report(session: Session) -> str:
    """One HTML file about a study; of a large one some slides' pictures and rows are left out, and it says so.

    Raises:
        ConfigError: There are no slides.
    """
    ids = slide_ids(session)
    if not ids:
        raise ConfigError("there are no slides in this study", remedy="Add some with `pathassets run PATH`.")
    outcomes, embeddings = readable(session.tables, "outcomes"), readable(session.tables, "embeddings")
    sections = [slides(session, ids, outcomes), problems(session, outcomes, of_many=True), quality(session, ids)]
    for recipe in session.study.recipes:
        sections += _recipe(session, recipe, embeddings.filter(pl.col("recipe") == recipe.key))
    sections += study_made(session, outcomes, embeddings)
    when = moment(outcomes["created_at"].max())
    lead = f"{len(ids)} slides, as of {when or 'now'}, by pathassets {__version__}. Not for diagnosis."
    return html(f"Study {session.study.name}", sections, lead)


def _recipe(session: Session, recipe: Recipe, embeddings: pl.DataFrame) -> Iterator[Section]:
    mixed = embeddings["weights_sha256"].drop_nulls().n_unique() > 1
    note = "Slides were made with different weights: their vectors do not compare." if mixed else ""
    untrained = UNTRAINED if recipe.random_weights else ""
    yield Section(recipe.key, " ".join(filter(None, (untrained, note))))
    maps = [*_slide_maps(session, recipe), *_mosaic(session, recipe)]
    if maps:
        yield Section("Slides and tiles on a map", "Only distances mean something.", pictures=maps, level=3)
    yield from domains(session, recipe)
    yield from tiles_of_domains(session, recipe, embeddings)
    yield from tiles_of_terms(session, recipe, embeddings)


def _slide_maps(session: Session, recipe: Recipe) -> Iterator[Picture]:
    points = session.tables.read("slide_map", None, recipe_part(recipe))
    if points is None:
        return
    for (method,), of in points.group_by("method", maintain_order=True):
        image, unnamed = named_map(of, str(method))
        more = f" and {len(unnamed) - NAMED} more" if len(unnamed) > NAMED else ""
        left = f"; no room for the names of {', '.join(unnamed[:NAMED])}{more}" if unnamed else ""
        yield Picture(image, f"slides by their vectors, {method}{left}")


def _mosaic(session: Session, recipe: Recipe) -> Iterator[Picture]:
    """Tiles of all slides where they lie on the cohort map: the mosaic, or where it was not made, points."""
    points = session.tables.read("cohort_map", None, recipe_part(recipe))
    found = read_mosaic(session, recipe.key)
    if points is None or points.is_empty():
        return
    if found is not None and found.digest == points["digest"][0]:
        image = images.encode(images.shrink(found.pixels, MOSAIC_PX), MOSAIC_BYTES)
        yield Picture(image, f"{len(points)} tiles of {points['slide_id'].n_unique()} slides, alike beside alike")
        return
    image, _ = named_map(points.with_columns(slide_id=pl.lit("")), f"{points['method'][0]}, tiles", point_px=1)
    yield Picture(image, f"{len(points)} tiles of {points['slide_id'].n_unique()} slides; no mosaic was made of them")
