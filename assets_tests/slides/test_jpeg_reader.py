"""The fast reader: OpenSlide's pixels, each tile decoded once, and OpenSlide itself for whatever is unusual."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openslide
import pytest
import tifffile
from tiffs_for_tests import edge_picture, smooth_picture, write_ome, write_pyramid

from pathassets.errors import Reason, SlideError
from pathassets.slides import compressed_tiles, open_slide
from pathassets.slides.jpeg import JpegTables, reductions
from pathassets.slides.tile_cache import TileCache

JPEG_SLIDES = ("CMU-1-Small-Region.svs", "her2st_C2_HE_pyr.tif", "molluscum_HE_skin.tif")


@pytest.fixture(params=JPEG_SLIDES)
def jpeg_slide(request, data_dir):
    return data_dir / "slides" / request.param


def rgb(path, x, y, width, height, level=0) -> np.ndarray:
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((x, y), level, (width, height)).convert("RGB"))


def test_which_slides_are_decoded_here(data_dir):
    decoders = {}
    for folder in ("slides", "odd-slides"):
        for path in sorted((data_dir / folder).iterdir()):
            try:
                with open_slide(path) as slide:
                    decoders[path.name] = slide.info.decoder
            except SlideError:
                pass
    assert {name for name, decoder in decoders.items() if decoder == "jpeg"} == {
        *JPEG_SLIDES, "openslide-python_small.svs", "wsic_CMU-1-Small-Region.jpeg.tiff"
    }  # fmt: skip
    assert decoders["TCGA-CR-7395-01A-01-TS1.svs"] == "jpeg2000"
    assert decoders["wsic_bfconvert_JPEG.ome.tiff"] == "tifffile"


def test_level_0_is_openslides_bit_by_bit_everywhere(jpeg_slide):
    with open_slide(jpeg_slide) as slide:
        width, height = slide.info.width_px, slide.info.height_px
        for y in range(-60, height + 60, 2000 if height > 5000 else 700):
            assert np.array_equal(
                slide.read(-30, y, width + 60, 300, (300, width + 60)), over_white(jpeg_slide, y, width)
            )


def over_white(path, y, width) -> np.ndarray:
    with openslide.OpenSlide(path) as slide:
        rgba = np.asarray(slide.read_region((-30, y), 0, (width + 60, 300)))
    return np.where(rgba[..., 3:] == 0, 255, rgba[..., :3])


def test_every_tile_of_every_level_is_openslides(jpeg_slide):
    """Where OpenSlide does not shift: tile rows and columns from the level's origin."""
    with open_slide(jpeg_slide) as slide:
        for level, (width, height) in enumerate(slide.info.level_dimensions):
            size = min(width, 1500), min(height, 1500)
            assert np.array_equal(slide._reader.read_level(level, 0, 0, *size), rgb(jpeg_slide, 0, 0, *size, level))


def test_each_tile_is_decoded_once_in_a_pass(data_dir, monkeypatch):
    decoded = []
    original = JpegTables.decode

    def counting(self, tile, *args):
        decoded.append(hash(tile))
        return original(self, tile, *args)

    monkeypatch.setattr(JpegTables, "decode", counting)
    with open_slide(data_dir / "slides" / "molluscum_HE_skin.tif") as slide:
        decoded.clear()
        for y in range(0, 2240, 224):
            for x in range(0, 14336, 224):
                slide.read(x, y, 224, 224, (224, 224))
        n_tiles = 56 * 9
        assert n_tiles <= len(decoded) <= n_tiles + 3  # what the trial at opening decoded may be there already


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_decoding_at_reduced_size_is_near_the_mean_over_blocks(jpeg_slide, factor):
    with open_slide(jpeg_slide) as fast, open_slide(jpeg_slide, exact=True) as exact:
        assert fast._reader.reductions(0) == (8, 4, 2)
        assert exact._reader.reductions(0) == ()
        x, y = fast.info.width_px // 3 // 8 * 8, fast.info.height_px // 3 // 8 * 8
        level = 0
        side = 128 * factor
        found = fast._render(level, fast._window(level, x, y, side, side), (128, 128)).astype(int)
        expected = exact._render(level, exact._window(level, x, y, side, side), (128, 128))
        assert not np.array_equal(found, expected)
        assert np.abs(found - expected).mean() < 1
        assert abs((found - expected).mean()) < 0.25


def test_starts_between_reduced_pixels_are_read_at_full_size(data_dir):
    """From an odd pixel on, half size would be off by half a pixel or blurred."""
    path = data_dir / "slides" / "molluscum_HE_skin.tif"
    with open_slide(path) as fast, open_slide(path, exact=True) as exact:
        assert np.array_equal(fast.read(5001, 6000, 448, 448, (224, 224)), exact.read(5001, 6000, 448, 448, (224, 224)))
        assert not np.array_equal(
            fast.read(5000, 6000, 448, 448, (224, 224)), exact.read(5000, 6000, 448, 448, (224, 224))
        )


