"""Where the tiles of a TIFF lie: its levels as tables of byte ranges.

Belongs here: choosing the picture among a TIFF's pages, its levels, whether the file is whole, which kinds of pixels are
taken. Does not belong: decoding (`tiff_reader`).
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pathassets.errors import PathassetsError
from pathassets.slides.problems import MAX_TILE_PX, unreadable, unsupported
from pathassets.slides.reader import same_picture

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

_RGB, _YCBCR, _GREY, _CMYK = 2, 6, 1, 5
_JPEGS = (7, 34892)
# JPEG2000 as Aperio's scanners write it, with components that are luminance and two colours, or red, green and blue
APERIO_YCBCR, APERIO_RGB = 33003, 33005
# what turns to RGB as it is decoded, and OpenSlide decodes by itself
_OWN_COLOURS = (*_JPEGS, APERIO_YCBCR, APERIO_RGB)
# Between two tiles of a file there are at most a few pages of other things.
_GAP_BYTES = 2**20

# tifffile logs what it finds odd in a file; that reaches the user's terminal unless somebody listens.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class TiffLevel:
    """One level of a TIFF.

    Attributes:
        size: (width, height) in px.
        segment_hw: Height and width of a tile (or strip) in px.
        across: Tiles side by side.
        offsets: Where each tile begins in the file, bytes.
        counts: How many bytes each has; 0 for a tile that was left out.
        planes: 3 when red, green and blue lie in tiles of their own, else 1.
        pages: One page for each plane that has a page of its own, else one.
    """

    size: tuple[int, int]
    segment_hw: tuple[int, int]
    across: int
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    planes: int
    pages: tuple[Any, ...]

    @property
    def per_plane(self) -> int:
        """Tiles of one plane."""
        return len(self.offsets) // self.planes


@dataclass(frozen=True)
class Beyond:
    """Tiles of one level whose entries in the index point past the end of a file that is whole.

    Attributes:
        tile_hw: Height and width of a tile in px.
        across: Tiles side by side.
        tiles: Their numbers.
    """

    tile_hw: tuple[int, int]
    across: int
    tiles: frozenset[int]

    def touches(self, left: float, top: float, width: int, height: int) -> bool:
        """Whether one of them lies in a rectangle of the level, px."""
        tile_h, tile_w = self.tile_hw
        rows = range(max(0, floor(top / tile_h)), ceil((top + height) / tile_h))
        columns = range(max(0, floor(left / tile_w)), min(self.across, ceil((left + width) / tile_w)))
        return any(row * self.across + column in self.tiles for row in rows for column in columns)


@contextmanager
def open_tiff(path: Path) -> Iterator[TiffFile]:
    """The structure of a TIFF (the file is known to begin as one); no pixels are read.

    Raises:
        SlideError: `file_unreadable` when its directories cannot be followed.
    """
    from tifffile import TiffFile

    check_directories(path)
    try:
        # other files that an OME-TIFF names are not this slide's
        with TiffFile(path, _multifile=False) as tiff:
            yield tiff
    except PathassetsError:
        raise
    except Exception as error:  # a damaged directory ends in errors of many kinds
        raise unreadable(path, f"its TIFF structure is damaged ({error})") from error


def check_directories(path: Path) -> None:
    """Follows the chain of a TIFF's directories, which begins anywhere and often ends at the file's end.

    Raises:
        SlideError: `file_unreadable` when the chain leaves the file or runs in a circle.
    """
    size, seen = path.stat().st_size, set()
    with path.open("rb") as file:
        start = file.read(16)
        order = "<" if start[:2] == b"II" else ">"
        big = start[2:4] in (b"\x2b\0", b"\0\x2b")
        # number of entries, bytes of an entry, offset of the next directory
        count, entry, pointer = ("Q", 20, "Q") if big else ("H", 12, "I")
        at = _unpack(order + pointer, start[8:] if big else start[4:])
        while at:
            file.seek(min(at, size))
            n_entries = _unpack(order + count, file.read(struct.calcsize(count)))
            end = at + struct.calcsize(count) + (n_entries or 0) * entry
            if n_entries is None or end + struct.calcsize(pointer) > size:
                raise unreadable(path, f"it ends after {size:,} bytes, before or within its TIFF directory at {at:,}")
            if at in seen:
                raise unreadable(path, "its TIFF directories run in a circle")
            seen.add(at)
            file.seek(end)
            at = _unpack(order + pointer, file.read(struct.calcsize(pointer)))


def _unpack(kind: str, data: bytes) -> int | None:
    size = struct.calcsize(kind)
    return int(struct.unpack_from(kind, data)[0]) if len(data) >= size else None


def picture_series(path: Path, tiff: TiffFile) -> tuple[int, TiffPageSeries]:
    """The largest picture of the file, and its number.

    Raises:
        SlideError: `unsupported_pixels` when it is no 8-bit RGB picture.
    """
    series = list(tiff.series)
    if not series:
        raise unreadable(path, "it holds no image")
    number = max(range(len(series)), key=lambda i: (_area(series[i]), -i))
    return number, series[number]


def _area(series: TiffPageSeries) -> int:
    page = series.keyframe
    return int(page.imagewidth) * int(page.imagelength)


def read_levels(path: Path, series: TiffPageSeries) -> tuple[TiffLevel, ...]:
    """The levels of a picture, finest first.

    Raises:
        SlideError: `unsupported_pixels`, or `file_unreadable` when tiles lie beyond the end of the file.
    """
    levels = [_level(path, series.levels[0])]
    for coarser in series.levels[1:]:
        page = coarser.keyframe
        size = (int(page.imagewidth), int(page.imagelength))
        if min(size) > 0 and same_picture(levels[0].size, size) and size[0] < levels[-1].size[0]:
            levels.append(_level(path, coarser))
    starts = np.concatenate([level.offsets for level in levels])
    for level in levels:
        _beyond_end(path, level.offsets, level.counts, starts)
    return tuple(levels)


def _level(path: Path, series: TiffPageSeries) -> TiffLevel:
    page = series.keyframe
    planes, pages = _planes(path, series, page)
    height, width = (
        (int(page.tilelength), int(page.tilewidth)) if page.is_tiled else (_strip_rows(page), int(page.imagewidth))
    )
    if height * width > MAX_TILE_PX:
        raise unsupported(
            path, f"{'tiles' if page.is_tiled else 'strips'} of {width} x {height} px, too large to read in parts"
        )
    across, down = -(-int(page.imagewidth) // width), -(-int(page.imagelength) // height)
    offsets = np.concatenate([np.asarray(p.dataoffsets, np.int64) for p in pages])
    counts = np.concatenate([np.asarray(p.databytecounts, np.int64) for p in pages])
    if not len(offsets) == len(counts) == across * down * planes:
        raise unreadable(path, f"its index lists {len(offsets)} tiles where {across * down * planes} are needed")
    return TiffLevel(
        (int(page.imagewidth), int(page.imagelength)), (height, width), across, offsets, counts, planes, pages
    )


def _strip_rows(page: TiffPage) -> int:
    return max(1, min(int(page.rowsperstrip), int(page.imagelength)))


def _planes(path: Path, series: TiffPageSeries, page: TiffPage) -> tuple[int, tuple[TiffPage, ...]]:
    """How the three colours are laid out: within each tile, in tiles of their own, or on pages of their own."""
    check_pixels(path, page)
    if min(int(page.imagewidth), int(page.imagelength)) < 1:
        raise unreadable(path, "it holds an image without pixels")
    pages = [p for p in series.pages if p is not None]
    if page.samplesperpixel == 1 and len(pages) == 3 and series.axes == "CYX":
        return 3, tuple(_as_page(p) for p in pages)
    if len(pages) != 1 or page.samplesperpixel not in (3, 4):
        raise unsupported(path, f"{page.samplesperpixel} colours on {len(pages)} pages, not one RGB picture")
    if int(page.planarconfig) == 2:
        return int(page.samplesperpixel), (_as_page(pages[0]),)
    return 1, (_as_page(pages[0]),)


def _as_page(page: Any) -> Any:
    return page.aspage() if hasattr(page, "aspage") else page


def check_pixels(path: Path, page: TiffPage) -> None:
    """Refuses pixels that would come out in wrong colours, whichever reader takes them.

    Raises:
        SlideError: `unsupported_pixels`.
    """
    photometric, bits = int(page.photometric), page.bitspersample
    if photometric == _CMYK:
        raise unsupported(path, "printing colours (CMYK), which no encoder was trained on")
    if page.dtype is None or page.dtype != np.uint8:
        raise unsupported(path, f"pixels of {bits} bits a colour ({page.dtype}), not 8-bit RGB")
    if page.samplesperpixel > 4:
        raise unsupported(path, f"{page.samplesperpixel} colour channels, not RGB")
    if photometric > _YCBCR:
        raise unsupported(path, f"colours of the kind {page.photometric!s}, not RGB")


def is_scrambled_by_openslide(page: TiffPage) -> bool:
    """Whether OpenSlide turns each tile of this page within itself.

    It leaves tiles other than JPEG and JPEG2000 to libtiff, which obeys the tag Orientation tile by tile.
    """
    return int(page.tags.valueof("Orientation", 1)) not in (0, 1, 5) and int(page.compression) not in _OWN_COLOURS


def check_decodable(path: Path, page: TiffPage) -> None:
    """Refuses what tifffile cannot turn into RGB.

    Raises:
        SlideError: `unsupported_pixels`.
    """
    from tifffile import TIFF

    photometric, compression = int(page.photometric), int(page.compression)
    if compression != 1 and compression not in TIFF.DECOMPRESSORS:
        raise unsupported(
            path, f"pixels compressed in a way that no library here knows (TIFF compression {compression})"
        )
    if photometric not in (_RGB, _GREY) and not (photometric == _YCBCR and compression in _OWN_COLOURS):
        raise unsupported(
            path, f"colours of the kind {page.photometric!s} that only its maker's software can turn to RGB"
        )


def check_whole(path: Path, tiff: TiffFile) -> dict[tuple[int, int], Beyond]:
    """Refuses a file that is shorter than its pages say: a copy that did not finish, or a page that lies about its size.

    A page of four billion pixels a side whose index has ten tiles would keep an overview busy for ever.

    Returns:
        Damaged entries of an index, by (width, height) of the level: they cost their tiles, not the slide.

    Raises:
        SlideError: `file_unreadable`.
    """
    pages = [frame.aspage() for frame in tiff.pages]
    indices = [_index_of(path, page) for page in pages]
    starts = np.concatenate([offsets for offsets, _ in indices])
    found = {}
    for page, (offsets, counts) in zip(pages, indices, strict=True):
        beyond = _beyond_end(path, offsets, counts, starts)
        if not page.is_tiled:
            continue
        if len(offsets) < tiles_needed(page):
            raise unreadable(path, f"its index lists {len(offsets)} tiles where {tiles_needed(page)} are needed")
        if beyond:
            across = -(-page.imagewidth // page.tilewidth)
            numbers = frozenset(tile % (across * -(-page.imagelength // page.tilelength)) for tile in beyond)
            size = (int(page.imagewidth), int(page.imagelength))
            found[size] = Beyond((page.tilelength, page.tilewidth), across, numbers)
    return found


def _index_of(path: Path, page: TiffPage) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    offsets, counts = np.asarray(page.dataoffsets, np.int64), np.asarray(page.databytecounts, np.int64)
    if len(offsets) != len(counts):
        raise unreadable(path, f"it lists where {len(offsets)} tiles begin and how long {len(counts)} are")
    return offsets, counts


def tiles_needed(page: TiffPage) -> int:
    """How many tiles a tiled page of its size has."""
    if page.tilewidth < 1 or page.tilelength < 1:
        return 0
    planes = page.samplesperpixel if int(page.planarconfig) == 2 else 1
    return int(-(-page.imagewidth // page.tilewidth) * -(-page.imagelength // page.tilelength) * planes)


def _beyond_end(
    path: Path, offsets: NDArray[np.int64], counts: NDArray[np.int64], starts: NDArray[np.int64]
) -> list[int]:
    """Tiles whose entries point past the end of a file that does not end within a tile.

    An entry that is damaged runs over tiles that begin before the end, or begins far behind it. Where a tile runs over nothing
    but the end, or should begin there, the rest of the file is missing.

    Args:
        path: The file.
        offsets: Where tiles begin.
        counts: How many bytes they have.
        starts: Where anything begins.

    Raises:
        SlideError: `file_unreadable`: the file is cut off.
    """
    size = path.stat().st_size
    past = (counts > 0) & (counts > size - offsets)
    begins = np.sort(starts)
    following = np.append(begins, np.iinfo(np.int64).max)[np.searchsorted(begins, offsets, "right")]
    damaged = np.where(offsets < size, following < size, offsets > size + _GAP_BYTES)
    if (past & ~damaged).any():
        end, missing = int(offsets[past].max()) + int(counts[past].max()), int(past.sum())
        cause = f"it ends after {size:,} bytes and its index points to {end:,} ({missing} tiles are cut off)"
        raise unreadable(path, cause)
    return [int(tile) for tile in np.flatnonzero(past)]
