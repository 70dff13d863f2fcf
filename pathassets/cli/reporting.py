"""Commands that only look: status, outcomes, sql, encoders.

Belongs here: turning stored rows into what a terminal or a program reads. Does not belong: changing anything.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from pathassets.cli.console import no_slides, print_json, print_rows, say
from pathassets.config import Study
from pathassets.errors import UnknownEncoderError
from pathassets.exports.tables import flat
from pathassets.steps.nodes import chain
from pathassets.steps.outcomes import known_outcomes
from pathassets.steps.session import Session
from pathassets.store.index import indexed

if TYPE_CHECKING:
    from pathassets.encoders.card import Card

_TILE_COLUMNS = ("name", "dim", "tile_px", "mpp", "params_m", "pooling", "licence", "gated", "weights")
_SLIDE_COLUMNS = ("name", "dim", "takes", "tile_px", "mpp", "params_m", "licence", "gated", "weights")
_NAMES = {"tiling": pl.String, "recipe": pl.String, "step": pl.String}


def print_status(study: Study, *, as_json: bool) -> int:
    """A line for each slide: its file and what became of each asset. Exit code 1 when something failed."""
    session = Session(study)
    slides = indexed(session.tables, "slides", ("slide_id", "path"), remember=False)
    found = {
        (row["slide_id"], row["tiling"], row["recipe"], row["step"]): row
        for row in known_outcomes(session).iter_rows(named=True)
    }
    rows = []
    for slide_id, path in slides.iter_rows():
        row: dict[str, Any] = {"slide_id": slide_id}
        for node in chain(study):
            outcome = found.get((slide_id, *node.names))
            untrained = node.recipe is not None and node.recipe.random_weights
            row["/".join(node.key)] = _short(outcome) + (" (random weights)" if outcome and untrained else "")
        rows.append({**row, "path": path})
    if as_json:
        print_json(rows)
    elif not rows:
        say(no_slides(study.home))
    else:
        print_rows(rows, list(rows[0]))
    asked = {node.names for node in chain(study)}
    return 1 if any(key[1:] in asked and row["status"] == "failed" for key, row in found.items()) else 0


def _short(outcome: dict[str, Any] | None) -> str:
    if outcome is None:
        return "missing"
    return outcome["status"] if outcome["reason"] is None else f"{outcome['status']}: {outcome['reason']}"


def print_outcomes(study: Study, *, everything: bool, as_json: bool) -> int:
    """What is not plainly ok, with reason and remedy. Exit code 1 when something failed."""
    asked = pl.DataFrame([node.names for node in chain(study)], schema=_NAMES, orient="row")
    session = Session(study)
    outcomes = known_outcomes(session).join(asked, on=list(_NAMES), how="semi", nulls_equal=True)
    slides = indexed(session.tables, "slides", ("slide_id", "path"), remember=False)
    shown = outcomes if everything else outcomes.filter(pl.col("reason").is_not_null())
    shown = shown.join(slides, on="slide_id", how="left").sort("slide_id", "tiling", "recipe", "step")
    columns = ["slide_id", "path", "recipe", "step", "status", "reason", "message", "remedy"]
    if as_json:
        print_json(shown.select(columns).to_dicts())
    elif shown.is_empty():
        say(no_slides(study.home) if slides.is_empty() else "all is well")
    else:
        print_rows(shown.to_dicts(), columns)
    return 1 if (outcomes["status"] == "failed").any() else 0


def print_query(study: Study, query: str, output: str) -> None:
    """The answer of `results.duckdb` to one SELECT."""
    from pathassets.store.query import query as ask

    frame = ask(study.home, query, root=Session(study).root)
    if output == "csv":
        sys.stdout.write(flat(frame).write_csv())
    elif output == "json":
        print_json(frame.to_dicts())
    elif frame.is_empty():
        say("no rows")
    else:
        print_rows(frame.to_dicts(), frame.columns)


def print_encoders(name: str | None, *, as_json: bool) -> None:
    """Cards, and whether their weights are on this machine."""
    from pathassets.encoders import list_cards
    from pathassets.encoders.registry import broken_plugins
    from pathassets.encoders.slide import list_slide_cards

    if name:
        rows = [_card_row(card) for card in _cards_called(name)]
    else:
        rows = [_card_row(card) for card in [*list_cards(), *list_slide_cards()]]
    if as_json:
        print_json(rows)
    elif name:
        for row in rows:
            for field, value in row.items():
                say(f"{field:15} {'' if value is None else ' → '.join(value) if field == 'pipeline' else value}")
    else:
        print_rows([row for row in rows if row["kind"] == "tile"], _TILE_COLUMNS, title="Tile encoders")
        slides = [row | {"takes": ", ".join(row["takes"])} for row in rows if row["kind"] == "slide"]
        print_rows(slides, _SLIDE_COLUMNS, title="Slide encoders")
        for error in broken_plugins().values():
            say(f"warning: {error.message}. {error.remedy}")
        say(
            "`pathassets encoders NAME` shows a whole card; also by name: timm/resnet50, resnet50_imagenet, exported (docs/encoders.md)"
        )


def print_golden(home: Path, name: str, weights: Path | None, *, random_weights: bool, as_json: bool) -> int:
    """Records what an encoder gives for a drawn tile, or compares it with the record; exit code 1 when it gives other numbers."""
    from pathassets.encoders import load_encoder
    from pathassets.steps.golden import check_golden

    encoder = load_encoder(name, weights=weights, random_weights=random_weights, device="cpu", precision="fp32")
    found = check_golden(home, encoder)
    if as_json:
        print_json({**asdict(found), "is_same": found.is_same})
    elif found.is_new:
        say(f"recorded in {found.path}")
    else:
        how = "the same numbers" if found.is_same else "other numbers"
        say(f"{how} as in {found.path}: cosine {found.cosine:.6f}, relative error {found.max_rel_error:.2g}")
        for library, (then, now) in found.changes.items():
            say(f"{library}: {then} then, {now} now")
    return 0 if found.is_same else 1


def _cards_called(name: str) -> list[Card]:
    """The tile encoder and the slide encoder of a name: `chief` is both, in the words of others."""
    from pathassets.encoders import get_card
    from pathassets.encoders.slide import get_slide_card

    found: list[Card] = []
    try:
        found.append(get_slide_card(name))
    except UnknownEncoderError:
        return [get_card(name)]
    try:
        return [get_card(name), *found]
    except UnknownEncoderError:
        return found


def _card_row(card: Card) -> dict[str, Any]:
    """A card with its kind, its terms and whether it could be used now."""
    from pathassets.encoders import EncoderCard, weights_are_here
    from pathassets.encoders.slide import SlideCard, slide_weights_are_here

    if isinstance(card, SlideCard):
        here = "cannot run" if card.missing else _whether_here(slide_weights_are_here(card))
        return {"kind": "slide", **card.to_row(), "weights": here, "terms": card.terms}
    assert isinstance(card, EncoderCard)
    here = _whether_here(weights_are_here(card.name))
    return {"kind": "tile", **card.to_row(), "pipeline": list(card.pipeline), "weights": here, "terms": card.terms}


def _whether_here(here: bool) -> str:
    return "here" if here else "missing"
