"""Run: one slide on its way through the pipeline: which batches it has, which shards are filling, what went wrong.

Belongs here: a slide's state and its rules (bad tiles, values that do not fit). Does not belong: threads, devices.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from pathassets.encoders.networks import CompileError
from pathassets.encoders.precision import Agreement
from pathassets.engine.contract import OK, UNREADABLE, EmbedResult, Job, Seconds, ShardWriter
from pathassets.engine.plan import EmbedPlan, PlanError
from pathassets.errors import EncoderError, Reason, SlideError

log = logging.getLogger(__name__)


@dataclass
class Batch:
    """Some neighbouring rows of one shard.

    Attributes:
        run: The slide's run.
        shard: The shard's number.
        rows: Rows of the slide.
        tiles: uint8 (n, h, w, 3) once they are read: a view of `buffer`.
        buffer: What to give back.
        bad: Position in the batch -> reason, for tiles that could not be read.
        measures: Columns measured on the pixels.
        first: Whether the precision is to be compared with fp32 on it.
    """

    run: Run
    shard: int
    rows: slice
    first: bool = False
    tiles: np.ndarray | None = None
    buffer: np.ndarray | None = None
    bad: dict[int, str] = field(default_factory=dict)
    measures: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Tiles of the batch."""
        return self.rows.stop - self.rows.start


@dataclass
class Shard:
    """A shard that is filling.

    Attributes:
        number: The shard's number.
        rows: Rows of the slide.
        values: float32 (k, width), rows as the encoder's `layout` says.
        status: Per row.
        reason: Per row; None where all is well.
        measures: Columns measured on the pixels.
        left: Rows that are still to come.
    """

    number: int
    rows: slice
    values: np.ndarray
    status: list[str]
    reason: list[str | None]
    measures: dict[str, np.ndarray]
    left: int

    @classmethod
    def empty(cls, number: int, rows: slice, width: int) -> Shard:
        """A shard without rows yet."""
        n = rows.stop - rows.start
        return cls(number, rows, np.full((n, width), np.nan, np.float32), [OK] * n, [None] * n, {}, n)

    def put(self, batch: Batch, values: np.ndarray) -> bool:
        """Takes a batch's rows, (n, width); says whether the shard is whole."""
        start = batch.rows.start - self.rows.start
        span = slice(start, start + batch.n)
        self.values[span] = values
        for name, column in batch.measures.items():
            self.measures.setdefault(name, np.full(len(self.status), np.nan, np.float32))[span] = column
        for position, reason in batch.bad.items():
            self.status[start + position], self.reason[start + position] = UNREADABLE, reason
        self.left -= batch.n
        return self.left == 0

    def notes(self) -> pl.DataFrame:
        """What becomes part of `obs`."""
        columns = [pl.Series("status", self.status, pl.String), pl.Series("reason", self.reason, pl.String)]
        return pl.DataFrame(columns + [pl.Series(name, values) for name, values in self.measures.items()])


