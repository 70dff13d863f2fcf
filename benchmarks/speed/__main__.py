"""The README's table of performance: `make bench`, or `python -m benchmarks.speed WORK_FOLDER [PEERS_PYTHON [ROUNDS [PART ...]]]`.

Belongs here: which contenders meet on which slide, and the table. Does not belong: what a contender does (`ours`, `peers`).

Every figure is a ratio of neighbours: contenders take turns in processes of their own, each round gives one ratio, and the
median over rounds is printed, so that a machine whose speed changes does not decide.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.speed.contest import Contender, Sample, contest, median_ratio, run_module
from benchmarks.speed.slides import BenchSlide, make

ROUNDS = 3
MIDDLE = BenchSlide("20x", 5, 5, 0.5)
DOUBLE = BenchSlide("40x", 7, 7, 0.25)
SMALL = BenchSlide("20x-small", 3, 3, 0.5)
FEW = BenchSlide("20x-few", 2, 2, 0.5)
LARGE = BenchSlide("20x-large", 10, 10, 0.5)
HUGE = BenchSlide("100k", 21, 21, 0.5)
NETWORKS = {"ViT-S/16": "vit_small_patch16_224", "ResNet-18": "resnet18", "ResNet-50": "resnet50"}
GPU_NETWORKS = {"ViT-L/16": "vit_large_patch16_224", "ViT-S/16": "vit_small_patch16_224", "ResNet-50": "resnet50"}
# what a first call costs (imports, compilation) is not the subject: every contender does a small slide first
WARM_UP = BenchSlide("warm-up", 1, 1, 0.5)


class Bench:
    """The contests, with the interpreters and slides that they share."""

    def __init__(self, folder: Path, peers: Path | None, rounds: int) -> None:
        self._slides, self._peers, self._rounds = folder / "slides", peers, rounds
        self._slides.mkdir(parents=True, exist_ok=True)
        self._lines: list[tuple[str, str]] = []

    @property
    def parts(self) -> dict[str, Callable[[], None]]:
        """The contests by name, in order."""
        networks = {name: partial(self._limit, label, name, "cpu", SMALL) for label, name in NETWORKS.items()}
        on_gpu = {f"{name}-cuda": partial(self._on_gpu, label, name) for label, name in GPU_NETWORKS.items()}
        return {
            "feeding-20x": partial(self._feeding, MIDDLE),
            "feeding-40x": partial(self._feeding, DOUBLE),
            "whole": self._whole,
            **networks,
            **(on_gpu if torch.cuda.is_available() else {}),
            "huge": self._huge,
        }

    def run(self, parts: Sequence[str]) -> None:
        """Some contests, or all, then the table."""
        print(f"{_machine()}; load {os.getloadavg()[0]:.1f}\n", flush=True)
        for name in parts or self.parts:
            self.parts[name]()
        print(f"\nload at the end {os.getloadavg()[0]:.1f}\n\n| what | measured |\n| --- | --- |")
        for what, result in self._lines:
            print(f"| {what} | {result} |")

    def _on_gpu(self, label: str, name: str) -> None:
        for slide in (LARGE, DOUBLE):
            self._limit(label, name, "cuda:0", slide)

    def _slide(self, slide: BenchSlide) -> str:
        return str(make(self._slides, slide))

    def _ours(self, command: str, slide: BenchSlide, *more: str, cores: int = 0) -> Contender:
        args = (command, self._slide(slide), self._slide(WARM_UP), *more)
        return Contender(sys.executable, "benchmarks.speed.ours", args, cores)

    def _peer(self, command: str, slide: BenchSlide, *more: str, cores: int = 0) -> Contender:
        args = (command, self._slide(slide), self._slide(WARM_UP), *more)
        return Contender(str(self._peers), "benchmarks.speed.peers", args, cores)

    def _with_peers(self, ours: dict[str, Contender], peers: dict[str, Contender]) -> dict[str, Contender]:
        return ours | (peers if self._peers is not None else {})

    def _feeding(self, slide: BenchSlide) -> None:
        one = contest(
            self._with_peers(
                {"pathassets": self._ours("feed", slide, cores=1), "OpenSlide": self._ours("loop", slide, cores=1)},
                {
                    "LazySlide": self._peer("lazyslide_feed", slide, cores=1),
                    "TIAToolbox": self._peer("tiatoolbox_feed", slide, cores=1),
                },
            ),
            self._rounds,
        )
        all_cores = contest(
            self._with_peers(
                {"pathassets": self._ours("feed", slide)}, {"LazySlide": self._peer("lazyslide_feed", slide, "2")}
            ),
            self._rounds,
        )
        for name in [name for name in one if name != "pathassets"]:
            ratio, cost = median_ratio(one, "pathassets", name, "cpu_ms"), _medians(one, "cpu_ms", name)
            self._say(f"feeding, {slide.name} slide, one core: CPU per tile against {name}", f"{ratio:.2f} ({cost} ms)")
        for name in [name for name in all_cores if name != "pathassets"]:
            ratio, cost = median_ratio(all_cores, "pathassets", name, "wall_ms"), _medians(all_cores, "wall_ms", name)
            self._say(
                f"feeding, {slide.name} slide, all cores: time per tile against {name}, 2 workers",
                f"{ratio:.2f} ({cost} ms)",
            )

    def _limit(self, label: str, name: str, device: str, slide: BenchSlide) -> None:
        args = (self._slide(slide), self._slide(WARM_UP), name, str(self._rounds), device)
        seen = run_module(sys.executable, "benchmarks.speed.limits", args, cores=0)
        rates = f"{seen['chain']:.0f} of {seen['limit']:.0f} tiles/s"
        what = f"{label}, {slide.name} slide, file to Zarr on {device}: share of the bf16 forward limit"
        self._say(what, f"{seen['share']:.0%} ({rates})")

    def _whole(self) -> None:
        found = contest(
            self._with_peers(
                {"pathassets": self._ours("whole", FEW, f"timm/{NETWORKS['ViT-S/16']}")},
                {"LazySlide": self._peer("lazyslide_whole", FEW), "TIAToolbox": self._peer("tiatoolbox_whole", FEW)},
            ),
            self._rounds,
        )
        for name in [name for name in found if name != "pathassets"]:
            ratio, cost = 1 / median_ratio(found, "pathassets", name, "wall_ms"), _medians(found, "wall_ms", name)
            self._say(
                f"ViT-S/16, file to Zarr, times faster than {name}'s default", f"{ratio:.1f} ({cost} ms per tile)"
            )

    def _huge(self) -> None:
        found = contest({"huge": self._ours("feed", HUGE, cores=1), "middle": self._ours("feed", MIDDLE, cores=1)}, 1)
        huge = found["huge"][0]
        ratio = median_ratio(found, "huge", "middle", "cpu_ms")
        self._say(f"{huge.tiles:,} tiles: peak memory above the model's", f"{huge.peak_mb / 1000:.2f} GB")
        self._say(f"{huge.tiles:,} tiles: CPU per tile against {found['middle'][0].tiles:,}", f"{ratio:.2f}")

    def _say(self, what: str, result: str) -> None:
        print(f"{what}: {result}", flush=True)
        self._lines.append((what, result))


def _medians(found: dict[str, list[Sample]], what: str, other: str) -> str:
    own, theirs = (sorted(getattr(s, what) for s in found[name]) for name in ("pathassets", other))
    return f"{own[len(own) // 2]:.2f} against {theirs[len(theirs) // 2]:.2f}"


def _machine() -> str:
    names = [line.partition(":")[2].strip() for line in _cpu_info() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(os.sched_getaffinity(0))} cores"


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    folder, peers, rounds, *parts = [*sys.argv[1:], *[""] * (4 - len(sys.argv))]
    Bench(Path(folder).resolve(), Path(peers).absolute() if peers else None, int(rounds or ROUNDS)).run(parts)
