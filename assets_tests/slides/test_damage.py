"""Damaged places: they are reported, they stay where they are, and everything around them is read."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openslide
import pytest
import tifffile
from support.damage import Level, change_index
from tiffs_for_tests import smooth_picture, write_ome, write_pyramid

from pathassets.errors import Reason, SlideError
from pathassets.slides import open_slide


def damaged_copy(source, target, level: int, indices) -> tuple[int, int]:
    """`source` with the bytes of some tiles of one level overwritten; the tiles' height and width."""
    with tifffile.TiffFile(source) as tiff:
        page = tiff.series[0].levels[level].keyframe
        spans = [(page.dataoffsets[i], page.databytecounts[i]) for i in indices]
        shape = page.tilelength, page.tilewidth
    data = bytearray(source.read_bytes())
    for offset, count in spans:
        data[offset : offset + count] = b"\x37" * count
    target.write_bytes(data)
    return shape


def with_index(source, target, **entries) -> tuple[int, int, int, int]:
    """`source` with another entry for one tile of level 0; the tile's rectangle."""
    shutil.copy(source, target)
    level = Level.of(source)
    tile = 5 * level.across + 6
    change_index(target, [tile], **entries)
    return level.rectangle(tile)


BEYOND = {
    "as long as the file": {"TileByteCounts": 22_442_916},
    "two gigabytes": {"TileByteCounts": 2**31},
    "all ones": {"TileByteCounts": 2**32 - 1},
    "far behind the end": {"TileOffsets": 2**31},
}


@pytest.mark.parametrize("entries", BEYOND.values(), ids=BEYOND)
def test_a_damaged_entry_of_the_index_costs_its_tile(real_slide, tmp_path, entries):
    path = tmp_path / real_slide.name
    x, y, width, height = with_index(real_slide, path, **entries)
    with open_slide(path) as slide, open_slide(real_slide) as whole:
        for rectangle in ((x, y, width, height), (x + width - 1, y + height - 1, 9, 9), (x - 9, y - 9, 10, 10)):
            with pytest.raises(SlideError) as caught:
                slide.read(*rectangle, (rectangle[3], rectangle[2]))
            assert caught.value.reason is Reason.PIXELS_UNREADABLE
            assert "past" in caught.value.message
        for rectangle in (
            (x + width, y - 50, width, 300), (x - width, y, width, height), (x, y + height, 50, 50), (x, y - 50, 300, 50)
        ):  # fmt: skip
            size = rectangle[3], rectangle[2]
            assert np.array_equal(slide.read(*rectangle, size), whole.read(*rectangle, size))
        assert slide.thumbnail(300).shape == whole.thumbnail(300).shape


