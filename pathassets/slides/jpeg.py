"""JPEG tiles of a TIFF: decoded strictly, and smaller than they are where that is wanted.

Belongs here: what a TIFF leaves out of its JPEG tiles, and the decoder. Does not belong: where the tiles lie.

libjpeg can decode at 1/2, 1/4 and 1/8 at less cost, by leaving high frequencies out of the inverse cosine transform. Against
the mean over blocks of pixels this differs by 0.1 to 0.4 grey levels in the mean on real slides. Damaged tiles are
errors here, as they are in OpenSlide; other decoders hand on grey bands.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pathassets.slides.reader import Pixels

REDUCTIONS = (8, 4, 2)
_START, _END = b"\xff\xd8", b"\xff\xd9"
# "Adobe", version 100, no flags, transform 0: the three components are red, green and blue
_RGB_MARKER = b"\xff\xee" + struct.pack(">H5sHHHB", 14, b"Adobe", 100, 0, 0, 0)


@dataclass(frozen=True)
class JpegTables:
    """What the tiles of a TIFF page share.

    Attributes:
        before: Bytes that belong between the start of a tile and the rest of it.
        colours: What tiles may hold, by what they say of themselves.
    """

    name: ClassVar[Literal["jpeg"]] = "jpeg"
    is_exact: ClassVar[bool] = True
    lag: ClassVar[float] = 0

    before: bytes
    colours: tuple[str, ...] = ("RGB", "YCbCr")

    @staticmethod
    def of_page(tables: bytes | None, *, is_rgb: bool) -> JpegTables:
        """From the tag JPEGTables, and whether the page says that its components are red, green and blue."""
        body = tables[2 : tables.rindex(_END)] if tables and _END in tables else b""
        return JpegTables((_RGB_MARKER if is_rgb else b"") + body)

    def reductions(self, tile_hw: Sequence[int]) -> tuple[int, ...]:
        """Those of 8, 4 and 2 that leave whole pixels of a tile."""
        return reductions(tile_hw)

    def decode(self, tile: bytes, tile_hw: Sequence[int], reduction: int = 1) -> Pixels:
        """A tile as uint8 RGB, (height, width, 3), each divided by `reduction`.

        Raises:
            ValueError: The tile is damaged, or has another size than `tile_hw`.
        """
        import simplejpeg

        if tile[:2] != _START:
            raise ValueError("the tile does not begin as a JPEG does")
        whole = _START + self.before + tile[2:] if self.before else tile
        height, width, colours, _ = simplejpeg.decode_jpeg_header(whole)
        # a tile that lies about its size could ask for gigabytes
        if (height, width) != tuple(tile_hw) or colours not in self.colours:
            raise ValueError(f"the tile is {width} x {height} px of {colours}, not {tile_hw[1]} x {tile_hw[0]} of RGB")
        size = (height // reduction, width // reduction)
        pixels: Pixels = simplejpeg.decode_jpeg(whole, "RGB", min_height=size[0], min_width=size[1])
        if pixels.shape[:2] != size:
            raise ValueError(f"the tile cannot be decoded at 1/{reduction}")
        return pixels


def reductions(tile_hw: Sequence[int]) -> tuple[int, ...]:
    """Those of `REDUCTIONS` that leave whole pixels of a tile."""
    return tuple(r for r in REDUCTIONS if tile_hw[0] % r == 0 and tile_hw[1] % r == 0)