class Run:
    """One job under one plan.

    Args:
        job: The slide.
        plan: How it is embedded.
        writer: Where its rows go, open.
        device: Where it is computed.
        on_settled: Called once, in any thread, when the run is settled; it must not ask anything of the run.

    Raises:
        EncoderError: `out_of_memory` when the encoder does not fit on the device.
    """

    def __init__(
        self, job: Job, plan: EmbedPlan, writer: ShardWriter, device: str, on_settled: Callable[[], None]
    ) -> None:
        self.job, self.plan, self.writer = job, plan, writer
        compiled_for = plan.batch_size if plan.compile else None
        self.encoder = job.encoder.at(plan.precision, device, compiled_for=compiled_for)
        self.seconds = Seconds()
        self.error: BaseException | None = None
        self.agreement: Agreement | None = None
        self.xy = job.tiles.select("x_px", "y_px").to_numpy()
        self._on_settled, self._settled = on_settled, False
        self._lock = threading.RLock()
        self._missing = writer.missing_shards()
        self._batches = self._all_batches()
        self._shards: dict[int, Shard] = {}
        self._in_flight = self._to_write = 0
        self._issued_all = False
        self._n_bad, self._n_done = writer.n_bad, 0
        self._n_left = sum(rows.stop - rows.start for rows in map(writer.rows_of, self._missing))
        self._started = time.perf_counter()

    @property
    def n_tiles(self) -> int:
        """Tiles of the slide."""
        return len(self.xy)

    @property
    def n_done(self) -> int:
        """Tiles of the slide that are computed, those of earlier runs included."""
        return self.n_tiles - self._n_left + self._n_done

    def next_batch(self) -> Batch | None:
        """The next batch to read; None when there are no more, or the run has failed."""
        with self._lock:
            self._check_bad()  # those of earlier runs may be too many already
            batch = None if self.error is not None else next(self._batches, None)
            if batch is None:
                self._issued_all = True
                self._settle()
            else:
                self._in_flight += 1
            return batch

    def fail(self, error: BaseException) -> None:
        """The first thing that goes wrong ends the run; what is on its way is dropped."""
        with self._lock:
            self.error = self.error or error
            self._issued_all = True
            self._settle()

    def drop(self, batch: Batch) -> None:
        """A batch of a failed run has left the pipeline."""
        with self._lock:
            self._in_flight -= 1
            self._settle()

    def count_bad(self, batch: Batch) -> None:
        """Adds a batch's unreadable tiles; past the set share the run fails."""
        with self._lock:
            self._n_bad += len(batch.bad)
            self._check_bad()

    def put(self, batch: Batch, values: np.ndarray) -> Shard | None:
        """Takes a computed batch, float32 (n, width); gives the shard back when it is whole and is to be written.

        A value that is no number, or that the type on disk cannot hold, fails the run: it is the plan's fault.
        """
        if batch.bad:
            values[list(batch.bad)] = np.nan
        problem = self._misfit(values, batch)
        with self._lock:
            if problem is not None:
                self.fail(problem)
            if self.error is not None:
                self.drop(batch)
                return None
            rows = self.writer.rows_of(batch.shard)
            shard = self._shards.setdefault(batch.shard, Shard.empty(batch.shard, rows, self.encoder.layout.width))
            whole = shard.put(batch, values)
            self._in_flight -= 1
            self._n_done += batch.n
            if whole:
                del self._shards[batch.shard]
                self._to_write += 1
            return shard if whole else None

    def written(self) -> None:
        """A shard that `put` gave back has been dealt with."""
        with self._lock:
            self._to_write -= 1
            self._settle()

    def spend(self, stage: str, seconds: float) -> None:
        """Adds to the time of a stage."""
        with self._lock:
            self.seconds.add(stage, seconds)

    def result(self) -> EmbedResult:
        """What became of the slide, once it is settled without an error."""
        return EmbedResult(
            n_tiles=self.n_tiles,
            n_computed=self._n_done,
            n_bad_tiles=self._n_bad,
            plan=self.plan,
            agreement=self.agreement,
            timings=dict(self.seconds.spent),
            seconds=self._ended - self._started,
            device=self.encoder.device,
        )

    def _all_batches(self) -> Iterator[Batch]:
        first = itertools.chain([True], itertools.repeat(False))
        for shard in self._missing:
            for rows in self.plan.batches(self.writer.rows_of(shard)):
                yield Batch(self, shard, rows, first=next(first))

    def _settle(self) -> None:
        if self._issued_all and self._in_flight == 0 and self._to_write == 0 and not self._settled:
            self._ended = time.perf_counter()
            self._settled = True
            self._on_settled()

    def _check_bad(self) -> None:
        if self._n_bad > self.job.max_bad_tiles * self.n_tiles and self.error is None:
            self.fail(_too_many(self.job, self.n_tiles))

    def _misfit(self, values: np.ndarray, batch: Batch) -> Exception | None:
        good = np.delete(values, list(batch.bad), axis=0) if batch.bad else values
        if not np.isfinite(good).all():
            return _not_finite(self.job, self.plan)
        if self.plan.dtype == "float16" and good.size and np.abs(good).max() > np.finfo(np.float16).max:
            wider = self.plan.with_wider_storage()
            assert wider is not None
            return PlanError(
                f"{self.job.name}: embeddings reach {np.abs(good).max():.3g}, more than float16 holds",
                reason=Reason.NON_FINITE,
                next_plan=wider,
            )
        return None


def _not_finite(job: Job, plan: EmbedPlan) -> Exception:
    message = f"{job.name}: {job.encoder.card.name} gave values that are not finite in {plan.precision}"
    better = plan.with_more_range()
    if better is not None:
        return PlanError(message, reason=Reason.NON_FINITE, next_plan=better)
    return SlideError(
        message, reason=Reason.NON_FINITE, remedy="Check the weights and encoder_kwargs; look at the slide's tiles."
    )


def out_of_memory(run: Run) -> Exception:
    """The error for a batch that does not fit on the device: half the batch, if there is half a batch."""
    message = f"{run.job.name}: {run.plan.batch_size} tiles at once do not fit in the memory of {run.encoder.device}"
    smaller = run.plan.with_less_memory()
    if smaller is not None:
        return PlanError(message, reason=Reason.OUT_OF_MEMORY, next_plan=smaller)
    return EncoderError(
        message, reason=Reason.OUT_OF_MEMORY, remedy="Use a device with more memory, or a smaller encoder."
    )


def not_compiled(run: Run, error: CompileError) -> Exception:
    """The error for a network that torch cannot compile: it runs as it is."""
    return PlanError(f"{run.job.name}: {error.message}", reason=error.reason, next_plan=run.plan.uncompiled())


def _too_many(job: Job, n_tiles: int) -> SlideError:
    """How many there are nobody knows: the rest is not tried; and the same damage is to be told in the same words."""
    return SlideError(
        f"{job.name}: more than {job.max_bad_tiles:.0%} of {n_tiles} tiles cannot be read",
        reason=Reason.TOO_MANY_BAD_TILES,
        remedy="Copy the file again from its source; or raise max_bad_tiles. What is done is kept for the next run.",
    )
