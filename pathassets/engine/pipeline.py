"""Pipeline: the threads between slides and shards, of one device.

    feed -> read (several threads) -> ready -> compute (one stream per core, or one per device) -> whole -> write (one thread)

Belongs here: threads, queues, the watchdog. Does not belong: which batches there are (`run`), how one is computed
(`compute`), which slide goes to which device (`stream`).

Every batch that the feed hands out leaves the pipeline exactly once, through `Run.put` or `Run.drop`; a run is settled
when all have. No value depends on which thread did what: a batch is computed whole, by one kernel, on one thread.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

import numpy as np
import torch

from pathassets.encoders.networks import CompileError, is_out_of_memory
from pathassets.encoders.precision import Agreement
from pathassets.engine.buffers import Buffers
from pathassets.engine.compute import Device, Pending, device_for, free_cached
from pathassets.engine.contract import Settings
from pathassets.engine.feed import Feed
from pathassets.engine.memory import Budget
from pathassets.engine.reading import read_batch
from pathassets.engine.run import Batch, Run, Shard, not_compiled, out_of_memory
from pathassets.errors import EncoderError, PathassetsError, Reason, SlideError

log = logging.getLogger(__name__)

# Tiles of the first batch that are computed in fp32 too.
AGREEMENT_TILES = 4
SHARDS_WAITING = 2
# How long an interrupted stream waits for what is on its way.
STOP_SECONDS = 30.0


class Pipeline:
    """Threads that embed what is in the feed; a context manager that ends them.

    Args:
        device: The device of all its runs' encoders.
        settings: This device's share of the machine: as many threads as it says, no zeros.
        budget: Memory for waiting tiles, shared with other devices.
        feed: Where its slides come from.
    """

    def __init__(self, device: str, settings: Settings, budget: Budget, feed: Feed) -> None:
        self.device, self.feed = device, feed
        self._settings = settings
        most = settings.workers + 2 * settings.streams + 2
        self._buffers = Buffers(most, budget, pinned=device.startswith("cuda"))
        self._ready: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._whole: queue.Queue[tuple[Run, Shard] | None] = queue.Queue(SHARDS_WAITING)
        self._reading: dict[threading.Thread, tuple[float, Batch]] = {}
        self._readers: list[threading.Thread] = []
        self._others: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._agreement = threading.Lock()
        self._died: BaseException | None = None

    def __enter__(self) -> Pipeline:
        # A stream's operators run on the stream's own thread: streams that share cores never wait for each other's helpers.
        self._torch_threads = torch.get_num_threads()
        self._readers = [self._thread(self._read, f"read-{i}") for i in range(self._settings.workers)]
        self._others = [self._thread(self._compute, f"compute-{i}") for i in range(self._settings.streams)]
        self._others.append(self._thread(self._write, "write"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.feed.close()
        self._buffers.close()
        for reader in self._readers:
            reader.join(STOP_SECONDS)  # one that hangs is left behind
        *streams, writer = self._others
        for _ in streams:
            self._ready.put(None)
        for stream in streams:
            stream.join()
        if writer.is_alive():
            self._whole.put(None)
            writer.join()
        torch.set_num_threads(self._torch_threads)

    def check(self) -> None:
        """Gives up batches that take too long to read; their threads are replaced, for nothing can end them.

        Raises:
            BaseException: One of the pipeline's own threads has died of a mistake in it.
        """
        if self._died is not None:
            raise self._died
        now = time.monotonic()
        with self._lock:
            stuck = [t for t, (since, _) in self._reading.items() if now - since > self._settings.stall_seconds]
            lost = [(thread, self._reading.pop(thread)[1]) for thread in stuck]
        for thread, batch in lost:
            self._readers.remove(thread)
            self._buffers.forget()
            batch.run.fail(_stalled(batch, self._settings.stall_seconds))
            batch.run.drop(batch)
            self._readers.append(self._thread(self._read, thread.name))

    def _thread(self, work: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=self._guarded, args=(work,), name=f"pathassets-{name}", daemon=True)
        thread.start()
        return thread

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            log.exception("a thread of the engine has died")
            self._died = error

    # Reading

    def _read(self) -> None:
        while (batch := self.feed.next()) is not None:
            height, width = batch.run.job.size.out_hw
            buffer = self._buffers.take((batch.run.plan.batch_size, height, width, 3))
            if buffer is None or batch.run.error is not None:
                self._leave(batch, buffer)
            elif not self._read_into(batch, buffer):
                return

    def _read_into(self, batch: Batch, buffer: object) -> bool:
        """Reads one batch; False when the watchdog has given this thread up meanwhile."""
        me, start = threading.current_thread(), time.perf_counter()
        with self._lock:
            self._reading[me] = (time.monotonic(), batch)
        error: BaseException | None = None
        try:
            read_batch(batch, buffer)  # type: ignore[arg-type]
        except BaseException as problem:  # noqa: BLE001  whatever it is, it belongs to this slide
            error = problem
        with self._lock:
            if self._reading.pop(me, None) is None:
                return False
        batch.run.spend("decode", time.perf_counter() - start)
        batch.run.count_bad(batch)
        if error is not None:
            batch.run.fail(error)
            self._leave(batch, buffer)
        else:
            self._ready.put(batch)
        return True

    def _leave(self, batch: Batch, buffer: object) -> None:
        if buffer is not None:
            self._buffers.give_back(buffer)  # type: ignore[arg-type]
        batch.run.drop(batch)

    # Computing

    def _compute(self) -> None:
        if self.device == "cpu":
            torch.set_num_threads(1)
        device = device_for(self.device)
        pending: deque[tuple[Batch, Pending]] = deque()
        while True:
            if len(pending) > device.depth:
                self._collect(*pending.popleft())
                continue
            try:
                batch = self._ready.get(block=not pending)
            except queue.Empty:
                self._collect(*pending.popleft())
                continue
            if batch is None:
                break
            started = self._submit(device, batch)
            if started is not None:
                pending.append((batch, started))
        while pending:
            self._collect(*pending.popleft())

    def _submit(self, device: Device, batch: Batch) -> Pending | None:
        run = batch.run
        if run.error is not None:
            self._leave(batch, batch.buffer)
            return None
        assert batch.tiles is not None
        try:
            if batch.first:
                with self._agreement:
                    run.agreement = run.encoder.agreement(batch.tiles[:AGREEMENT_TILES])
            return device.submit(run.encoder, batch.tiles)
        except Exception as error:  # noqa: BLE001  the slide fails, or starts anew; the others go on
            self._compute_failed(batch, error)
            return None

    def _collect(self, batch: Batch, pending: Pending) -> None:
        run = batch.run
        try:
            values = pending.collect()
        except Exception as error:  # noqa: BLE001  as in `_submit`: a CUDA device tells of its failures late
            self._compute_failed(batch, error)
            return
        for stage, seconds in pending.seconds.items():
            run.spend(stage, seconds)
        assert batch.buffer is not None
        shard = run.put(batch, values)
        self._buffers.give_back(batch.buffer)
        if shard is not None:
            self._to_writer(run, shard)

    def _to_writer(self, run: Run, shard: Shard) -> None:
        """Waits while too many shards are waiting; not for a writer that has died."""
        while True:
            try:
                self._whole.put((run, shard), timeout=1)
                return
            except queue.Full:
                if self._died is not None:
                    return

    def _compute_failed(self, batch: Batch, error: Exception) -> None:
        if is_out_of_memory(error):
            free_cached(self.device)
            batch.run.fail(out_of_memory(batch.run))
        elif isinstance(error, CompileError):
            batch.run.fail(not_compiled(batch.run, error))
        elif isinstance(error, PathassetsError):
            batch.run.fail(error)
        else:
            batch.run.fail(_encoder_failed(batch.run, error))
        self._leave(batch, batch.buffer)

    # Writing

    def _write(self) -> None:
        while (item := self._whole.get()) is not None:
            run, shard = item
            start = time.perf_counter()
            try:
                run.writer.write_shard(shard.number, shard.values, shard.notes())
            except BaseException as error:  # noqa: BLE001  a full disk ends this slide, not the thread
                run.fail(error)
            run.spend("write", time.perf_counter() - start)
            run.written()


def compare_first_tiles(run: Run) -> Agreement:
    """Agreement with fp32 on the slide's first tiles, read for nothing else."""
    height, width = run.job.size.out_hw
    batch = Batch(run, 0, slice(0, min(AGREEMENT_TILES, run.n_tiles)))
    buffer = np.empty((batch.n, height, width, 3), np.uint8)
    read_batch(batch, buffer)
    return run.encoder.agreement(buffer)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _stalled(batch: Batch, seconds: float) -> SlideError:
    x, y = batch.run.xy[batch.rows.start].tolist()
    return SlideError(
        f"{batch.run.job.name}: reading {batch.n} tiles from x={x}, y={y} on has taken more than {seconds:g} s",
        reason=Reason.PIXELS_UNREADABLE,
        remedy="Check the disk or network that the file lies on. What is done is kept for the next run.",
    )


def _encoder_failed(run: Run, error: Exception) -> EncoderError:
    failed = EncoderError(
        f"{run.job.name}: {run.encoder.card.name} failed on {run.encoder.device}: {type(error).__name__}: {error}",
        reason=Reason.ENCODER_FAILED,
        remedy='Try precision = "fp32" or device = "cpu", and see the log.',
    )
    failed.__cause__ = error
    return failed
