"""A process in which reading one compressed tile of a real slide never comes back: `python child_hangs.py HANGS NEXT STORE SECONDS`.

The slide HANGS comes first in the stream, then NEXT. What became of each is printed as JSON, and how many threads still hang.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

import numpy as np
import polars as pl
from support.damage import Level

from pathassets.core.geometry import TileSize
from pathassets.encoders import load_encoder
from pathassets.engine import EmbedPlan, Finished, Job, Settings, embed_slides
from pathassets.recipes import EmbeddingOptions
from pathassets.slides import open_slide
from pathassets.slides.slide import Slide
from pathassets.store import open_root
from pathassets.store.arrays import EmbeddingsWriter

SIDE, N = 100, 400
SIZE = TileSize((SIDE, SIDE), (SIDE, SIDE), (SIDE, SIDE), 0.5, 1.0)


def hang_at(offset: int) -> None:
    """The system never answers when it is asked for the bytes there."""
    read = os.pread

    def pread(handle: int, count: int, where: int) -> bytes:
        if where == offset:
            threading.Event().wait()
        return read(handle, count, where)

    os.pread = pread


def main(hangs: str, following: str, store: str, seconds: float) -> None:
    encoder = load_encoder("timm/test_vit", random_weights=True, device="cpu", precision="fp32", img_size=32)
    plan = EmbedPlan.of(EmbeddingOptions(shard_rows=64, batch_size=16, dtype="float32"), encoder)
    level, ended = Level.of(hangs), {}
    offset = level.offsets[3 * level.across + 3]

    def job(path: str) -> Job:
        slide = open_slide(path)
        index, columns = np.arange(N), slide.info.width_px // SIDE
        tiles = pl.DataFrame({"x_px": index % columns * SIDE, "y_px": index // columns * SIDE})
        digest = "ab" * 8 if path == hangs else "cd" * 8

        def writer(plan: EmbedPlan) -> EmbeddingsWriter:
            return EmbeddingsWriter(
                open_root(store),
                "slide",
                digest,
                n_tiles=N,
                dim=encoder.dim,
                dtype=plan.dtype,
                shard_rows=plan.shard_rows,
            )

        return Job(path, slide, tiles, SIZE, encoder, plan, writer)

    def on_done(finished: Finished) -> None:
        assert isinstance(finished.job.slide, Slide)
        finished.job.slide.close()
        shards = len(finished.writer.missing_shards())
        error = finished.error
        ended[finished.job.name] = [str(getattr(error, "reason", None)), str(error or ""), shards]

    jobs = [job(hangs), job(following)]
    hang_at(offset)
    begun = time.monotonic()
    embed_slides(jobs, on_done, settings=Settings(workers=2, streams=1, stall_seconds=seconds))
    alive = sum(thread.name.startswith("pathassets-read") for thread in threading.enumerate())
    print(json.dumps({"ended": ended, "alive": alive, "seconds": time.monotonic() - begun}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
