"""What does it save to decode JPEG2000 tiles without OpenSlide? CPU time per tile of 224 px, read from level 0 in grid order.

    python benchmarks/jpeg2000.py [SLIDE]      # an Aperio slide with JPEG2000 tiles

Runs take turns, so that whatever else the machine does hits all of them. Also prints by how many grey levels pixels differ from
OpenSlide's at full size and means over blocks of them.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pathassets.slides import open_slide
from pathassets.slides.openslide_reader import OpenSlideReader
from pathassets.slides.slide import Slide

PX, TURNS = 224, 5
DEFAULT = Path("../shared/data/slides/TCGA-CR-7395-01A-01-TS1.svs")


def through_openslide(path: Path) -> Slide:
    with open_slide(path) as slide:
        return Slide(OpenSlideReader(path), slide.info)


READERS: dict[str, Callable[[Path], Slide]] = {
    "OpenSlide": through_openslide,
    "here": open_slide,
    "here, at full size": lambda path: open_slide(path, exact=True),
}


def read(slide: Slide, factor: int) -> tuple[float, np.ndarray]:
    """CPU milliseconds per tile, and the tiles."""
    side = PX * factor
    starts = [
        (x, y) for y in range(0, slide.info.height_px - side, side) for x in range(0, slide.info.width_px - side, side)
    ]
    began = time.process_time()
    tiles = [slide._render(0, slide._window(0, x, y, side, side), (PX, PX)) for x, y in starts]
    return (time.process_time() - began) / len(tiles) * 1e3, np.stack(tiles)


def main(path: Path) -> None:
    print(f"{path.name}: CPU ms per tile (median of {TURNS}), times faster than OpenSlide, mean difference on tissue")
    for factor in (1, 2, 4):
        times: dict[str, list[float]] = {name: [] for name in READERS}
        tiles = {}
        for _ in range(TURNS):
            for name, opened in READERS.items():
                with opened(path) as slide:
                    spent, tiles[name] = read(slide, factor)
                    times[name].append(spent)
        reference = tiles["OpenSlide"].astype(int)
        tissue = reference.std(axis=(1, 2, 3)) > 25
        for name, spent in times.items():
            ratio = statistics.median(times["OpenSlide"]) / statistics.median(spent)
            differs = np.abs(tiles[name][tissue] - reference[tissue]).mean()
            label = f"{PX * factor} -> {PX}"
            print(f"{label:>12}  {name:20} {statistics.median(spent):6.2f} ms  {ratio:5.2f} x  {differs:5.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT)
