"""Dagster's automation, tick by tick, over the study's own definitions; what a run would compute is pretended."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import dagster as dg
import pytest

from pathassets.config import Study
from pathassets.definitions import build_defs
from pathassets.defs.partitions import SLIDES, add_slides, batches, range_tags
from pathassets.steps.chain import StepResult
from pathassets.steps.nodes import Node
from pathassets.steps.outcomes import Outcome
from pathassets.steps.session import Session


class Automation:
    """A study under automation.

    Attributes:
        bad: Slides that fail, and the step at which they do.
        content: What a slide is made from besides its options; another one is another version of everything.
        requests: What each tick asked for: slides by asset key.
    """

    def __init__(self, study: Study, instance: dg.DagsterInstance, patch: pytest.MonkeyPatch) -> None:
        self.study, self.instance = study, instance
        self.bad: dict[str, str] = {}
        self.content: dict[str, str] = {}
        self.requests: list[dict[str, set[str]]] = []
        self._cursor: Any = None
        patch.setattr("pathassets.steps.batch.run_batch", self._pretend)
        patch.setattr("pathassets.defs.describe.materialised", lambda *_: {})
        patch.setattr("pathassets.defs.slide_assets.log_checks", lambda *_: None)
        patch.setattr("pathassets.defs.adopt.report_used_terms", lambda *_: None)

    def arrive(self, *slide_ids: str) -> None:
        add_slides(self.instance, slide_ids)

    def tick(self, *, carry_out: bool = True) -> dict[str, set[str]]:
        """One tick, and then the runs that it asked for; gives the slides by asset key."""
        with pytest.MonkeyPatch.context() as patch:  # Dagster's tester asks hundreds of times, its daemon once
            patch.setattr(self.instance, "get_dynamic_partitions", cache(self.instance.get_dynamic_partitions))
            found = dg.evaluate_automation_conditions(
                build_defs(self.study), instance=self.instance, cursor=self._cursor
            )
        self._cursor = found.cursor
        asked = {result.key.to_user_string(): found.get_requested_partitions(result.key) for result in found.results}
        asked = {key: {str(slide) for slide in slides} for key, slides in asked.items() if slides}
        self.requests.append(asked)
        if carry_out:
            for slides in sorted({tuple(sorted(slides)) for slides in asked.values()}):
                self.run(slides, [key for key in asked if asked[key] == set(slides)])
        return asked

    def ticks(self, n: int) -> list[dict[str, set[str]]]:
        return [self.tick() for _ in range(n)]

    def times(self, slide_id: str, key: str = "slide") -> int:
        """How often an asset of a slide was asked for."""
        return sum(slide_id in asked.get(key, ()) for asked in self.requests)

    def run(self, slides: Sequence[str], keys: Sequence[str] | None = None) -> None:
        """Runs of the job, as a backfill would cut them, or as somebody by hand would start them."""
        job = build_defs(self.study).resolve_job_def("slides")
        selection = None if keys is None else [dg.AssetKey.from_user_string(key) for key in keys]
        for group in batches(self.instance.get_dynamic_partitions(str(SLIDES.name)), slides, 16):
            job.execute_in_process(
                instance=self.instance, tags=range_tags(group), asset_selection=selection, raise_on_error=False
            )

    def _pretend(self, _: Session, slide_ids: Sequence[str], nodes: Sequence[Node], emit: Any, *, force: bool) -> None:
        for slide_id in slide_ids:
            lost = False
            for node in nodes:
                lost = lost or self.bad.get(slide_id) == node.step
                emit(StepResult(slide_id, node, None if lost else self._outcome(slide_id, node)))

    def _outcome(self, slide_id: str, node: Node) -> Outcome:
        version = f"{node.options_digest} {self.content.get(slide_id)}"
        tiling, recipe, step = node.names
        return Outcome(slide_id, tiling, recipe, step, "ok", digest=version, result_digest=version)
