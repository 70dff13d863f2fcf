"""A real slide through the engine, with real damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from support.streams import Memory, plan_of

from pathassets.core.geometry import TileSize
from pathassets.encoders import load_encoder
from pathassets.engine import embed_slide
from pathassets.errors import SlideError
from pathassets.slides import open_slide

SIZE = TileSize((64, 64), (64, 64), (64, 64), 0.5, 1.0)


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("timm/test_resnet", random_weights=True, device="cpu", precision="fp32")


@pytest.fixture
def file(data_dir) -> Path:
    """A small slide with JPEG tiles."""
    return next((data_dir / "slides").glob("CMU-1-Small*.svs"))


def grid(slide, n: int) -> pl.DataFrame:
    columns = slide.info.width_px // 64
    index = np.arange(n)
    return pl.DataFrame({"x_px": index % columns * 64, "y_px": index // columns * 64})


def test_a_real_slide_gives_the_vectors_of_its_pixels(file, encoder):
    with open_slide(file) as slide:
        tiles, writer = grid(slide, 150), Memory(150, encoder.dim, 64)
        result = embed_slide(slide, tiles, SIZE, encoder, writer, plan_of(shard_rows=64, batch_size=16))
        pixels = np.stack([slide.read(x, y, 64, 64, (64, 64)) for x, y in tiles.iter_rows()])
    assert result.n_bad_tiles == 0
    np.testing.assert_allclose(writer.values, encoder(pixels), rtol=1e-3, atol=1e-4)


def test_damage_inside_a_real_slide_costs_the_tiles_it_lies_in(file, encoder, tmp_path):
    damaged = tmp_path / "damaged.svs"
    data = bytearray(file.read_bytes())
    middle = len(data) // 4
    data[middle : middle + 3000] = bytes(3000)  # within the compressed tiles of level 0
    damaged.write_bytes(data)
    with open_slide(damaged) as slide:
        n = slide.info.width_px // 64 * (slide.info.height_px // 64)
        tiles, writer = grid(slide, n), Memory(n, encoder.dim, 64)
        plan = plan_of(shard_rows=64, batch_size=16)
        result = embed_slide(slide, tiles, SIZE, encoder, writer, plan, max_bad_tiles=0.2)
        assert 0 < result.n_bad_tiles < 0.2 * n
        status = writer.obs["status"]
        for row in np.flatnonzero((status == "unreadable").to_numpy()):
            x, y = tiles.row(int(row))
            with pytest.raises(SlideError):
                slide.read(x, y, 64, 64, (64, 64))
    assert np.isfinite(writer.values[(status == "ok").to_numpy()]).all()
