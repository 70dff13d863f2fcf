"""One node of one slide: what is current stays, what is not is made, what fails stops nobody else.

Belongs here: digests, being current, and failures of the per-slide steps. Does not belong: what a step computes, in which
order slides and nodes are worked on (`batch`).
"""

from __future__ import annotations

import errno
import importlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from pathassets.errors import PathassetsError, Reason
from pathassets.logs import about
from pathassets.recipes import digest
from pathassets.steps.made_from import as_json, inputs_of, options_of
from pathassets.steps.nodes import Node, Step
from pathassets.steps.outcomes import Outcome, Status, failure, load_outcome, record_outcome
from pathassets.steps.session import Session

log = logging.getLogger(__name__)

LOCK_TIMEOUT_SECONDS = 6 * 3600.0


@dataclass(frozen=True)
class Made:
    """What a step says after it has written its results.

    Attributes:
        seconds: What making them took, where most of it went before the step was told to write them.
    """

    status: Status = Status.OK
    reason: Reason | None = None
    message: str | None = None
    remedy: str | None = None
    result_digest: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class StepResult:
    """What became of one node for one slide in this run.

    Attributes:
        outcome: The recorded outcome; None when an upstream step failed and this one was not tried.
        unchanged: The result was current and nothing was done.
        input_digests: Result digests of the upstream nodes, by asset key.
    """

    slide_id: str
    node: Node
    outcome: Outcome | None
    unchanged: bool = False
    input_digests: dict[tuple[str, ...], str] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether the asset is there after this run."""
        return self.outcome is not None and self.outcome.usable


class StepModule(Protocol):
    """What each step's module offers; `embeddings` has `start` and `publish` for `make`, because slides stream through it."""

    def inputs(self, session: Session, slide_id: str, node: Node) -> tuple[Any, ...]:
        """What the digest covers besides the options and the upstream digests."""

    def is_stored(self, session: Session, slide_id: str, node: Node) -> bool:
        """Whether the results that the outcome speaks of are still there."""

    def make(self, session: Session, slide_id: str, node: Node, result_digest: str) -> Made:
        """Computes and writes the results."""


def step_module(step: Step) -> StepModule:
    """The module of a step, loaded when it is needed: some bring torch or scanpy with them."""
    module: StepModule = importlib.import_module(f"pathassets.steps.{step}")
    return module


@dataclass(frozen=True)
class Order:
    """A node that has to be made for a slide.

    Attributes:
        digest: Of everything that it will be made from.
        inputs: Result digests of the upstream nodes, by asset key.
        own: What it will be made from besides, as its step's `inputs` gives it.
    """

    slide_id: str
    node: Node
    digest: str
    inputs: dict[tuple[str, ...], str]
    own: tuple[Any, ...] = ()


Results = dict[tuple[str, ...], StepResult]


def look(session: Session, slide_id: str, node: Node, done: Results, *, force: bool = False) -> StepResult | Order:
    """Decides what is to be done for a node: nothing, because its result is current or its upstream is not there, or an order.

    Args:
        session: What the run shares.
        slide_id: The slide.
        node: The node.
        done: What became of the slide's other nodes in this run; those left out are looked up.
        force: Make it even if it is current.
    """
    inputs: dict[tuple[str, ...], str] = {}
    for parent in node.upstream:
        outcome = done[parent.key].outcome if parent.key in done else load_outcome(session, slide_id, parent)
        if outcome is None or not outcome.usable or outcome.result_digest is None:
            return StepResult(slide_id, node, None)
        inputs[parent.key] = outcome.result_digest
    try:
        own = step_module(node.step).inputs(session, slide_id, node)
        wanted = digest_of(slide_id, node, inputs, own)
        recorded = load_outcome(session, slide_id, node)
        if not force and _is_current(session, slide_id, node, recorded, wanted):
            return StepResult(slide_id, node, recorded, unchanged=True, input_digests=inputs)
    except Exception as error:  # noqa: BLE001  see `carry_out`
        return _ended(session, Order(slide_id, node, "", inputs), _failed(slide_id, node, error))
    return Order(slide_id, node, wanted, inputs, own)


def carry_out(session: Session, order: Order, make: Callable[[], Made]) -> StepResult:
    """Makes what was ordered and records what became of it; one slide's failure, of whatever kind, is a row and not the end."""
    begun = time.perf_counter()
    with about(slide_id=order.slide_id, step=str(order.node.step), run_id=session.run_id):
        session.watcher.slide(order.slide_id, str(order.node.step))
        try:
            made = make()
            outcome = _success(order, made, made.seconds or time.perf_counter() - begun)
        except Exception as error:  # noqa: BLE001  see above
            outcome = _failed(order.slide_id, order.node, error)
        return _ended(session, order, outcome)


