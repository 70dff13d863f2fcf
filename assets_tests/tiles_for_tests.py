"""TIFFs whose tiles are encoded here, as scanners write them and libraries that write TIFFs do not."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from tiffs_for_tests import halved, smooth_picture

Encode = Callable[[np.ndarray], bytes]
JPEG, APERIO_YCBCR, APERIO_RGB = 7, 33003, 33005
RGB, YCBCR = 2, 6
_TABLES = (b"\xff\xdb", b"\xff\xc4")
JFIF, ADOBE = b"\xff\xe0", b"\xff\xee"


def busy_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Slow colours with edges and grain, so that whatever is wrong shows: uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    picture = smooth_picture(height, width, seed).astype(float)
    picture[height // 3 :: 17, :, seed % 3] *= 0.4
    picture[:, width // 4 :: 23] += (60, -40, 30)
    return np.clip(picture + rng.normal(0, 8, picture.shape), 0, 255).astype(np.uint8)


def write_tiles(
    path: Path, picture: np.ndarray, encode: Encode, *, compression: int = JPEG, photometric: int = YCBCR,
    tile: tuple[int, int] = (128, 128), factors: tuple[int, ...] = (2, 4), aperio: bool = False, tables: bool = False,
    instead: Mapping[tuple[int, int], Encode] | None = None, tags: Sequence[tuple] = (), **options,
) -> Path:  # fmt: skip
    """A pyramid whose tiles `encode` makes, or for (level, tile) whatever `instead` has there.

    With `aperio` it calls itself a slide of theirs; with `tables` its JPEG tiles share their tables, as libtiff has it.
    """
    with tifffile.TiffWriter(path, **options) as tiff:
        for level, factor in enumerate((1, *factors)):
            pixels = halved(picture, factor) if factor > 1 else picture
            tiles = [(instead or {}).get((level, i), encode)(t) for i, t in enumerate(_cut(pixels, tile))]
            extra = list(tags)
            if tables:
                shared = next(_tables(t) for t in tiles if t)
                extra.append((347, 7, len(shared), shared, True))
                tiles = [without(t, *_TABLES) if t else t for t in tiles]
            tiff.write(
                iter(tiles), shape=pixels.shape, dtype=np.uint8, tile=tile, compression=compression, photometric="rgb",
                subfiletype=int(factor > 1), metadata=None, extratags=extra,
                description=_aperio_description(pixels.shape, tile) if aperio else None,
            )  # fmt: skip
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for page in tiff.pages:
            page.aspage().tags["PhotometricInterpretation"].overwrite(photometric)
    return path


def _cut(pixels: np.ndarray, tile: tuple[int, int]) -> Iterator[np.ndarray]:
    height, width = tile
    padded = np.pad(pixels, ((0, -pixels.shape[0] % height), (0, -pixels.shape[1] % width), (0, 0)), mode="edge")
    for y in range(0, padded.shape[0], height):
        for x in range(0, padded.shape[1], width):
            yield np.ascontiguousarray(padded[y : y + height, x : x + width])


def _aperio_description(shape: tuple[int, ...], tile: tuple[int, int]) -> str:
    size = f"{shape[1]}x{shape[0]} ({tile[1]}x{tile[0]})"
    return f"Aperio Image Library v11.2.1 \r\n{size} J2K/KDU Q=70|AppMag = 40|MPP = 0.2500"


def nothing(tile: np.ndarray) -> bytes:
    """A tile that was left out."""
    return b""


def pillow_jpeg(**options) -> Encode:
    """JPEG by Pillow, YCbCr with a JFIF marker."""
    return lambda tile: _saved(Image.fromarray(tile), "JPEG", quality=85, **options)


def grey_jpeg(tile: np.ndarray) -> bytes:
    """JPEG of one colour."""
    return _saved(Image.fromarray(tile).convert("L"), "JPEG", quality=85)


def rgb_jpeg(tile: np.ndarray) -> bytes:
    """JPEG of red, green and blue as they are, with Adobe's marker to say so."""
    import imagecodecs

    return imagecodecs.jpeg8_encode(tile, level=85, colorspace="RGB", outcolorspace="RGB", subsampling="444")


