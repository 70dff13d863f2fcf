"""Step `embeddings`: a slide's tiles through the encoder into Zarr, resumed where it was interrupted.

Belongs here: choosing the plan, what happens when it does not hold (memory, overflow), publishing the row.
Does not belong: the stream from pixels to shards (`engine/`).
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from pathassets.core.checks import precision_agreement
from pathassets.engine import EmbedPlan, EmbedResult, Finished, Job
from pathassets.errors import Reason
from pathassets.recipes import Recipe, digest
from pathassets.steps.chain import LOCK_TIMEOUT_SECONDS, Made, Order
from pathassets.steps.embedded import embeddings_row, lies_first, recipe_of, recipe_part
from pathassets.steps.made_from import LIBRARIES, library_versions
from pathassets.steps.nodes import Node
from pathassets.steps.outcomes import Status
from pathassets.steps.predictions import check_classes
from pathassets.steps.session import Session, made_by
from pathassets.steps.tiles import slide_tile_size
from pathassets.store import layout
from pathassets.store.arrays import EmbeddingsWriter
from pathassets.store.groups import delete_group, is_done
from pathassets.store.patch_tokens import ELEMENT, NAME, PatchTokens

if TYPE_CHECKING:
    from pathassets.encoders.outputs import RowLayout


@dataclass(frozen=True)
class SlideJob(Job):
    """A slide in the stream.

    Attributes:
        open_seconds: What opening the file took.
    """

    open_seconds: float = 0.0


def inputs(session: Session, slide_id: str, node: Node) -> tuple[Any, ...]:
    """The weights."""
    return (session.weights_sha256(recipe_of(node)),)


def is_stored(session: Session, slide_id: str, node: Node) -> bool:
    """Whether the row is there and its group is finished; a slide without tiles has neither."""
    recipe = recipe_of(node)
    if not session.tables.exists("embeddings", slide_id, recipe_part(recipe)):
        return False
    row = embeddings_row(session, slide_id, recipe)
    return row is None or (_is_done(session, row) and _has_tokens(session, slide_id, recipe))


def _is_done(session: Session, row: dict[str, Any]) -> bool:
    return is_done(session.root, session.root.key_of(row["uri"]))


def _has_tokens(session: Session, slide_id: str, recipe: Recipe) -> bool:
    """Whether the patch tokens are there, if they were asked for."""
    if not recipe.embeddings.dense:
        return True
    frame = session.tables.read("patch_tokens", slide_id, recipe_part(recipe))
    return frame is not None and not frame.is_empty() and _is_done(session, frame.row(0, named=True))


def start(session: Session, order: Order, stack: ExitStack, *, force: bool = False) -> Job | Made:
    """A slide ready to be streamed; or what there is to say of a slide without tiles.

    Args:
        session: What the run shares.
        order: What is to be made.
        stack: Closes the slide, when its job has ended.
        force: Compute again what is there.

    Raises:
        EncoderError: The encoder cannot be had.
        SlideError: The slide cannot be opened.
    """
    recipe = recipe_of(order.node)
    tiles = _tiles(session, order.slide_id, recipe)
    if tiles.is_empty():
        session.tables.write("embeddings", [], slide_id=order.slide_id, part=recipe_part(recipe))
        return Made(Status.EMPTY, Reason.NO_TILES, "the slide has no tiles to embed")
    encoder = session.encoder(recipe)
    check_classes(recipe, encoder.layout.n_classes)
    begun = time.perf_counter()
    slide = stack.enter_context(session.open_slide(order.slide_id))
    return SlideJob(
        name=order.slide_id,
        open_seconds=time.perf_counter() - begun,
        slide=slide,
        tiles=tiles,
        size=slide_tile_size(recipe.tiling, session.slide_row(order.slide_id)),
        encoder=encoder,
        plan=_wanted_plan(session, recipe),
        open_writer=lambda plan: _writer(session, order, plan, len(tiles), encoder.layout, force),
        max_bad_tiles=recipe.embeddings.max_bad_tiles,
        progress=lambda done, total: session.watcher.tiles(order.slide_id, done, total),
    )


def publish(session: Session, order: Order, finished: Finished) -> Made:
    """Finishes a streamed slide's group and publishes its row of `embeddings`.

    Raises:
        SlideError: Too many tiles cannot be read, or their embeddings are no numbers.
        EncoderError: The network failed.
    """
    if finished.error is not None:
        raise finished.error
    recipe, writer, result = recipe_of(order.node), finished.writer, finished.result
    assert isinstance(writer, EmbeddingsWriter)
    assert result is not None
    tiles = _tiles(session, order.slide_id, recipe)
    about = {"recipe": recipe.key, "encoder": recipe.encoder, "weights_sha256": finished.job.encoder.weights_sha256}
    n_bad = int(writer.finish(tiles, about)["n_bad"])
    _publish(session, order, tiles, finished, writer, n_bad)
    return replace(_verdict(n_bad, _wanted_plan(session, recipe), result, writer.digest), seconds=result.seconds)


def _tiles(session: Session, slide_id: str, recipe: Recipe) -> pl.DataFrame:
    tiles = session.tables.read("tiles", slide_id, recipe.tiling.name)
    assert tiles is not None  # the step `tiles` is done, else this one would not have begun
    return tiles


def _wanted_plan(session: Session, recipe: Recipe) -> EmbedPlan:
    batch_size = session.study.batch_size or recipe.embeddings.batch_size
    options = recipe.embeddings.model_copy(update={"batch_size": batch_size})
    return EmbedPlan.of(options, session.encoder(recipe))


def _writer(
    session: Session, order: Order, plan: EmbedPlan, n_tiles: int, rows: RowLayout, force: bool
) -> EmbeddingsWriter:
    """The writer of the group that belongs to a plan: what it is made from is its name."""
    made_from = digest(order.digest, *plan.digest_parts())
    writer = EmbeddingsWriter(
        session.root,
        order.slide_id,
        made_from,
        n_tiles=n_tiles,
        dim=rows.dim,
        dtype=plan.dtype,
        n_classes=rows.n_classes,
        grid=rows.grid,
        shard_rows=plan.shard_rows,
        again=_beside(session, order, made_from, force),
        lock_timeout=LOCK_TIMEOUT_SECONDS,
    )
    if force:
        for group in writer.groups:
            delete_group(session.root, group)
    return writer


def _beside(session: Session, order: Order, made_from: str, force: bool) -> bool:
    """Whether the group is made in the second place: what a row names is never written over, whenever the power fails."""
    recipe = recipe_of(order.node)
    row = embeddings_row(session, order.slide_id, recipe)
    if row is None or not (force or not _has_tokens(session, order.slide_id, recipe)):
        return False
    return lies_first(session, row, made_from, layout.EMBEDDINGS)


def _publish(
    session: Session, order: Order, tiles: pl.DataFrame, finished: Finished, writer: EmbeddingsWriter, n_bad: int
) -> None:
    """Timings first: the row of `embeddings` is what says that all is there."""
    slide_id, recipe = order.slide_id, recipe_of(order.node)
    result, job = finished.result, finished.job
    assert result is not None
    assert isinstance(job, SlideJob)
    encoder, part, plan = session.encoder(recipe), recipe_part(recipe), result.plan
    before = embeddings_row(session, slide_id, recipe)
    if before is not None and before["digest"] == writer.digest and not result.n_computed:
        return  # the row and its measured times are those of the run that computed the group
    named = {"slide_id": slide_id, "recipe": recipe.key}
    timings = [
        {
            **named,
            "step": "embeddings",
            "stage": stage,
            "seconds": seconds,
            "tiles": len(tiles),
            "device": result.device,
        }
        for stage, seconds in {"open": job.open_seconds, **result.timings}.items()
    ]
    session.tables.write("timings", timings, slide_id=slide_id, part=part)
    if writer.tokens is not None:
        _publish_tokens(session, order, writer.tokens, writer.digest)
    row = {
        **named,
        "tiling": recipe.tiling.name,
        "encoder": recipe.encoder,
        "uri": writer.uri,
        "n_tiles": len(tiles),
        "n_bad_tiles": n_bad,
        "dim": encoder.dim,
        "dtype": plan.dtype,
        "precision": plan.precision,
        "precision_cosine": result.agreement.cosine if result.agreement else None,
        "precision_max_rel_error": result.agreement.max_rel_error if result.agreement else None,
        "batch_size": plan.batch_size,
        "compiled": plan.compile,
        "device": result.device,
        "tile_px": recipe.tiling.tile_hw[1],
        "mpp": slide_tile_size(recipe.tiling, session.slide_row(slide_id)).mpp,
        "weights_sha256": encoder.weights_sha256,
        "random_weights": encoder.is_random,
        "tiles_digest": tiles["digest"][0],
        "seconds": result.seconds,
        "libraries": library_versions(LIBRARIES[order.node.step]),
        **made_by(session, order.node, writer.digest),
    }
    session.tables.write("embeddings", [row], slide_id=slide_id, part=part)


def _publish_tokens(session: Session, order: Order, tokens: PatchTokens, made_from: str) -> None:
    recipe, (rows, columns, dim) = recipe_of(order.node), tokens.grid
    row = {
        "slide_id": order.slide_id,
        "recipe": recipe.key,
        "name": NAME,
        "uri": session.root.address(tokens.group),
        "n_tiles": tokens.rows.shape[0],
        "grid_rows": rows,
        "grid_cols": columns,
        "dim": dim,
        "dtype": tokens.rows.dtype,
        "contents": ["obs", "obsm/spatial", ELEMENT],
        "embeddings_digest": made_from,
        **made_by(session, order.node, made_from),
    }
    session.tables.write("patch_tokens", [row], slide_id=order.slide_id, part=recipe_part(recipe))


def _verdict(n_bad: int, wanted: EmbedPlan, result: EmbedResult, made_from: str) -> Made:
    """What deserves a look; of several things the one that says most about the numbers."""
    agreement = result.agreement
    if agreement is not None and not precision_agreement(agreement.cosine, agreement.max_rel_error).passed:
        return Made(
            Status.FLAGGED,
            Reason.PRECISION_LOW,
            f"in {_how(result.plan)} embeddings come no nearer to fp32 than cosine {agreement.cosine:.4f} "
            f"(relative error {agreement.max_rel_error:.2g}), measured on {agreement.n_tiles} tiles",
            'Set precision = "fp32" (and compile = false) in [embeddings].',
            made_from,
        )
    if result.plan != wanted:
        return Made(
            Status.FLAGGED,
            Reason.PLAN_CHANGED,
            f"the plan changed on the way: {_changes(wanted, result.plan)}",
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


def _how(plan: EmbedPlan) -> str:
    return f"{plan.precision}, compiled," if plan.compile else plan.precision


def _changes(wanted: EmbedPlan, used: EmbedPlan) -> str:
    names = ("precision", "dtype", "batch_size", "compile")
    pairs = {name: (getattr(wanted, name), getattr(used, name)) for name in names}
    return ", ".join(f"{name} {old} -> {new}" for name, (old, new) in pairs.items() if old != new)
