"""A small study written through the store's own doors, and the means to hurt it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pathassets.store import Root, Tables, layout, open_root
from pathassets.store.arrays import EmbeddingsWriter

RECIPE = "px224_mpp050/demo_vlm"
PART = "px224_mpp050__demo_vlm"
REPOSITORY = Path(__file__).resolve().parents[2]


def tile_frame(n: int = 20, digest: str = "71e5" * 4) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "tiling": ["px224_mpp050"] * n,
            "tile_id": range(n),
            "x_px": [224 * (i % 10) for i in range(n)],
            "y_px": [224 * (i // 10) for i in range(n)],
            "size_px": [224] * n,
            "tissue_id": [0 if i % 7 else None for i in range(n)],
            "tissue_share": [1.0] * n,
            "digest": [digest] * n,
        },
        schema_overrides={"tile_id": pl.Int64},
    )


@dataclass
class SmallStudy:
    """Slides with made-up numbers in every table that the snapshot judges."""

    home: Path
    store: str | None = None

    @property
    def root(self) -> Root:
        return open_root(self.store or self.home / "store")

    @property
    def tables(self) -> Tables:
        return Tables(self.root)

    def add(self, slide_id: str, *, n: int = 20, digest: str = "a" * 16, **extras: Any) -> None:
        tables = self.tables
        tables.write("slides", [{"slide_id": slide_id, "path": f"/in/{slide_id}.svs", **extras}], slide_id=slide_id)
        tables.write("tiles", tile_frame(n), slide_id=slide_id, part="px224_mpp050")
        self.outcome(slide_id, "tiles")
        self.embed(slide_id, n=n, digest=digest)
        self.derive(slide_id, n=n, embeddings_digest=digest)

    def outcome(self, slide_id: str, step: str, status: str = "ok", reason: str | None = None) -> None:
        row = {"recipe": None, "step": step, "status": status, "reason": reason, "message": None, "remedy": None}
        self.tables.write("outcomes", [row], slide_id=slide_id, part=step)

    def embed(self, slide_id: str, *, n: int = 20, digest: str = "a" * 16, dim: int = 8, real: bool = False) -> None:
        """A row of `embeddings` with its group: a real one, or one that has a marker and little else (much faster)."""
        group = layout.group_key(slide_id, digest, "embeddings")
        if real:
            self._write_group(slide_id, digest, n, dim)
        else:
            files = {"zarr.json": hashlib.sha256(b"{}").hexdigest()}
            self.root.put(f"{group}/zarr.json", b"{}")
            marker = {"rows": n, "dim": dim, "dtype": "float16", "digest": digest, "files": files}
            self.root.put(layout.marker_key(group), json.dumps(marker).encode())
        row = {
            "recipe": RECIPE, "tiling": "px224_mpp050", "uri": group, "n_tiles": n, "dim": dim, "dtype": "float16",
            "precision": "fp32", "digest": digest, "tiles_digest": "71e5" * 4,
        }  # fmt: skip
        self.tables.write("embeddings", [row], slide_id=slide_id, part=PART)

    def _write_group(self, slide_id: str, digest: str, n: int, dim: int) -> None:
        rows = np.random.default_rng(int(digest[:8], 16)).normal(size=(n, dim)).astype(np.float32)
        with EmbeddingsWriter(self.root, slide_id, digest, n_tiles=n, dim=dim, shard_rows=16) as writer:
            for shard in writer.missing_shards():
                writer.write_shard(shard, rows[writer.rows_of(shard)])
            writer.finish(tile_frame(n))

    def derive(self, slide_id: str, *, n: int = 20, embeddings_digest: str = "a" * 16, value: float = 1.0) -> None:
        made = {"recipe": RECIPE, "embeddings_digest": embeddings_digest, "digest": "dd" * 8}
        vector = {"method": "mean", "tissue_id": None, "vector": [value] * 8, **made}
        domains = [{"variant": "leiden", "tile_id": i, "domain": i % 3, "label": None, **made} for i in range(n)]
        self.tables.write("slide_vectors", [vector], slide_id=slide_id, part=PART)
        self.tables.write("domains", domains, slide_id=slide_id, part=PART)


@pytest.fixture
def study(tmp_path: Path) -> SmallStudy:
    return SmallStudy(tmp_path / "home")


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts small disks; skipped where this user may not mount."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root in a machine that allows it can mount a small disk")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A child process that runs `code`; it says "ready" on its first line when it has come to its point."""
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-u", "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert child.stdout is not None
    line = child.stdout.readline().strip()
    assert line == "ready", child.communicate()[1]
    return child


def fill_disk(folder: Path, leave: int = 0) -> Path:
    """Fills a small disk to the last block but `leave` bytes; returns the file to delete."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass
    if leave:
        os.truncate(filler, max(0, filler.stat().st_size - leave))
    return filler
