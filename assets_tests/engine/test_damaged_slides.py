"""Damage inside real slides: it costs the tiles that it touches and not a bit of any other."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from support.damage import KINDS, Level, change_index, damage

from pathassets.core.geometry import TileSize
from pathassets.encoders import load_encoder
from pathassets.engine import EmbedPlan, Finished, Job, embed_slide, embed_slides
from pathassets.errors import Reason, SlideError
from pathassets.recipes import EmbeddingOptions
from pathassets.slides import open_slide
from pathassets.store import open_root
from pathassets.store.arrays import Embeddings, EmbeddingsWriter, read_embeddings

pytestmark = pytest.mark.e2e

# Not a divisor of any slide's compressed tiles, so that tiles touch one, two or four of them.
SIDE, COLUMNS, ROWS = 100, 22, 28
N = COLUMNS * ROWS
SIZE = TileSize((SIDE, SIDE), (SIDE, SIDE), (SIDE, SIDE), 0.5, 1.0)
NAMES = ("CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs", "her2st_C2_HE_pyr.tif", "molluscum_HE_skin.tif")
JPEG2000 = NAMES[1]


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("timm/test_vit", random_weights=True, device="cpu", precision="fp32", img_size=32)


@dataclass
class Bench:
    """A part of a real slide full of tissue, and what a whole file gives."""

    path: Path
    folder: Path
    encoder: object
    level: Level = field(init=False)
    tiles: pl.DataFrame = field(init=False)

    def __post_init__(self) -> None:
        self.level = Level.of(self.path)
        width, height = self.level.size
        left, top = (width - COLUMNS * SIDE) // 2, (height - ROWS * SIDE) // 2
        index = np.arange(N)
        self.tiles = pl.DataFrame({"x_px": left + index % COLUMNS * SIDE, "y_px": top + index // COLUMNS * SIDE})
        self.whole = self.embed(self.path, "whole")

    def compressed_tiles(self, n: int) -> list[int]:
        """Numbers of `n` compressed tiles side by side within the part."""
        tile_h, tile_w = self.level.tile_hw
        row, column = self.level.size[1] // 2 // tile_h, self.level.size[0] // 2 // tile_w
        return [(row + k // 3) * self.level.across + column + k % 3 for k in range(n)]

    def touched(self, compressed: list[int]) -> np.ndarray:
        """Which tiles touch any of these compressed tiles: bool (n,)."""
        return self.level.touched(compressed, self.tiles.select("x_px", "y_px").to_numpy(), SIDE, SIDE)

    def copy(self, name: str) -> Path:
        return Path(shutil.copy(self.path, self.folder / f"{name}{self.path.suffix}"))

    def writer(self, name: str, plan: EmbedPlan) -> EmbeddingsWriter:
        digest = name.encode().hex()[:32].ljust(8, "0")
        return EmbeddingsWriter(
            open_root(self.folder / "store"),
            "slide",
            digest,
            n_tiles=N,
            dim=self.encoder.dim,
            dtype=plan.dtype,
            shard_rows=plan.shard_rows,
        )

    @property
    def plan(self) -> EmbedPlan:
        return EmbedPlan.of(EmbeddingOptions(shard_rows=128, batch_size=16, dtype="float32"), self.encoder)

    def embed(self, path: Path, name: str) -> Embeddings:
        with self.writer(name, self.plan) as writer, open_slide(path) as slide:
            embed_slide(slide, self.tiles, SIZE, self.encoder, writer, self.plan)
            writer.finish(self.tiles.with_row_index("tile_id").with_columns(size_px=SIDE))
        return read_embeddings(writer.root, writer.group)

    def check(self, found: Embeddings, bad: np.ndarray) -> None:
        """These tiles are bad and say why and where; every bit of the others is as in the whole file."""
        values = found.read()
        assert np.array_equal(found.obs["status"].to_numpy() == "unreadable", bad)
        assert np.array_equal(found.obs["reason"].to_numpy() == "pixels_unreadable", bad)
        assert found.obs.select("x_px", "y_px").equals(self.tiles.cast(found.obs.schema["x_px"]))
        assert np.isnan(values[bad]).all()
        assert np.array_equal(values[~bad], self.whole.read()[~bad])
        assert self.whole.ok.all()


@pytest.fixture(scope="module", params=NAMES)
def bench(request, data_dir, encoder, tmp_path_factory) -> Bench:
    return Bench(data_dir / "slides" / request.param, tmp_path_factory.mktemp("bench"), encoder)


@pytest.mark.parametrize("kind", KINDS)
def test_overwritten_bytes_cost_the_tiles_that_they_belong_to(bench, kind):
    compressed, path = bench.compressed_tiles(2), bench.copy(kind)
    damage(path, compressed, kind)
    bad, found = bench.touched(compressed), bench.embed(path, kind)
    assert 0 < bad.sum() <= 0.05 * N
    if bench.path.name == JPEG2000 and kind == "cut off in the middle":
        # nothing tells zeros after a codestream's header from pixels; OpenSlide shows the same ones
        assert found.ok.all()
        assert np.array_equal(found.read()[~bad], bench.whole.read()[~bad])
    else:
        bench.check(found, bad)


INDEX = {
    "ends too early": {"TileByteCounts": lambda count: count // 2},
    "ends a little too early": {"TileByteCounts": lambda count: count - 40},
    "reaches past the end": {"TileByteCounts": 2**31},
    "begins past the end": {"TileOffsets": 2**31},
    "begins elsewhere": {"TileOffsets": lambda offset: offset + 7},
}


@pytest.mark.parametrize("kind", INDEX)
def test_damaged_entries_of_the_index_cost_their_tiles(bench, kind):
    compressed, path = bench.compressed_tiles(2), bench.copy(kind)
    change_index(path, compressed, **INDEX[kind])
    bench.check(bench.embed(path, kind), bench.touched(compressed))


def test_tiles_that_were_left_out_are_white_as_openslide_has_them(bench):
    compressed, path = bench.compressed_tiles(2), bench.copy("left out")
    change_index(path, compressed, TileByteCounts=0, TileOffsets=0)
    found, left_out = bench.embed(path, "left out"), bench.touched(compressed)
    assert found.ok.all()
    values, whole = found.read(), bench.whole.read()
    assert np.array_equal(values[~left_out], whole[~left_out])
    assert not (values[left_out] == whole[left_out]).all(axis=1).any()


def test_past_five_per_cent_the_slide_fails_and_the_next_in_the_stream_does_not(bench):
    compressed, path = bench.compressed_tiles(6), bench.copy("worse")
    damage(path, compressed)
    assert bench.touched(compressed).sum() > 0.05 * N
    ended: dict[str, Finished] = {}

    def finish(finished: Finished) -> None:
        ended[finished.job.name] = finished
        if finished.error is None:
            finished.writer.finish(bench.tiles.with_row_index("tile_id").with_columns(size_px=SIDE))

    with open_slide(path) as bad, open_slide(bench.path) as good:
        jobs = [
            Job(name, slide, bench.tiles, SIZE, bench.encoder, bench.plan, lambda plan, name=name: bench.writer(name, plan))
            for name, slide in (("worse", bad), ("next", good))
        ]  # fmt: skip
        embed_slides(jobs, finish)
    error = ended["worse"].error
    assert isinstance(error, SlideError)
    assert error.reason is Reason.TOO_MANY_BAD_TILES
    assert error.remedy
    assert ended["next"].error is None
    next_group = bench.writer("next", bench.plan)
    assert np.array_equal(read_embeddings(next_group.root, next_group.group).read(), bench.whole.read())
