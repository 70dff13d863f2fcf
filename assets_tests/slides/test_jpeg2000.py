"""JPEG2000 tiles of Aperio slides: OpenSlide's pixels at full size, the mean over blocks nearly at half size."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image
from tiffs_for_tests import edge_picture, smooth_picture
from tiles_for_tests import (
    APERIO_RGB,
    APERIO_YCBCR,
    RGB,
    YCBCR,
    busy_picture,
    jpeg2000,
    jpeg2000_ycbcr,
    nothing,
    write_tiles,
)

from pathassets.errors import Reason, SlideError
from pathassets.slides import open_slide
from pathassets.slides.jpeg2000 import Codestream, Jpeg2000
from pathassets.slides.openslide_reader import OpenSlideReader
from pathassets.slides.tiled import caught_up

TILE = (128, 128)
# what Aperio's scanners write: colours of their own resolution, and red, green and blue
KINDS = {
    "33005": (APERIO_RGB, jpeg2000()),
    "33003 4:4:4": (APERIO_YCBCR, jpeg2000_ycbcr(1, 1)),
    "33003 4:2:2": (APERIO_YCBCR, jpeg2000_ycbcr(2, 1)),
    "33003 4:2:0": (APERIO_YCBCR, jpeg2000_ycbcr(2, 2)),
}


@pytest.fixture
def real(data_dir):
    return data_dir / "slides" / "TCGA-CR-7395-01A-01-TS1.svs"


def write_svs(path, picture, kind="33005", **options):
    compression, encode = KINDS[kind]
    options = {"photometric": RGB, "factors": (4, 16), **options}
    return write_tiles(path, picture, options.pop("encode", encode), compression=compression, aperio=True, **options)


def check_parity(path, exact):
    """All pixels of all levels, with some beyond their borders, and rectangles of level 0."""
    reference = OpenSlideReader(path)
    rng = np.random.default_rng(0)
    with open_slide(path, exact=exact) as slide:
        for level, (width, height) in enumerate(slide.info.level_dimensions):
            boxes = [(0, 0, width + 40, height + 40)]
            if level == 0:
                boxes += [(*rng.integers(-50, 600, 2).tolist(), *rng.integers(1, 300, 2).tolist()) for _ in range(12)]
            for box in boxes:
                assert np.array_equal(slide._reader.read_level(level, *box), reference.read_level(level, *box))
    reference.close()


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("photometric", [RGB, YCBCR])
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_openslides(tmp_path, kind, photometric, exact):
    path = write_svs(tmp_path / "x.svs", busy_picture(500, 611), kind, photometric=photometric)
    check_parity(path, exact)
    with open_slide(path, exact=exact) as slide:
        assert slide.info.vendor == "aperio"
        assert slide.info.decoder == ("openslide" if exact and kind in ("33003 4:2:2", "33003 4:2:0") else "jpeg2000")


def test_pixels_of_a_real_slide_are_openslides(real):
    reference = OpenSlideReader(real)
    with open_slide(real) as slide:
        assert slide.info.decoder == "jpeg2000"
        for level, (width, height) in enumerate(slide.info.level_dimensions):
            box = (0, 0, min(width + 30, 1500), height + 30)
            assert np.array_equal(slide._reader.read_level(level, *box), reference.read_level(level, *box))
    reference.close()


@pytest.mark.parametrize(("factor", "most"), [(2, 2.5), (4, 1.5), (8, 1.0)])
def test_half_size_is_near_the_mean_over_blocks_on_a_real_slide(real, factor, most):
    with open_slide(real) as fast, open_slide(real, exact=True) as exact:
        assert fast._reader.reductions(0) == (2,)
        assert exact._reader.reductions(0) == ()
        window = fast._window(0, 1000, 800, 128 * factor, 128 * factor)
        found, expected = (s._render(0, window, (128, 128)).astype(int) for s in (fast, exact))
    assert not np.array_equal(found, expected)
    assert np.abs(found - expected).mean() < most
    assert abs((found - expected).mean()) < 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_half_size_of_every_kind(tmp_path, kind):
    picture = smooth_picture(500, 611)
    path = write_svs(tmp_path / "x.svs", picture, kind)
    with open_slide(path) as slide:
        assert slide._reader.reductions(0) == (2,)
        # 500 x 610 of it on 250 x 305: where the last column is half a pixel it is left out, as levels do
        found = slide._render(0, slide._window(0, -20, -20, 640, 560), (280, 320)).astype(int)
    assert (found[:10] == 255).all()
    assert (found[:, :10] == 255).all()
    assert (found[260:] == 255).all()
    assert (found[:, 315:] == 255).all()
    expected = np.asarray(Image.fromarray(picture[:, :610]).reduce(2)).astype(int)
    differs = np.abs(found[10:260, 10:315] - expected)
    assert differs.max() <= 12
    assert differs.mean() < 2


@pytest.mark.parametrize("scale", [2.0, 3.5, 4.0, 6.0, 8.0])
@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_an_edge_stays_where_it_is_at_half_size(tmp_path, scale, shift):
    """Half size as it is decoded shows it a quarter of a pixel too far right and down."""
    lossless = jpeg2000(irreversible=False, quality_layers=[1])
    # between greys that leave room for what a sharp filter adds on either side
    picture = 96 + edge_picture(1024, 1024, 500 + shift, 516 + shift) // 255 * 64
    path = write_svs(tmp_path / "x.svs", picture, factors=(), encode=lossless, tile=(512, 512))
    size = round(100 * scale)
    with open_slide(path) as slide:
        assert slide._reader.reductions(0) == (2,)
        pixels = slide.read(500 - size // 2, 516 - size // 2, size, size, (100, 100)).astype(float)
    found = [((line - 96) / 64).sum() for line in (pixels[-1, :, 0], pixels[:, -1, 0])]
    expected = (size // 2 + shift) * 100 / size
    assert max(abs(position - expected) for position in found) <= 0.12 * 2 / scale


ORDERS = {
    "by layer, one layer": {},
    "by resolution, layer": {"progression": "RLCP", "quality_layers": [60, 12]},
    "by resolution, position": {"progression": "RPCL", "precinct_size": (64, 64), "codeblock_size": (32, 32)},
    "lossless": {"irreversible": False, "quality_layers": [1]},
    "few resolutions": {"num_resolutions": 2},
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_halved_codestream_is_the_next_resolution(order):
    stream = jpeg2000(**ORDERS[order])(busy_picture(128, 192))
    codec = Jpeg2000.like(stream, (128, 192), is_ycbcr=False)
    assert codec.reductions((128, 192)) == (2,)
    image = Image.open(io.BytesIO(stream))
    image.reduce = 1
    differs = np.abs(codec.decode(stream, (128, 192), 2).astype(int) - np.asarray(image))
    assert differs.max() <= (0 if order == "lossless" else 1)


@pytest.mark.parametrize(
    "options",
    [
        {"progression": "LRCP", "quality_layers": [60, 12]},
        {"progression": "PCRL"},
        {"progression": "CPRL"},
        {"num_resolutions": 1},
    ],
)
def test_codestreams_whose_finest_resolution_is_not_all_at_the_end(tmp_path, options):
    encode = jpeg2000(**options)
    stream = encode(busy_picture(128, 128))
    with pytest.raises(ValueError, match="cannot be left out"):
        Codestream.of(stream).halved()
    path = write_svs(tmp_path / "x.svs", busy_picture(300, 300), encode=encode, factors=())
    check_parity(path, exact=False)
    with open_slide(path) as slide:
        assert slide.info.decoder == "jpeg2000"
        assert slide._reader.reductions(0) == ()


def test_codestreams_in_several_parts_are_not_halved(tmp_path):
    """Each part may have a header of its own, which says other things than the main header."""

    def in_parts(tile):
        stream = jpeg2000()(tile)
        at = stream.index(b"\xff\x90")
        empty = b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 14, 1, 2) + b"\xff\x93"
        return stream[: at + 11] + b"\2" + stream[at + 12 : -2] + empty + stream[-2:]

    path = write_svs(tmp_path / "x.svs", busy_picture(300, 300), encode=in_parts, factors=())
    check_parity(path, exact=False)
    with open_slide(path) as slide:
        assert slide.info.decoder == "jpeg2000"
        assert slide._reader.reductions(0) == ()


def test_tiles_of_odd_sides_are_not_halved(tmp_path):
    path = write_svs(tmp_path / "x.svs", busy_picture(300, 300), factors=(), tile=(112, 112))
    codec = Jpeg2000.like(jpeg2000()(busy_picture(99, 64)), (99, 64), is_ycbcr=False)
    assert codec.reductions((99, 64)) == ()
    check_parity(path, exact=False)


def odd_tiles():
    """What a tile may hold that others do not."""
    plain = jpeg2000()
    return {
        "four components": lambda tile: plain(np.dstack([tile, tile[..., :1]])),
        "one component": lambda tile: plain(np.ascontiguousarray(tile[..., 0])),
        "another size": lambda tile: plain(np.ascontiguousarray(tile[:64])),
        "other bits": lambda tile: plain(tile).replace(b"\7\1\1\7\1\1\7\1\1", b"\x08\1\1\x08\1\1\x08\1\1", 1),
        "colours of their own resolution": jpeg2000_ycbcr(2, 1),
        "a JPEG": lambda tile: b"\xff\xd8\xff\xd9",
        "left out": nothing,
    }


@pytest.mark.parametrize("odd", odd_tiles())
def test_a_tile_unlike_the_others_is_openslides_to_read(tmp_path, odd):
    path = write_svs(tmp_path / "x.svs", busy_picture(400, 400), factors=(), instead={(0, 5): odd_tiles()[odd]})
    reference = OpenSlideReader(path)
    with open_slide(path) as slide:
        assert slide.info.decoder == "jpeg2000"
        try:
            expected = reference.read_level(0, 100, 100, 200, 200)
        except Exception:
            with pytest.raises(SlideError) as caught:
                slide.read(100, 100, 200, 200, (200, 200))
            assert caught.value.reason is Reason.PIXELS_UNREADABLE
        else:
            assert np.array_equal(slide.read(100, 100, 200, 200, (200, 200)), expected)
            halves = np.asarray(Image.fromarray(expected).reduce(2))
            assert np.array_equal(slide.read(100, 100, 200, 200, (100, 100)), halves)
        assert slide.read(256, 256, 128, 128, (128, 128)).std() > 10
    reference.close()


@pytest.mark.parametrize(("kind", "odd"), [("33003 4:4:4", "33003 4:2:2"), ("33003 4:2:2", "33003 4:4:4")])
def test_tiles_whose_colours_differ_in_resolution(tmp_path, kind, odd):
    path = write_svs(tmp_path / "x.svs", busy_picture(400, 400), kind, factors=(), instead={(0, 0): KINDS[odd][1]})
    check_parity(path, exact=False)
    with open_slide(path) as slide, open_slide(path, exact=True) as exact:
        assert slide.info.decoder == "jpeg2000"
        found, expected = (s.read(0, 0, 128, 128, (64, 64)) for s in (slide, exact))
        assert np.array_equal(found, expected)


def test_a_tile_that_lies_about_its_size_is_not_decoded(monkeypatch):
    monkeypatch.setattr("imagecodecs.jpeg2k_decode", None)
    stream = jpeg2000()(busy_picture(128, 128))
    codec = Jpeg2000.like(stream, (128, 128), is_ycbcr=False)
    with pytest.raises(ValueError, match="says that it has 4294967295 x 128 px"):
        codec.decode(stream[:8] + b"\xff" * 4 + stream[12:], (128, 128))


def damage(tile, kind):
    part = tile.index(b"\xff\x90")
    return {
        "start": b"\0\0" + tile[2:],
        "zeros": bytes(len(tile)),
        "size": tile[:8] + b"\xff" * 8 + tile[16:],
        "components": tile[:41] + b"\xff\xff" + tile[43:],
        "header": tile[:53] + b"\xff\xff" + tile[55:],
        "header ends": tile[:30],
        "part": tile[: part + 6] + b"\x7f\xff\xff\xff" + tile[part + 10 :],
    }[kind]


@pytest.mark.parametrize("kind", ["start", "zeros", "size", "components", "header", "header ends", "part"])
def test_damaged_tiles_are_errors_at_every_size(tmp_path, kind):
    """As far as the decoder notices, which is OpenSlide's: bytes of coded pixels may be anything."""
    plain = jpeg2000()
    # the second is the one that would be looked at first to see what kind they are
    instead = dict.fromkeys([(0, 5), (0, 8)], lambda tile: damage(plain(tile), kind))
    path = write_svs(tmp_path / "x.svs", busy_picture(400, 400), factors=(), instead=instead)
    with open_slide(path) as slide:
        assert slide.info.decoder == "jpeg2000"
        for out in (128, 64, 32):
            with pytest.raises(SlideError) as caught:
                slide._render(0, slide._window(0, 128, 128, 128, 128), (out, out))
            assert caught.value.reason is Reason.PIXELS_UNREADABLE
        assert slide.read(0, 0, 128, 128, (64, 64)).std() > 10


