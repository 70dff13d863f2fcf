"""Reading: the tiles of a batch, one bad tile at a time.

Belongs here: rectangles to pixels, and what a tile that cannot be read becomes. Does not belong: file formats, threads.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from pathassets.engine.run import Batch
from pathassets.errors import SlideError

log = logging.getLogger(__name__)

WHITE = 255


def read_batch(batch: Batch, buffer: np.ndarray) -> None:
    """Fills `buffer`, uint8 (at least n, h, w, 3), with the batch's tiles in grid order.

    A tile that cannot be read is white, so that the batch keeps its shape and its other rows their values; it is
    noted in `batch.bad`.
    """
    job = batch.run.job
    height, width = job.size.size_hw
    batch.buffer, batch.tiles = buffer, buffer[: batch.n]
    for position, (x, y) in enumerate(batch.run.xy[batch.rows].tolist()):
        try:
            batch.tiles[position] = job.slide.read(x, y, width, height, job.size.out_hw)
        except (SlideError, OSError) as error:
            log.warning("%s: tile at x=%d, y=%d cannot be read: %s", job.name, x, y, error)
            batch.tiles[position] = WHITE
            batch.bad[position] = str(error.reason) if isinstance(error, SlideError) else type(error).__name__
    if job.measure is not None:
        batch.measures = _measured(job.measure(batch.tiles), list(batch.bad))


def _measured(columns: Mapping[str, np.ndarray], bad: list[int]) -> dict[str, np.ndarray]:
    kept = {name: np.asarray(values, dtype=np.float32).copy() for name, values in columns.items()}
    for values in kept.values():
        values[bad] = np.nan
    return kept
