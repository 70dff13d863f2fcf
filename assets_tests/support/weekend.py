"""A weekend: the real daemon with automation on, slides good and bad, a power failure, a reader, another recipe on Monday.

What `e2e/test_weekend.py` does in minutes and `benchmarks/weekend.py` at any size.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import psutil
import tifffile

from pathassets import Study
from pathassets.slides.identity import slide_id
from pathassets.steps.nodes import Node, chain
from pathassets.steps.session import Session
from support.commands import run_command
from support.daemon import dagster_running, instance_of, make_home, wait_for
from support.studies import TINY

CONFIG = f"""
[study]
device = "cpu"
automation = true
slides_per_run = 16
[tissue]
method = "none"
{TINY}"""
SECOND = """
[[recipes]]
encoder = "timm/test_resnet"
name = "second"
random_weights = true
tiling = "small"
"""
THIRD = """
[[recipes]]
encoder = "timm/test_efficientnet"
name = "third"
random_weights = true
tiling = "small"
"""
# On Monday, by recipe: the encoder that takes the place of another. The third recipe stays as it is.
UPGRADES = {"tiny": ("timm/test_vit", "timm/test_vit2"), "second": ("timm/test_resnet", "timm/test_byobnet")}
PATIENCE_SECONDS = 420.0
READER = """
import duckdb, json, signal, sys, time
path, going = sys.argv[1], True
def end(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, end)
held = duckdb.connect(path, read_only=True)
reads, errors, most = 0, [], 0
while True:
    last = not going
    try:
        held.execute("select count(*) from slides").fetchone()
        with duckdb.connect(path, read_only=True) as fresh:
            most = max(most, fresh.execute("select count(*) from slides").fetchone()[0])
        reads += 1
    except Exception as error:
        errors.append(str(error))
    if last:
        break
    time.sleep(0.2)
print(json.dumps({"reads": reads, "errors": errors, "most": most}))
"""


def write_slide(path: Path, seed: int, *, mpp: float | None = 1.0) -> Path:
    """A small tiled TIFF of noise, another one for every seed; `mpp` None = nobody knows its resolution."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal((205, 120, 170), 35, (48, 64, 3)).repeat(10, 0).repeat(10, 1)
    pixels = np.clip(coarse + rng.normal(0, 8, coarse.shape), 1, 235).astype(np.uint8)
    known = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), **known)
    return path


def write_bad(folder: Path, seed: int) -> list[Path]:
    """Three slides of which nothing can come: rubbish, one without a resolution, one that was cut off."""
    rubbish, cut = folder / f"rubbish_{seed}.svs", folder / f"cut_{seed}.tiff"
    rubbish.write_bytes(np.random.default_rng(seed).bytes(50_000))
    whole = write_slide(cut, seed).read_bytes()
    cut.write_bytes(whole[:200])
    return [rubbish, write_slide(folder / f"no_mpp_{seed}.tiff", seed + 1, mpp=None), cut]


def materialised(instance: dg.DagsterInstance, node: Node, *, anew: bool = True) -> Counter[str]:
    """How often an asset of each slide was materialised; `anew` leaves out what a run found as it should be."""
    found: Counter[str] = Counter()
    cursor = None
    while True:
        page = instance.fetch_materializations(dg.AssetKey(list(node.key)), limit=500, cursor=cursor)
        for record in page.records:
            event = record.asset_materialization
            unchanged = event.metadata.get("unchanged")
            if not (anew and unchanged is not None and unchanged.value):
                found[record.partition_key] += 1
        if not page.has_more:
            return found
        cursor = page.cursor


