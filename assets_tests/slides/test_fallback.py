"""Where tiles are of a kind that is not decoded here, OpenSlide's pixels come out all the same, or a refusal in words."""

from __future__ import annotations

import numpy as np
import openslide
import pytest
import tifffile
from support.damage import Level, change_index
from tiffs_for_tests import halved, smooth_picture

from pathassets.errors import Reason, SlideError
from pathassets.slides import open_slide

HEIGHT, WIDTH, TILE = 700, 900, 128
JPEG = {"compression": "jpeg", "photometric": "rgb"}
DEFLATE = {"compression": "zlib", "photometric": "rgb"}


def write(path, *levels, picture=None):
    """Levels of half the size each, each with options of its own."""
    pictures = [smooth_picture(HEIGHT, WIDTH) if picture is None else picture]
    pictures += [halved(pictures[0], 2**number) for number in range(1, len(levels))]
    shared = {"tile": (TILE, TILE), "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        for number, options in enumerate(levels):
            tiff.write(pictures[number], subfiletype=int(number > 0), **shared, **options)
    return path


def check_all_levels(path) -> None:
    """Every level, from its origin, is OpenSlide's bit by bit."""
    with open_slide(path) as slide, openslide.OpenSlide(path) as reference:
        assert slide.info.reader == "openslide"
        assert slide.info.level_dimensions == reference.level_dimensions
        for level, (width, height) in enumerate(reference.level_dimensions):
            rgba = np.asarray(reference.read_region((0, 0), level, (width, height)))
            expected = np.where(rgba[..., 3:] == 0, 255, rgba[..., :3])
            assert np.array_equal(slide._reader.read_level(level, 0, 0, width, height), expected)
            assert expected.std() > 10


def test_levels_that_are_compressed_in_different_ways(tmp_path):
    """A scanner's overviews are sometimes of another kind than its finest level."""
    fast_first = write(tmp_path / "a.tif", JPEG, DEFLATE, JPEG)
    check_all_levels(fast_first)
    check_all_levels(write(tmp_path / "b.tif", DEFLATE, JPEG))
    with open_slide(fast_first) as slide:
        assert slide.info.decoder == "jpeg", "one level of another kind does not cost the others their speed"


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("quality", [50, 92, 100])
def test_every_subsampling_of_colours(tmp_path, subsampling, quality):
    options = {**JPEG, "subsampling": subsampling, "compressionargs": {"level": quality}}
    rng = np.random.default_rng(1)
    picture = np.clip(smooth_picture(HEIGHT, WIDTH) + rng.normal(0, 20, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
    check_all_levels(write(tmp_path / "x.tif", options, options, picture=picture))


def test_grey_tiles(tmp_path):
    grey = {"compression": "jpeg", "photometric": "minisblack"}
    path = tmp_path / "grey.tif"
    write(path, grey, picture=smooth_picture(HEIGHT, WIDTH)[..., 0])
    with open_slide(path) as slide, openslide.OpenSlide(path) as reference:
        expected = np.asarray(reference.read_region((0, 0), 0, (WIDTH, HEIGHT)).convert("RGB"))
        assert np.array_equal(slide.read(0, 0, WIDTH, HEIGHT, (HEIGHT, WIDTH)), expected)


def test_four_colours_are_refused(tmp_path):
    cmyk = np.dstack([smooth_picture(HEIGHT, WIDTH), np.zeros((HEIGHT, WIDTH), np.uint8)])
    path = write(tmp_path / "x.tif", {"compression": "jpeg", "photometric": "separated"}, picture=cmyk)
    with pytest.raises(SlideError) as caught:
        open_slide(path)
    assert caught.value.reason is Reason.UNSUPPORTED_PIXELS


def test_shared_tables_that_are_damaged_leave_nothing_to_read(cmu, tmp_path):
    """Every tile needs them: the slide is refused, not shown in other colours."""
    path = tmp_path / "x.svs"
    path.write_bytes(cmu.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages.first.tags["JPEGTables"]
        where, length = tag.valueoffset, tag.count
    with path.open("r+b") as file:
        file.seek(where + 2)
        file.write(bytes(length - 4))
    with pytest.raises(SlideError) as caught:
        open_slide(path)
    assert caught.value.reason is Reason.FILE_UNREADABLE


@pytest.mark.parametrize("left_out", [[0], [9, 10, 11], [47]])
def test_tiles_that_were_left_out(tmp_path, left_out):
    path = write(tmp_path / "x.tif", JPEG, JPEG)
    change_index(path, left_out, TileByteCounts=0, TileOffsets=0)
    check_all_levels(path)
    with open_slide(path) as slide:
        for tile in left_out:
            x, y, width, height = Level.of(path).rectangle(tile)
            inside = slide.read(x, y, width, height, (height, width))[: HEIGHT - y, : WIDTH - x]
            assert (inside == 255).all()


def test_tiles_that_were_left_out_of_a_real_slide(real_slide, tmp_path):
    path = tmp_path / real_slide.name
    path.write_bytes(real_slide.read_bytes())
    level = Level.of(path)
    tile = 4 * level.across + 4
    change_index(path, [tile, tile + 1], TileByteCounts=0, TileOffsets=0)
    x, y, width, height = level.rectangle(tile)
    with open_slide(path) as slide, openslide.OpenSlide(path) as reference:
        box = (x - 50, y - 50, 3 * width, height + 100)
        rgba = np.asarray(reference.read_region(box[:2], 0, box[2:]))
        assert np.array_equal(slide.read(*box, box[:1:-1]), np.where(rgba[..., 3:] == 0, 255, rgba[..., :3]))
