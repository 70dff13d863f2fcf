"""Step `tiles`: the grid over the tissue, and what each tile looks like at a glance.

Belongs here: laying the grid on one slide, reading it coarsely for the quality columns. Does not belong: which
tiles count (`core/tiling.py`), the measures themselves (`core/qc.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pathassets.core.geometry import TileSize, tile_size
from pathassets.errors import PathassetsError, Reason, SlideError
from pathassets.recipes import Tiling
from pathassets.steps.chain import Made
from pathassets.steps.nodes import Node
from pathassets.steps.outcomes import Status
from pathassets.steps.session import Session, made_by
from pathassets.steps.tissue import load_labels

if TYPE_CHECKING:
    from pathassets.slides import Slide

# Quality is judged at 2 µm/px: pen, stain and defocus of more than a nucleus show there, at a sixteenth of the pixels.
QC_MPP = 2.0


def inputs(session: Session, slide_id: str, node: Node) -> tuple[Any, ...]:
    """Nothing besides the tissue."""
    return (QC_MPP,)


def is_stored(session: Session, slide_id: str, node: Node) -> bool:
    """Whether the tiles are there."""
    return session.tables.exists("tiles", slide_id, _tiling(node).name)


def make(session: Session, slide_id: str, node: Node, result_digest: str) -> Made:
    """Lays the grid and writes the table `tiles`.

    Raises:
        SlideError: The slide is too coarse for the tiling, or lacks the level it asks for.
    """
    from pathassets.core.tiling import grid_tiles

    tiling = _tiling(node)
    row = session.slide_row(slide_id)
    size = slide_tile_size(tiling, row)
    frame = grid_tiles(
        row["width_px"], row["height_px"], size, load_labels(session, slide_id), tiling.min_tissue, tiling.edge
    )
    with session.open_slide(slide_id, watched=True) as slide:
        frame = frame.with_columns(**quality_columns(slide, frame, row["mpp"], size))
    constants = {"slide_id": slide_id, "tiling": tiling.name, **made_by(session, node, result_digest)}
    frame = frame.with_columns(pl.lit(value, dtype=pl.String).alias(name) for name, value in constants.items())
    session.tables.write("tiles", frame, slide_id=slide_id, part=tiling.name)
    return _verdict(frame, size, row)


def slide_tile_size(tiling: Tiling, row: dict[str, Any]) -> TileSize:
    """`tiling` on the slide that `row` of `slides` describes."""
    dimensions = [(int(w), int(h)) for w, h in row["level_dimensions"]]
    return tile_size(tiling, row["mpp"], row["objective_power"], dimensions)


def _verdict(frame: pl.DataFrame, size: TileSize, row: dict[str, Any]) -> Made:
    if frame.is_empty():
        return Made(
            Status.EMPTY,
            Reason.NO_TILES,
            f"no tile of {size.size_hw[1]} x {size.size_hw[0]} level-0 px lies on tissue "
            f"(slide {row['width_px']} x {row['height_px']} px)",
            'Use smaller tiles, a smaller min_tissue, or edge = "pad".',
        )
    if size.upsampling > 1:
        return Made(
            Status.FLAGGED,
            Reason.RESOLUTION_UPSAMPLED,
            f"the slide has {row['mpp']:.3g} µm/px: tiles at {size.mpp:.3g} are enlarged {size.upsampling:.2f} times",
            "Use a coarser tiling if its features shall be compared with other slides'.",
        )
    return Made()


def quality_columns(slide: Slide, frame: pl.DataFrame, mpp: float, size: TileSize) -> dict[str, pl.Series]:
    """Quality measures of each tile, read row of tiles by row of tiles so that no pixel is decoded twice.

    A tile that cannot be read has NaN.
    """
    from pathassets.core.qc import tile_qc

    if frame.is_empty():
        return {name: pl.Series([], dtype=pl.Float32) for name in tile_qc(np.zeros((0, 8, 8, 3), np.uint8))}
    scale = mpp / max(QC_MPP, size.mpp)
    parts = []
    for _, row in frame.group_by("grid_row", maintain_order=True):
        pixels, readable = _row_pixels(slide, row["x_px"].to_numpy(), int(row["y_px"][0]), size.size_hw, scale)
        columns = tile_qc(pixels)
        parts.append({name: np.where(readable, values, np.nan) for name, values in columns.items()})
    return {name: pl.Series(np.concatenate([part[name] for part in parts]), dtype=pl.Float32) for name in parts[0]}


def _row_pixels(
    slide: Slide, xs: np.ndarray, y: int, size_hw: tuple[int, int], scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """The tiles of one grid row, small: pixels (n, h, w, 3) and whether each could be read (n,)."""
    height, width = size_hw
    out_hw = (max(8, round(height * scale)), max(8, round(width * scale)))
    span = int(xs[-1]) + width - int(xs[0])
    try:
        strip = slide.read(int(xs[0]), y, span, height, (out_hw[0], max(out_hw[1], round(span * out_hw[1] / width))))
    except SlideError:
        return _one_by_one(slide, xs, y, size_hw, out_hw)
    starts = np.minimum(np.rint((xs - xs[0]) * out_hw[1] / width).astype(int), strip.shape[1] - out_hw[1])
    return np.stack([strip[:, start : start + out_hw[1]] for start in starts]), np.ones(len(xs), bool)


def _one_by_one(
    slide: Slide, xs: np.ndarray, y: int, size_hw: tuple[int, int], out_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    pixels, readable = np.full((len(xs), *out_hw, 3), 255, np.uint8), np.ones(len(xs), bool)
    for i, x in enumerate(xs):
        try:
            pixels[i] = slide.read(int(x), y, size_hw[1], size_hw[0], out_hw)
        except PathassetsError:
            readable[i] = False
    return pixels, readable


def _tiling(node: Node) -> Tiling:
    assert node.tiling is not None
    return node.tiling