def test_openslide_is_never_asked_for_what_a_damaged_index_claims(tmp_path):
    """It allocates so many bytes, and where it cannot it ends the process: a slide must not cost the others their run."""
    source = write_pyramid(
        tmp_path / "good.tif", smooth_picture(1100, 1300), factors=(2,), compression="jpeg", bigtiff=True
    )
    for name, value in (("TileByteCounts", 2**60), ("TileByteCounts", 2**62 + 2**61), ("TileOffsets", 2**62)):
        path = tmp_path / "bad.tif"
        x, y, width, height = with_index(source, path, **{name: value})
        code = (
            "from pathassets.errors import SlideError\nfrom pathassets.slides import open_slide\n"
            f"slide = open_slide({str(path)!r})\n"
            f"try:\n    slide.read({x}, {y}, {width}, {height}, ({height}, {width}))\nexcept SlideError as error: print(error.reason)"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (run.returncode, run.stdout.strip()) == (0, "pixels_unreadable"), run.stderr


def some_bytes(kind, data: bytes, at: int, rng) -> bytes:
    """Damage within a compressed tile's data, of which decoders take some for pixels."""
    length = {"bit": 1, "bytes": 4, "sector": 60, "zeros": 60, "marker": 2, "rest": len(data)}[kind]
    part = data[at : at + length]
    if kind == "bit":
        return bytes([part[0] ^ (1 << int(rng.integers(8)))])
    if kind == "marker":
        return b"\xff\xd3"
    return bytes(len(part)) if kind in ("zeros", "rest") else rng.bytes(len(part))


@pytest.mark.parametrize("kind", ["bit", "bytes", "sector", "zeros", "marker", "rest"])
def test_what_is_read_from_damaged_bytes_is_what_openslide_reads_or_an_error_of_both(real_slide, tmp_path, kind):
    """No checksum tells damage from pixels; but nobody may see pixels here that OpenSlide does not show."""
    level, path, rng = Level.of(real_slide), tmp_path / real_slide.name, np.random.default_rng(7)
    shutil.copy(real_slide, path)
    whole = real_slide.read_bytes()
    for tile in rng.choice([i for i, count in enumerate(level.counts) if count > 2000], 12, replace=False):
        data = whole[level.offsets[tile] : level.offsets[tile] + level.counts[tile]]
        at = int(rng.integers(700, len(data) - 100))
        with path.open("r+b") as file:
            file.seek(level.offsets[tile] + at)
            file.write(some_bytes(kind, data, at, rng))
        x, y, width, height = level.rectangle(int(tile))
        expected = as_openslide_reads(path, x, y, width, height)
        with open_slide(path) as slide:
            found = as_slide_reads(slide, x, y, width, height, (height, width))
            assert (found is None) == (expected is None)
            assert found is None or np.array_equal(found, expected)
            if slide.info.decoder == "jpeg":  # decoding at an eighth passes over no byte
                small = as_slide_reads(slide, x, y, width, height, (height // 8, width // 8), level=0)
                assert (small is None) == (expected is None)


def as_slide_reads(slide, x, y, width, height, out_hw, level=None):
    """Pixels, of that level if one is named; None where they are said to be unreadable."""
    try:
        if level is not None:
            return slide._render(level, slide._window(level, x, y, width, height), out_hw)
        return slide.read(x, y, width, height, out_hw)
    except SlideError as error:
        if error.reason is not Reason.PIXELS_UNREADABLE:
            raise
        return None


def as_openslide_reads(path, x, y, width, height):
    """Pixels over white; None where it cannot read."""
    with openslide.OpenSlide(path) as slide:
        try:
            rgba = np.asarray(slide.read_region((x, y), 0, (width, height)))
        except openslide.OpenSlideError:
            return None
    return np.where(rgba[..., 3:] == 0, 255, rgba[..., :3])


def test_one_bad_tile_costs_only_itself(data_dir, tmp_path):
    source, path = data_dir / "slides" / "molluscum_HE_skin.tif", tmp_path / "bad.tif"
    across = -(-14467 // 256)
    damaged_copy(source, path, 0, [20 * across + 20])
    with open_slide(path) as slide, open_slide(source) as whole:
        for _ in range(3):  # a handle that has failed once fails for ever; here it is replaced
            with pytest.raises(SlideError) as caught:
                slide.read(20 * 256 + 10, 20 * 256 + 10, 100, 100, (100, 100))
            assert caught.value.reason is Reason.PIXELS_UNREADABLE
            assert "x=5130, y=5130" in caught.value.message
            assert caught.value.remedy
            expected = whole.read(21 * 256, 20 * 256, 200, 200, (200, 200))
            assert np.array_equal(slide.read(21 * 256, 20 * 256, 200, 200, (200, 200)), expected)


def test_threads_do_not_spoil_each_others_reads(data_dir, tmp_path):
    """Threads that meet a bad tile all the while must never make a good tile look bad."""
    source, path = data_dir / "slides" / "her2st_C2_HE_pyr.tif", tmp_path / "bad.tif"
    across = -(-9274 // 256)
    bad = 15 * across + 15
    damaged_copy(source, path, 0, [bad])
    corners = [(x * 256, y * 256) for y in range(12, 19) for x in range(12, 19)]

    def read(slide, corner):
        try:
            return slide.read(*corner, 256, 256, (256, 256))
        except SlideError as error:
            return error.reason

    with open_slide(path) as slide, open_slide(source) as whole, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda c: read(slide, c), corners * 3))
        expected = [whole.read(*c, 256, 256, (256, 256)) for c in corners] * 3
    for corner, pixels, truth in zip(corners * 3, found, expected, strict=True):
        if corner == (15 * 256, 15 * 256):
            assert pixels is Reason.PIXELS_UNREADABLE
        else:
            assert np.array_equal(pixels, truth)


def test_an_overview_takes_the_finer_level_where_the_coarse_one_is_damaged(data_dir, tmp_path):
    source, path = data_dir / "slides" / "molluscum_HE_skin.tif", tmp_path / "bad.tif"
    damaged_copy(source, path, 2, [5])  # 4 tiles across: the second of the second row
    with open_slide(path) as slide, open_slide(source) as whole:
        found, expected = slide.read_mpp(8.064).astype(int), whole.read_mpp(8.064)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 4
    tile = found[256:512, 256:512], expected[256:512, 256:512]
    assert np.abs(tile[0] - tile[1]).mean() < 12  # the pyramid's levels lie half a pixel beside each other
    assert np.abs(tile[0].mean() - tile[1].mean()) < 1


def test_an_overview_leaves_white_what_cannot_be_read_at_any_level(cmu, tmp_path, caplog):
    path = tmp_path / "bad.svs"
    across = -(-2220 // 240)
    tile_h, tile_w = damaged_copy(cmu, path, 0, [4 * across + 5])
    with open_slide(path) as slide, open_slide(cmu) as whole, caplog.at_level(logging.WARNING):
        found, expected = slide.thumbnail(1000), whole.thumbnail(1000)
    scale = found.shape[0] / 2967
    y, x = round(4 * tile_h * scale), round(5 * tile_w * scale)
    side = round(240 * scale)
    assert (found[y + 2 : y + side - 2, x + 2 : x + side - 2] == 255).all()
    differs = (np.abs(found.astype(int) - expected) > 2).any(axis=2)
    assert differs.mean() < 0.03
    margin = 34  # what is given up is cut off in squares of up to 32 px
    differs[max(0, y - margin) : y + side + margin, max(0, x - margin) : x + side + margin] = False
    assert not differs.any()
    assert "cannot be read" in caplog.text


def test_a_slide_whose_fine_levels_cannot_be_read_opens_and_says_so(data_dir, tmp_path):
    source, path = data_dir / "slides" / "her2st_C2_HE_pyr.tif", tmp_path / "bad.tif"
    damaged_copy(source, path, 0, range(39 * 37))
    with open_slide(path) as slide:
        assert slide.read_mpp(11.05).shape[2] == 3
        with pytest.raises(SlideError) as caught:
            slide.read(4000, 4000, 224, 224, (224, 224))
    assert caught.value.reason is Reason.PIXELS_UNREADABLE


def test_a_slide_without_a_readable_pixel_is_refused_at_once(cmu, tmp_path):
    path = tmp_path / "bad.svs"
    damaged_copy(cmu, path, 0, range(10 * 13))
    with pytest.raises(SlideError) as caught:
        open_slide(path)
    assert caught.value.reason is Reason.FILE_UNREADABLE


def test_damage_after_opening_ends_an_overview_in_words(cmu, tmp_path):
    path = tmp_path / "bad.svs"
    path.write_bytes(cmu.read_bytes())
    with open_slide(path) as slide:
        damaged_copy(cmu, path, 0, range(10 * 13))
        with pytest.raises(SlideError) as caught:
            slide.thumbnail(200)
    assert caught.value.reason is Reason.PIXELS_UNREADABLE


def test_bad_tiles_of_the_second_reader(tmp_path):
    picture = smooth_picture(512, 512)
    source, path = write_ome(tmp_path / "good.ome.tif", picture, factors=(2,)), tmp_path / "bad.ome.tif"
    damaged_copy(source, path, 0, [5])
    with open_slide(path) as slide:
        assert slide.info.reader == "tifffile"
        with pytest.raises(SlideError) as caught:
            slide.read(128, 128, 100, 100, (100, 100))
        assert caught.value.reason is Reason.PIXELS_UNREADABLE
        assert np.array_equal(slide.read(256, 128, 128, 128, (128, 128)), picture[128:256, 256:384])
        assert np.abs(slide.thumbnail(512).astype(int) - picture).max() > 20


def test_a_tile_that_was_left_out_is_white(tmp_path):
    picture = smooth_picture(512, 512)
    path = write_ome(tmp_path / "sparse.ome.tif", picture, factors=(2,))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tag = tiff.pages.first.tags["TileByteCounts"]
        counts = list(tag.value)
        counts[5] = 0
        tag.overwrite(counts)
    with open_slide(path) as slide:
        found = slide.read(0, 0, 512, 512, (512, 512))
    assert (found[128:256, 128:256] == 255).all()
    found[128:256, 128:256] = picture[128:256, 128:256]
    assert np.array_equal(found, picture)


def test_a_file_that_goes_away_while_it_is_open(data_dir, tmp_path):
    """An open file can be read on; when the bad tile's second try finds no file, that is said in words."""
    source, path = data_dir / "slides" / "her2st_C2_HE_pyr.tif", tmp_path / "bad.tif"
    across = -(-9274 // 256)
    damaged_copy(source, path, 0, [15 * across + 15])
    with open_slide(path) as slide:
        path.unlink()
        with pytest.raises(SlideError):
            slide.read(15 * 256, 15 * 256, 100, 100, (100, 100))