def with_adobe_marker(jpeg: bytes, transform: int) -> bytes:
    """`jpeg` with a marker that says whether its colours were transformed (1) or not (0)."""
    return jpeg[:2] + ADOBE + struct.pack(">H5sHHHB", 14, b"Adobe", 100, 0, 0, transform) + jpeg[2:]


def without(jpeg: bytes, *markers: bytes) -> bytes:
    """`jpeg` without segments of some kinds."""
    kept = [segment for segment in _jpeg_segments(jpeg) if segment[:2] not in markers]
    return b"\xff\xd8" + b"".join(kept) + jpeg[2 + sum(map(len, _jpeg_segments(jpeg))) :]


def _tables(jpeg: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(s for s in _jpeg_segments(jpeg) if s[:2] in _TABLES) + b"\xff\xd9"


def _jpeg_segments(jpeg: bytes) -> list[bytes]:
    found, at = [], 2
    while jpeg[at : at + 2] != b"\xff\xda":
        length = 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        found.append(jpeg[at : at + length])
        at += length
    return found


def jpeg2000(**options) -> Encode:
    """A JPEG2000 codestream of red, green and blue, as Kakadu writes it for Aperio unless `options` say otherwise."""
    options = {"irreversible": True, "quality_mode": "rates", "quality_layers": [12], "progression": "LRCP", **options}
    return lambda tile: _saved(Image.fromarray(tile), "JPEG2000", no_jp2=True, **options)


def jpeg2000_ycbcr(across: int, down: int, **options) -> Encode:
    """A codestream of luminance and two colours, which have a value for every so many pixels across and down.

    Made of three codestreams of one component each: their packets in turn, resolution by resolution.
    """
    one = jpeg2000(plt=True, mct=0, num_resolutions=5, **options)

    def encode(tile: np.ndarray) -> bytes:
        height, width = tile.shape[:2]
        ycbcr = np.asarray(Image.fromarray(tile).convert("YCbCr")).astype(float)
        blocks = ycbcr.reshape(height // down, down, width // across, across, 3).mean(axis=(1, 3))
        planes = (ycbcr[..., 0], blocks[..., 1], blocks[..., 2])
        streams = [one(np.rint(plane).astype(np.uint8)) for plane in planes]
        size = struct.pack(">HIIIIIIIIH", 0, width, height, 0, 0, width, height, 0, 0, 3)
        components = bytes((7, 1, 1, *(7, across, down) * 2))
        packets = b"".join(b"".join(turn) for turn in zip(*map(_packets, streams), strict=True))
        part = struct.pack(">HHIBB", 10, 0, 14 + len(packets), 0, 1)
        rest = [segment for segment in _j2k_segments(streams[0])[0] if segment[:2] in (b"\xff\x52", b"\xff\x5c")]
        head = b"\xff\x4f\xff\x51" + struct.pack(">H", 2 + len(size + components)) + size + components + b"".join(rest)
        return head + b"\xff\x90" + part + b"\xff\x93" + packets + b"\xff\xd9"

    return encode


def _packets(codestream: bytes) -> list[bytes]:
    """Cut where the marker PLT says that packets end; lengths are written seven bits a byte."""
    segments, data = _j2k_segments(codestream)
    lengths, length = [], 0
    for byte in b"".join(segment[5:] for segment in segments if segment[:2] == b"\xff\x58"):
        length = length << 7 | byte & 127
        if byte < 128:
            lengths.append(length)
            length = 0
    ends = np.cumsum(lengths)
    return [data[end - length : end] for length, end in zip(lengths, ends, strict=True)]


def _j2k_segments(codestream: bytes) -> tuple[list[bytes], bytes]:
    found, at = [], 2
    while codestream[at : at + 2] != b"\xff\x93":
        length = 2 + int.from_bytes(codestream[at + 2 : at + 4], "big")
        found.append(codestream[at : at + length])
        at += length
    return found, codestream[at + 2 :]


def _saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
