"""A server of processes that embed a slide and may be killed: `python child.py STORE SLIDE N_TILES`.

It has loaded most of what is slow to load, but nothing that starts threads, and makes a process by fork for each line on its
standard input: its number is printed at once, and how it ended when it has. The line has the name of a file in which the
process notes the tiles of each batch that it has computed (and, in a file beside it, why it could not), the seconds to wait
for another process that works on the slide, and the seconds that the disk takes for a flush: with a slow one no moment of a
write is too short to be hit.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

import h5py  # noqa: F401
import numpy as np
import openslide  # noqa: F401
import scipy.sparse  # noqa: F401
import torch
import torchvision  # noqa: F401
import zarr  # noqa: F401

NAME, DIGEST, TILE_PX, SHARD_ROWS = "slide", "0123456789abcdef", 32, 512


def note_to(path: str) -> None:
    """Notes every batch that an encoder has computed, with the number of its tiles."""
    from pathassets.encoders.encoder import Encoder

    file, encode = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), Encoder.encode

    def noting(self: object, tiles: torch.Tensor) -> torch.Tensor:
        values = encode(self, tiles)
        os.write(file, f"{len(tiles)}\n".encode())
        return values

    Encoder.encode = noting


def slow_down(seconds: float) -> None:
    """Flushing takes a while, as on a disk that is shared."""
    flush = os.fsync

    def slow(handle: int) -> None:
        time.sleep(seconds)
        flush(handle)

    os.fsync = slow


def embed(store: str, path: str, n: int, patience: float) -> None:
    """Embeds the slide's first `n` tiles, those that are missing, and finishes the group."""
    import polars as pl

    from pathassets.core.geometry import TileSize
    from pathassets.encoders import load_encoder
    from pathassets.engine import EmbedPlan, Settings, embed_slide
    from pathassets.recipes import EmbeddingOptions
    from pathassets.slides import open_slide
    from pathassets.store import open_root
    from pathassets.store.arrays import EmbeddingsWriter

    encoder = load_encoder("demo-vlm", device="cpu", precision="fp32")
    plan = EmbedPlan.of(EmbeddingOptions(shard_rows=SHARD_ROWS, batch_size=16, dtype="float32"), encoder)
    writer = EmbeddingsWriter(
        open_root(store),
        NAME,
        DIGEST,
        n_tiles=n,
        dim=encoder.dim,
        dtype=plan.dtype,
        shard_rows=plan.shard_rows,
        lock_timeout=patience,
    )
    size = TileSize((TILE_PX, TILE_PX), (TILE_PX, TILE_PX), (TILE_PX, TILE_PX), 0.5, 1.0)
    with writer, open_slide(path) as slide:
        index, columns = np.arange(n), slide.info.width_px // TILE_PX
        tiles = pl.DataFrame({"x_px": index % columns * TILE_PX, "y_px": index // columns * TILE_PX})
        embed_slide(slide, tiles, size, encoder, writer, plan, settings=Settings(workers=2, streams=2))
        writer.finish(tiles.with_row_index("tile_id").with_columns(size_px=TILE_PX), {})


def serve(store: str, path: str, n: int) -> None:
    """See the module."""
    logging.getLogger().addHandler(logging.NullHandler())  # damaged tiles are expected
    print(f"{len(os.listdir('/proc/self/task'))} threads", flush=True)
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            work(store, path, n, *line.split())
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def work(store: str, path: str, n: int, notes: str, patience: str, flush_seconds: str) -> NoReturn:
    """A process' whole life."""
    status = 1
    try:
        note_to(notes)
        slow_down(float(flush_seconds))
        embed(store, path, n, float(patience))
        status = 0
    except Exception as error:
        Path(f"{notes}.said").write_text(str(error))
    finally:
        os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
