"""Checks: which there are, and what they find for a slide whose result is there.

Belongs here: names, descriptions, where the numbers come from. Does not belong: thresholds (`core/checks.py`), refusing a
slide (a step fails by itself what must not go on), telling Dagster (`defs/checks.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from pathassets.core import checks
from pathassets.core.checks import Verdict
from pathassets.steps.chain import StepResult
from pathassets.steps.embedded import embeddings_row, open_embeddings, recipe_of, recipe_part
from pathassets.steps.nodes import Step
from pathassets.steps.session import Session
from pathassets.store.arrays import Embeddings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Check:
    """A check on each slide's result of a step.

    Attributes:
        name: `[a-z_]+`.
        step: Whose result.
        contradiction: Whether a result that fails it contradicts itself and should never have been stored. Otherwise it is
            what was asked for, usable, and deserves a look.
        description: What is checked, the threshold, and why there.
    """

    name: str
    step: Step
    contradiction: bool
    description: str


CHECKS = (
    Check(
        "tissue_share",
        Step.TISSUE,
        False,
        f"Between {checks.TISSUE_SHARE[0]:.1%} and {checks.TISSUE_SHARE[1]:.0%} of the slide is tissue. A needle biopsy covers "
        "about 1%; less is mostly pale tissue that was missed, more is mostly background taken for tissue. Masks that were "
        "given, and slides taken whole, pass.",
    ),
    Check(
        "tile_count",
        Step.TILES,
        False,
        f"Between {checks.TILE_COUNT[0]} and {checks.TILE_COUNT[1]:,} tiles. Fewer cannot be grouped into domains; more than "
        "that no slide has at a resolution that is right.",
    ),
    Check(
        "precision_agreement",
        Step.EMBEDDINGS,
        False,
        f"On the slide's first tiles, embeddings in the precision used have a cosine of at least {checks.MIN_COSINE} with "
        "those in fp32. Sound networks keep 0.999 in bf16; below 0.99 nearest neighbours begin to change. The remedy is "
        'precision = "fp32" in [embeddings].',
    ),
    Check(
        "embeddings_finite",
        Step.EMBEDDINGS,
        True,
        "Every row of a tile that could be read holds numbers only; rows of unreadable tiles are NaN and marked so.",
    ),
    Check("embeddings_shape", Step.EMBEDDINGS, True, "One row for each tile, as long as the encoder's card says."),
    Check(
        "embeddings_norms",
        Step.EMBEDDINGS,
        False,
        f"No embedding is zero, and none is more than {checks.MAX_NORM_RATIO:g} times as long as the median one: it would "
        "outweigh all others in the slide's mean.",
    ),
    Check(
        "embeddings_digest",
        Step.EMBEDDINGS,
        True,
        "The row of `embeddings`, the Zarr group's marker, the recorded outcome and the tiles speak of one another.",
    ),
    Check(
        "domains_not_degenerate",
        Step.SPATIAL_DOMAINS,
        False,
        f"No domain holds more than {checks.MAX_DOMAIN_SHARE:.0%} of the tiles, and there are at least four tiles to a domain "
        "on average; otherwise the resolution does not fit the slide. Slides with fewer than "
        f"{checks.TILE_COUNT[0]} tiles pass.",
    ),
    Check(
        "probabilities_sum_to_one",
        Step.TEXT_SIMILARITY,
        True,
        f"Each tile's probabilities sum to one within {checks.MAX_SUM_ERROR:g}.",
    ),
    Check(
        "predictions_sum_to_one",
        Step.PREDICTIONS,
        True,
        f"Each tile's probabilities of all classes, as they lie beside the embeddings, sum to one within {checks.MAX_SUM_ERROR:g}.",
    ),
)


def checks_of(step: Step) -> list[Check]:
    """The checks on a step's results."""
    return [check for check in CHECKS if check.step is step]


def judge(session: Session, result: StepResult) -> list[tuple[Check, Verdict]]:
    """The verdicts on a slide's result that is there; what cannot be looked at does not pass."""
    wanted = checks_of(result.node.step)
    if not wanted:
        return []
    try:
        found = _JUDGES[result.node.step](session, result)
    except Exception as error:
        log.warning("%s of %s cannot be checked", result.node.key, result.slide_id, exc_info=error)
        found = {check.name: Verdict(False, f"cannot be checked: {error}") for check in wanted}
    nothing = Verdict(True, "there is nothing to check: the slide has no tiles")
    return [(check, found.get(check.name, nothing)) for check in wanted]


