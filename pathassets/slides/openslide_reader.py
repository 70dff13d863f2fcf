"""The reference reader: OpenSlide.

Belongs here: OpenSlide's handles, properties, cache and errors. Does not belong: which level to read, resampling.
"""

from __future__ import annotations

import math
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from pathassets.slides.info import Facts, positive
from pathassets.slides.problems import MAX_TILE_PX, unsupported
from pathassets.slides.reader import Pixels, same_picture
from pathassets.slides.resample import shift

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openslide import OpenSlide, OpenSlideCache
    from PIL.Image import Image

    from pathassets.slides.tiff_index import Beyond

# One cache of decoded tiles for all slides of a process: with a cache per handle, memory grows with the open slides.
CACHE_BYTES = 128 * 2**20
# Between two tiles OpenSlide leaves seams that are a 255th transparent when it shifts a level by part of a pixel.
_OPAQUE = 254
_GENERIC = "generic-tiff"


class OpenSlideReader:
    """A slide through OpenSlide.

    A handle on which anything failed fails for ever, for all threads. So a failed read is tried once more on a handle of
    its own, which no other thread can spoil, and the spoilt handle is replaced.

    Args:
        path: The file.

    Attributes:
        beyond: By (width, height) of a level, tiles for which OpenSlide must not be asked: it would allocate as many bytes as a
            damaged index says that they have, and end the process where it cannot.

    Raises:
        openslide.OpenSlideError: OpenSlide does not know the format or cannot open the file.
        SlideError: `unsupported_pixels`: its tiles are too large to decode.
    """

    name: Literal["openslide"] = "openslide"
    decoder: Literal["openslide"] = "openslide"

    def __init__(self, path: Path) -> None:
        self.beyond: Mapping[tuple[int, int], Beyond] = {}
        self._path = path
        self._lock = threading.Lock()
        self._handle: OpenSlide | None = _open(path)
        _refuse_giant_tiles(path, self._handle)
        self._levels = _usable_levels(self._handle)
        self.facts = _facts(self._handle, self._levels)

    def reductions(self, level: int) -> tuple[int, ...]:
        """See `Reader`. OpenSlide decodes levels whole."""
        return ()

    def read_level(self, level: int, left: float, top: float, width: int, height: int, reduction: int = 1) -> Pixels:
        """See `Reader`. OpenSlide itself shifts by parts of a pixel; starts are exact to half a level-0 pixel."""
        beyond = self.beyond.get(self.facts.level_dimensions[level])
        if beyond is not None and beyond.touches(left, top, width, height):
            raise EOFError("by the file's index a tile there reaches past the end of the file")
        if min(left, top) < 0:
            # before a level's first pixel OpenSlide knows whole pixels only
            return shift(lambda *whole: self._read_from(level, *whole), left, top, width, height)
        return self._read_from(level, left, top, width, height)

    def close(self) -> None:
        """See `Reader`. The handle itself is closed when the last thread that reads from it lets go."""
        with self._lock:
            self._handle = None

    def _read_from(self, level: int, left: float, top: float, width: int, height: int) -> Pixels:
        corner = [_level_0(start, self.facts.downsamples[level]) for start in (left, top)]
        return _over_white(self._read((corner[0], corner[1]), self._levels[level], (width, height)))

    def _read(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> Image:
        from openslide import OpenSlideError

        shared = self._current()
        try:
            return shared.read_region(corner, level, size)
        except OpenSlideError:
            own = _open(self._path)
            try:
                region = own.read_region(corner, level, size)
            except OpenSlideError:
                self._replace(shared, _open(self._path))
                raise
            self._replace(shared, own)
            return region

    def _current(self) -> OpenSlide:
        with self._lock:
            if self._handle is None:
                raise ValueError(f"{self._path.name} is closed")
            return self._handle

    def _replace(self, spoilt: OpenSlide, fresh: OpenSlide) -> None:
        with self._lock:
            if self._handle is spoilt:
                self._handle = fresh


def _level_0(start: float, downsample: float) -> int:
    """Where OpenSlide must begin to read, in px of level 0, to begin at `start` px of a level.

    It divides and, below 0, cuts off what follows the point: from the rounded product that could be a pixel too late.
    """
    if start >= 0 or downsample == 1:
        return round(start * downsample)
    return -math.floor(-start * downsample) - 1


@cache
def _shared_cache() -> OpenSlideCache:
    from openslide import OpenSlideCache

    return OpenSlideCache(CACHE_BYTES)


def _open(path: Path) -> OpenSlide:
    from openslide import OpenSlide

    handle = OpenSlide(path)
    handle.set_cache(_shared_cache())
    return handle


def _refuse_giant_tiles(path: Path, handle: OpenSlide) -> None:
    """OpenSlide allocates whole tiles, and ends the process when it cannot: a damaged header must not get that far."""
    for level in range(handle.level_count):
        sides = (handle.properties.get(f"openslide.level[{level}].tile-{side}", "1") for side in ("width", "height"))
        width, height = (int(positive(side) or 1) for side in sides)
        if width * height > MAX_TILE_PX:
            raise unsupported(path, f"tiles of {width} x {height} px, too large to read in parts")


def _usable_levels(handle: OpenSlide) -> tuple[int, ...]:
    """Levels that show all of level 0: in a generic TIFF a cropped overview may pass for one."""
    dimensions = handle.level_dimensions
    if handle.properties.get("openslide.vendor") != _GENERIC:
        return tuple(range(len(dimensions)))
    return tuple(i for i, size in enumerate(dimensions) if same_picture(dimensions[0], size))


def _facts(handle: OpenSlide, levels: tuple[int, ...]) -> Facts:
    properties = handle.properties
    vendor = properties.get("openslide.vendor", "unknown")
    resolution = _pair(properties, "openslide.mpp-x", "openslide.mpp-y")
    return Facts(
        vendor=vendor,
        level_dimensions=tuple(handle.level_dimensions[i] for i in levels),
        downsamples=tuple(handle.level_downsamples[i] for i in levels),
        objective_power=positive(properties.get("openslide.objective-power")),
        # What OpenSlide calls the mpp of a generic TIFF is computed from its resolution tags.
        vendor_mpp=None if vendor == _GENERIC else resolution,
        tiff_mpp=resolution if vendor == _GENERIC else _tiff_mpp(properties),
        associated_images=tuple(sorted(handle.associated_images)),
        bounds=_bounds(properties),
    )


def _pair(properties: Mapping[str, str], key_x: str, key_y: str) -> tuple[float, float] | None:
    x, y = positive(properties.get(key_x)), positive(properties.get(key_y))
    return None if x is None and y is None else (x or y or 0.0, y or x or 0.0)


def _tiff_mpp(properties: Mapping[str, str]) -> tuple[float, float] | None:
    um_per_unit = {"centimeter": 1e4, "inch": 25.4e3}.get(properties.get("tiff.ResolutionUnit", ""))
    per_unit = _pair(properties, "tiff.XResolution", "tiff.YResolution")
    return None if um_per_unit is None or per_unit is None else (um_per_unit / per_unit[0], um_per_unit / per_unit[1])


def _bounds(properties: Mapping[str, str]) -> tuple[int, int, int, int] | None:
    try:
        x, y, width, height = (int(properties[f"openslide.bounds-{key}"]) for key in ("x", "y", "width", "height"))
    except (KeyError, ValueError):
        return None
    return x, y, width, height


def _over_white(region: Image) -> Pixels:
    """RGBA as RGB over white; where nothing is transparent the colours are OpenSlide's, bit by bit."""
    from PIL import Image

    alpha = region.getchannel("A")
    lowest, _ = alpha.getextrema()
    if lowest >= _OPAQUE:  # type: ignore[operator]  # one band: a pair of numbers
        return np.asarray(region.convert("RGB"))
    canvas = Image.new("RGB", region.size, (255, 255, 255))
    canvas.paste(region, mask=alpha.point(lambda a: 255 if a >= _OPAQUE else a))
    return np.asarray(canvas)
