"""TileCodec: how the tiles of one level are decoded, whatever compresses them.

Belongs here: what a codec must say and do, which pages of a TIFF have one, tiles to tell it from. Does not belong: the
codecs (`jpeg`, `jpeg2000`), where tiles lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pathassets.slides.byte_ranges import ByteRanges
from pathassets.slides.jpeg import JpegTables
from pathassets.slides.jpeg2000 import Jpeg2000
from pathassets.slides.problems import MAX_TILE_PX
from pathassets.slides.reader import Pixels
from pathassets.slides.tiff_index import APERIO_RGB, APERIO_YCBCR, tiles_needed

if TYPE_CHECKING:
    from tifffile import TiffPage

_JPEG, _RGB, _YCBCR = 7, 2, 6
# where slides are tried; the middle is most likely tissue
TRIAL_SHARES = (0.5, 0.3, 0.7, 0.1)


class TileCodec(Protocol):
    """Decodes tiles that have everything in common but their bytes; may be called from several threads at once."""

    @property
    def name(self) -> Literal["jpeg", "jpeg2000"]:
        """What the column `decoder` of `slides` says."""

    @property
    def is_exact(self) -> bool:
        """Whether tiles decoded at full size have OpenSlide's pixels."""

    @property
    def lag(self) -> float:
        """How far the pixels of reduced tiles lie before the middles of the blocks that they stand for, px of the reduced tile."""

    def reductions(self, tile_hw: Sequence[int]) -> tuple[int, ...]:
        """By which whole numbers tiles can be decoded smaller than they are; largest first, without 1."""

    def decode(self, tile: bytes, tile_hw: Sequence[int], reduction: int = 1) -> Pixels:
        """A tile as uint8 RGB, (height, width, 3), each divided by `reduction`.

        Raises:
            ValueError: The tile is damaged, or not what the others are.
        """


def is_tiled_rgb(page: TiffPage) -> bool:
    """Whether a page's tiles are 8-bit RGB, compressed in one of the ways that have a codec here, and all listed."""
    return bool(
        page.is_tiled
        and page.tilewidth * page.tilelength <= MAX_TILE_PX
        and int(page.compression) in (_JPEG, APERIO_YCBCR, APERIO_RGB)
        and int(page.photometric) in (_RGB, _YCBCR)
        and page.samplesperpixel == 3
        and int(page.planarconfig) == 1
        and page.bitspersample == 8
        and len(page.dataoffsets) == len(page.databytecounts) == tiles_needed(page)
    )


def codec_of(page: TiffPage, sample: bytes) -> TileCodec:
    """How to decode the tiles of a page that `is_tiled_rgb`.

    Args:
        page: The page.
        sample: One of its tiles.

    Raises:
        ValueError: The sample is of a kind that OpenSlide should read.
    """
    compression = int(page.compression)
    if compression == _JPEG:
        is_rgb = int(page.photometric) == _RGB
        # OpenSlide believes the page, whatever its tiles say: where they disagree, it should read them
        return replace(JpegTables.of_page(page.jpegtables, is_rgb=is_rgb), colours=("RGB" if is_rgb else "YCbCr",))
    return Jpeg2000.like(sample, (page.tilelength, page.tilewidth), is_ycbcr=compression == APERIO_YCBCR)


def samples(offsets: NDArray[np.int64], counts: NDArray[np.int64], file: ByteRanges) -> Iterator[bytes]:
    """A few of the tiles that lie at these offsets and have so many bytes; those that cannot be read are passed over."""
    present = np.flatnonzero(counts)
    for share in TRIAL_SHARES if present.size else ():
        tile = int(present[int(share * present.size)])
        try:
            yield file.read(int(offsets[tile]), int(counts[tile]))
        except (OSError, EOFError):
            continue
