"""Files as scanners and converters write them: read as OpenSlide reads them, whoever decodes their tiles."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from tiffs_for_tests import halved, smooth_picture
from tiles_for_tests import (
    ADOBE,
    JFIF,
    RGB,
    YCBCR,
    busy_picture,
    grey_jpeg,
    nothing,
    pillow_jpeg,
    rgb_jpeg,
    with_adobe_marker,
    without,
    write_tiles,
)

from pathassets.slides import open_slide
from pathassets.slides.openslide_reader import OpenSlideReader


def ycbcr_by_adobe(tile):
    return with_adobe_marker(without(pillow_jpeg(subsampling="4:4:4")(tile), JFIF), 1)


# What scanners and converters write: (what should decode it, how it is written).
WITH_TABLES = {"tables": True}
AS_RGB = {"encode": rgb_jpeg, "photometric": RGB}
NO_MARKER = {"encode": lambda tile: without(rgb_jpeg(tile), ADOBE), "photometric": RGB}
SCANNERS = {
    "4:2:0": ("jpeg", {"encode": pillow_jpeg(subsampling="4:2:0")}),
    "4:2:2": ("jpeg", {"encode": pillow_jpeg(subsampling="4:2:2")}),
    "4:4:4": ("jpeg", {"encode": pillow_jpeg(subsampling="4:4:4")}),
    "shared tables": ("jpeg", WITH_TABLES),
    "RGB with Adobe's marker": ("jpeg", AS_RGB),
    "RGB without a marker": ("jpeg", NO_MARKER),
    "RGB, shared tables": ("jpeg", NO_MARKER | WITH_TABLES),
    "Aperio": ("jpeg", NO_MARKER | WITH_TABLES | {"aperio": True, "tile": (240, 240), "factors": (4,)}),
    "Aperio, YCbCr": ("jpeg", WITH_TABLES | {"aperio": True, "tile": (240, 240), "factors": (4,)}),
    "progressive": ("jpeg", {"encode": pillow_jpeg(progressive=True)}),
    "restart markers": ("jpeg", {"encode": pillow_jpeg(restart_marker_blocks=3)}),
    "tables of its own for each tile": ("jpeg", {"encode": pillow_jpeg(optimize=True)}),
    "bytes after the end": ("jpeg", {"encode": lambda tile: pillow_jpeg()(tile) + bytes(37)}),
    "tiles 256": ("jpeg", {"tile": (256, 256)}),
    "tiles 512": ("jpeg", {"tile": (512, 512)}),
    "tiles larger than the slide": ("jpeg", {"tile": (1024, 1024)}),
    "tiles wider than high": ("jpeg", {"tile": (48, 80)}),
    "three levels, odd factors": ("jpeg", {"factors": (3, 7)}),
    "BigTIFF": ("jpeg", {"bigtiff": True}),
    "BigTIFF, big-endian": ("jpeg", {"bigtiff": True, "byteorder": ">"}),
    "tiles left out": ("jpeg", {"instead": dict.fromkeys([(0, 3), (0, 4), (1, 2)], nothing)}),
    "Aperio, tiles left out": ("jpeg", {"instead": dict.fromkeys([(0, 3), (1, 2)], nothing), "aperio": True}),
    "all tiles but one left out": ("openslide", {"instead": dict.fromkeys([(0, i) for i in range(1, 60)], nothing)}),
    "a grey tile": ("jpeg", {"instead": {(0, 3): grey_jpeg}}),
    "a grey tile in a coarse level": ("jpeg", {"instead": {(1, 3): grey_jpeg}}),
    "an RGB tile among YCbCr": ("jpeg", {"encode": pillow_jpeg(subsampling="4:4:4"), "instead": {(0, 0): rgb_jpeg}}),
    "a YCbCr tile among RGB": ("jpeg", AS_RGB | {"instead": {(0, 0): pillow_jpeg(subsampling="4:4:4")}}),
    "a tile that says it is YCbCr among RGB": ("jpeg", AS_RGB | {"instead": {(0, 0): ycbcr_by_adobe}}),
    "a tile of another size": ("jpeg", {"instead": {(0, 3): lambda tile: pillow_jpeg()(tile[:64])}}),
    "YCbCr that the page calls RGB": ("openslide", {"photometric": RGB}),
    "RGB that the page calls YCbCr": ("openslide", AS_RGB | {"photometric": YCBCR}),
}


def read_or_error(reader, *box):
    try:
        return reader.read_level(*box)
    except Exception:
        return None


@pytest.mark.parametrize("kind", SCANNERS)
def test_what_scanners_write_is_read_as_openslide_reads_it(tmp_path, kind):
    decoder, options = SCANNERS[kind]
    path = write_tiles(tmp_path / "x.tif", busy_picture(601, 743), **{"encode": pillow_jpeg(), **options})
    reference = OpenSlideReader(path)
    rng = np.random.default_rng(0)
    with open_slide(path) as slide:
        assert slide.info.decoder == decoder
        assert slide.info.level_dimensions == reference.facts.level_dimensions
        for level, (width, height) in enumerate(slide.info.level_dimensions):
            tiles = [(x, y, 48, 48) for x in range(0, width, 101) for y in range(0, height, 103)] if level == 0 else []
            boxes = [(*rng.integers(-90, 0, 2).tolist(), *rng.integers(1, 900, 2).tolist()) for _ in range(4)]
            anywhere = [(*rng.integers(-90, 760, 2).tolist(), *rng.integers(1, 300, 2).tolist()) for _ in range(9)]
            for box in [(0, 0, width + 40, height + 40), *boxes, *tiles, *(anywhere if level == 0 else [])]:
                expected = read_or_error(reference, level, *box)
                found = read_or_error(slide._reader, level, *box)
                assert (found is None) == (expected is None)
                assert found is None or np.array_equal(found, expected)
    reference.close()


def test_starts_before_a_level_are_exact_in_both_readers(tmp_path):
    """OpenSlide by itself would be up to a pixel off."""
    path = write_tiles(tmp_path / "x.tif", busy_picture(601, 743), pillow_jpeg(), factors=(3, 7))
    reference = OpenSlideReader(path)
    with open_slide(path) as slide:
        for level in range(3):
            for left, top in ((-13, 0), (0, -7), (-12.5, -3.25), (-40.75, -1)):
                box = (level, left, top, 80, 60)
                assert np.array_equal(slide._reader.read_level(*box), reference.read_level(*box))
    reference.close()


def test_tiles_that_openslide_makes_from_the_finer_level_are_its_to_make(tmp_path):
    """In Aperio's files a tile is sometimes corrupt where one that it was made of is missing."""
    inverted = {(0, 3): nothing, (1, 1): lambda tile: pillow_jpeg()(255 - tile)}
    path = write_tiles(tmp_path / "x.svs", busy_picture(601, 743), pillow_jpeg(), aperio=True, instead=inverted)
    reference = OpenSlideReader(path)
    with open_slide(path) as slide:
        assert slide.info.decoder == "jpeg"
        found = slide._reader.read_level(1, 0, 0, 371, 300)
        assert np.array_equal(found, reference.read_level(1, 0, 0, 371, 300))
        inside = slide._reader.read_level(1, 140, 10, 40, 40).astype(int)
        assert np.abs(inside - halved(busy_picture(601, 743))[10:50, 140:180]).mean() < 20
    reference.close()


