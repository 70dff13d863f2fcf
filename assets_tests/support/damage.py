"""Damage to copies of real slides: what disks, networks and careless copies do to the bytes of single tiles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile


@dataclass(frozen=True)
class Level:
    """Where the compressed tiles of one level lie in the file.

    Attributes:
        size: (width, height) of the level in px.
        tile_hw: Height and width of a tile in px.
        across: Tiles side by side.
        offsets: Where each tile begins, bytes.
        counts: How many bytes each has.
    """

    size: tuple[int, int]
    tile_hw: tuple[int, int]
    across: int
    offsets: tuple[int, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, path: Path, level: int = 0) -> Level:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.series[0].levels[level].keyframe
            return cls(
                (page.imagewidth, page.imagelength),
                (page.tilelength, page.tilewidth),
                -(-page.imagewidth // page.tilewidth),
                tuple(page.dataoffsets),
                tuple(page.databytecounts),
            )

    def rectangle(self, tile: int) -> tuple[int, int, int, int]:
        """Left, top, width, height of a tile in px of the level."""
        row, column = divmod(tile, self.across)
        return column * self.tile_hw[1], row * self.tile_hw[0], self.tile_hw[1], self.tile_hw[0]

    def touched(self, tiles: Iterable[int], xy: np.ndarray, width: int, height: int) -> np.ndarray:
        """Which rectangles at `xy` (n, 2) of one size touch any of the tiles: bool (n,)."""
        found = np.zeros(len(xy), bool)
        for tile in tiles:
            left, top, tile_w, tile_h = self.rectangle(tile)
            x, y = xy[:, 0], xy[:, 1]
            found |= (x < left + tile_w) & (x + width > left) & (y < top + tile_h) & (y + height > top)
        return found


# A tile's bytes, and random numbers, to as many bytes.
KINDS = {
    "zeros": lambda data, rng: bytes(len(data)),
    "random bytes": lambda data, rng: rng.bytes(len(data)),
    "another file's bytes": lambda data, rng: (b"patient;slide\n1;2\n" * len(data))[: len(data)],
    "cut off in the middle": lambda data, rng: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "begun in the middle": lambda data, rng: bytes(len(data) // 2) + data[len(data) // 2 :],
}


def damage(path: Path, tiles: Iterable[int], kind: str = "zeros", level: int = 0) -> None:
    """Overwrites the compressed bytes of some tiles of a level, in place."""
    where, rng = Level.of(path, level), np.random.default_rng(3)
    with path.open("r+b") as file:
        for tile in tiles:
            file.seek(where.offsets[tile])
            data = file.read(where.counts[tile])
            file.seek(where.offsets[tile])
            file.write(KINDS[kind](data, rng))


def change_index(path: Path, tiles: Iterable[int], **entries: object) -> None:
    """Overwrites what the index of level 0 says of some tiles: a tag's name and the value, or what makes it from the old one."""
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page = tiff.pages.first
        for name, entry in entries.items():
            values = list(page.tags[name].value)
            for tile in tiles:
                values[tile] = entry(values[tile]) if callable(entry) else entry
            page.tags[name].overwrite(values, dtype=tifffile.DATATYPE.LONG8 if tiff.is_bigtiff else None)
