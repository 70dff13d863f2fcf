"""A whole weekend at any size: the real daemon with automation on, bad slides, a power failure, a reader, another recipe on Monday.

    python -m benchmarks.weekend FOLDER [--slides 200] [--width 20000] [--patience 7200]

The scenario is that of `assets_tests/e2e/test_weekend.py`, on procedural slides instead of noise, with real tissue detection.
Prints what happened when; the last line is the verdict, and the exit code is 0 when nothing was lost.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "assets_tests"))

from support.weekend import CONFIG, SECOND, THIRD, Weekend

from pathassets.slides.synthetic import synthetic_slide
from pathassets.steps.nodes import chain


def main() -> int:
    """One weekend in FOLDER, which must not exist or be empty."""
    wanted = _arguments()
    begun = time.monotonic()
    wanted.folder.mkdir(parents=True, exist_ok=True)

    def make(path: Path, seed: int) -> Path:
        synthetic_slide(path, seed=seed, width_px=wanted.width, height_px=wanted.width * 7 // 8)
        return path

    weekend = Weekend(
        wanted.folder / "home",
        good=wanted.slides,
        odd=tuple(wanted.odd),
        make=make,
        config=(CONFIG + SECOND + THIRD).replace('[tissue]\nmethod = "none"\n', ""),
        patience=wanted.patience,
        say=lambda line: print(f"{time.monotonic() - begun:8.0f} s  {line}", flush=True),
    )
    weekend.pass_by()
    return _verdict(weekend)


def _verdict(weekend: Weekend) -> int:
    lost = [one for node in chain(weekend.study) for one in weekend.ids if not weekend.after[node.key][one]]
    shared = [node for node in chain(weekend.study) if node not in weekend.upgraded]
    again = sum(sum(weekend.after[node.key].values()) - sum(weekend.before[node.key].values()) for node in shared)
    unsaid = set(weekend.bad) - set(weekend.failed())
    read, verify = weekend.read, weekend.verify()
    print(
        f"{len(weekend.ids)} good slides, {len(lost)} results missing; {len(weekend.bad)} bad, {len(unsaid)} without a word"
    )
    print(f"made again on Monday without need: {again}; reads {read['reads']}, of which failed {len(read['errors'])}")
    print(f"verify: {verify.stdout.strip().splitlines()[-1]} (exit {verify.returncode})")
    return int(bool(lost or unsaid or again or read["errors"] or verify.returncode))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slides", type=int, default=200, help="good slides")
    parser.add_argument("--width", type=int, default=20_000, help="of a slide, px at 0.5 µm")
    parser.add_argument("--odd", type=Path, nargs="*", default=[], help="files of which nothing can come")
    parser.add_argument("--patience", type=float, default=7200.0, help="longest wait for any one thing, s")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
