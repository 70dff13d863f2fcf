"""The fast reader: JPEG tiles of TIFF and SVS, decoded once each, without OpenSlide in between.

Belongs here: which files and levels it may take, and when it hands back to OpenSlide. Does not belong: decoding (`jpeg`),
laying tiles (`tiled`), byte ranges (`tiff_index`).

OpenSlide paints every tile into a surface of its own and un-multiplies it again, under a lock; a grid of 224 px over
tiles of 256 px makes it decode or paint each about three times. Here tiles are read with `pread`, decoded once, kept in
a cache that all slides share, and copied. At a level's own resolution the pixels are OpenSlide's; whatever is
unusual is OpenSlide's to read: files that are not plain TIFF, levels of other compression, tiles that were left out or
cannot be decoded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pathassets.slides.byte_ranges import ByteRanges
from pathassets.slides.info import Facts
from pathassets.slides.jpeg import JpegTables, reductions
from pathassets.slides.openslide_reader import OpenSlideReader
from pathassets.slides.problems import MAX_TILE_PX
from pathassets.slides.reader import Pixels
from pathassets.slides.resample import shift
from pathassets.slides.tiff_index import tiles_needed
from pathassets.slides.tile_cache import SHARED
from pathassets.slides.tiled import mosaic

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_JPEG, _RGB, _YCBCR = 7, 2, 6
# where readers are compared; the middle is most likely tissue
_TRIAL_SHARES = (0.5, 0.3, 0.7, 0.1)
_TRIAL_PX = 64
# grey levels; other colours or a wrong page differ by tens
_MAX_SHIFT_DIFFERENCE = 5


class JpegLevel:
    """One level of JPEG tiles: where they lie in the file, and how to decode them."""

    def __init__(self, page: TiffPage) -> None:
        self.size = (int(page.imagewidth), int(page.imagelength))
        self.tile_hw = (int(page.tilelength), int(page.tilewidth))
        self.across = -(-self.size[0] // self.tile_hw[1])
        self.offsets = np.asarray(page.dataoffsets, np.int64)
        self.counts = np.asarray(page.databytecounts, np.int64)
        self.tables = JpegTables.of_page(page.jpegtables, is_rgb=int(page.photometric) == _RGB)
        self.reductions = reductions(self.tile_hw)


class JpegReader:
    """JPEG tiles decoded here, everything else by OpenSlide.

    Args:
        path: The file.
        reference: OpenSlide's reader of the same file.
        levels: For each of the reference's levels the one to decode here, or None.
        exact: Never decode at reduced size.
    """

    name: Literal["openslide"] = "openslide"
    decoder: Literal["jpeg"] = "jpeg"

    def __init__(
        self, path: Path, reference: OpenSlideReader, levels: tuple[JpegLevel | None, ...], *, exact: bool
    ) -> None:
        self._reference = reference
        self._levels = levels
        self._exact = exact
        self._file: ByteRanges | None = ByteRanges(path)

    @property
    def facts(self) -> Facts:
        """See `Reader`."""
        return self._reference.facts

    def reductions(self, level: int) -> tuple[int, ...]:
        """See `Reader`."""
        fast = self._levels[level]
        return () if fast is None or self._exact else fast.reductions

    def read_level(self, level: int, left: float, top: float, width: int, height: int, reduction: int = 1) -> Pixels:
        """See `Reader`."""
        fast = self._levels[level]
        if fast is not None:
            try:
                return shift(lambda *r: self._read(level, fast, r, reduction), left, top, width, height)
            except (ValueError, OSError, EOFError):
                pass  # a tile that is missing or damaged: OpenSlide knows what to do, or says what is wrong
        box = (left * reduction, top * reduction, width * reduction, height * reduction)
        pixels = self._reference.read_level(level, *box)
        return pixels if reduction == 1 else _mean_of_blocks(pixels, reduction)

    def close(self) -> None:
        """See `Reader`."""
        self.release()
        self._reference.close()

    def release(self) -> None:
        """Lets go of what is not OpenSlide's."""
        self._file = None
        SHARED.forget(self)

    def sees_what_openslide_sees(self, number: int) -> bool:
        """Compares a patch of a level. Level 0 must be equal; others OpenSlide shifts by parts of a pixel."""
        level = self._levels[number]
        if level is None:
            return True
        for share in _TRIAL_SHARES:
            x, y = int(share * level.size[0]), int(share * level.size[1])
            try:
                own = self._read(number, level, (x, y, _TRIAL_PX, _TRIAL_PX), 1).astype(int)
                differs = np.abs(own - self._reference.read_level(number, x, y, _TRIAL_PX, _TRIAL_PX))
            except Exception:  # noqa: BLE001, S112  # a damaged tile: try elsewhere
                continue
            return bool(differs.max() == 0 if number == 0 else differs.mean() < _MAX_SHIFT_DIFFERENCE)
        return False

    def _read(self, number: int, level: JpegLevel, rectangle: tuple[int, int, int, int], reduction: int) -> Pixels:
        size = (level.size[0] // reduction, level.size[1] // reduction)
        tile_hw = (level.tile_hw[0] // reduction, level.tile_hw[1] // reduction)
        return mosaic(lambda row, column: self._tile(number, level, row, column, reduction), tile_hw, size, rectangle)

    def _tile(self, number: int, level: JpegLevel, row: int, column: int, reduction: int) -> Pixels:
        index = row * level.across + column
        return SHARED.get((self, number, index, reduction), lambda: self._decode(level, index, reduction))

    def _decode(self, level: JpegLevel, index: int, reduction: int) -> Pixels:
        file = self._file
        if file is None:
            raise ValueError("the slide is closed")
        data = file.read(int(level.offsets[index]), int(level.counts[index]))
        return level.tables.decode(data, level.tile_hw, reduction)


def make_fast(path: Path, reference: OpenSlideReader, tiff: TiffFile, *, exact: bool) -> OpenSlideReader | JpegReader:
    """The fast reader for a plain TIFF that OpenSlide reads, or `reference` itself where there is nothing to gain."""
    pages = [page for page in tiff.pages if _is_jpeg_rgb(page)]
    levels = tuple(_level_of_size(pages, size) for size in reference.facts.level_dimensions)
    if levels[0] is None:
        return reference
    fast = JpegReader(path, reference, levels, exact=exact)
    if all(fast.sees_what_openslide_sees(number) for number in range(len(levels))):
        return fast
    fast.release()
    return reference


def _level_of_size(pages: list[Any], size: tuple[int, int]) -> JpegLevel | None:
    found = [page for page in pages if (int(page.imagewidth), int(page.imagelength)) == size]
    return JpegLevel(found[0]) if len(found) == 1 else None


def _is_jpeg_rgb(frame: Any) -> bool:
    page = frame.aspage()
    if not page.is_tiled or page.tilewidth * page.tilelength > MAX_TILE_PX:
        return False
    return bool(
        int(page.compression) == _JPEG
        and int(page.photometric) in (_RGB, _YCBCR)
        and page.samplesperpixel == 3
        and int(page.planarconfig) == 1
        and page.bitspersample == 8
        and len(page.dataoffsets) == len(page.databytecounts) == tiles_needed(page)
    )


def _mean_of_blocks(pixels: Pixels, side: int) -> Pixels:
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).reduce(side))
