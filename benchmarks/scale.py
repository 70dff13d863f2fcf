"""What thousands of slides cost beside the work on them, and whether many processes at once lose anything.

    python -m benchmarks.scale numbers [FOLDER] [--slides 5000] [--tiles 300] [--keep benchmarks/measured.json]
    python -m benchmarks.scale crowd   [FOLDER]      # 16 runs at once, four readers, one connection that stays open
    python -m benchmarks.scale kills   [FOLDER] [--kills 50] [--seed 1]

`numbers` prints what was measured beside what is wanted, and ends with exit code 1 when something is too dear; CPU seconds of
the process and its children. The two others print what was found, and end with exit code 1 when anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import psutil

from benchmarks import fabricated
from benchmarks.cost_model import keep
from pathassets.config import Study
from pathassets.definitions import build_defs
from pathassets.defs.launch import open_instance
from pathassets.defs.sensors import inbox_sensor
from pathassets.steps.nodes import chain
from pathassets.steps.outcomes import known_outcomes
from pathassets.steps.session import Session
from pathassets.store.results import needs_publishing, publish

QUERIES = {
    "UI: list of assets": """{ assetNodes { id assetKey { path } groupName staleStatus hasAssetChecks
        partitionStats { numMaterialized numPartitions numFailed numMaterializing }
        assetMaterializations(limit: 1) { timestamp runId } } }""",
    "UI: partitions of an asset": """query ($key: [String!]!) { assetNodeOrError(assetKey: {path: $key}) { ... on AssetNode {
        partitionKeysByDimension { name type partitionKeys }
        assetPartitionStatuses { ... on DefaultPartitionStatuses {
            materializedPartitions failedPartitions unmaterializedPartitions materializingPartitions } }
        partitionStats { numMaterialized numPartitions numFailed numMaterializing } } } }""",
    "UI: events of an asset": """query ($key: [String!]!) { assetNodeOrError(assetKey: {path: $key}) { ... on AssetNode {
        assetMaterializations(limit: 100) { partition timestamp runId metadataEntries { label description } } } } }""",
    "UI: one partition of an asset": """query ($key: [String!]!, $slide: String!) {
        assetNodeOrError(assetKey: {path: $key}) { ... on AssetNode {
        assetMaterializations(partitions: [$slide], limit: 1) { timestamp runId metadataEntries { label description } }
        latestRunForPartition(partition: $slide) { runId status } staleStatus(partition: $slide) } } }""",
}  # fmt: skip
TICK, WANTED_SNAPSHOT, WANTED_SLIDE = 5.0, 5.0, 0.5
N_LARGE = 1_000_000
N_CHANGED = 100
CHANGED = f"results.duckdb, {N_CHANGED} slides have changed"


@dataclass
class Report:
    """What was measured, as it is measured.

    Attributes:
        pieces: CPU and wall seconds, by name.
        too_dear: Names of what costs more than wanted.
    """

    pieces: dict[str, tuple[float, float]] = field(default_factory=dict)
    too_dear: list[str] = field(default_factory=list)

    @contextmanager
    def measuring(
        self, name: str, wanted: float | None = None, *, share: int = 1, wall: bool = False
    ) -> Iterator[None]:
        """Measures the block, divided by `share`, and says it; `wall` judges the time that has passed."""
        begun, before = time.perf_counter(), os.times()
        yield
        after = os.times()
        self.add(
            name, (sum(after[:4]) - sum(before[:4])) / share, (time.perf_counter() - begun) / share, wanted, wall=wall
        )

    def add(self, name: str, cpu: float, seconds: float, wanted: float | None = None, *, wall: bool = False) -> None:
        """Notes a measurement and says it."""
        self.pieces[name] = (cpu, seconds)
        judged = seconds if wall else cpu
        if wanted is not None and judged > wanted:
            self.too_dear.append(name)
        limit = "" if wanted is None else f"{wanted:g} {'s' if wall else 'CPU s'}"
        print(
            f"{name:58} {cpu:9.3f} {seconds:9.3f}   {limit:10} {'TOO DEAR' if name in self.too_dear else ''}",
            flush=True,
        )


def numbers(folder: Path, n_slides: int, n_tiles: int) -> Report:
    """Everything that is done again and again beside the work, on a study of `n_slides`."""
    print(f"{'':58} {'CPU s':>9} {'wall s':>9}   wanted")
    report = Report()
    study, real = fabricated.make_real(folder / "home")
    orchestration(study, real, report)
    with report.measuring(f"(the study itself: {n_slides} slides, {n_tiles} tiles each)"):
        ids = fabricated.multiply(study, real, n_slides, n_tiles)
    snapshots(study, ids, report)
    command = [sys.executable, "-W", "ignore", "-m", "pathassets", "status", "--home", str(study.home)]
    with report.measuring("pathassets status, nothing was ever published"):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    known_outcomes(Session(study), remember=True)  # as publishing a study does, see `steps/publish.py`
    with report.measuring("pathassets status", TICK):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with open_instance(study) as instance:
        inbox_ticks(study, instance, report)
        automation_ticks(study, instance, report)
    pages(study, ids, report)
    return report


def orchestration(study: Study, real: list[str], report: Report) -> None:
    """A run of sixteen slides: all of its CPU time but what `run_batch` takes for itself, and the start of a run's process."""
    with report.measuring("start of a process that loads the study, for a slide of 16", share=len(real)):
        code = "import pathassets.definitions as d; d.defs()"
        environment = {**os.environ, "PATHASSETS_HOME": str(study.home)}
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=environment)
    start = report.pieces["start of a process that loads the study, for a slide of 16"]
    with _work_set_aside() as aside:
        cpu, wall = time.process_time(), time.perf_counter()
        fabricated.launch(study, real)
        cpu, wall = time.process_time() - cpu - aside["work"], time.perf_counter() - wall
    report.add("work on a slide (16 small ones)", aside["work"] / len(real), wall / len(real))
    own = cpu / len(real)
    report.add("orchestration of a slide of 16, start included", own + start[0], wall / len(real), WANTED_SLIDE)
    with report.measuring("a run over slides that are done, for a slide of 16", share=len(real)):
        fabricated.launch(study, real)


