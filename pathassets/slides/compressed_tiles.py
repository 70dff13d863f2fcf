"""The fast reader: compressed tiles of TIFF and SVS, decoded once each, without OpenSlide in between.

Belongs here: which files and levels it may take, and when it hands back to OpenSlide. Does not belong: decoding (`jpeg`,
`jpeg2000`), laying tiles (`tiled`), byte ranges (`tiff_index`).

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
from numpy.typing import NDArray

from pathassets.slides.byte_ranges import ByteRanges
from pathassets.slides.info import Facts
from pathassets.slides.openslide_reader import OpenSlideReader
from pathassets.slides.reader import Pixels
from pathassets.slides.resample import shift
from pathassets.slides.tiff_index import tiles_needed
from pathassets.slides.tile_cache import SHARED
from pathassets.slides.tile_codec import TRIAL_SHARES, TileCodec, codec_of, is_tiled_rgb, samples
from pathassets.slides.tiled import bytes_to_keep, caught_up, mosaic

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_TRIAL_PX = 64
# grey levels in the mean; other colours or a wrong page differ by tens
_MAX_DIFFERENCE = 8


class CompressedLevel:
    """One level of compressed tiles: where they lie in the file, and how to decode them.

    Args:
        page: The level's page of the TIFF.
        file: The file.
        exact: Never decode at reduced size.

    Raises:
        ValueError: Its tiles are of a kind that OpenSlide should read.
    """

    def __init__(self, page: TiffPage, file: ByteRanges, *, exact: bool) -> None:
        self.size = (int(page.imagewidth), int(page.imagelength))
        self.tile_hw = (int(page.tilelength), int(page.tilewidth))
        self.across = -(-self.size[0] // self.tile_hw[1])
        self.offsets = np.asarray(page.dataoffsets, np.int64)
        self.counts = np.asarray(page.databytecounts, np.int64)
        self.codec = self._codec(page, file)
        self.reductions = () if exact else self.codec.reductions(self.tile_hw)
        if not (self.codec.is_exact or self.reductions):
            raise ValueError("its tiles would have other colours than OpenSlide's")

    @property
    def trial_sizes(self) -> tuple[int, ...]:
        """The largest sizes that are decoded here: full size, half size."""
        return (1, *self.reductions[-1:]) if self.codec.is_exact else self.reductions[-1:]

    def _codec(self, page: TiffPage, file: ByteRanges) -> TileCodec:
        for sample in samples(self.offsets, self.counts, file):
            try:
                return codec_of(page, sample)
            except ValueError:
                continue
        raise ValueError("none of its tiles can be decoded here")


class CompressedTiles:
    """Tiles decoded here, everything else by OpenSlide.

    Args:
        reference: OpenSlide's reader of the same file.
        file: The file.
        levels: For each of the reference's levels the one to decode here, or None.
    """

    name: Literal["openslide"] = "openslide"

    def __init__(self, reference: OpenSlideReader, file: ByteRanges, levels: list[CompressedLevel | None]) -> None:
        self._reference = reference
        self._levels = levels
        self._file: ByteRanges | None = file

    @property
    def decoder(self) -> Literal["openslide", "jpeg", "jpeg2000"]:
        """See `Reader`."""
        finest = self._levels[0]
        return "openslide" if finest is None else finest.codec.name

    @property
    def facts(self) -> Facts:
        """See `Reader`."""
        return self._reference.facts

    def reductions(self, level: int) -> tuple[int, ...]:
        """See `Reader`."""
        fast = self._levels[level]
        return () if fast is None else fast.reductions

    def read_level(self, level: int, left: float, top: float, width: int, height: int, reduction: int = 1) -> Pixels:
        """See `Reader`."""
        fast = self._levels[level]
        if fast is not None and (fast.codec.is_exact or reduction > 1):
            try:
                return shift(lambda *r: self._read(level, fast, r, reduction), left, top, width, height)
            except (ValueError, OSError, EOFError):
                pass  # a tile that is missing or damaged: OpenSlide knows what to do, or says what is wrong
        return self._read_reference(level, left, top, width, height, reduction)

    def close(self) -> None:
        """See `Reader`."""
        self.release()
        self._reference.close()

    def release(self) -> None:
        """Lets go of what is not OpenSlide's."""
        self._file = None
        SHARED.forget(self)

    def keep_what_openslide_sees(self) -> bool:
        """Leaves levels to OpenSlide that look otherwise there. Says whether the finest is still decoded here."""
        self._levels = [
            level if level is not None and self._is_as_openslide_sees_it(number, level) else None
            for number, level in enumerate(self._levels)
        ]
        return self._levels[0] is not None

    def _is_as_openslide_sees_it(self, number: int, level: CompressedLevel) -> bool:
        """Compares a patch, at full and at half size as far as they are decoded here."""
        for share in TRIAL_SHARES:
            # a multiple of what tiles are reduced by
            x, y = (int(share * side) // 8 * 8 for side in level.size)
            try:
                return all(self._agrees(number, level, x, y, reduction) for reduction in level.trial_sizes)
            except Exception:  # noqa: BLE001, S112  # a damaged tile: try elsewhere
                continue
        return False

    def _agrees(self, number: int, level: CompressedLevel, x: int, y: int, reduction: int) -> bool:
        """At full size level 0 must be equal; others OpenSlide shifts by parts of a pixel."""
        box = (x // reduction, y // reduction, _TRIAL_PX // reduction, _TRIAL_PX // reduction)
        own = self._read(number, level, box, reduction).astype(int)
        differs = np.abs(own - self._read_reference(number, *box, reduction))
        return bool(differs.max() == 0 if number == 0 and reduction == 1 else differs.mean() < _MAX_DIFFERENCE)

    def _read_reference(self, level: int, left: float, top: float, width: int, height: int, reduction: int) -> Pixels:
        box = (left * reduction, top * reduction, width * reduction, height * reduction)
        pixels = self._reference.read_level(level, *box)
        return pixels if reduction == 1 else _mean_of_blocks(pixels, reduction)

    def _read(
        self, number: int, level: CompressedLevel, rectangle: tuple[int, int, int, int], reduction: int
    ) -> Pixels:
        size = (level.size[0] // reduction, level.size[1] // reduction)
        tile_hw = (level.tile_hw[0] // reduction, level.tile_hw[1] // reduction)

        def read(left: int, top: int, width: int, height: int) -> Pixels:
            box = (left, top, width, height)
            enough = bytes_to_keep(tile_hw, size[0], height)
            return mosaic(
                lambda row, column: self._tile(number, level, row, column, reduction, enough), tile_hw, size, box
            )

        lag = level.codec.lag if reduction > 1 else 0
        return caught_up(read, size, rectangle, lag) if lag else read(*rectangle)

    def _tile(self, number: int, level: CompressedLevel, row: int, column: int, reduction: int, enough: int) -> Pixels:
        index = row * level.across + column
        return SHARED.get(self, (number, index, reduction), lambda: self._decode(level, index, reduction), enough)

    def _decode(self, level: CompressedLevel, index: int, reduction: int) -> Pixels:
        file = self._file
        if file is None:
            raise ValueError("the slide is closed")
        data = file.read(int(level.offsets[index]), int(level.counts[index]))
        return level.codec.decode(data, level.tile_hw, reduction)


def make_fast(
    path: Path, reference: OpenSlideReader, tiff: TiffFile, *, exact: bool
) -> OpenSlideReader | CompressedTiles:
    """The fast reader for a plain TIFF that OpenSlide reads, or `reference` itself where there is nothing to gain."""
    file = ByteRanges(path)
    pages = [page.aspage() for page in tiff.pages]
    left_out = _left_out_of_aperio(pages) if reference.facts.vendor == "aperio" else {}
    levels = [_level_of_size(pages, size, file, left_out, exact=exact) for size in reference.facts.level_dimensions]
    fast = CompressedTiles(reference, file, levels)
    if fast.keep_what_openslide_sees():
        return fast
    fast.release()
    return reference


def _level_of_size(
    pages: list[Any], size: tuple[int, int], file: ByteRanges, left_out: dict[int, NDArray[np.bool_]], *, exact: bool
) -> CompressedLevel | None:
    found = [page for page in pages if (int(page.imagewidth), int(page.imagelength)) == size and is_tiled_rgb(page)]
    if len(found) != 1:
        return None
    try:
        level = CompressedLevel(found[0], file, exact=exact)
    except ValueError:
        return None
    if found[0].index in left_out:
        level.counts[left_out[found[0].index].ravel()] = 0
    return level


def _left_out_of_aperio(pages: list[Any]) -> dict[int, NDArray[np.bool_]]:
    """For each tiled page, by its index, which tiles (rows, columns) OpenSlide does not decode.

    They are empty, or made from an empty tile of the next finer page: such tiles are sometimes corrupt, and OpenSlide
    draws the finer page in their place.
    """
    found: dict[int, NDArray[np.bool_]] = {}
    finer: NDArray[np.bool_] | None = None
    for page in pages:
        if not page.is_tiled or len(page.databytecounts) != tiles_needed(page):
            continue
        across, down = -(-page.imagewidth // page.tilewidth), -(-page.imagelength // page.tilelength)
        empty = np.asarray(page.databytecounts)[: across * down].reshape(down, across) == 0
        if finer is not None:
            # how many tiles of the finer page lie side by side in one; halves are rounded up
            steps = [max(1, int(a / b + 0.5)) for a, b in zip(finer.shape, empty.shape, strict=True)]
            rows, columns = (index // step for index, step in zip(np.nonzero(finer), steps, strict=True))
            inside = (rows < down) & (columns < across)
            empty[rows[inside], columns[inside]] = True
        found[page.index] = finer = empty
    return found


def _mean_of_blocks(pixels: Pixels, side: int) -> Pixels:
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).reduce(side))
