"""JPEG2000 tiles of Aperio slides: decoded with OpenSlide's pixels, or at half their size.

Belongs here: codestreams: what they hold, the same with one resolution less, Aperio's two kinds of colours. Does not
belong: where the tiles lie.

A codestream holds its picture resolution by resolution, each twice as fine as the last. What comes before the finest is
the picture at half its size, once the header says so; no library whose decoder lets other threads run offers that, so the
header is rewritten here. Its pixels lie on even pixels (`Jpeg2000.lag`), and the wavelet is sharper than a mean over
blocks. Once moved to where they belong, they differ from such means by 1.3 to 2.3 grey levels in the mean on sharp tissue;
four to a block of a quarter of the size, by 0.9. A quarter from the codestream itself would be 5 off, so that is not done.
What the decoder cannot notice, damage within coded pixels, OpenSlide does not notice either.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pathassets.slides.reader import Pixels

_START, _SIZE, _CODING, _QUANTISATION = b"\xff\x4f", b"\xff\x51", b"\xff\x52", b"\xff\x5c"
_COMMENT, _TILE_PARTS, _PACKETS = b"\xff\x64", b"\xff\x55", b"\xff\x58"
_TILE, _DATA = b"\xff\x90", b"\xff\x93"
_USUAL, _USUAL_IN_TILES = {_SIZE, _CODING, _QUANTISATION, _COMMENT, _TILE_PARTS}, {_PACKETS, _COMMENT}
# bytes that these segments have at least
_SHORTEST = {_SIZE: 39, _CODING: 10, _QUANTISATION: 3}
_EIGHT_BITS = 7
# by style of quantisation: how many bytes of its segment are about the finest three bands
_BYTES_OF_FINEST = {0: 3, 1: 0, 2: 6}
# progressions that go from resolution to resolution; the first only where there is one layer of quality
_BY_LAYER, _BY_RESOLUTION = 0, (1, 2)


@dataclass(frozen=True)
class Codestream:
    """A codestream taken apart as far as its first tile part.

    Attributes:
        segments: Markers of the main header with what they hold, in order.
        rest: Everything from the first tile part on.
    """

    segments: tuple[tuple[bytes, bytes], ...]
    rest: bytes

    @staticmethod
    def of(data: bytes) -> Codestream:
        """Takes `data` apart.

        Raises:
            ValueError: It is no codestream, or ends within its header.
        """
        if data[:4] != _START + _SIZE:
            raise ValueError("the tile does not begin as a JPEG2000 codestream does")
        segments, at = _segments(data, len(_START), _TILE)
        return Codestream(segments, data[at:])

    def get(self, marker: bytes) -> bytes:
        """What the only segment of this kind holds.

        Raises:
            ValueError: There is none, or more than one, or it is cut off.
        """
        found = [body for kind, body in self.segments if kind == marker]
        if len(found) != 1 or len(found[0]) < _SHORTEST[marker]:
            raise ValueError("its header is damaged")
        return found[0]

    @property
    def size(self) -> tuple[int, ...]:
        """(width, height, left, top) of the picture, then of the tiles within it, px."""
        return struct.unpack_from(">8I", self.get(_SIZE), 2)

    @property
    def components(self) -> tuple[tuple[int, int, int], ...]:
        """For each colour bits less one (128 more if signed), and every how many pixels of a row and of a column it has a value."""
        body = self.get(_SIZE)[36:]
        return tuple((body[i], body[i + 1], body[i + 2]) for i in range(0, len(body) - 2, 3))

    def halved(self) -> bytes:
        """The codestream of the same picture at half its size (rounded up).

        Raises:
            ValueError: Its finest resolution is not all at the end, or it is of an unusual kind.
        """
        coding, rest = self.get(_CODING), self.rest
        progression, layers, levels = coding[1], struct.unpack_from(">H", coding, 2)[0], coding[5]
        ends_with_finest = progression in _BY_RESOLUTION or (progression == _BY_LAYER and layers == 1)
        is_usual = {kind for kind, _ in self.segments} <= _USUAL and self.get(_QUANTISATION)[0] & 31 in _BYTES_OF_FINEST
        if not (ends_with_finest and is_usual and levels >= 1):
            raise ValueError("its finest resolution cannot be left out")
        # tile 0, the only part of it, without markers that change what the main header says
        if (
            rest[4:6] != b"\0\0"
            or rest[11:12] != b"\1"
            or not {kind for kind, _ in _segments(rest, 12, _DATA)[0]} <= _USUAL_IN_TILES
        ):
            raise ValueError("it is in several parts")
        return _START + b"".join(_packed(kind, _halved(kind, body)) for kind, body in self.segments) + rest


def _segments(data: bytes, at: int, end: bytes) -> tuple[tuple[tuple[bytes, bytes], ...], int]:
    """Segments from `at` on, and where the marker `end` is."""
    found = []
    while (marker := data[at : at + 2]) != end:
        if len(data) < at + 4 or marker[:1] != b"\xff":
            raise ValueError("its header is damaged")
        length = struct.unpack_from(">H", data, at + 2)[0]
        found.append((marker, data[at + 4 : at + 2 + length]))
        at += 2 + length
    return tuple(found), at


def _packed(marker: bytes, body: bytes) -> bytes:
    return marker + struct.pack(">H", len(body) + 2) + body


def _halved(marker: bytes, body: bytes) -> bytes:
    if marker == _SIZE:
        sizes = struct.unpack_from(">8I", body, 2)
        return body[:2] + struct.pack(">8I", *(-(-size // 2) for size in sizes)) + body[34:]
    if marker == _CODING:
        # sizes of precincts, where they are given, come last, the finest resolution's at the end
        return body[:5] + bytes([body[5] - 1]) + body[6 : len(body) - (body[0] & 1)]
    if marker == _QUANTISATION:
        return body[: len(body) - _BYTES_OF_FINEST[body[0] & 31]]
    return body


@dataclass(frozen=True)
class Jpeg2000:
    """What the JPEG2000 tiles of a page have in common.

    Attributes:
        is_ycbcr: Their components are luminance and two colours, not red, green and blue.
        is_exact: All components have a value for each pixel. Otherwise the library below mixes colours by a formula of its
            own, half a grey level off in the mean: good enough at half size, not at full size.
        can_halve: They can be decoded at half size.
    """

    name: ClassVar[Literal["jpeg2000"]] = "jpeg2000"
    # The wavelet keeps even pixels: in px of half size a quarter before the middle of two.
    lag: ClassVar[float] = 0.25

    is_ycbcr: bool
    is_exact: bool
    can_halve: bool

    @staticmethod
    def like(sample: bytes, tile_hw: Sequence[int], *, is_ycbcr: bool) -> Jpeg2000:
        """From one of the tiles.

        Raises:
            ValueError: It is of a kind that OpenSlide should read.
        """
        stream = _checked(sample, tile_hw, is_ycbcr=is_ycbcr)
        try:
            can_halve = bool(stream.halved())
        except ValueError:
            can_halve = False
        return Jpeg2000(is_ycbcr, is_exact=_is_even(stream), can_halve=can_halve)

    def reductions(self, tile_hw: Sequence[int]) -> tuple[int, ...]:
        """(2,) if tiles can be decoded at half size."""
        return (2,) if self.can_halve and not any(side % 2 for side in tile_hw) else ()

    def decode(self, tile: bytes, tile_hw: Sequence[int], reduction: int = 1) -> Pixels:
        """A tile as uint8 RGB, (height, width, 3), each divided by `reduction` (1 or 2).

        Raises:
            ValueError: The tile is damaged, has another size than `tile_hw` or is not like the others.
        """
        stream = _checked(tile, tile_hw, is_ycbcr=self.is_ycbcr)
        if _is_even(stream) != self.is_exact:
            raise ValueError("the tile's colours have another resolution than those of others")
        pixels = _decoded(tile if reduction == 1 else stream.halved())
        if pixels.shape != (tile_hw[0] // reduction, tile_hw[1] // reduction, 3) or pixels.dtype != np.uint8:
            raise ValueError(f"the tile cannot be decoded at 1/{reduction}")
        return _rgb(pixels) if self.is_ycbcr and self.is_exact else pixels


def _checked(tile: bytes, tile_hw: Sequence[int], *, is_ycbcr: bool) -> Codestream:
    """Taken apart, and what it claims to hold checked: a tile that lies about its size could ask for gigabytes."""
    stream = Codestream.of(tile)
    size = (tile_hw[1], tile_hw[0], 0, 0)
    if stream.size != size * 2:
        raise ValueError(f"the tile says that it has {stream.size[0]} x {stream.size[1]} px")
    first, *others = stream.components
    plain = (_EIGHT_BITS, 1, 1)
    kinds = [plain, (_EIGHT_BITS, 2, 1), (_EIGHT_BITS, 2, 2)] if is_ycbcr else [plain]
    if first != plain or len(others) != 2 or others[0] != others[1] or others[0] not in kinds:
        raise ValueError(f"the tile has the components {stream.components}, not 8-bit RGB")
    return stream


def _is_even(stream: Codestream) -> bool:
    return len(set(stream.components)) == 1


def _decoded(codestream: bytes) -> Pixels:
    from imagecodecs import jpeg2k_decode

    try:
        return np.asarray(jpeg2k_decode(codestream, numthreads=1))
    except Exception as error:  # the library raises errors of several kinds
        raise ValueError(f"the tile is damaged ({error})") from error


def _rgb(ycbcr: Pixels) -> Pixels:
    """Luminance and two colours as red, green and blue, with OpenSlide's rounding; (height, width, 3)."""
    red, green_by_blue, green_by_red, blue = _tables()
    y, cb, cr = (ycbcr[..., i] for i in range(3))
    y = y.astype(np.int16)
    green = ((green_by_blue[cb] + green_by_red[cr]) >> 16).astype(np.int16)
    return np.clip(np.stack((y + red[cr], y + green, y + blue[cb]), -1), 0, 255).astype(np.uint8)


@cache
def _tables() -> tuple[NDArray[np.int16], NDArray[np.int32], NDArray[np.int32], NDArray[np.int16]]:
    """What each value of Cr adds to red, of Cb and of Cr to green (in 65536ths, rounding included), and of Cb to blue."""
    centred = np.arange(256) - 128
    red, blue = (np.rint(factor * centred).astype(np.int16) for factor in (1.402, 1.772))
    by_blue = np.rint(65536 * (0.5 - 0.34414 * centred)).astype(np.int32)
    by_red = np.rint(65536 * -0.71414 * centred).astype(np.int32)
    return red, by_blue, by_red, blue
