"""The second reader: tiled RGB pyramids that OpenSlide refuses and tifffile understands.

Belongs here: decoding tiles and strips of a TIFF by their byte ranges. Does not belong: finding the ranges
(`tiff_index`), TIFFs that OpenSlide reads.

Bytes are read with `pread` on one descriptor, which has no position that threads could fight over.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pathassets.core.geometry import level_downsamples
from pathassets.slides import ome, tile_cache
from pathassets.slides.info import Facts, positive
from pathassets.slides.problems import is_tiff, not_a_slide
from pathassets.slides.reader import Pixels
from pathassets.slides.resample import shift
from pathassets.slides.tiff_index import TiffLevel, check_decodable, check_whole, open_tiff, picture_series, read_levels

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_UM_PER_UNIT = {2: 25.4e3, 3: 1e4}
_WHITE = 255


class TiffReader:
    """A slide through tifffile.

    Args:
        path: The file.

    Raises:
        SlideError: `not_a_slide`, `unsupported_pixels` or `file_unreadable`.
    """

    name: Literal["tifffile"] = "tifffile"

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
        self._file = path.open("rb", buffering=0)

    def read_level(self, level: int, left: float, top: float, width: int, height: int) -> Pixels:
        """See `Reader`. Parts of a pixel are interpolated linearly, as OpenSlide does."""
        return shift(lambda x, y, w, h: self._read_whole(level, x, y, w, h), left, top, width, height)

    def close(self) -> None:
        """See `Reader`."""
        tile_cache.SHARED.forget(self)
        self._file.close()

    def _read_whole(self, number: int, left: int, top: int, width: int, height: int) -> Pixels:
        level = self._levels[number]
        out = np.full((height, width, 3), _WHITE, np.uint8)
        tile_h, tile_w = level.segment_hw
        x0, x1 = max(left, 0), min(left + width, level.size[0])
        y0, y1 = max(top, 0), min(top + height, level.size[1])
        if x0 >= x1 or y0 >= y1:
            return out
        for row in range(y0 // tile_h, -(-y1 // tile_h)):
            for column in range(x0 // tile_w, -(-x1 // tile_w)):
                tile = self._tile(number, row * level.across + column)
                tx, ty = column * tile_w, row * tile_h
                a, b = max(x0, tx), min(x1, tx + tile.shape[1])
                c, d = max(y0, ty), min(y1, ty + tile.shape[0])
                out[c - top : d - top, a - left : b - left] = tile[c - ty : d - ty, a - tx : b - tx]
        return out

    def _tile(self, number: int, index: int) -> Pixels:
        return tile_cache.SHARED.get((self, number, index), lambda: self._decode(number, index))

    def _decode(self, number: int, index: int) -> Pixels:
        level = self._levels[number]
        planes = [self._decode_plane(number, plane, index) for plane in range(level.planes)]
        if any(plane is None for plane in planes):
            return np.full((*level.segment_hw, 3), _WHITE, np.uint8)
        return _rgb_over_white(np.concatenate(planes, axis=-1) if level.planes > 1 else planes[0])

    def _decode_plane(self, number: int, plane: int, index: int) -> Any:
        """One tile of one plane as (height, width, colours); None for a tile that was left out."""
        level = self._levels[number]
        where = plane * level.per_plane + index
        count = int(level.counts[where])
        if count == 0:
            return None
        data = os.pread(self._file.fileno(), count, int(level.offsets[where]))
        if len(data) < count:
            raise EOFError(f"the file ends within tile {index}")
        # planes on pages of their own are numbered anew on each page
        page, place = (plane, index) if len(level.pages) > 1 else (0, where)
        decoded, _, shape = self._decoders[number][page](data, place, jpegtables=self._tables[number][page])
        return np.asarray(decoded).reshape(shape[1:])


def _rgb_over_white(tile: Pixels) -> Pixels:
    if tile.shape[-1] == 3:
        return tile
    if tile.shape[-1] != 4:
        raise ValueError(f"a tile has {tile.shape[-1]} colours")
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(tile))
    canvas = Image.new("RGB", image.size, (_WHITE, _WHITE, _WHITE))
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
