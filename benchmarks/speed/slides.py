"""The benchmark's slides: one drawn piece of tissue, repeated until a slide is as large as it has to be.

Belongs here: files to measure on. Does not belong: measuring.
The JPEG tiles of the piece are copied as they are, so that a slide of gigabytes takes seconds to write.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from pathassets.testing import synthetic_slide

PIECE_PX = 4096
TILE_PX = 256
STEPS = (1, 4, 16)
COARSEST = 64


@dataclass(frozen=True)
class BenchSlide:
    """A slide of `across` x `down` pieces at a resolution in µm per pixel."""

    name: str
    across: int
    down: int
    mpp: float


def make(folder: Path, wanted: BenchSlide) -> Path:
    """Writes a slide, unless it is there; its file."""
    path = folder / f"{wanted.name}.tif"
    if path.exists():
        return path
    partial = path.with_suffix(".partial")
    with tifffile.TiffFile(_piece(folder)) as piece, tifffile.TiffWriter(partial, bigtiff=True) as target:
        pages = [page for page in piece.pages if page.is_tiled]
        for step, page in zip(STEPS, pages, strict=False):
            data, edge = _repeated(page, wanted), PIECE_PX // step
            _write(target, data, (edge * wanted.down, edge * wanted.across), wanted.mpp * step, first=step == 1)
        coarsest = pages[len(STEPS) - 1].asarray()[:: COARSEST // STEPS[-1], :: COARSEST // STEPS[-1]]
        picture = np.tile(coarsest, (wanted.down, wanted.across, 1))
        _write(target, np.ascontiguousarray(picture), picture.shape[:2], wanted.mpp * COARSEST, first=False)
    partial.rename(path)
    return path


def _piece(folder: Path) -> Path:
    path = folder / "piece.tif"
    if not path.exists():
        synthetic_slide(path, seed=3, width_px=PIECE_PX, height_px=PIECE_PX)
    return path


def _repeated(page: tifffile.TiffPage, wanted: BenchSlide) -> Iterator[bytes]:
    """The page's compressed tiles in the order in which a slide of many pieces has them."""
    columns = -(-page.imagewidth // TILE_PX)
    rows = -(-page.imagelength // TILE_PX)
    file = page.parent.filehandle
    tiles = []
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(offset)
        tiles.append(file.read(count))
    for row in range(rows * wanted.down):
        first = row % rows * columns
        for _ in range(wanted.across):
            yield from tiles[first : first + columns]


def _write(
    target: tifffile.TiffWriter, data: Iterator[bytes] | np.ndarray, shape: tuple[int, ...], mpp: float, *, first: bool
) -> None:
    target.write(
        data,
        shape=(*shape[:2], 3),
        dtype=np.uint8,
        photometric="ycbcr" if isinstance(data, Iterator) else "rgb",
        subsampling=(2, 2) if isinstance(data, Iterator) else None,
        tile=(TILE_PX, TILE_PX),
        compression="jpeg",
        compressionargs=None,
        resolution=(1e4 / mpp, 1e4 / mpp),
        resolutionunit="CENTIMETER",
        subfiletype=0 if first else 1,
        metadata=None,
    )
