"""embed_slide and embed_slides: what the engine offers.

Belongs here: one slide, or a stream of them, from jobs to results. Does not belong: threads (`stream`, `pipeline`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from pathassets.core.geometry import TileSize
from pathassets.engine.contract import (
    MAX_BAD_TILES,
    EmbedResult,
    Job,
    Measure,
    Prepare,
    Progress,
    Settings,
    ShardWriter,
    TileSource,
)
from pathassets.engine.jobs import Jobs
from pathassets.engine.plan import EmbedPlan, PlanError

if TYPE_CHECKING:
    from pathassets.encoders.encoder import Encoder
    from pathassets.engine.run import Run
    from pathassets.engine.stream import Started, Stream

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """A job that has ended; its writer is still open.

    Attributes:
        job: The job, with the plan that it ended under.
        result: What became of it; None when it failed.
        error: Why it failed; None when it did not.
        writer: Where its rows are; None when it could not be opened.
    """

    job: Job
    result: EmbedResult | None
    error: BaseException | None
    writer: ShardWriter | None


def embed_slide(
    slide: TileSource,
    tiles: pl.DataFrame,
    size: TileSize,
    encoder: Encoder,
    writer: ShardWriter,
    plan: EmbedPlan,
    *,
    name: str = "slide",
    max_bad_tiles: float = MAX_BAD_TILES,
    measure: Measure | None = None,
    progress: Progress | None = None,
    settings: Settings = Settings(),  # noqa: B008  frozen
) -> EmbedResult:
    """Embeds the tiles whose shards the writer misses, shard by whole shard.

    Args:
        slide: Pixels; stays open.
        tiles: `x_px`, `y_px` in level-0 pixels, in grid order.
        size: How large a tile is on the slide and for the encoder.
        encoder: The encoder.
        writer: The open writer of this slide and plan; `finish` is the caller's.
        plan: Precision, type on disk, batch size; see `EmbedPlan.of`.
        name: For messages.
        max_bad_tiles: Largest share of tiles that may be unreadable.
        measure: What to measure on the pixels, besides; becomes part of the shards' notes.
        progress: Told (done, all) in this thread.
        settings: Threads and memory.

    Raises:
        PlanError: The plan does not hold (memory, range); start anew with its `next_plan` and a writer of that plan.
        SlideError: `too_many_bad_tiles`, `pixels_unreadable` when reading hangs, `non_finite`.
        EncoderError: `out_of_memory` for a single tile; `encoder_failed`.
        StoreError: From the writer.
    """
    job = Job(
        name,
        slide,
        tiles,
        size,
        encoder,
        plan,
        lambda _: contextlib.nullcontext(writer),
        max_bad_tiles,
        measure,
        progress,
    )
    outcome: list[Finished] = []
    embed_slides([job], outcome.append, settings=settings, replan=False)
    if outcome[0].error is not None:
        raise outcome[0].error
    assert outcome[0].result is not None
    return outcome[0].result


def embed_slides(
    jobs: Iterable[Job | Prepare],
    on_done: Callable[[Finished], None],
    *,
    settings: Settings = Settings(),  # noqa: B008  frozen
    replan: bool = True,
    on_stop: Callable[[], None] = lambda: None,
) -> None:
    """Embeds slides as one stream: the next job is made, and its tiles are read, while the last is computed.

    Args:
        jobs: Jobs, or functions that make them, which are called by a thread for each device, so that opening and tiling
            slides costs no device anything. Each job goes to the first of its encoder's devices that has room; all encoders
            are on the same devices. An exception while a job is made ends the stream.
        on_done: Told of each job that has ended, in this thread, in the order in which they end, good or bad.
        settings: Threads and memory, of all devices together.
        replan: Start a slide anew under the next plan when one does not hold; else that is its error.
        on_stop: Told, in any thread, that no more jobs are taken: a function that makes one and waits should give up then,
            for its thread is waited for.
    """
    taken = Jobs(jobs, on_stop)
    first = taken.next()
    if first is None:
        return
    from pathassets.engine.stream import Stream

    with Stream(first, taken, settings) as stream:
        while (ended := stream.next_ended()) is not None:
            _follow(ended, stream, on_done, replan)


def _follow(ended: Started, stream: Stream, on_done: Callable[[Finished], None], replan: bool) -> None:
    """Tells of a job's end while its writer is open; or starts it anew, where it was, under the next plan."""
    run = ended.run
    error = ended.error if run is None else run.error
    with ended.stack:
        if not (replan and isinstance(error, PlanError)):
            result = None if error is not None or run is None else _result(run)
            on_done(Finished(ended.job, result, error, run.writer if run is not None else None))
            return
    stream.start(replace(ended.job, plan=error.next_plan), ended.lane, in_front=True)


def _result(run: Run) -> EmbedResult:
    """The run's result; where all shards were there already, their precision is compared now."""
    from pathassets.engine.pipeline import compare_first_tiles

    if run.agreement is None and run.n_tiles:
        try:
            run.agreement = compare_first_tiles(run)
        except Exception as error:  # the rows are there; how good they are is not known today
            log.warning("%s: the precision could not be compared", run.job.name, exc_info=error)
    return run.result()