@contextmanager
def _work_set_aside() -> Iterator[dict[str, float]]:
    """Counts the CPU time of the slides' own work: all of `run_batch` without what it tells Dagster in the caller's thread."""
    from pathassets.steps import batch

    spent, real_batch = {"work": 0.0}, batch.run_batch

    def run_batch(session: Session, slide_ids: Any, nodes: Any, emit: Callable[[Any], None], **options: Any) -> None:
        told = [0.0]

        def timed(result: Any) -> None:
            begun = time.thread_time()
            emit(result)
            told[0] += time.thread_time() - begun

        begun = time.process_time()
        real_batch(session, slide_ids, nodes, timed, **options)
        spent["work"] += time.process_time() - begun - told[0]

    batch.run_batch = run_batch
    try:
        yield spent
    finally:
        batch.run_batch = real_batch


def snapshots(study: Study, ids: list[str], report: Report) -> None:
    """From nothing; nothing to do; a hundred slides changed, one became large."""
    root, tables = Session(study).root, Session(study).tables
    with report.measuring("results.duckdb from nothing"):
        publish(root, study.home, full=True)
    with report.measuring("results.duckdb, nothing to do"):
        assert not needs_publishing(root, study.home)
    changed = ids[-N_CHANGED:]
    for slide_id in changed:
        frame = tables.read("outcomes", slide_id)
        assert frame is not None
        tables.write("outcomes", frame.with_columns(message=pl.lit("changed")), slide_id=slide_id)
    with report.measuring(CHANGED, WANTED_SNAPSHOT, wall=True):
        assert publish(root, study.home).n_slides == len(changed)
    tiles = tables.read("tiles", ids[-1], "small")
    assert tiles is not None
    many = pl.concat([tiles] * (N_LARGE // tiles.height + 1)).head(N_LARGE)
    many = many.with_columns(tile_id=pl.int_range(N_LARGE, dtype=many["tile_id"].dtype))
    tables.write("tiles", many, slide_id=ids[-1], part="small")
    with report.measuring(f"results.duckdb, one slide now has {N_LARGE:,} tiles"):
        assert publish(root, study.home).n_slides == 1


def pieces_of(report: Report, n_slides: int) -> dict[str, float]:
    """What `cost_model.py` multiplies: amounts for one slide."""
    cpu = {name: seconds for name, (seconds, _) in report.pieces.items()}
    few = cpu[CHANGED]
    large = cpu[f"results.duckdb, one slide now has {N_LARGE:,} tiles"]
    return {
        "orchestration, CPU s for a slide of 16": cpu["orchestration of a slide of 16, start included"],
        "results.duckdb from nothing, CPU s for a slide": cpu["results.duckdb from nothing"] / n_slides,
        "results.duckdb, CPU s for a row": max(large - few, 0.0) / N_LARGE,
        "results.duckdb, 100 slides have changed, CPU s for a slide": few / n_slides,
        "tick of the inbox sensor, CPU s for a slide": cpu["tick of the inbox sensor: nothing new"] / n_slides,
        "tick of automation, CPU s for a slide of 6 assets": cpu["tick of the automation sensor: nothing new"]
        / n_slides,
        "pathassets status, CPU s for a slide": cpu["pathassets status"] / n_slides,
    }


def inbox_ticks(study: Study, instance: dg.DagsterInstance, report: Report) -> None:
    """The first look after a restart, one where nothing is new, and one that sees a new file."""
    cursor = None
    for name in ("first", "second", "nothing new", "a new file is seen", "a new file is registered"):
        if name == "a new file is seen":
            (study.inbox_paths[0] / "fresh.svs").write_bytes(b"fresh")
        with report.measuring(f"tick of the inbox sensor: {name}", TICK):
            context = dg.build_sensor_context(instance=instance, cursor=cursor)
            answer = inbox_sensor(study)(context)
        cursor = answer.cursor if isinstance(answer, dg.SensorResult) else cursor


def automation_ticks(study: Study, instance: dg.DagsterInstance, report: Report) -> None:
    """The first tick, one where nothing is new, one with sixteen new slides, and the one after it."""
    cursor: str | None = None
    for name in ("first", "nothing new", "nothing new, again", "16 new slides", "after a request"):
        if name == "16 new slides":
            instance.add_dynamic_partitions("slides", [f"new_{i}" for i in range(16)])
        with report.measuring(f"tick of the automation sensor: {name}", TICK):
            cursor, asked = automation_tick(study, instance, cursor)
        assert bool(asked) == (name == "16 new slides"), (name, asked)


def automation_tick(study: Study, instance: dg.DagsterInstance, cursor: str | None) -> tuple[str, int]:
    """What Dagster's daemon does in a tick, up to the requests; gives the next cursor and their number."""
    from dagster._core.definitions.automation_tick_evaluation_context import AutomationTickEvaluationContext
    from dagster._core.instance.types import CachingDynamicPartitionsLoader
    from dagster._daemon.asset_daemon import (
        asset_daemon_cursor_from_instigator_serialized_cursor,
        asset_daemon_cursor_to_instigator_serialized_cursor,
    )

    graph = build_defs(study).resolve_asset_graph()
    stored = asset_daemon_cursor_from_instigator_serialized_cursor(cursor, graph)
    keys = [dg.AssetKey(list(node.key)) for node in chain(study)]
    with dg.partition_loading_context(dynamic_partitions_store=CachingDynamicPartitionsLoader(instance)):
        requests, after, evaluations = AutomationTickEvaluationContext(
            evaluation_id=stored.evaluation_id + 1, instance=instance, asset_graph=graph, cursor=stored,
            materialize_run_tags={}, observe_run_tags={}, auto_observe_asset_keys=set(),
            asset_selection=dg.AssetSelection.assets(*keys).without_checks(), logger=_quiet(), emit_backfills=True,
        ).evaluate()  # fmt: skip
        assert instance.schedule_storage is not None
        instance.schedule_storage.add_auto_materialize_asset_evaluations(
            stored.evaluation_id + 1, [evaluation.with_run_ids(set()) for evaluation in evaluations]
        )
    return asset_daemon_cursor_to_instigator_serialized_cursor(after), len(requests)


def _quiet() -> Any:
    import logging

    log = logging.getLogger("benchmarks.scale")
    log.setLevel(logging.WARNING)
    return log


def pages(study: Study, ids: list[str], report: Report) -> None:
    """Dagster's own web server, asked what its pages ask; the second answer counts, the first one fills caches."""
    from support.daemon import _end, free_port

    port = free_port()
    environment = {**os.environ, "DAGSTER_HOME": str(study.dagster_home), "PATHASSETS_HOME": str(study.home)}
    command = [sys.executable, "-W", "ignore", "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(port),
               "-m", "pathassets.definitions"]  # fmt: skip
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for_server(server, port)
        key = list(chain(study)[3].key)
        for name, query in QUERIES.items():
            for which in ("first", "again"):
                cpu, wall = _cpu_of(server.pid), time.perf_counter()
                answer = _ask(port, query, {"key": key, "slide": ids[len(ids) // 2]})
                wall = time.perf_counter() - wall
                assert "errors" not in answer, answer
                report.add(f"{name}, {which}", _cpu_of(server.pid) - cpu, wall, TICK)
    finally:
        _end(server)


def _wait_for_server(server: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        try:
            if "data" in _ask(port, "{ version }", {}):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("Dagster's web server does not answer")


def _ask(port: int, query: str, variables: dict[str, Any]) -> Any:
    used = {name: value for name, value in variables.items() if f"${name}" in query}
    body = json.dumps({"query": query, "variables": used}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as reply:
        return json.load(reply)


def _cpu_of(pid: int) -> float:
    """CPU seconds of a process and all below it."""
    total = 0.0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        times = process.cpu_times()
        total += times.user + times.system
    return total


def main() -> int:
    """One of the measurements; see above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("numbers", "crowd", "kills"))
    parser.add_argument("folder", type=Path, nargs="?", help="where; a temporary folder when left out")
    parser.add_argument("--slides", type=int, default=5000)
    parser.add_argument("--tiles", type=int, default=300, help="of each slide that is a copy")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="note the pieces here, for cost_model.py")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=wanted.folder) as place:
        if wanted.what == "numbers":
            report = numbers(Path(place), wanted.slides, wanted.tiles)
            if wanted.keep:
                command = f"python -m benchmarks.scale numbers --slides {wanted.slides} --tiles {wanted.tiles}"
                keep(pieces_of(report, wanted.slides), command, wanted.keep)
            return int(bool(report.too_dear))
        from support.crowd import crowd, kills

        found = (
            crowd(Path(place), seconds=600) if wanted.what == "crowd" else kills(Path(place), wanted.kills, wanted.seed)
        )
        print(json.dumps(found.told(), indent=1))
        return int(not found.clean)


if __name__ == "__main__":
    sys.exit(main())
