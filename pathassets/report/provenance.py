"""Provenance: what made the results, as sections that can be followed: from a result to the results that it was made from.

Belongs here: those sections. Does not belong: judging whether results are current (`steps/`, `pathassets explain`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import polars as pl

from pathassets import __version__
from pathassets.exports.places import Places
from pathassets.report.page import Cell, Section, Table, facts
from pathassets.steps.session import Session
from pathassets.store.census import readable

# Options, libraries and the manifest's row say what they say elsewhere, at length.
_LEFT_OUT = ("manifest", "file_is_there")
UNTRAINED = "The weights are untrained: nothing here means anything."
_NOTE = (
    "Each step names under `made from` the results of the steps before it, files and weights; "
    "`recorded as` is the digest of all that and of the options. `pathassets explain` tells more."
)


def steps_made(outcomes: pl.DataFrame, places: Places) -> Section:
    """Each step of one slide with its result's digest, which is what the steps after it name."""
    columns = ("step", "recipe", "written", "result", "made from", "recorded as", "version")
    rows = [
        [
            Cell(row["step"]), Cell(row["recipe"] or row["tiling"]), Cell(moment(row["created_at"])),
            Cell(row["result_digest"] or row["digest"], code=True), Cell(_inputs(row["inputs"], places), code=True),
            Cell(row["digest"], code=True), Cell(row["pathassets_version"]),
        ]
        for row in outcomes.iter_rows(named=True)
    ]  # fmt: skip
    return Section("What made it", _NOTE, Table(columns, rows))


def study_made(session: Session, outcomes: pl.DataFrame, embeddings: pl.DataFrame) -> Iterator[Section]:
    """What all results of a study have in common: recipes, weights, versions, when they were made."""
    named = {
        "versions of pathassets": _counted(outcomes["pathassets_version"].to_list()),
        "first result": moment(outcomes["created_at"].min()),
        "last result": moment(outcomes["created_at"].max()),
        "report by": f"pathassets {__version__}",
        "libraries": _libraries(embeddings),
    }
    yield Section("What made it", "", facts(named))
    yield Section("Recipes", table=_recipes(session, embeddings), level=3)
    yield from _encoders(session, set(embeddings["encoder"].drop_nulls()))


def _recipes(session: Session, embeddings: pl.DataFrame) -> Table:
    places, rows = Places(session), []
    known = {recipe.key: recipe for recipe in session.study.recipes}
    for key in sorted({*known, *embeddings["recipe"]}):
        of = embeddings.filter(pl.col("recipe") == key)
        encoders = of["encoder"].drop_nulls().unique().sort().to_list() or [known[key].encoder]
        rows.append([
            Cell(key), Cell(", ".join(map(places.told, encoders))), Cell(len(of)), Cell(int(of["n_tiles"].sum())),
            Cell(_counted(of["tile_px"].to_list())), Cell(_counted([f"{mpp:.4g}" for mpp in of["mpp"].drop_nulls()])),
            Cell("\n".join(of["weights_sha256"].drop_nulls().unique().sort()), code=True),
            Cell(_counted(of["code_version"].to_list()), code=True),
        ])  # fmt: skip
    columns = ("recipe", "encoder", "slides", "tiles", "tile, px", "µm per px", "weights, sha256", "code version")
    return Table(columns, rows)


def _encoders(session: Session, used: set[str]) -> Iterator[Section]:
    named = used | {recipe.encoder for recipe in session.study.recipes}
    cards = readable(session.tables, "encoders").filter(pl.col("name").is_in(list(named)))
    columns = ("encoder", "numbers per tile", "what it is", "licence", "citation")
    rows = [
        [Cell(row[name]) for name in ("name", "dim", "description", "licence", "citation")] for row in cards.to_dicts()
    ]
    if rows:
        yield Section("Encoders", table=Table(columns, rows), level=3)


def _libraries(embeddings: pl.DataFrame) -> str:
    """Name and versions of the libraries that made the embeddings."""
    found: dict[str, set[str]] = {}
    for text in embeddings["libraries"].drop_nulls().unique():
        for name, version in json.loads(text).items():
            found.setdefault(name, set()).add(str(version))
    return ", ".join(f"{name} {' and '.join(sorted(versions))}" for name, versions in sorted(found.items()))


def _counted(values: list[Any]) -> str:
    """`0.1.0`, or `0.1.0 (3), 0.2.0 (1)` where there are several."""
    counts = Counter(Cell(value).text for value in values if value is not None)
    if len(counts) < 2:
        return "".join(counts)
    return ", ".join(f"{value} ({count})" for value, count in sorted(counts.items()))


def moment(value: Any) -> str:
    """A time in words; empty for none."""
    return f"{value:%Y-%m-%d %H:%M:%S} UTC" if value is not None else ""


def _inputs(text: str | None, places: Places) -> str:
    named = places.plain(json.loads(text)) if text else {}
    shown = {name: value for name, value in named.items() if name not in _LEFT_OUT and value is not None}
    return "\n".join(f"{name} = {value}" for name, value in shown.items())
