"""A process that embeds a fake slide into a store and may be killed: `python child.py STORE DIGEST N_TILES SECONDS_PER_TILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from support.streams import SIZE, FakeSlide, grid

from pathassets.encoders import load_encoder
from pathassets.engine import EmbedPlan, embed_slide
from pathassets.recipes import EmbeddingOptions
from pathassets.store.arrays import EmbeddingsWriter
from pathassets.store.root import Root

OPTIONS = EmbeddingOptions(shard_rows=32, batch_size=12, dtype="float32")


def main(store: str, digest: str, n: int, seconds: float) -> None:
    encoder = load_encoder("timm/test_vit", random_weights=True, device="cpu", img_size=32)
    plan, tiles = EmbedPlan.of(OPTIONS, encoder), grid(n)
    writer = EmbeddingsWriter(
        Root(Path(store)), "slide", digest, n_tiles=n, dim=encoder.dim, dtype=plan.dtype, shard_rows=plan.shard_rows
    )
    slide = FakeSlide(bad=(3, 40), seconds=seconds)
    with writer:
        result = embed_slide(slide, tiles, SIZE, encoder, writer, plan)
        obs = tiles.with_row_index("tile_id").with_columns(size_px=SIZE.size_hw[0])
        writer.finish(obs, {})
    print(result.n_computed, len(set(slide.read_tiles)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
