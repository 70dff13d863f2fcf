"""A slide whose every pixel is known, a writer in memory, encoders that misbehave on demand."""

from __future__ import annotations

import threading
import time

import numpy as np
import polars as pl
import torch

from pathassets.core.geometry import TileSize
from pathassets.encoders.card import EncoderCard
from pathassets.encoders.encoder import Encoder
from pathassets.engine import EmbedPlan
from pathassets.errors import Reason, SlideError

TILE = 32
COLUMNS = 10
SIZE = TileSize((TILE, TILE), (TILE, TILE), (TILE, TILE), 0.5, 1.0)


def grid(n: int) -> pl.DataFrame:
    """`n` tiles in grid order, ten to a row."""
    index = np.arange(n)
    return pl.DataFrame({"x_px": index % COLUMNS * TILE, "y_px": index // COLUMNS * TILE})


class FakeSlide:
    """Pixels follow from their place; some tiles are bad, some hang."""

    def __init__(self, bad: tuple[int, ...] = (), hangs: int | None = None, seconds: float = 0.0) -> None:
        self.bad, self.hangs, self.seconds = set(bad), hangs, seconds
        self.release = threading.Event()
        self.read_tiles: list[int] = []

    def read(self, x: int, y: int, width: int, height: int, out_hw: tuple[int, int]) -> np.ndarray:
        number = y // TILE * COLUMNS + x // TILE
        self.read_tiles.append(number)
        if self.seconds:
            time.sleep(self.seconds)
        if number == self.hangs:
            self.release.wait(60)
        if number in self.bad:
            raise SlideError(f"tile {number} is damaged", reason=Reason.PIXELS_UNREADABLE)
        return tile_pixels(number, out_hw)


def tile_pixels(number: int, out_hw: tuple[int, int] = (TILE, TILE)) -> np.ndarray:
    """What tile `number` looks like."""
    return np.random.default_rng(number).integers(0, 256, (*out_hw, 3), dtype=np.uint8)


class Memory:
    """A writer that keeps its shards."""

    def __init__(self, n: int, dim: int, shard_rows: int, fail_at: int | None = None) -> None:
        self.n, self.dim, self.shard_rows, self.fail_at = n, dim, shard_rows, fail_at
        self.shards: dict[int, np.ndarray] = {}
        self.notes: dict[int, pl.DataFrame] = {}
        self.closed = False

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def missing_shards(self) -> list[int]:
        return [i for i in range(-(-self.n // self.shard_rows)) if i not in self.shards]

    @property
    def n_bad(self) -> int:
        return sum(int((notes["status"] != "ok").sum()) for notes in self.notes.values())

    def rows_of(self, shard: int) -> slice:
        return slice(shard * self.shard_rows, min(self.n, (shard + 1) * self.shard_rows))

    def write_shard(self, shard: int, rows: np.ndarray, notes: pl.DataFrame | None = None) -> None:
        assert not self.closed, "a shard came after its writer was closed"
        if shard == self.fail_at:
            raise OSError(28, "No space left on device")
        assert notes is not None
        assert len(notes) == len(rows)
        self.shards[shard], self.notes[shard] = rows.copy(), notes

    @property
    def values(self) -> np.ndarray:
        return np.concatenate([self.shards[i] for i in sorted(self.shards)])

    @property
    def obs(self) -> pl.DataFrame:
        return pl.concat([self.notes[i] for i in sorted(self.notes)])


class Mean(torch.nn.Module):
    """An encoder whose truth is known: the mean colour; with faults that depend on precision and batch size."""

    def __init__(
        self, factor: float = 1.0, nan_below_fp32: bool = False, always_nan: bool = False, fits: int = 10**9
    ) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.factor, self.nan_below_fp32, self.always_nan, self.fits = factor, nan_below_fp32, always_nan, fits
        self.error: Exception | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.error is not None:
            raise self.error
        if len(images) > self.fits:
            raise torch.OutOfMemoryError(f"{len(images)} tiles do not fit")
        out = images.float().mean((2, 3)) * self.factor
        if self.always_nan or (self.nan_below_fp32 and self.weight.dtype != torch.float32):
            out[0] = float("nan")
        return out


def encoder_of(network: torch.nn.Module, precision: str = "fp32", devices: tuple[str, ...] = ("cpu",)) -> Encoder:
    """`network` as an encoder of three numbers in 0..255."""
    std = 1 / 255
    card = EncoderCard(name="mean", dim=3, input_px=TILE, description="", mean=(0, 0, 0), std=(std, std, std))
    sha256 = "random-mean"
    return Encoder(card, network, device=devices[0], precision=precision, weights_sha256=sha256, devices=devices)


def plan_of(**changes: object) -> EmbedPlan:
    fields = {"precision": "fp32", "dtype": "float32", "batch_size": 8, "shard_rows": 16, "device": "cpu"}
    return EmbedPlan(**{**fields, **changes})


def truth(n: int) -> np.ndarray:
    """Mean colours of the first `n` tiles."""
    return np.stack([tile_pixels(k).mean((0, 1)) for k in range(n)])


def wait_until(condition, seconds: float = 30.0) -> None:
    """Waits for something that another thread or process does; a test that would hang fails instead."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
