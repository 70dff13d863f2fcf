"""A batch of slides through their chains: one encoder after the other, slides streaming through each without a gap.

Belongs here: the order of slides and nodes, locks, which thread does what. Does not belong: single nodes (`chain`),
the stream's inside (`engine/`).

While one slide is on a device, the next one is opened, masked, tiled and read by a thread of its own (one for each device);
what follows the embeddings is computed in the caller's thread. Results are handed over in the caller's thread only.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from pathassets.engine import Finished, Job, Settings, embed_slides
from pathassets.errors import PathassetsError, Reason
from pathassets.steps import embeddings
from pathassets.steps.chain import LOCK_TIMEOUT_SECONDS, Made, Order, Results, StepResult, carry_out, look, run_node
from pathassets.steps.nodes import Node, Step
from pathassets.steps.outcomes import failure
from pathassets.steps.session import Session
from pathassets.store import layout

log = logging.getLogger(__name__)

Emit = Callable[[StepResult], None]


def run_batch(
    session: Session, slide_ids: Sequence[str], nodes: Sequence[Node], emit: Emit, *, force: bool = False
) -> None:
    """Makes the nodes of the slides that are not current.

    Args:
        session: What the run shares.
        slide_ids: The slides.
        nodes: The nodes asked for, upstream first; upstream nodes left out must have been made before.
        emit: Told of every slide and node, in this thread. A failed node ends nothing; what depends on it is passed over.
        force: Make them even if they are current.
    """
    session.force = force
    for group in passes(nodes):
        _Pass(session, group, emit, force).run(slide_ids)


def passes(nodes: Sequence[Node]) -> list[list[Node]]:
    """`nodes` by recipe, so that a batch loads each encoder once; what recipes share goes with the first."""
    groups: dict[str, list[Node]] = {}
    for node in nodes:
        if node.recipe is not None:
            groups.setdefault(node.recipe.key, []).append(node)
    shared = [node for node in nodes if node.recipe is None]
    first, *others = list(groups.values()) or [[]]
    return [[*shared, *first], *others]


@dataclass
class _Work:
    """A slide that is being worked on, under its lock."""

    slide_id: str
    stack: ExitStack = field(default_factory=ExitStack)
    done: Results = field(default_factory=dict)
    order: Order | None = None


class _StoppedError(Exception):
    """The run has ended while a slide was waited for."""


class _Pass:
    """One encoder over a batch of slides."""

    def __init__(self, session: Session, nodes: Sequence[Node], emit: Emit, force: bool) -> None:
        self._session, self._emit, self._force = session, emit, force
        self._embed = next((node for node in nodes if node.step is Step.EMBEDDINGS), None)
        after = {node.key for node in nodes if self._embed is not None and self._embed in node.upstream}
        self._before = [node for node in nodes if node is not self._embed and node.key not in after]
        self._after = [node for node in nodes if node.key in after]
        self._at_work: dict[str, _Work] = {}
        self._later: list[str] = []
        self._results: deque[StepResult] = deque()
        # UMAP's and Leiden's libraries have thread pools of their own, one of which ends the process when entered twice.
        self._finishing = threading.Lock()

    def run(self, slide_ids: Sequence[str]) -> None:
        study = self._session.study
        settings = Settings(workers=study.workers, memory_share=study.memory_share, stall_seconds=study.stall_seconds)
        try:
            self._stream(slide_ids, 0.0, settings)
            # what another process works on comes last: it may have finished by then
            self._stream(list(self._later), LOCK_TIMEOUT_SECONDS, settings)
        finally:
            for work in self._at_work.values():
                work.stack.close()
        self._hand_over()

    def _stream(self, slide_ids: Sequence[str], patience: float, settings: Settings) -> None:
        stopped = threading.Event()
        jobs = [partial(self._job, slide_id, patience, stopped) for slide_id in slide_ids]
        embed_slides(jobs, self._embedded, settings=settings, on_stop=stopped.set)

    def _job(self, slide_id: str, patience: float, stopped: threading.Event) -> Job | None:
        """A slide that needs a device; one that does not is done with at once. Runs beside the caller's thread."""
        work = self._at_work[slide_id] = _Work(slide_id)
        job = self._begin(work) if self._lock(work, patience, stopped) else None
        if job is None:
            self._end(work)
        return job

    def _lock(self, work: _Work, patience: float, stopped: threading.Event) -> bool:
        """Locks a slide; one that another process works on is left for later where there is no patience to wait for it."""
        told: set[str] = set()

        def waiting(holder: str) -> None:
            if stopped.is_set():
                raise _StoppedError
            if holder not in told:
                log.info("waiting for %s", holder, extra={"slide_id": work.slide_id})
                self._session.watcher.waits(work.slide_id, holder)
            told.add(holder)

        try:
            work.stack.enter_context(self._session.root.lock(layout.slide_lock(work.slide_id), patience, waiting))
        except PathassetsError as error:
            if error.reason is Reason.LOCKED and not patience:
                self._later.append(work.slide_id)
            else:
                self._refuse(work, error)
            return False
        return True

    def _begin(self, work: _Work) -> Job | None:
        """Makes what comes before the embeddings."""
        self._make(work, self._before)
        if self._embed is None:
            return None
        found = look(self._session, work.slide_id, self._embed, work.done, force=self._force)
        if isinstance(found, StepResult):
            work.done[self._embed.key] = found
            return None
        return self._start(work, found)

    def _start(self, work: _Work, order: Order) -> Job | None:
        """The slide's job; where there is none, what became of it is recorded at once."""
        started: Job | Made | Exception
        try:
            started = embeddings.start(self._session, order, work.stack, force=self._force)
        except Exception as error:  # noqa: BLE001  `carry_out` turns it into the slide's outcome
            started = error
        if isinstance(started, Job):
            work.order = order
            return started
        work.done[order.node.key] = carry_out(self._session, order, lambda: _said(started))
        return None

    def _embedded(self, finished: Finished) -> None:
        """A slide has left the stream."""
        work = self._at_work[finished.job.name]
        order = work.order
        assert order is not None
        work.done[order.node.key] = carry_out(
            self._session, order, lambda: embeddings.publish(self._session, order, finished)
        )
        self._end(work)
        self._hand_over()

    def _end(self, work: _Work) -> None:
        """Makes what comes after the embeddings and lets go of the slide."""
        del self._at_work[work.slide_id]
        with work.stack:
            if self._embed is None or self._embed.key in work.done:
                with self._finishing:
                    self._make(work, self._after)
        self._results.extend(work.done.values())

    def _make(self, work: _Work, nodes: Sequence[Node]) -> None:
        for node in nodes:
            work.done[node.key] = run_node(self._session, work.slide_id, node, work.done, force=self._force)

    def _refuse(self, work: _Work, error: PathassetsError) -> None:
        """The lock could not be had: the slide's first node says so, nothing is recorded over the holder's head."""
        node = next(node for node in [*self._before, self._embed, *self._after] if node is not None)
        outcome = failure(work.slide_id, node, error.reason, error.message, error.remedy)
        self._results.append(StepResult(work.slide_id, node, outcome))

    def _hand_over(self) -> None:
        while self._results:
            self._emit(self._results.popleft())


def _said(answer: Made | Exception) -> Made:
    if isinstance(answer, Exception):
        raise answer
    return answer