def _tissue(session: Session, result: StepResult) -> dict[str, Verdict]:
    pieces = _read(session, result, "tissues")
    row = session.slide_row(result.slide_id)
    slide_mm2 = row["width_px"] * row["height_px"] * row["mpp"] ** 2 / 1e6
    told = not pieces.is_empty() and pieces["method"][0] in ("file", "none")
    return {"tissue_share": checks.tissue_share(float(pieces["area_mm2"].sum()), slide_mm2, found=not told)}


def _tiles(session: Session, result: StepResult) -> dict[str, Verdict]:
    return {"tile_count": checks.tile_count(len(_read(session, result, "tiles")))}


def _embeddings(session: Session, result: StepResult) -> dict[str, Verdict]:
    recipe = recipe_of(result.node)
    row = embeddings_row(session, result.slide_id, recipe)
    if row is None:
        return {}
    from pathassets.encoders import get_card

    embeddings = open_embeddings(session, row)
    n_tiles, card = row["n_tiles"], get_card(recipe.encoder, recipe.encoder_kwargs)
    return {
        "precision_agreement": checks.precision_agreement(row["precision_cosine"], row["precision_max_rel_error"]),
        "embeddings_shape": checks.embeddings_shape((embeddings.n_tiles, embeddings.dim), (n_tiles, card.dim)),
        "embeddings_digest": _one_digest(session, result, row, embeddings),
        **_rows(embeddings),
    }


def _rows(embeddings: Embeddings) -> dict[str, Verdict]:
    """One pass over the rows."""
    ok = embeddings.ok
    lengths = np.concatenate([np.linalg.norm(rows, axis=1) for rows in embeddings.iter_rows()])[ok]
    good = lengths[np.isfinite(lengths)]
    least, median, most = (float(f(good)) if good.size else float("nan") for f in (np.min, np.median, np.max))
    return {
        "embeddings_finite": checks.embeddings_finite(len(lengths) - len(good), int((~ok).sum())),
        "embeddings_norms": checks.embeddings_norms(least, median, most),
    }


def _one_digest(session: Session, result: StepResult, row: dict[str, Any], embeddings: Embeddings) -> Verdict:
    tiles = session.tables.read("tiles", result.slide_id, recipe_of(result.node).tiling.name)
    assert result.outcome is not None
    found = {"row": row["digest"], "outcome": result.outcome.result_digest, "tiles": row["tiles_digest"]}
    now = tiles["digest"][0] if tiles is not None and len(tiles) else None
    return checks.same_digest(found, {"row": embeddings.digest, "outcome": embeddings.digest, "tiles": now})


def _spatial_domains(session: Session, result: StepResult) -> dict[str, Verdict]:
    summary = _read(session, result, "domain_summary")
    if summary.is_empty():
        return {}
    groups = summary.group_by("variant", maintain_order=True)
    sizes = {str(variant): frame["n_tiles"].to_list() for (variant,), frame in groups}
    return {"domains_not_degenerate": checks.domains_not_degenerate(sizes)}


def _text_similarity(session: Session, result: StepResult) -> dict[str, Verdict]:
    scores = _read(session, result, "text_scores")
    if scores.is_empty():
        return {}
    sums = scores.group_by("tile_id").agg(pl.col("probability").cast(pl.Float64).sum())["probability"].to_numpy()
    return {"probabilities_sum_to_one": checks.sums_to_one(float(np.abs(sums - 1).max()))}


def _predictions(session: Session, result: StepResult) -> dict[str, Verdict]:
    row = embeddings_row(session, result.slide_id, recipe_of(result.node))
    if row is None:
        return {}
    embeddings = open_embeddings(session, row)
    sums = np.concatenate([rows.sum(axis=1) for rows in embeddings.iter_predictions()])[embeddings.ok]
    return {"predictions_sum_to_one": checks.sums_to_one(float(np.abs(sums - 1).max(initial=0)))}


_JUDGES: dict[Step, Callable[[Session, StepResult], dict[str, Verdict]]] = {
    Step.TISSUE: _tissue,
    Step.TILES: _tiles,
    Step.EMBEDDINGS: _embeddings,
    Step.SPATIAL_DOMAINS: _spatial_domains,
    Step.TEXT_SIMILARITY: _text_similarity,
    Step.PREDICTIONS: _predictions,
}


def _read(session: Session, result: StepResult, table: str) -> pl.DataFrame:
    node = result.node
    part = (
        recipe_part(node.recipe) if node.recipe is not None else node.tiling.name if node.tiling is not None else None
    )
    frame = session.tables.read(table, result.slide_id, *([part] if part else []))
    assert frame is not None  # the step's outcome says that it is there
    return frame
