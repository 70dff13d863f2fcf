"""The second reader: tiled RGB pyramids that OpenSlide refuses and tifffile understands.

Belongs here: decoding tiles and strips of a TIFF by their byte ranges. Does not belong: finding the ranges
(`tiff_index`), TIFFs that OpenSlide reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pathassets.core.geometry import level_downsamples
from pathassets.slides import ome, tile_cache
from pathassets.slides.byte_ranges import ByteRanges
from pathassets.slides.info import Facts, positive
from pathassets.slides.jpeg import JpegTables
from pathassets.slides.jpeg2000 import Jpeg2000
from pathassets.slides.problems import is_tiff, not_a_slide, unsupported
from pathassets.slides.reader import Pixels
from pathassets.slides.resample import shift
from pathassets.slides.tiff_index import (
    APERIO_RGB,
    APERIO_YCBCR,
    TiffLevel,
    check_decodable,
    check_whole,
    open_tiff,
    picture_series,
    read_levels,
)
from pathassets.slides.tile_codec import TileCodec, samples
from pathassets.slides.tiled import WHITE, bytes_to_keep, mosaic

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_UM_PER_UNIT = {2: 25.4e3, 3: 1e4}
_JPEG, _RGB = 7, 2


class TiffReader:
    """A slide through tifffile.

    Args:
        path: The file.

    Raises:
        SlideError: `not_a_slide`, `unsupported_pixels` or `file_unreadable`.
    """

    name: Literal["tifffile"] = "tifffile"
    decoder: Literal["tifffile"] = "tifffile"

    def __init__(self, path: Path) -> None:
        if not is_tiff(path):
            raise not_a_slide(path)
        with open_tiff(path) as tiff:
            check_whole(path, tiff)
            number, series = picture_series(path, tiff)
            self._levels = read_levels(path, series)
            check_decodable(path, series.keyframe)
            self.facts = _facts(tiff, series.keyframe, number, self._levels)
            self._tables = [tuple(page.jpegtables for page in level.pages) for level in self._levels]
            self._decoders = [tuple(page.decode for page in level.pages) for level in self._levels]
            file = ByteRanges(path)
            self._codecs = [_codec(path, level, file) for level in self._levels]
        self._file: ByteRanges | None = file

    def reductions(self, level: int) -> tuple[int, ...]:
        """See `Reader`. Tiles are decoded whole."""
        return ()

    def read_level(self, level: int, left: float, top: float, width: int, height: int, reduction: int = 1) -> Pixels:
        """See `Reader`. Parts of a pixel are interpolated linearly, as OpenSlide does."""
        return shift(lambda *rectangle: self._read_whole(level, rectangle), left, top, width, height)

    def close(self) -> None:
        """See `Reader`."""
        self._file = None
        tile_cache.SHARED.forget(self)

    def _read_whole(self, number: int, rectangle: tuple[int, int, int, int]) -> Pixels:
        level = self._levels[number]
        enough = bytes_to_keep(level.segment_hw, level.size[0], rectangle[3])

        def tile(row: int, column: int) -> Pixels:
            index = row * level.across + column
            return tile_cache.SHARED.get(self, (number, index), lambda: self._decode(number, index), enough)

        return mosaic(tile, level.segment_hw, level.size, rectangle)

    def _decode(self, number: int, index: int) -> Pixels:
        level = self._levels[number]
        planes = [self._decode_plane(number, plane, index) for plane in range(level.planes)]
        if any(plane is None for plane in planes):
            return np.full((*level.segment_hw, 3), WHITE, np.uint8)
        return _rgb_over_white(np.concatenate(planes, axis=-1) if level.planes > 1 else planes[0])

    def _decode_plane(self, number: int, plane: int, index: int) -> Any:
        """One tile of one plane as (height, width, colours); None for a tile that was left out."""
        level = self._levels[number]
        where = plane * level.per_plane + index
        count = int(level.counts[where])
        if count == 0:
            return None
        file = self._file
        if file is None:
            raise ValueError("the slide is closed")
        data = file.read(int(level.offsets[where]), count)
        codec = self._codecs[number]
        if codec is not None:
            return codec.decode(data, level.segment_hw)
        # planes on pages of their own are numbered anew on each page
        page, place = (plane, index) if len(level.pages) > 1 else (0, where)
        decoded, _, shape = self._decoders[number][page](data, place, jpegtables=self._tables[number][page])
        return np.asarray(decoded).reshape(shape[1:])


def _codec(path: Path, level: TiffLevel, file: ByteRanges) -> TileCodec | None:
    """How to decode tiles of a level so that damaged ones are errors and colours are right; None for whatever else it holds."""
    page = level.pages[0]
    compression = int(page.compression)
    if not (page.is_tiled and level.planes == 1 and page.samplesperpixel == 3):
        return None
    if compression == _JPEG:
        return JpegTables.of_page(page.jpegtables, is_rgb=int(page.photometric) == _RGB)
    if compression not in (APERIO_YCBCR, APERIO_RGB):
        return None
    for sample in samples(level.offsets, level.counts, file):
        try:
            return Jpeg2000.like(sample, level.segment_hw, is_ycbcr=compression == APERIO_YCBCR)
        except ValueError:
            continue
    raise unsupported(path, "JPEG2000 tiles of an unusual kind")


def _rgb_over_white(tile: Pixels) -> Pixels:
    if tile.shape[-1] == 3:
        return tile
    if tile.shape[-1] != 4:
        raise ValueError(f"a tile has {tile.shape[-1]} colours")
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(tile))
    canvas = Image.new("RGB", image.size, (WHITE, WHITE, WHITE))
    canvas.paste(image, mask=image.getchannel("A"))
    return np.asarray(canvas)


def _facts(tiff: TiffFile, page: TiffPage, number: int, levels: tuple[TiffLevel, ...]) -> Facts:
    sizes = tuple(level.size for level in levels)
    vendor, mpp, power = "generic-tiff", None, None
    if tiff.is_ome:
        vendor, (mpp, power) = "ome", ome.parse_ome(tiff.ome_metadata, number)
    elif tiff.is_svs:
        vendor, (mpp, power) = "aperio", ome.parse_aperio(tiff.pages.first.description)
    others = (series.name.lower() for i, series in enumerate(tiff.series) if i != number)
    return Facts(
        vendor=vendor,
        level_dimensions=sizes,
        downsamples=tuple(level_downsamples(sizes)),
        objective_power=power,
        vendor_mpp=mpp,
        tiff_mpp=_tiff_mpp(page),
        associated_images=tuple(sorted(name for name in others if name in ("label", "macro", "thumbnail"))),
    )


def _tiff_mpp(page: TiffPage) -> tuple[float, float] | None:
    """Resolution (x, y) in µm/px by the tags XResolution, YResolution, ResolutionUnit."""
    um_per_unit = _UM_PER_UNIT.get(int(page.tags.valueof("ResolutionUnit", 0)))
    per_unit = [_ratio(page.tags.valueof(f"{axis}Resolution")) for axis in "XY"]
    if um_per_unit is None or not all(per_unit):
        return None
    return um_per_unit / (per_unit[0] or 1.0), um_per_unit / (per_unit[1] or 1.0)


def _ratio(value: object) -> float | None:
    if not isinstance(value, tuple) or len(value) != 2 or not value[1]:
        return None
    return positive(value[0] / value[1])
