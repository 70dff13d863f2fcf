"""Runs in this process: what `pathassets run` asks for goes through Dagster too, so that it is remembered.

Belongs here: instance, runs and partitions for the command line. Does not belong: printing, exit codes.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster._core.instance.ref import InstanceRef
from dagster._core.utils import make_new_run_id

from pathassets.config import Study
from pathassets.defs.cohort_assets import RESULTS_KEY
from pathassets.defs.export_assets import EXPORT_JOB, is_export
from pathassets.defs.jobs import COHORT_JOB, RESULTS_JOB, SLIDES_JOB
from pathassets.defs.partitions import SLIDES, add_slides, batches, range_tags
from pathassets.defs.processes import process_tags, tidy_dead_runs
from pathassets.defs.report_asset import REPORT_JOB, REPORT_KEY
from pathassets.defs.resources import Workshop
from pathassets.defs.waiting import wait_for_places
from pathassets.errors import ConfigError
from pathassets.logs import begin_run
from pathassets.steps.chain import StepResult
from pathassets.steps.nodes import Node
from pathassets.steps.session import Silence, Watcher
from pathassets.store.local_root import LocalRoot

log = logging.getLogger(__name__)

NO_CAPTURE = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
# Whoever started a run at a terminal sees it fail; the daemon must not start it again behind their back.
NO_RETRY = {"dagster/max_retries": "0"}
CLASS_PATH = re.compile(r"^pathassets(\.\w+)+: ")  # what Python puts before an error of ours
SET_UP = "set_up"  # beside dagster.yaml, once the databases are there
SET_UP_SECONDS = 300.0


@dataclass
class Launched:
    """What a launch gave.

    Attributes:
        results: One for each slide and asset, in order.
        problems: What went wrong outside any slide, in words.
        cut_short: Slides for which not every asset has a result, because the run ended before.
        run_ids: Dagster's runs.
    """

    results: list[StepResult] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    cut_short: list[str] = field(default_factory=list)
    run_ids: list[str] = field(default_factory=list)


class Launcher:
    """Launches jobs of a study in this process on the study's own Dagster instance.

    Args:
        study: The settings.
        instance: Dagster's instance.
        build_defs: `definitions.build_defs`, which lies a floor above this package.
        watcher: Told about progress.
    """

    def __init__(
        self,
        study: Study,
        instance: dg.DagsterInstance,
        build_defs: Callable[[Study, Mapping[str, Any]], dg.Definitions],
        watcher: Watcher | None = None,
    ) -> None:
        self._study = study
        self._instance = instance
        self._workshop = Workshop(study, watcher)
        resource = dg.ResourceDefinition.hardcoded_resource(self._workshop)
        self._defs = build_defs(study, {"study": resource})

    def asset_keys(self, selection: str) -> set[tuple[str, ...]]:
        """The assets that a Dagster selection string names.

        Raises:
            ConfigError: It is not a selection, or selects nothing.
        """
        try:
            chosen = dg.AssetSelection.from_string(selection).resolve(self._defs.resolve_asset_graph())
        except (dg.DagsterError, ValueError, KeyError) as error:
            raise ConfigError(f"--select {selection!r}: {error}", remedy='Try "*" or "key:*/embeddings".') from error
        if not chosen:
            raise ConfigError(f"--select {selection!r} selects no asset", remedy='Try "*" or "key:*/embeddings".')
        return {tuple(key.path) for key in chosen}

    def slides(self, slide_ids: Sequence[str], nodes: Sequence[Node], *, force: bool = False) -> Launched:
        """Takes slides through `nodes`, in runs of at most `slides_per_run`."""
        add_slides(self._instance, slide_ids)
        keys = self._instance.get_dynamic_partitions(SLIDES.name or "")
        launched = Launched()
        config = {"ops": {"slide_chain": {"config": {"force": force}}}}
        for group in batches(keys, slide_ids, self._study.slides_per_run):
            self._launch(launched, SLIDES_JOB, [node.key for node in nodes], range_tags(group), config)
        launched.results = list(self._workshop.results)
        counts = Counter(result.slide_id for result in launched.results)
        launched.cut_short = [slide_id for slide_id in slide_ids if counts[slide_id] < len(nodes)]
        return launched

    def cohort(self, keys: Sequence[tuple[str, ...]]) -> Launched:
        """Makes unpartitioned assets."""
        launched, report = Launched(), tuple(REPORT_KEY.path)
        wanted: dict[str, list[tuple[str, ...]]] = {COHORT_JOB: [], REPORT_JOB: [], EXPORT_JOB: []}
        for key in keys:
            job = REPORT_JOB if key == report else EXPORT_JOB if is_export(key) else COHORT_JOB
            wanted[job].append(key)
        for job, those in wanted.items():
            if those:
                self._launch(launched, job, those, {}, {})
        return launched

    def publish(self) -> Launched:
        """Publishes the snapshot."""
        launched = Launched()
        self._launch(launched, RESULTS_JOB, [tuple(RESULTS_KEY.path)], {}, {})
        return launched

    def _launch(
        self, launched: Launched, job: str, keys: Sequence[tuple[str, ...]], tags: dict[str, str], config: dict
    ) -> None:
        run_id = make_new_run_id()
        begin_run(run_id)
        definition = self._defs.resolve_job_def(job)
        wait_for_places(self._instance, definition, (self._workshop.watcher or Silence()).waits)
        result = definition.execute_in_process(
            run_config={**config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            instance=self._instance,
            tags={**tags, **process_tags(run_id), **NO_RETRY},
            run_id=run_id,
            asset_selection=[dg.AssetKey(list(key)) for key in keys],
            raise_on_error=False,
        )
        launched.run_ids.append(result.run_id)
        if any(_is_interrupt(event) for event in result.all_events):
            raise KeyboardInterrupt  # Dagster turns it into one failed step among others
        for event in result.all_events:
            if event.is_step_failure and event.step_failure_data.error is not None:
                error = event.step_failure_data.error
                log.error("step %s failed: %s", event.step_key, error.to_string())
                cause = error.cause or error
                if "slides failed" not in error.message:
                    told = CLASS_PATH.sub("", cause.message.strip().splitlines()[-1])
                    launched.problems.append(f"{event.step_key}: {told}")


def _is_interrupt(event: dg.DagsterEvent) -> bool:
    error = event.step_failure_data.error if event.is_step_failure else None
    return error is not None and error.cls_name in ("DagsterExecutionInterruptedError", "KeyboardInterrupt")


@contextmanager
def open_instance(study: Study) -> Iterator[dg.DagsterInstance]:
    """The study's Dagster instance, with what dead processes left behind tidied away.

    Output is not captured: it belongs to the user's terminal, and the processes that capture it answer Ctrl-C with a traceback.
    """
    set_up(study)
    ref = InstanceRef.from_dir(str(study.dagster_home), overrides={"compute_logs": NO_CAPTURE})
    with dg.DagsterInstance.from_ref(ref) as instance:
        tidy_dead_runs(instance)
        yield instance


def set_up(study: Study) -> None:
    """Makes Dagster's databases where there are none yet, one process at a time: two at once would fail on each other's tables.

    Raises:
        StoreError: `locked` when another process does not come to an end with it; `disk_full`, `store_read_only`.
    """
    done = study.dagster_home / SET_UP
    if done.exists():
        return
    with LocalRoot(study.dagster_home).lock("set-up", SET_UP_SECONDS):
        if not done.exists():
            with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(study.dagster_home))):
                done.touch()