@pytest.mark.parametrize("layout", ["strips below", "strips", "planes", "big-endian", "NDPI"])
def test_layouts_that_are_not_decoded_here(tmp_path, layout, data_dir):
    picture, path = smooth_picture(500, 611), tmp_path / "x.tif"
    common = {"compression": "jpeg", "photometric": "rgb", "metadata": None}
    if layout == "strips below":
        tifffile.imwrite(path, picture, tile=(128, 128), **common)
        tifffile.imwrite(path, halved(picture), rowsperstrip=16, subfiletype=1, append=True, **common)
        expected = ("openslide", "jpeg", 1)
    elif layout == "strips":
        tifffile.imwrite(path, picture, rowsperstrip=16, **common)
        expected = ("tifffile", "tifffile", 1)
    elif layout == "planes":
        planes = np.ascontiguousarray(picture.transpose(2, 0, 1))
        tifffile.imwrite(path, planes, planarconfig="separate", tile=(128, 128), **common)
        expected = ("openslide", "openslide", 1)
    elif layout == "big-endian":
        write_tiles(path, picture, pillow_jpeg(), byteorder=">")
        expected = ("tifffile", "tifffile", 3)
    else:
        path = data_dir / "odd-slides" / "slideio_test3-TRITC-2-560.ndpi"
        expected = ("openslide", "openslide", 7)
    with open_slide(path) as slide:
        assert (slide.info.reader, slide.info.decoder, len(slide.info.level_dimensions)) == expected
        if layout != "NDPI":
            assert np.abs(slide.read(0, 0, 611, 500, (500, 611)).astype(int) - picture).mean() < 2
