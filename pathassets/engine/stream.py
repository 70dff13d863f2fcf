"""Stream: slides shared out over devices, a pipeline for each.

    jobs -> open (one thread per device) -> the feed of a device that has room -> ... -> ended, in the caller's thread

Belongs here: which slide goes to which device, each device's share of the machine, whose end comes next.
Does not belong: what happens on one device (`pipeline`), what is done with a slide that has ended (`embed`).
"""

from __future__ import annotations

import logging
import queue
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType

from pathassets.engine.contract import Job, Settings
from pathassets.engine.feed import Feed
from pathassets.engine.jobs import Jobs
from pathassets.engine.memory import Budget
from pathassets.engine.pipeline import Pipeline, usable_cores
from pathassets.engine.plan import PlanError
from pathassets.engine.run import Run
from pathassets.errors import EncoderError

log = logging.getLogger(__name__)

WATCH_SECONDS = 0.5
# A device on which so many slides in a row fail gets no more while another one works: it would go through them all.
MAX_FAILURES = 3


@dataclass(eq=False)
class Lane:
    """A device in the stream.

    Attributes:
        pipeline: What computes there.
        claimed: Whether a slide is being started there.
        failures: Slides in a row on which the encoder failed there.
    """

    pipeline: Pipeline
    claimed: bool = False
    failures: int = 0


@dataclass(eq=False)
class Started:
    """A job on its way.

    Attributes:
        job: The job, with the plan that it is tried under.
        lane: Where.
        run: Its run; None when it could not be started.
        error: Why it could not be started.
        stack: Closes its writer.
        told: Tiles done that its caller has been told of.
    """

    job: Job
    lane: Lane
    run: Run | None = None
    error: BaseException | None = None
    stack: ExitStack = field(default_factory=ExitStack)
    told: int = -1


class Stream:
    """Jobs on their way; a context manager that ends all threads.

    Args:
        first: The first job; its encoder's devices are used.
        jobs: Those after it.
        settings: Threads and memory, of all devices together.
    """

    def __init__(self, first: Job, jobs: Jobs, settings: Settings) -> None:
        devices = first.encoder.devices
        budget = Budget(settings.memory_share)
        self._room = threading.Condition()
        self._lanes = [
            Lane(Pipeline(device, share, budget, Feed(self._room)))
            for device, share in zip(devices, shares(settings, devices), strict=True)
        ]
        self._first: Job | None = first
        self._jobs = jobs
        self._closed = False
        self._error: BaseException | None = None
        self._events: queue.SimpleQueue[Started | None] = queue.SimpleQueue()
        self._running: set[Started] = set()  # one operation at a time on it, each of which is atomic
        self._openers: list[threading.Thread] = []
        self._n_open = len(devices)
        self._exit = ExitStack()

    def __enter__(self) -> Stream:
        for lane in self._lanes:
            self._exit.enter_context(lane.pipeline)
        self._openers = [
            threading.Thread(target=self._open, name=f"pathassets-open-{i}", daemon=True)
            for i in range(len(self._lanes))
        ]
        for opener in self._openers:
            opener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """First no more jobs, then no more threads that write, then the writers that nobody followed."""
        self._jobs.stop()
        for started in list(self._running):
            if started.run is not None and error is not None:
                started.run.fail(error)
        with self._room:
            self._closed = True
            self._room.notify_all()
        for opener in self._openers:
            opener.join()
        self._exit.close()
        for started in self._running:
            started.stack.close()

    def start(self, job: Job, lane: Lane, *, in_front: bool = False) -> None:
        """Opens a job's writer and feeds its tiles to a device; what goes wrong is the job's end."""
        started = Started(job, lane)
        self._running.add(started)
        try:
            writer = started.stack.enter_context(job.open_writer(job.plan))
            started.run = Run(job, job.plan, writer, lane.pipeline.device, lambda: self._end(started))
        except Exception as error:  # noqa: BLE001  one slide's locked or full store is that slide's failure
            started.error = error
            self._end(started)
            return
        lane.pipeline.feed.put(started.run, in_front=in_front)

    def next_ended(self) -> Started | None:
        """The next job that has ended, waiting for it; its writer is open. None when all have.

        Raises:
            BaseException: Making a job has failed, and those before it have ended; or a pipeline has died of a mistake.
        """
        while self._n_open or self._running:
            try:
                event = self._events.get(timeout=WATCH_SECONDS)
            except queue.Empty:
                self._watch()
                continue
            if event is not None:
                self._tell(event)
                self._running.discard(event)
                return event
            self._n_open -= 1
        if self._error is not None:
            raise self._error
        return None

    def _watch(self) -> None:
        for lane in self._lanes:
            lane.pipeline.check()
        for started in list(self._running):
            self._tell(started)

    def _tell(self, started: Started) -> None:
        run, progress = started.run, started.job.progress
        if run is not None and progress is not None and run.error is None and run.n_done != started.told:
            started.told = run.n_done
            progress(started.told, run.n_tiles)

    def _end(self, started: Started) -> None:
        """A job has ended, in whichever thread; the caller's hears of it."""
        error = started.error if started.run is None else started.run.error
        lost = isinstance(error, EncoderError) and not isinstance(error, PlanError)
        started.lane.failures = started.lane.failures + 1 if lost else 0
        if started.lane.failures == MAX_FAILURES and len(self._lanes) > 1:
            log.error("%s: %d slides in a row have failed on it", started.lane.pipeline.device, MAX_FAILURES)
        self._events.put(started)

    # Opening

    def _open(self) -> None:
        """Makes jobs, each while the one before it is computed, and gives them to the first device that has room."""
        try:
            while (job := self._next_job()) is not None and (lane := self._claim()) is not None:
                self.start(job, lane)
                self._unclaim(lane)
        except BaseException as error:  # noqa: BLE001  handed to the caller's thread
            self._error = self._error or error
        self._events.put(None)

    def _next_job(self) -> Job | None:
        with self._room:
            first, self._first = self._first, None
        return first or self._jobs.next()

    def _claim(self) -> Lane | None:
        """A device that has handed out all its tiles, as soon as there is one; None when the stream is closed."""
        with self._room:
            while not self._closed:
                well = [lane for lane in self._lanes if lane.failures < MAX_FAILURES] or self._lanes
                for lane in well:
                    if not lane.claimed and lane.pipeline.feed.is_dry:
                        lane.claimed = True
                        return lane
                self._room.wait(WATCH_SECONDS)
            return None

    def _unclaim(self, lane: Lane) -> None:
        with self._room:
            lane.claimed = False
            self._room.notify_all()


def shares(settings: Settings, devices: tuple[str, ...]) -> list[Settings]:
    """What each device has of the machine's cores, one at least."""
    cores = usable_cores()
    readers = split(settings.workers or cores, len(devices))
    streams = [
        settings.streams or (n if device == "cpu" else 1)
        for device, n in zip(devices, split(cores, len(devices)), strict=True)
    ]
    return [replace(settings, workers=n, streams=m) for n, m in zip(readers, streams, strict=True)]


def split(n: int, parts: int) -> list[int]:
    """`n` in nearly equal parts, none of them zero."""
    return [max(1, n // parts + (i < n % parts)) for i in range(parts)]
