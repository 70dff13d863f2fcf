"""Leases: locks for a store without an operating system, by conditional writes.

Belongs here: who holds a lease, for how long, and when it may be taken over. Does not belong: the requests (`object_root`).

A lease is a small object that is created only where there is none, and that its holder writes again several times in
each term. Whoever waits watches it: what has not changed for a whole term has no living holder, and is taken over by a write
that succeeds only while it is still what was watched. So no two clocks are compared. The holder trusts its lease for
less than a term after it last wrote it; when it comes back from a longer pause it has to win a conditional write before it
may do anything, and that write fails when somebody else was there.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

from pathassets.errors import Reason, StoreError, StudyError
from pathassets.store.root import locked

log = logging.getLogger(__name__)

TERM_S = 60.0
_RENEWALS = 4  # in a term
_TRUST = 0.75  # of a term
_POLL_S = (0.1, 5.0)
# Object stores refuse requests of a clock that is wrong by more than a quarter of an hour: two clocks that they serve
# differ by less than half an hour.
_CLOCKS_DIFFER_S = 1800.0


class Objects(Protocol):
    """The conditional writes that leases are made of; each is one request, and raises a `StudyError` when it fails."""

    def read(self, name: str) -> tuple[bytes, str] | None:
        """Content and etag; None where there is nothing."""

    def create(self, name: str, data: bytes) -> str | None:
        """The new etag; None where there is something already."""

    def replace(self, name: str, data: bytes, etag: str) -> str | None:
        """The new etag; None where there is nothing, or something with another etag."""

    def remove(self, name: str) -> None:
        """Removes it."""


@dataclass(frozen=True)
class Claim:
    """What a lease says.

    Attributes:
        token: Of one acquisition, unlike all others.
        seconds: The term: how long it stands without being written again.
        process: Id of the holder's process.
        started: When that process started, in ticks of its machine.
        machine: Where that id means something; empty where that is unknown.
        host: The machine's name, for people.
        written: When this was written, by its writer's clock.
    """

    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    seconds: float = TERM_S
    process: int = field(default_factory=os.getpid)
    started: int = field(default_factory=lambda: _started(os.getpid()) or 0)
    machine: str = field(default_factory=lambda: _machine())
    host: str = field(default_factory=socket.gethostname)
    written: float = field(default_factory=time.time)

    @classmethod
    def parsed(cls, data: bytes) -> Claim | None:
        """The claim; None for what is none, as the empty object that says that the lease is free."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError):
            return None

    @property
    def holder(self) -> str:
        """Who holds it, in words."""
        return f"process {self.process} on {self.host}"

    def data(self) -> bytes:
        """The claim as it is written now: never the same bytes twice."""
        return json.dumps(asdict(replace(self, written=time.time()))).encode()

    def is_dead(self) -> bool:
        """Whether its holder cannot be alive, whatever it does next."""
        if time.time() - self.written > self.seconds + _CLOCKS_DIFFER_S:
            return True
        return bool(self.machine) and self.machine == _machine() and _started(self.process) != self.started


class Lease:
    """A lease that this process has.

    Args:
        objects: The conditional writes.
        name: Its name.
        claim: What was written.
        etag: What came back.
        since: When writing it began.
    """

    def __init__(self, objects: Objects, name: str, claim: Claim, etag: str, since: float) -> None:
        self.name = name
        self._objects, self._claim, self._etag, self._since = objects, claim, etag, since
        self._lost = False
        self._at_work = threading.Lock()

    def check(self) -> None:
        """See `Held.check`; asks the store only when the lease was not written for most of a term.

        Raises:
            StoreError: `locked` when it was taken over.
            StoreUnreachableError: That cannot be found out.
        """
        with self._at_work:
            if not self._lost and self._age() > _TRUST * self._claim.seconds:
                self._renew()
            if self._lost:
                raise StoreError(
                    f"another process works on {self.name}: this one was away for longer than {self._claim.seconds:.0f} s",
                    reason=Reason.LOCKED,
                    remedy="Nothing was overwritten; run again, what is done stays done.",
                )

    def renew(self) -> None:
        """Writes it again.

        Raises:
            StoreUnreachableError: Nobody answers.
        """
        with self._at_work:
            if not self._lost:
                self._renew()

    def give_back(self) -> None:
        """Removes it; where that could hit a successor's, or fails, it is left to be found free or dead."""
        with self._at_work:
            if self._lost:
                return
            self._lost = True
            try:
                if self._age() < self._claim.seconds / _RENEWALS:
                    self._objects.remove(self.name)
                else:
                    self._objects.replace(self.name, b"", self._etag)
            except StudyError as error:
                log.info("the lease %s was not given back, it runs out by itself: %s", self.name, error)

    def _age(self) -> float:
        return now() - self._since

    def _renew(self) -> None:
        for _ in range(2):
            since = now()
            etag = self._objects.replace(self.name, self._claim.data(), self._etag)
            if etag is not None:
                self._etag, self._since = etag, since
                return
            found = self._objects.read(self.name)
            claim = Claim.parsed(found[0]) if found else None
            if found is None or claim is None or claim.token != self._claim.token:
                break
            self._etag = found[1]  # our own last writing, whose answer was lost
        self._lost = True
        log.warning("the lease %s was lost", self.name)