def run_node(session: Session, slide_id: str, node: Node, done: Results, *, force: bool = False) -> StepResult:
    """Makes a node for a slide unless it is current."""
    found = look(session, slide_id, node, done, force=force)
    if isinstance(found, StepResult):
        return found
    return carry_out(session, found, lambda: step_module(node.step).make(session, slide_id, node, found.digest))


def _ended(session: Session, order: Order, outcome: Outcome) -> StepResult:
    recorded = _recorded(session, order.node, outcome)
    return StepResult(order.slide_id, order.node, recorded, input_digests=order.inputs)


def digest_of(slide_id: str, node: Node, inputs: dict[tuple[str, ...], str], own: Sequence[Any]) -> str:
    """Digest of everything that a node is made from: its options, upstream results, and its own inputs."""
    return digest(node.options_digest, slide_id, [inputs[key] for key in sorted(inputs)], *own)


def _is_current(session: Session, slide_id: str, node: Node, recorded: Outcome | None, wanted: str) -> bool:
    return (
        recorded is not None
        and recorded.usable
        and recorded.digest == wanted
        and step_module(node.step).is_stored(session, slide_id, node)
    )


def pending(session: Session, slide_id: str, nodes: Sequence[Node]) -> list[Node]:
    """The nodes of a slide that a run would have to make, found without making anything.

    A node whose upstream is pending is pending too.
    """
    late: list[Node] = []
    for node in nodes:
        try:
            if any(parent in late for parent in node.upstream) or not _seems_current(session, slide_id, node):
                late.append(node)
        except PathassetsError:
            late.append(node)
    return late


def _seems_current(session: Session, slide_id: str, node: Node) -> bool:
    inputs = {}
    for parent in node.upstream:
        outcome = load_outcome(session, slide_id, parent)
        if outcome is None or not outcome.usable or outcome.result_digest is None:
            return False
        inputs[parent.key] = outcome.result_digest
    wanted = digest_of(slide_id, node, inputs, step_module(node.step).inputs(session, slide_id, node))
    return _is_current(session, slide_id, node, load_outcome(session, slide_id, node), wanted)


def _success(order: Order, made: Made, seconds: float) -> Outcome:
    node = order.node
    tiling, recipe, step = node.names
    return Outcome(
        slide_id=order.slide_id,
        tiling=tiling,
        recipe=recipe,
        step=step,
        status=str(made.status),
        reason=str(made.reason) if made.reason else None,
        message=made.message,
        remedy=made.remedy,
        digest=order.digest,
        result_digest=made.result_digest or order.digest,
        options=as_json(options_of(node)),
        inputs=as_json(inputs_of(node.step, order.inputs, order.own)),
        seconds=seconds,
        code_version=node.options_digest,
    )


def _failed(slide_id: str, node: Node, error: Exception) -> Outcome:
    if isinstance(error, PathassetsError):
        log.info("%s of %s failed: %s", node.step, slide_id, error)
        return failure(slide_id, node, error.reason, error.message, error.remedy)
    if isinstance(error, MemoryError):
        return failure(
            slide_id,
            node,
            Reason.OUT_OF_MEMORY,
            "the machine ran out of memory",
            "Use a smaller batch_size or fewer workers.",
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return failure(
            slide_id,
            node,
            Reason.DISK_FULL,
            "the disk is full",
            "Free some space and run again; what is done stays done.",
        )
    log.error("%s of %s failed", node.step, slide_id, exc_info=error)
    message = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return failure(
        slide_id,
        node,
        Reason.INTERNAL,
        message[:500],
        "See .dagster/pathassets.log in the study's folder; please report it.",
    )


def _recorded(session: Session, node: Node, outcome: Outcome) -> Outcome:
    """Records an outcome; when even that cannot be written, the failure still reaches the caller."""
    try:
        record_outcome(session, node, outcome)
    except PathassetsError as error:
        log.error("the outcome of %s of %s could not be recorded: %s", node.step, outcome.slide_id, error)
        if outcome.usable:
            return failure(outcome.slide_id, node, error.reason, error.message, error.remedy)
        return outcome
    return replace(outcome, run_id=session.run_id)
