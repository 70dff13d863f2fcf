"""Resources: the study's home as Dagster configuration, handed to assets as a plain object.

Belongs here: what assets are given. Does not belong: what they do with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import dagster as dg

from pathassets.config import Study
from pathassets.defs.processes import claim
from pathassets.logs import begin_run
from pathassets.steps.chain import StepResult
from pathassets.steps.session import Session, Silence, Watcher


@dataclass
class Workshop:
    """Opens sessions for assets, and remembers what they did for whoever started the run in this process.

    Attributes:
        study: The settings.
        watcher: Told about progress; None = Dagster's log is.
        results: What the slide steps of this process gave, in order.
    """

    study: Study
    watcher: Watcher | None = None
    results: list[StepResult] = field(default_factory=list)

    def session(self, run_id: str | None, fallback: Watcher | None = None) -> Session:
        """A session for one run."""
        return Session(self.study, run_id=run_id, watcher=self.watcher or fallback or Silence())


class StudyResource(dg.ConfigurableResource):
    """The study at `home`; its settings are read when a run starts, not when definitions are loaded."""

    home: str

    def create_resource(self, context: dg.InitResourceContext) -> Workshop:
        """The plain object that assets get."""
        if context.instance is not None and context.run_id is not None:
            claim(context.instance, context.run_id)
            begin_run(context.run_id)
        return Workshop(Study(self.home))


class LogWatcher:
    """Progress as lines of Dagster's log, not more than one for each tenth of a slide."""

    def __init__(self, log: dg.DagsterLogManager) -> None:
        self._log = log
        self._tenths: dict[str, int] = {}  # several slides may be on their way at once

    def slide(self, slide_id: str, step: str) -> None:
        """A step of a slide begins."""
        self._log.info(f"{slide_id}: {step}", extra={"slide_id": slide_id, "step": step})

    def tiles(self, slide_id: str, done: int, total: int) -> None:
        """`done` of `total` tiles are embedded."""
        tenth = 10 * done // max(total, 1)
        if tenth != self._tenths.get(slide_id):
            self._tenths[slide_id] = tenth
            subject = {"slide_id": slide_id, "step": "embeddings", "done": done, "total": total}
            self._log.info(f"{slide_id}: {done} of {total} tiles embedded", extra=subject)

    def waits(self, what: str, holder: str) -> None:
        """Another process works on a slide, or has the device, and is waited for."""
        self._log.info(f"{what}: waiting for {holder}")
