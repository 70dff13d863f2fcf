"""embed_slide and embed_slides: what the engine offers.

Belongs here: one slide, or a stream of them, from jobs to results. Does not belong: threads (`pipeline`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from pathassets.core.geometry import TileSize
from pathassets.engine.contract import (
    MAX_BAD_TILES,
    EmbedResult,
    Job,
    Measure,
    Progress,
    Settings,
    ShardWriter,
    TileSource,
)
from pathassets.engine.plan import EmbedPlan, PlanError

if TYPE_CHECKING:
    from pathassets.encoders.encoder import Encoder
    from pathassets.engine.pipeline import Pipeline
    from pathassets.engine.run import Run


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
    jobs: Iterable[Job],
    on_done: Callable[[Finished], None],
    *,
    settings: Settings = Settings(),  # noqa: B008  frozen
    replan: bool = True,
) -> None:
    """Embeds slides as one stream: the next job is taken, and its tiles are read, while the last is computed.

    Args:
        jobs: Taken one ahead, in a thread of its own, so that opening and tiling slides costs the device nothing.
            All encoders must be on one device. An exception while a job is made ends the stream.
        on_done: Told of each job that has ended, in this thread, in the order in which they end, good or bad.
        settings: Threads and memory.
        replan: Start a slide anew under the next plan when one does not hold; else that is its error.
    """
    stream = iter(jobs)
    first = next(stream, None)
    if first is None:
        return
    from pathassets.engine.pipeline import Pipeline

    # Left in reverse order: no more jobs, then no more threads that write, then the writers that nobody followed.
    with ExitStack() as writers, Pipeline(first.encoder.device, settings) as pipeline:
        opener = _Opener(pipeline, _chained(first, stream))
        writers.callback(opener.close_rest)
        try:
            while (started := opener.next_started()) is not None:
                _follow(started, pipeline, on_done, replan)
        finally:
            opener.stop()


@dataclass
class _Started:
    job: Job
    run: Run | None
    stack: ExitStack
    error: BaseException | None = None


class _Opener:
    """Takes jobs one ahead and puts their runs into the feed."""

    def __init__(self, pipeline: Pipeline, jobs: Iterator[Job]) -> None:
        self._pipeline, self._jobs = pipeline, jobs
        self._started: list[_Started] = []
        self._error: BaseException | None = None
        self._over = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="pathassets-open", daemon=True)
        self._thread.start()

    def next_started(self) -> _Started | None:
        """The next job in order; None after the last.

        Raises:
            BaseException: Making a job failed.
        """
        with self._changed:
            while not self._started and not self._over:
                self._changed.wait()
            if self._started:
                return self._started.pop(0)
        if self._error is not None:
            raise self._error
        return None

    def stop(self) -> None:
        """Takes no more jobs."""
        self._pipeline.feed.close()
        self._thread.join()

    def close_rest(self) -> None:
        """Closes the writers of jobs that nobody followed."""
        for started in self._started:
            started.stack.close()

    def _work(self) -> None:
        try:
            while self._pipeline.feed.wait_for_room() and (job := next(self._jobs, None)) is not None:
                started = start(job, self._pipeline)
                with self._changed:
                    self._started.append(started)
                    self._changed.notify()
        except BaseException as error:  # noqa: BLE001  handed to the caller's thread
            self._error = error
        with self._changed:
            self._over = True
            self._changed.notify()


def start(job: Job, pipeline: Pipeline, *, in_front: bool = False) -> _Started:
    """Opens a job's writer and feeds its tiles to the pipeline."""
    from pathassets.engine.run import Run

    stack = ExitStack()
    try:
        run = Run(job, job.plan, stack.enter_context(job.open_writer(job.plan)))
    except Exception as error:  # noqa: BLE001  one slide's locked or full store is that slide's failure
        stack.close()
        return _Started(job, None, stack, error)
    pipeline.feed.put(run, in_front=in_front)
    return _Started(job, run, stack)


def _follow(started: _Started, pipeline: Pipeline, on_done: Callable[[Finished], None], replan: bool) -> None:
    """Waits for a job, under as many plans as it takes, and tells of its end while its writer is open."""
    while True:
        with started.stack:
            if started.run is None:
                on_done(Finished(started.job, None, started.error, None))
                return
            _wait(started.run, pipeline)
            error = started.run.error
            if not (replan and isinstance(error, PlanError)):
                result = None if error is not None else _result(started.run)
                on_done(Finished(started.job, result, error, started.run.writer))
                return
        started = start(replace(started.job, plan=error.next_plan), pipeline, in_front=True)


def _wait(run: Run, pipeline: Pipeline) -> None:
    from pathassets.engine.pipeline import STOP_SECONDS, WATCH_SECONDS

    told = -1
    try:
        while True:
            over = run.settled.wait(WATCH_SECONDS)
            if run.job.progress is not None and run.error is None and run.n_done != told:
                told = run.n_done
                run.job.progress(told, run.n_tiles)
            if over:
                return
            pipeline.check()
    except BaseException as error:  # the caller wants to stop: let what is on its way leave, then go
        run.fail(error)
        run.settled.wait(STOP_SECONDS)
        raise


def _result(run: Run) -> EmbedResult:
    """The run's result; where all shards were there already, their precision is compared now."""
    from pathassets.engine.pipeline import compare_first_tiles

    if run.agreement is None and run.n_tiles:
        run.agreement = compare_first_tiles(run)
    return run.result()


def _chained(first: Job, others: Iterator[Job]) -> Iterator[Job]:
    yield first
    yield from others