def test_the_tag_orientation_moves_nothing(tmp_path):
    """OpenSlide obeys it tile by tile where libtiff decodes, and not here."""
    orientation = [(274, "H", 1, 3, True)]
    path = write_svs(tmp_path / "x.svs", busy_picture(300, 300), factors=(), tags=orientation)
    check_parity(path, exact=False)
    with open_slide(path) as slide:
        assert slide.info.decoder == "jpeg2000"


@pytest.mark.parametrize("photometric", [RGB, YCBCR])
@pytest.mark.parametrize("kind", KINDS)
def test_colours_are_right_where_openslide_refuses_the_file(tmp_path, kind, photometric):
    """Without Aperio's name in it, it is no slide to OpenSlide; what the components are, the compression says."""
    picture = smooth_picture(500, 611)
    compression, encode = KINDS[kind]
    path = write_tiles(tmp_path / "x.tif", picture, encode, compression=compression, photometric=photometric)
    with open_slide(path) as slide:
        assert slide.info.reader == "tifffile"
        assert np.abs(slide.read(0, 0, 611, 500, (500, 611)).astype(int) - picture).mean() < 2


def test_pixels_that_lag_are_caught_up_with_without_seams():
    picture = smooth_picture(60, 80)

    def read(left, top, width, height):
        assert left >= 0
        assert top >= 0
        assert left + width <= 80
        assert top + height <= 60
        return picture[top : top + height, left : left + width]

    whole = caught_up(read, (80, 60), (-5, -5, 95, 75), 0.25)
    assert (whole[:5] == 255).all()
    assert (whole[:, 85:] == 255).all()
    for left in range(-5, 90, 19):
        for top in range(-5, 70, 15):
            part = caught_up(read, (80, 60), (left, top, 19, 15), 0.25)
            assert np.array_equal(part, whole[top + 5 : top + 20, left + 5 : left + 24])
    # a ramp of 8 a pixel along x: a quarter of that later
    ramp = np.repeat(np.arange(0, 240, 8, dtype=np.uint8)[None, :, None], 20, 0).repeat(3, 2)
    later = caught_up(lambda x, y, w, h: ramp[y : y + h, x : x + w], (30, 20), (2, 2, 26, 16), 0.25)
    assert np.array_equal(later, ramp[2:18, 2:28] + 2)