def slides_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[str]:
    """The slides that a run covers."""
    first, last = (run.tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end"))
    if first is None or last is None:
        return [run.tags["dagster/partition"]]
    keys = list(instance.get_dynamic_partitions("slides"))
    return keys[keys.index(first) : keys.index(last) + 1]


def slide_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Runs over slides, whoever asked for them, the first one first."""
    return [run for run in reversed(instance.get_runs()) if any("partition" in tag for tag in run.tags)]


def pull_the_plug(home: Path) -> None:
    """Everything that serves the study is gone at once."""
    served = [process for process in psutil.Process().children() if {"dev", str(home)} <= set(process.cmdline())]
    assert len(served) == 1
    for process in [*served[0].children(recursive=True), *served]:
        process.send_signal(signal.SIGKILL)
    psutil.wait_procs(served, timeout=30)


@contextmanager
def reading(study: Study) -> Iterator[dict[str, Any]]:
    """Somebody who has `results.duckdb` open all the time and asks it again and again; filled with what came of it."""
    command = [sys.executable, "-c", READER, str(study.results_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said: dict[str, Any] = {}
    try:
        yield said
    finally:
        process.terminate()
        said.update(json.loads(process.communicate(timeout=60)[0] or "{}"))


@dataclass
class Weekend:
    """One weekend of a study.

    Attributes:
        home: The study's folder, made here.
        good: Number of slides that can be worked on.
        odd: Other bad files to drop.
        make: Writes a good slide.
        config: Settings, with automation on.
        patience: Longest wait for any one thing, s.
        say: Told how far it is.
    """

    home: Path
    good: int
    odd: tuple[Path, ...] = ()
    make: Callable[[Path, int], Path] = write_slide
    config: str = CONFIG + SECOND + THIRD
    patience: float = PATIENCE_SECONDS
    say: Callable[[str], object] = print
    ids: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    read: dict[str, Any] = field(default_factory=dict)

    def pass_by(self) -> None:
        """Friday to Monday."""
        self.study = make_home(self.home, config=self.config)
        with instance_of(self.study) as instance, ExitStack() as stack:
            self._friday(instance, stack)
            self._saturday(instance)
            self.before = self._counts(instance)
            self._monday(instance)
            self.after = self._counts(instance)
            self._publish()

    def _friday(self, instance: dg.DagsterInstance, stack: ExitStack) -> None:
        """Slides arrive, and the power fails when one recipe has all but one of them and the other none."""
        arriving = self.home.parent / "arriving"
        arriving.mkdir()
        paths = [self.make(arriving / f"good_{i}.tiff", i) for i in range(self.good)]
        self.ids = [slide_id(path) for path in paths]
        bad = [*write_bad(arriving, 10_000), *self.odd]
        self.bad = [slide_id(path) for path in bad]
        with Session(self.study).root.lock(f"slide-{self.ids[-1]}"), dagster_running(self.home):
            for path in [*paths, *bad]:
                (self.home / "inbox" / path.name).write_bytes(path.read_bytes())
            self._wait(lambda: self.study.scan("slides").collect().height == len(paths) + len(bad))
            self._publish()
            self.read = stack.enter_context(reading(self.study))
            last = self.of("tiny")[-1]
            self._wait(lambda: len(materialised(instance, last)) >= self.good - 1)
            self._publish()
            pull_the_plug(self.home)
            self.say(
                f"the power failed with {len(materialised(instance, last))} of {self.good} slides seen by one encoder"
            )

    def _saturday(self, instance: dg.DagsterInstance) -> None:
        """The machine is on again: what was interrupted is made, and what cannot be is said."""
        with dagster_running(self.home):
            for node in chain(self.study):
                self._wait(lambda node=node: set(materialised(instance, node)) >= set(self.ids))
            self._wait(lambda: set(self.failed()) >= set(self.bad))
            self._wait(lambda: self._is_quiet(instance))
        self.say("every good slide is complete")

    def _monday(self, instance: dg.DagsterInstance) -> None:
        """Two recipes take other encoders."""
        path = self.home / "pathassets.toml"
        for before, after in UPGRADES.values():
            path.write_text(path.read_text().replace(f'"{before}"', f'"{after}"'))
        self.study = Study(self.home)
        with dagster_running(self.home):
            for node in self.upgraded:
                now = self.before[node.key]
                self._wait(
                    lambda node=node, now=now: all(materialised(instance, node)[one] > now[one] for one in self.ids)
                )
            self._wait(lambda: self._is_quiet(instance))
        self.say("the changed recipe's results are there")

    @property
    def upgraded(self) -> list[Node]:
        """The nodes of the recipes that take other encoders on Monday."""
        return [node for name in UPGRADES for node in self.of(name)]

    def of(self, name: str | None) -> list[Node]:
        """The nodes of one recipe; None = those that all share."""
        return [node for node in chain(self.study) if (node.recipe.name if node.recipe else None) == name]

    def failed(self) -> Mapping[str, dict[str, Any]]:
        """What is said of the slides that failed."""
        rows = self.study.scan("outcomes").filter(status="failed").collect().to_dicts()
        return {row["slide_id"]: row for row in rows}

    def verify(self) -> subprocess.CompletedProcess[str]:
        """The study's own judgement on itself."""
        return run_command("verify", "--home", self.home)

    def _counts(self, instance: dg.DagsterInstance) -> dict[tuple[str, ...], Counter[str]]:
        return {node.key: materialised(instance, node) for node in chain(self.study)}

    def _is_quiet(self, instance: dg.DagsterInstance) -> bool:
        """No run is waiting or under way."""
        states = [dg.DagsterRunStatus[name] for name in ("QUEUED", "NOT_STARTED", "STARTING", "STARTED")]
        return not instance.get_runs_count(dg.RunsFilter(statuses=states))

    def _publish(self) -> None:
        run = run_command("publish", "--home", self.home)
        assert run.returncode == 0, run.stdout + run.stderr

    def _wait(self, what: Callable[[], Any]) -> None:
        wait_for(what, self.patience)