class Leases:
    """The leases of one root: taken, written again in the background, given back.

    Args:
        objects: The conditional writes.
        seconds: A lease's term.
    """

    def __init__(self, objects: Objects, seconds: float = TERM_S) -> None:
        self._objects, self._seconds = objects, seconds
        self._held: dict[str, Lease] = {}
        self._changed = threading.Condition()
        self._keeper: threading.Thread | None = None

    @contextmanager
    def hold(self, name: str, timeout: float, waiting: Callable[[str], None] | None = None) -> Iterator[Lease]:
        """Has the lease `name` for a block; see `Root.lock`."""
        lease = self._acquire(name, timeout, waiting)
        with self._changed:
            self._held[name] = lease
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="leases", daemon=True)
                self._keeper.start()
        try:
            yield lease
        finally:
            with self._changed:
                del self._held[name]
                self._changed.notify_all()
            lease.give_back()

    def check(self, names: Iterable[str]) -> None:
        """Checks those of `names` that are held; see `Lease.check`."""
        for lease in [self._held.get(name) for name in names]:
            if lease is not None:
                lease.check()

    def _acquire(self, name: str, timeout: float, waiting: Callable[[str], None] | None) -> Lease:
        watch, deadline, (pause, longest) = _Watch(), now() + timeout, _POLL_S
        while True:
            found = self._objects.read(name)
            if found is None or watch.is_free(*found):
                lease = self._take(name, None if found is None else found[1])
                if lease is not None:
                    return lease
            if now() >= deadline:
                raise locked(name, watch.holder)
            if waiting is not None:
                waiting(watch.holder)
            time.sleep(min(pause, self._seconds / _RENEWALS))
            pause = min(longest, pause * 2)

    def _take(self, name: str, etag: str | None) -> Lease | None:
        claim, since = Claim(seconds=self._seconds), now()
        data = claim.data()
        taken = self._objects.create(name, data) if etag is None else self._objects.replace(name, data, etag)
        return None if taken is None else Lease(self._objects, name, claim, taken, since)

    def _keep(self) -> None:
        """Writes all leases again, several times in a term, until there are none."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._held, self._seconds / _RENEWALS)
                if not self._held:
                    self._keeper = None
                    return
                leases = list(self._held.values())
            for lease in leases:
                try:
                    lease.renew()
                except StudyError as error:
                    log.info("the lease %s could not be written again: %s", lease.name, error)


class _Watch:
    """What a waiter has seen of a lease."""

    def __init__(self) -> None:
        self.holder = "another process"
        self._etag, self._since = "", now()

    def is_free(self, data: bytes, etag: str) -> bool:
        """Whether the lease may be taken over."""
        if etag != self._etag:
            self._etag, self._since = etag, now()
        claim = Claim.parsed(data)
        if claim is None:
            return not data or now() - self._since > TERM_S
        self.holder = claim.holder
        return claim.is_dead() or now() - self._since > claim.seconds


def now() -> float:
    """Seconds that go on while the machine sleeps: a lease runs out meanwhile."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def _machine() -> str:
    """What ids of processes belong to: one start of one kernel, and a container in it; empty where that is not told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(process: int) -> int | None:
    """When a process of this machine started, in ticks since the machine did; None where it runs no more."""
    try:
        # the name, in brackets, may hold anything
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else int(fields[18])
