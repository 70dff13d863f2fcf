"""Rows of a study's report, one for each slide: picture, labels, size, quality, domains.

Belongs here: those tables, and how many rows and pictures they may have. Does not belong: tiles (`cohort_tiles`), the maps (`cohort`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from pathassets.core import palette
from pathassets.core.qc import INKED
from pathassets.errors import Reason, StoreError
from pathassets.exports.pictures import tissue_image
from pathassets.exports.places import Places
from pathassets.figures import images, overlays
from pathassets.figures.rulers import um_per_px, with_ruler
from pathassets.figures.slide_pictures import domains_painted, load_thumbnail
from pathassets.recipes import Recipe
from pathassets.report.asking import asked
from pathassets.report.labels import labels
from pathassets.report.page import Cell, Section, Table, percent
from pathassets.steps.session import Session
from pathassets.store.census import readable

# A report of a thousand slides has every slide's row, and stays below 10 MB.
MAX_PICTURES = 200
MAX_ROWS = 1000
MAX_DOMAIN_ROWS = 300
PICTURE_PX, PICTURE_BYTES = 144, 5_000
# A tile is called blurred where it is less sharp than this part of the study's median: stains and scanners differ.
BLURRED = 0.1


def slides(session: Session, ids: list[str], outcomes: pl.DataFrame) -> Section:
    """Every slide with its picture under what was found on it, labels, size and worst status."""
    tissues = readable(session.tables, "tissues")
    area = dict(tissues.group_by("slide_id").agg(pl.col("area_mm2").sum()).iter_rows())
    rows = {row["slide_id"]: row for row in readable(session.tables, "slides").iter_rows(named=True)}
    status = {slide_id: _worst(frame) for (slide_id,), frame in outcomes.group_by("slide_id")}
    places, shown = Places(session), ids[:MAX_ROWS]
    said = {slide_id: labels(session, rows[slide_id], places) if slide_id in rows else {} for slide_id in shown}
    names = list(dict.fromkeys(name for found in said.values() for name in found))
    cells = [
        [
            Cell(slide_id, picture=_picture(session, slide_id) if i < MAX_PICTURES else None),
            *(Cell(said[slide_id].get(name)) for name in names),
            Cell(rows.get(slide_id, {}).get("mpp")), Cell(area.get(slide_id)), Cell(status.get(slide_id, "not made yet")),
        ]
        for i, slide_id in enumerate(shown)
    ]  # fmt: skip
    note = " ".join(
        filter(None, (_left_out(len(ids), MAX_PICTURES, "pictures"), _left_out(len(ids), MAX_ROWS, "rows")))
    )
    return Section("Slides", note, Table(("slide", *names, "µm per px", "tissue, mm²", "status"), cells))


def quality(session: Session, ids: list[str]) -> Section:
    """Tiles of each slide and how many of them are inked or blurred."""
    middle = asked(
        session, "tiles", lambda tiles: tiles.group_by("tiling").agg(limit=pl.col("sharpness").median() * BLURRED)
    )
    counted = asked(session, "tiles", lambda tiles: _counted(tiles, middle))
    counted = counted.filter(pl.col("slide_id").is_in(ids)).sort("slide_id", "tiling")
    cells = [
        [Cell(slide), Cell(tiling), Cell(n), Cell(percent(inked)), Cell(percent(blurred)), Cell(sharpness)]
        for slide, tiling, n, inked, blurred, sharpness in counted.head(MAX_ROWS).iter_rows()
    ]
    note = (
        f"Inked: more than {INKED:.0%} of a tile is pen. Blurred: less sharp than {BLURRED:.0%} of the study's median tile. "
        + _left_out(len(counted), MAX_ROWS, "rows")
    )
    columns = ("slide", "tiling", "tiles", "inked, %", "blurred, %", "sharpness, median")
    return Section("Quality", note.rstrip(), Table(columns, cells))


def _counted(tiles: pl.LazyFrame, middle: pl.DataFrame) -> pl.LazyFrame:
    joined = tiles.select("slide_id", "tiling", "pen_share", "sharpness").join(middle.lazy(), on="tiling")
    return joined.group_by("slide_id", "tiling").agg(
        pl.len().alias("tiles"),
        (pl.col("pen_share") > INKED).mean().alias("inked"),
        (pl.col("sharpness") < pl.col("limit")).mean().alias("blurred"),
        pl.col("sharpness").median(),
    )


def domains(session: Session, recipe: Recipe) -> Iterator[Section]:
    """The domains of each slide, a table for each variant."""
    summary = readable(session.tables, "domain_summary").filter(pl.col("recipe") == recipe.key)
    summary = summary.sort("slide_id", "variant", "domain")
    for (variant,), frame in summary.group_by("variant", maintain_order=True):
        rows = [_domain(row) for row in frame.head(MAX_DOMAIN_ROWS).iter_rows(named=True)]
        columns = ("slide", "domain", "tiles", "share of tiles, %", "contiguity, %", "pieces")
        note = _left_out(len(frame), MAX_DOMAIN_ROWS, "rows")
        yield Section(f"Domains of each slide ({variant})", note, Table(columns, rows), level=3)


def _domain(row: dict[str, Any]) -> list[Cell]:
    title = overlays.domain_title(row["domain"], {row["domain"]: row["label"]})
    return [Cell(row["slide_id"]), Cell(title, palette.domain_colour(row["domain"])), Cell(row["n_tiles"]),
            Cell(percent(row["share"])), Cell(percent(row["contiguity"])), Cell(row["n_pieces"])]  # fmt: skip


def _picture(session: Session, slide_id: str) -> bytes | None:
    """The slide under its domains; under its tissue where there are none. One whose tables are damaged has no picture."""
    try:
        return _painted(session, slide_id)
    except StoreError as error:
        if error.reason is not Reason.STORE_CORRUPT:
            raise
        return None


def _painted(session: Session, slide_id: str) -> bytes | None:
    rgb = load_thumbnail(session, slide_id)
    if rgb is None:
        return None
    small = images.shrink(rgb, PICTURE_PX)
    painted = (domains_painted(session, slide_id, recipe, small) for recipe in session.study.recipes)
    found = next((picture for picture in painted if picture is not None), None)
    if found is None:
        outlined = tissue_image(session, slide_id, rgb, PICTURE_PX)
        return images.encode(small if outlined is None else outlined, PICTURE_BYTES)
    row = session.slide_row(slide_id)
    return images.encode(with_ruler(found, um_per_px(row["mpp"], row["width_px"], rgb, PICTURE_PX)), PICTURE_BYTES)


def _left_out(count: int, most: int, what: str) -> str:
    return (
        f"The first {most} of {count} {what} are shown; the slides' own reports and `pathassets export csv` have all."
        if count > most
        else ""
    )


def _worst(outcomes: pl.DataFrame) -> str:
    found = set(outcomes["status"])
    return next((status for status in ("failed", "empty", "flagged") if status in found), "ok")