@pytest.mark.parametrize("scale", [2.0, 2.5, 3.0, 3.7, 4.0, 6.0, 8.0, 11.3])
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_an_edge_stays_where_it_is_when_decoded_at_reduced_size(tmp_path, scale, shift):
    path = write_pyramid(
        tmp_path / "edge.tif", edge_picture(2048, 2048, 1000 + shift, 1016 + shift), factors=(), compression="jpeg",
        compressionargs={"level": 95},
    )  # fmt: skip
    size = round(100 * scale)
    with open_slide(path) as slide:
        assert slide.info.decoder == "jpeg"
        pixels = slide.read(1000 - size // 2, 1016 - size // 2, size, size, (100, 100)).astype(float)
    expected = (size // 2 + shift) * 100 / size
    assert abs((pixels[-1, :, 0] / 255).sum() - expected) <= 0.3
    assert abs((pixels[:, -1, 0] / 255).sum() - expected) <= 0.3


def test_the_edge_of_the_slide_at_reduced_size(tmp_path):
    picture = smooth_picture(1001, 1003)
    path = write_pyramid(tmp_path / "x.tif", picture, factors=(), compression="jpeg")
    with open_slide(path) as slide, open_slide(path, exact=True) as exact:
        found = slide.read(800, 800, 400, 400, (100, 100)).astype(int)
        expected = exact.read(800, 800, 400, 400, (100, 100))
    assert np.abs(found - expected)[:50, :50].max() <= 8
    assert (found[51:] == 255).all()
    assert (found[:, 51:] == 255).all()


@pytest.mark.parametrize("scale", [1.7, 2.03, 2.5, 3.6, 4.06, 5.7, 8.1, 9.3])
def test_scales_between_whole_numbers_are_near_what_full_size_gives(jpeg_slide, scale):
    """At hardly more than one reduced pixel for one, the filter would blur here and not there."""
    with open_slide(jpeg_slide) as fast, open_slide(jpeg_slide, exact=True) as exact:
        window = fast._window(0, 800, 1000, round(150 * scale), round(150 * scale))
        found, expected = (s._render(0, window, (150, 150)).astype(int) for s in (fast, exact))
    assert np.abs(found - expected).mean() < 2


def patched(path, page, name, values):
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[page].tags[name].overwrite(values)
    return path


def tag(path, page, name):
    with tifffile.TiffFile(path) as tiff:
        return list(tiff.pages[page].tags[name].value)


@pytest.fixture
def small(tmp_path):
    return write_pyramid(tmp_path / "x.tif", smooth_picture(700, 900), compression="jpeg")


def test_a_tile_that_was_left_out_is_openslides_to_read(small):
    counts = tag(small, 0, "TileByteCounts")
    counts[9] = 0
    patched(small, 0, "TileByteCounts", counts)
    with open_slide(small) as slide:
        assert slide.info.decoder == "jpeg"
        with openslide.OpenSlide(small) as reference:
            rgba = np.asarray(reference.read_region((0, 0), 0, (900, 700)))
        assert np.array_equal(slide.read(0, 0, 900, 700, (700, 900)), np.where(rgba[..., 3:] == 0, 255, rgba[..., :3]))


def test_tiles_that_share_their_bytes(small):
    offsets, counts = tag(small, 0, "TileOffsets"), tag(small, 0, "TileByteCounts")
    offsets[3:9], counts[3:9] = [offsets[2]] * 6, [counts[2]] * 6
    patched(small, 0, "TileOffsets", offsets)
    patched(small, 0, "TileByteCounts", counts)
    with open_slide(small) as slide:
        assert np.array_equal(slide.read(0, 0, 900, 700, (700, 900)), rgb(small, 0, 0, 900, 700))


@pytest.mark.parametrize("damage", ["bit", "cut", "size", "start"])
def test_damaged_tiles_are_errors_at_every_size(small, damage):
    """Other decoders hand on grey bands for most of these."""
    offset, count = tag(small, 0, "TileOffsets")[9], tag(small, 0, "TileByteCounts")[9]
    data = bytearray(small.read_bytes())
    tile = data[offset : offset + count]
    if damage == "cut":
        tile[count // 2 :] = bytes(count - count // 2)
    elif damage == "start":
        tile[:2] = b"\0\0"
    elif damage == "bit":
        tile[count // 2 : count // 2 + 60] = b"\xff\xda" * 30
    else:
        frame = tile.index(b"\xff\xc0")
        tile[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    data[offset : offset + count] = tile
    small.write_bytes(data)
    row, column = divmod(9, -(-900 // 128))
    with open_slide(small) as slide:
        for out in (128, 64, 16):
            with pytest.raises(SlideError) as caught:
                slide._render(0, slide._window(0, column * 128, row * 128, 128, 128), (out, out))
            assert caught.value.reason is Reason.PIXELS_UNREADABLE
        assert slide.read(0, 0, 128, 128, (128, 128)).mean() < 250


def test_colours_as_openslide_sees_them_whatever_the_tags_say(small):
    """The tag says RGB, the tiles hold YCbCr without saying so, or the other way round."""
    for photometric in (2, 6):
        patched(small, 0, "PhotometricInterpretation", photometric)
        with open_slide(small) as slide:
            assert np.array_equal(slide.read(0, 0, 900, 700, (700, 900)), rgb(small, 0, 0, 900, 700))


def test_without_the_decoder_openslide_reads(cmu):
    code = (
        "import sys; sys.modules['simplejpeg'] = None\n"
        "from pathassets.slides import open_slide\n"
        f"slide = open_slide({str(cmu)!r}); print(slide.info.decoder, slide.read(0, 0, 448, 448, (224, 224)).shape)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "openslide (224, 224, 3)"


def test_threads_see_what_one_thread_sees(jpeg_slide, monkeypatch):
    """With a cache so small that tiles come and go all the while."""
    monkeypatch.setattr(compressed_tiles, "SHARED", TileCache(2_000_000))
    rng = np.random.default_rng(3)
    with open_slide(jpeg_slide) as slide:
        jobs = [
            (*(int(v) for v in rng.integers(0, 1800, 2)), int(rng.choice([100, 224, 448, 900]))) for _ in range(120)
        ]
        alone = [slide.read(x, y, side, side, (100, 100)) for x, y, side in jobs]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda j: slide.read(j[0], j[1], j[2], j[2], (100, 100)), jobs * 3))
    assert all(np.array_equal(a, b) for a, b in zip(alone * 3, together, strict=True))


def test_the_second_reader_is_strict_too(tmp_path):
    path = write_ome(tmp_path / "x.ome.tif", smooth_picture(512, 512), factors=(2,), compression="jpeg")
    offset, count = tag(path, 0, "TileOffsets")[5], tag(path, 0, "TileByteCounts")[5]
    data = bytearray(path.read_bytes())
    data[offset + count // 2 : offset + count] = bytes(count - count // 2)
    path.write_bytes(data)
    with open_slide(path) as slide:
        assert slide.info.reader == "tifffile"
        assert (
            np.abs(slide.read(0, 0, 128, 128, (128, 128)).astype(int) - smooth_picture(512, 512)[:128, :128]).max() <= 8
        )
        with pytest.raises(SlideError) as caught:
            slide.read(128, 128, 128, 128, (128, 128))
    assert caught.value.reason is Reason.PIXELS_UNREADABLE


def test_which_reductions_leave_whole_pixels():
    assert reductions((256, 240)) == (8, 4, 2)
    assert reductions((256, 252)) == (4, 2)
    assert reductions((255, 256)) == ()


def test_the_cache_keeps_what_was_used_last():
    cache = TileCache(300)
    made = []

    def tile(name):
        return cache.get("a", name, lambda: made.append(name) or np.zeros(100, np.uint8), 1000)

    for name in (1, 2, 3, 1, 4, 1, 2):
        tile(name)
    assert made == [1, 2, 3, 4, 2]
    assert cache.nbytes == 300
    cache.get("b", 0, lambda: np.zeros(301, np.uint8), 1000)
    assert cache.nbytes == 300
    cache.forget("a")
    assert cache.nbytes == 0


def test_the_cache_keeps_no_more_of_an_owner_than_it_wants_again():
    cache, made = TileCache(1000), []

    def tile(owner, name):
        return cache.get(owner, name, lambda: made.append((owner, name)) or np.zeros(100, np.uint8), 200)

    for name in (1, 2, 3, 2, 1):
        tile("a", name)
    assert made == [("a", 1), ("a", 2), ("a", 3), ("a", 1)]
    assert cache.nbytes == 200
    assert cache.get("a", 9, lambda: np.zeros(300, np.uint8), 200).size == 300
    assert cache.get("a", 9, lambda: np.zeros(1, np.uint8), 200).size == 300, "one array is kept in any case"


def test_of_several_owners_the_idle_one_gives_way():
    cache, made = TileCache(400), []

    def tile(owner, name):
        return cache.get(owner, name, lambda: made.append((owner, name)) or np.zeros(100, np.uint8), 1000)

    for owner, name in (("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 1), ("a", 3), ("a", 4), ("a", 2)):
        tile(owner, name)
    assert cache.nbytes == 400
    assert [made.count(("b", name)) for name in (1, 2)] == [1, 1]
    made.clear()
    for name in (1, 2, 3, 4):
        tile("a", name)
    assert made == []
    cache.forget("b")
    assert cache.nbytes == 400


def test_threads_that_want_the_same_tile_make_it_once():
    cache, made = TileCache(10_000), []
    together = threading.Barrier(8)

    def slow():
        made.append(1)
        time.sleep(0.05)
        return np.zeros(10, np.uint8)

    def want(_):
        together.wait()
        return cache.get("slide", "tile", slow, 100)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(want, range(8)))
    assert len(made) == 1
    assert all(tile is found[0] for tile in found)


def test_an_error_is_shared_and_forgotten():
    cache = TileCache(10_000)

    def fail():
        raise ValueError("damaged")

    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            cache.get("slide", "tile", fail, 100)
    assert cache.get("slide", "tile", lambda: np.zeros(10, np.uint8), 100).size == 10
