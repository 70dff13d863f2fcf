"""Step `embeddings`: a slide's tiles through the encoder into Zarr, resumed where it was interrupted.

Belongs here: choosing the plan, what happens when it does not hold (memory, overflow), publishing the row.
Does not belong: the stream from pixels to shards (`engine/`).
"""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

import polars as pl

from pathassets.engine import EmbedPlan, EmbedResult, PlanError, Settings, embed_slide
from pathassets.errors import Reason
from pathassets.recipes import digest
from pathassets.steps.chain import LOCK_TIMEOUT_SECONDS, Made
from pathassets.steps.embedded import embeddings_row, recipe_of, recipe_part
from pathassets.steps.nodes import Node
from pathassets.steps.outcomes import Status
from pathassets.steps.session import Session, made_by
from pathassets.steps.tiles import slide_tile_size
from pathassets.store.arrays import EmbeddingsWriter
from pathassets.store.groups import is_done, key_of

LIBRARIES = ("torch", "timm", "openslide-python", "openslide-bin", "tifffile", "imagecodecs", "zarr", "numpy")


def inputs(session: Session, slide_id: str, node: Node) -> tuple[Any, ...]:
    """The weights."""
    return (session.weights_sha256(recipe_of(node)),)


def is_stored(session: Session, slide_id: str, node: Node) -> bool:
    """Whether the row is there and its group is finished; a slide without tiles has neither."""
    recipe = recipe_of(node)
    if not session.tables.exists("embeddings", slide_id, recipe_part(recipe)):
        return False
    row = embeddings_row(session, slide_id, recipe)
    return row is None or is_done(session.root, key_of(session.root, row["uri"]))


def make(session: Session, slide_id: str, node: Node, result_digest: str) -> Made:
    """Embeds the slide's tiles and publishes the row of `embeddings`.

    Raises:
        SlideError: Too many tiles cannot be read.
        EncoderError: The encoder cannot be had, or gives numbers that are none.
    """
    recipe = recipe_of(node)
    tiles = session.tables.read("tiles", slide_id, recipe.tiling.name)
    if tiles is None or tiles.is_empty():
        session.tables.write("embeddings", [], slide_id=slide_id, part=recipe_part(recipe))
        return Made(Status.EMPTY, Reason.NO_TILES, "the slide has no tiles to embed")
    options = recipe.embeddings.model_copy(
        update={"batch_size": session.study.batch_size or recipe.embeddings.batch_size}
    )
    plan = EmbedPlan.of(options, session.encoder(recipe))
    while True:
        made_from = digest(result_digest, *plan.digest_parts())
        try:
            _, n_bad = _embed(session, slide_id, node, tiles, plan, made_from)
            break
        except PlanError as error:  # out of memory, overflow: the slide starts anew under a plan that can hold
            plan = error.next_plan
    return _verdict(n_bad, EmbedPlan.of(options, session.encoder(recipe)), plan, made_from)


def _embed(
    session: Session, slide_id: str, node: Node, tiles: pl.DataFrame, plan: EmbedPlan, made_from: str
) -> tuple[EmbedResult, int]:
    """Streams the slide under one plan and publishes it; returns what was done and how many tiles are bad in all."""
    recipe = recipe_of(node)
    encoder = session.encoder(recipe)
    size = slide_tile_size(recipe.tiling, session.slide_row(slide_id))
    writer = EmbeddingsWriter(
        session.root,
        slide_id,
        made_from,
        n_tiles=len(tiles),
        dim=encoder.dim,
        dtype=plan.dtype,
        shard_rows=plan.shard_rows,
        lock_timeout=LOCK_TIMEOUT_SECONDS,
    )
    with writer, session.open_slide(slide_id) as slide:
        result = embed_slide(
            slide,
            tiles,
            size,
            encoder,
            writer,
            plan,
            name=slide_id,
            max_bad_tiles=recipe.embeddings.max_bad_tiles,
            progress=lambda done, total: session.watcher.tiles(slide_id, done, total),
            settings=Settings(workers=session.study.workers),
        )
        marker = writer.finish(
            tiles, {"recipe": recipe.key, "encoder": recipe.encoder, "weights_sha256": encoder.weights_sha256}
        )
    _publish(session, slide_id, node, tiles, result, writer.uri, marker, made_from)
    return result, int(marker["n_bad"])


def _publish(
    session: Session,
    slide_id: str,
    node: Node,
    tiles: pl.DataFrame,
    result: EmbedResult,
    uri: str,
    marker: dict[str, Any],
    made_from: str,
) -> None:
    """Timings first: the row of `embeddings` is what says that all is there."""
    recipe = recipe_of(node)
    encoder, part, plan = session.encoder(recipe), recipe_part(recipe), result.plan
    before = embeddings_row(session, slide_id, recipe)
    if before is not None and before["digest"] == made_from and not result.n_computed:
        return  # the row and its measured times are those of the run that computed the group
    named = {"slide_id": slide_id, "recipe": recipe.key}
    timings = [
        {
            **named,
            "step": "embeddings",
            "stage": stage,
            "seconds": seconds,
            "tiles": len(tiles),
            "device": encoder.device,
        }
        for stage, seconds in result.timings.items()
    ]
    session.tables.write("timings", timings, slide_id=slide_id, part=part)
    row = {
        **named,
        "tiling": recipe.tiling.name,
        "encoder": recipe.encoder,
        "uri": uri,
        "n_tiles": len(tiles),
        "n_bad_tiles": marker["n_bad"],
        "dim": encoder.dim,
        "dtype": plan.dtype,
        "precision": plan.precision,
        "precision_cosine": result.agreement.cosine if result.agreement else None,
        "precision_max_rel_error": result.agreement.max_rel_error if result.agreement else None,
        "batch_size": plan.batch_size,
        "device": encoder.device,
        "tile_px": recipe.tiling.tile_hw[1],
        "mpp": slide_tile_size(recipe.tiling, session.slide_row(slide_id)).mpp,
        "weights_sha256": encoder.weights_sha256,
        "random_weights": encoder.is_random,
        "tiles_digest": tiles["digest"][0],
        "seconds": result.seconds,
        "libraries": library_versions(),
        **made_by(session, node, made_from),
    }
    session.tables.write("embeddings", [row], slide_id=slide_id, part=part)


def library_versions() -> str:
    """Versions of the libraries that decide numbers, as JSON."""
    return json.dumps({name: importlib.metadata.version(name) for name in LIBRARIES})


def _verdict(n_bad: int, wanted: EmbedPlan, used: EmbedPlan, made_from: str) -> Made:
    if used != wanted:
        return Made(
            Status.FLAGGED,
            Reason.PLAN_CHANGED,
            f"the plan changed on the way: {_changes(wanted, used)}",
            "Ask for this plan in [embeddings] to get it at once; slides under different plans differ in last digits.",
            made_from,
        )
    if n_bad:
        return Made(
            Status.FLAGGED,
            Reason.BAD_TILES,
            f"{n_bad} tiles cannot be read; their rows are NaN and do not count",
            "Copy the slide again if the original is whole.",
            made_from,
        )
    return Made(result_digest=made_from)


def _changes(wanted: EmbedPlan, used: EmbedPlan) -> str:
    pairs = {name: (getattr(wanted, name), getattr(used, name)) for name in ("precision", "dtype", "batch_size")}
    return ", ".join(f"{name} {old} -> {new}" for name, (old, new) in pairs.items() if old != new)
