"""What the engine is given and what it gives back.

Belongs here: jobs, results, and the few methods that a slide and a writer must have. Does not belong: threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import polars as pl

from pathassets.core.geometry import TileSize
from pathassets.encoders.precision import Agreement
from pathassets.engine.plan import EmbedPlan

if TYPE_CHECKING:
    from pathassets.encoders.encoder import Encoder

OK, UNREADABLE = "ok", "unreadable"
STAGES = ("decode", "transfer", "forward", "write")
# A batch takes seconds where a disk is slow; one that takes minutes hangs.
STALL_SECONDS = 300.0
# A slide fails past this share of tiles that cannot be read.
MAX_BAD_TILES = 0.05

Progress = Callable[[int, int], None]
# Makes a job, beside others that are being made for other devices; None = there is nothing to compute after all.
Prepare = Callable[[], "Job | None"]
# Columns measured on the tiles of a batch, uint8 (n, h, w, 3), while they are in memory anyway: (n,) each.
Measure = Callable[[np.ndarray], Mapping[str, np.ndarray]]


class TileSource(Protocol):
    """A slide, as far as the engine cares."""

    def read(self, x: int, y: int, width: int, height: int, out_hw: tuple[int, int]) -> np.ndarray:
        """A level-0 rectangle as uint8 (out_h, out_w, 3); called from several threads at once.

        Raises:
            SlideError: These pixels cannot be read; others may be.
        """


class ShardWriter(Protocol):
    """Where rows go; one per slide and plan."""

    @property
    def n_bad(self) -> int:
        """Tiles that could not be read, of shards that were there when it was opened."""

    def missing_shards(self) -> list[int]:
        """The shards that are still to be written."""

    def rows_of(self, shard: int) -> slice:
        """The rows of a shard."""

    def write_shard(self, shard: int, rows: np.ndarray, notes: pl.DataFrame | None = None) -> None:
        """Stores one whole shard for good: the encoder's rows, float32 (k, width), and k rows of `status`, `reason` and measures."""


@dataclass(frozen=True)
class Job:
    """One slide to embed.

    Attributes:
        name: For messages.
        slide: Its pixels; whoever made the job closes it when the job has ended.
        tiles: `x_px`, `y_px` in level-0 pixels, in grid order.
        size: How large a tile is on the slide and for the encoder.
        encoder: The encoder, in any precision; the plan's is used.
        plan: What to try first.
        open_writer: Opens the writer that belongs to a plan.
        max_bad_tiles: Largest share of tiles that may be unreadable.
        measure: What to measure on the pixels, besides.
        progress: Told how many of the slide's tiles are done, in the caller's own thread.
    """

    name: str
    slide: TileSource
    tiles: pl.DataFrame
    size: TileSize
    encoder: Encoder
    plan: EmbedPlan
    open_writer: Callable[[EmbedPlan], AbstractContextManager[ShardWriter]]
    max_bad_tiles: float = MAX_BAD_TILES
    measure: Measure | None = None
    progress: Progress | None = None


@dataclass(frozen=True)
class EmbedResult:
    """What became of a slide.

    Attributes:
        n_tiles: Tiles of the slide.
        n_computed: Tiles computed in this run; the others were there.
        n_bad_tiles: Tiles of the slide that could not be read, in this run or an earlier one.
        plan: The plan that held.
        agreement: Of the plan's precision with fp32, on the first batch; None for a slide without tiles.
        timings: Seconds by stage, summed over threads: decode, transfer, forward, write.
        seconds: Time from the first tile asked for to the last shard written.
        device: What it ran on.
    """

    n_tiles: int
    n_computed: int
    n_bad_tiles: int
    plan: EmbedPlan
    agreement: Agreement | None
    timings: dict[str, float]
    seconds: float
    device: str

    @property
    def precision(self) -> str:
        """What the encoder computed in."""
        return self.plan.precision


@dataclass(frozen=True)
class Settings:
    """How the machine is used; no value depends on any of these.

    Attributes:
        workers: Threads that read tiles, shared out over the devices; 0 = one per core.
        streams: Forward passes at the same time on each device; 0 = one per core on a CPU, one on any other.
        memory_share: Largest share of the free memory that waiting tiles may take, all devices' together, measured at
            every batch.
        stall_seconds: A batch that takes longer to read is given up, and its slide with it.
    """

    workers: int = 0
    streams: int = 0
    memory_share: float = 0.8
    stall_seconds: float = STALL_SECONDS


@dataclass
class Seconds:
    """Seconds by stage; several threads add to it, each under the run's lock."""

    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def add(self, stage: str, seconds: float) -> None:
        """Adds to a stage."""
        self.spent[stage] += seconds
