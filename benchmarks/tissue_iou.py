"""How well the tissue mask agrees with the truth on drawn slides: `python benchmarks/tissue_iou.py [--seeds N] [--edge PX] [--mpp X]`.

Each slide is drawn without and with each artefact and with all at once; half of the seeds have twice the usual spread of
stains. Prints the intersection over union of each and exits 1 when one is below the limit.

Three numbers a slide: `glass ink` leaves out pixels where ink lies on tissue (nobody can say which they are) and is what
the limit is set on; `all tissue` counts them as tissue, `no ink` as none, to show that this choice is worth little.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from pathassets.core.tissue import find_tissue, mask_from_image, tissue_pieces
from pathassets.recipes import TissueOptions
from pathassets.slides import open_slide
from pathassets.slides.synthetic import ARTEFACTS, SyntheticTruth, synthetic_slide

LIMIT = 0.95


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / max((found | truth).sum(), 1))


def found_tissue(path: Path, truth: SyntheticTruth, options: TissueOptions) -> tuple[np.ndarray, str]:
    """The tissue that tiles are cut from, on the cells of the truth map."""
    with open_slide(path) as slide:
        rgb, info = slide.read_mpp(options.mpp), slide.info
    scale_x, scale_y = info.width_px / rgb.shape[1], info.height_px / rgb.shape[0]
    result = find_tissue(rgb, truth.mpp * scale_x, options)
    _, labels = tissue_pieces(result.mask, truth.mpp, scale_x, scale_y, options)
    return mask_from_image(labels >= 0, truth.tissue.shape).mask, result.method


def measure(folder: Path, seed: int, artefacts: tuple[str, ...], edge: int, options: TissueOptions) -> float:
    path = folder / "slide.tif"
    truth = synthetic_slide(
        path, seed=seed, width_px=edge, height_px=edge, artefacts=artefacts, stain_jitter=1.0 + seed % 2
    )
    found, method = found_tissue(path, truth, options)
    known = ~(truth.tissue & truth.pen)
    fair = iou(found & known, truth.tissue & known)
    both = f"{iou(found, truth.tissue):10.4f}  {iou(found, truth.tissue & ~truth.pen):9.4f}"
    print(
        f"{seed:4d}  {'+'.join(artefacts) or 'none':20s}  {fair:9.4f}  {both}  {method}{'' if fair >= LIMIT else '  BELOW'}",
        flush=True,
    )
    return fair


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--edge", type=int, default=4000)
    parser.add_argument("--mpp", type=float, default=8.0)
    parser.add_argument("--method", default="auto", choices=["auto", "otsu", "entropy"])
    given = parser.parse_args()
    options = TissueOptions(method=given.method, mpp=given.mpp)
    print("seed  artefacts             glass ink  all tissue  no ink     method")
    with tempfile.TemporaryDirectory() as folder:
        choices = [(), *((name,) for name in ARTEFACTS), ARTEFACTS]
        values = [measure(Path(folder), s, a, given.edge, options) for s in range(given.seeds) for a in choices]
    missed = sum(value < LIMIT for value in values)
    print(f"{len(values)} slides, median {np.median(values):.4f}, least {min(values):.4f}, {missed} below {LIMIT}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
