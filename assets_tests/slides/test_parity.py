"""Pixels against raw OpenSlide and against what was written."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openslide
import pytest
import tifffile
from tiffs_for_tests import edge_picture, halved, smooth_picture, write_ome, write_pyramid

from pathassets.slides import open_slide
from pathassets.slides.openslide_reader import OpenSlideReader
from pathassets.slides.tiff_reader import TiffReader


def raw(path, x, y, level, width, height) -> np.ndarray:
    """OpenSlide's own pixels over white, in floating point."""
    with openslide.OpenSlide(path) as slide:
        rgba = np.asarray(slide.read_region((x, y), level, (width, height))).astype(float)
    alpha = rgba[..., 3:] / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


def random_corners(info, n, seed, side=224):
    rng = np.random.default_rng(seed)
    return [
        (int(rng.integers(-50, info.width_px - side + 50)), int(rng.integers(-50, info.height_px - side + 50)))
        for _ in range(n)
    ]


def test_level_0_is_openslides_bit_by_bit(real_slide):
    with open_slide(real_slide) as slide:
        for x, y in random_corners(slide.info, 8, seed=1):
            assert np.array_equal(slide.read(x, y, 224, 224, (224, 224)), raw(real_slide, x, y, 0, 224, 224))


def test_a_levels_own_resolution_is_openslides(real_slide):
    """Bit by bit where a level's pixel begins; elsewhere both interpolate, and OpenSlide leaves seams between tiles."""
    with open_slide(real_slide) as slide, openslide.OpenSlide(real_slide) as reference:
        for level in range(1, slide.info.n_levels):
            side = round(224 * reference.level_downsamples[level])
            assert np.array_equal(slide.read(0, 0, side, side, (224, 224)), raw(real_slide, 0, 0, level, 224, 224))
            for x, y in random_corners(slide.info, 4, seed=level, side=side):
                x, y = max(x, 0), max(y, 0)
                differs = np.abs(slide.read(x, y, side, side, (224, 224)) - raw(real_slide, x, y, level, 224, 224))
                assert differs.mean() < 0.6
                assert np.quantile(differs, 0.98) <= 2


def test_openslide_itself_is_handed_on_as_it_is(real_slide):
    with open_slide(real_slide) as slide:
        reader = OpenSlideReader(real_slide)
        for level in range(1, slide.info.n_levels):
            for x, y in random_corners(slide.info, 2, seed=level):
                x, y = max(x, 0), max(y, 0)
                d = reader.facts.downsamples[level]
                expected = raw(real_slide, x, y, level, 224, 224)
                # seams of a 255th are made opaque
                assert np.abs(reader.read_level(level, x / d, y / d, 224, 224) - expected).max() <= 1
        reader.close()


def test_half_resolution_is_the_mean_of_four(real_slide):
    with open_slide(real_slide, exact=True) as slide:
        if any(abs(d - 2) < 0.02 for d in slide._reader.facts.downsamples):
            pytest.skip("this slide has a level of half resolution, which is read instead")
        x, y = slide.info.width_px // 3, slide.info.height_px // 3
        expected = raw(real_slide, x, y, 0, 448, 448).reshape(224, 2, 224, 2, 3).mean(axis=(1, 3))
        assert np.abs(slide.read(x, y, 448, 448, (224, 224)) - expected).max() <= 0.5 + 1e-6


def test_resampling_by_a_fraction_stays_near_the_area_mean(real_slide):
    with open_slide(real_slide) as slide:
        x, y = slide.info.width_px // 3, slide.info.height_px // 3
        source = raw(real_slide, x, y, 0, 336, 336)
        expected = area_mean(source, 224, 224)
        assert np.abs(slide.read(x, y, 336, 336, (224, 224)) - expected).mean() < 4


def area_weights(n_in: int, n_out: int) -> np.ndarray:
    edges = np.linspace(0, n_in, n_out + 1)
    low, high = np.arange(n_in), np.arange(1, n_in + 1)
    covered = np.minimum(edges[1:, None], high) - np.maximum(edges[:-1, None], low)
    return np.clip(covered, 0, None) / (n_in / n_out)


def test_outside_the_slide_is_white(real_slide):
    with open_slide(real_slide) as slide:
        width, height = slide.info.width_px, slide.info.height_px
        assert (slide.read(-500, -500, 300, 300, (100, 100)) == 255).all()
        assert (slide.read(width + 10, height + 10, 300, 300, (64, 64)) == 255).all()
        corner = slide.read(width - 100, height - 100, 224, 224, (224, 224))
        assert (corner[100:] == 255).all()
        assert (corner[:, 100:] == 255).all()
        assert np.array_equal(corner[:100, :100], slide.read(width - 100, height - 100, 100, 100, (100, 100)))


@pytest.mark.parametrize("out_hw", [(1, 1), (7, 300), (300, 7), (500, 500)])
def test_the_result_has_the_size_asked_for_and_is_writable(cmu, out_hw):
    with open_slide(cmu) as slide:
        pixels = slide.read(100, 200, 301, 207, out_hw)
    assert pixels.shape == (*out_hw, 3)
    assert pixels.dtype == np.uint8
    pixels[:] = 0


def test_a_rectangle_without_area_is_refused(cmu):
    with open_slide(cmu) as slide, pytest.raises(ValueError, match="no area"):
        slide.read(0, 0, 0, 10, (10, 10))


def test_transparency_is_laid_over_white(odd):
    path = odd / "slaid_patch.tif"
    rgba = tifffile.imread(path).astype(float)
    alpha = rgba[..., 3:] / 255
    with open_slide(path) as slide:
        pixels = slide.read(0, 0, 256, 256, (256, 256))
    # OpenSlide multiplies by alpha and divides again: faint pixels lose some of their colour, which white then covers
    assert np.abs(pixels - (rgba[..., :3] * alpha + 255 * (1 - alpha))).max() <= 2


def test_half_transparent_over_white(tmp_path):
    rgba = np.zeros((256, 256, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 200, 128
    path = tmp_path / "rgba.tif"
    tifffile.imwrite(path, rgba, tile=(128, 128), photometric="rgb", extrasamples=("unassalpha",))
    for pixels in (read_all(path), TiffReader(path).read_level(0, 0, 0, 256, 256)):
        assert np.abs(pixels.astype(float) - [227.4, 127, 127]).max() <= 1.6


def read_all(path) -> np.ndarray:
    with open_slide(path) as slide:
        return slide.read(0, 0, slide.info.width_px, slide.info.height_px, (slide.info.height_px, slide.info.width_px))


@pytest.mark.parametrize("reader", ["openslide", "tifffile"])
@pytest.mark.parametrize("level_factor", [2, 4])
@pytest.mark.parametrize(("x", "y"), [(301, 402), (1001, 1102), (1777, 1500)])
def test_an_edge_stays_where_it_is_at_every_level(tmp_path, reader, level_factor, x, y):
    """The black corner's edge, seen through a coarser level, is off by no more than half a pixel of that level."""
    write = write_pyramid if reader == "openslide" else write_ome
    path = write(tmp_path / "edge.tif", edge_picture(2003, 2501, x, y), factors=(level_factor,))
    side = 64 * level_factor
    with open_slide(path) as slide:
        assert slide.info.reader == reader
        assert slide.info.n_levels == 2
        pixels = slide.read(x - side // 2 - 3, y - side // 2 - 5, side, side, (64, 64)).astype(float)
    # where the edge is: the white share of a row (column) that crosses it, in px of the level
    found_x = (pixels[-1, :, 0] / 255).sum()
    found_y = (pixels[:, -1, 0] / 255).sum()
    assert abs(found_x - (side // 2 + 3) / level_factor) <= 0.5
    assert abs(found_y - (side // 2 + 5) / level_factor) <= 0.5


@pytest.mark.parametrize("scale", [1.5, 2.0, 2.7, 3.0, 6.3])
def test_an_edge_stays_where_it_is_at_every_resolution(tmp_path, scale):
    path = write_pyramid(tmp_path / "edge.tif", edge_picture(2048, 2048, 1003, 1009))
    size = round(100 * scale)
    with open_slide(path) as slide:
        pixels = slide.read(1003 - size // 2, 1009 - size // 2, size, size, (100, 100)).astype(float)
    assert abs((pixels[-1, :, 0] / 255).sum() - (size // 2) * 100 / size) <= 0.3
    assert abs((pixels[:, -1, 0] / 255).sum() - (size // 2) * 100 / size) <= 0.3


def test_large_rectangles_are_read_in_blocks_without_seams(tmp_path, monkeypatch):
    path = write_pyramid(tmp_path / "smooth.tif", smooth_picture(1500, 1700), factors=())
    with open_slide(path) as slide:
        whole = slide.read(11, 13, 1400, 1300, (433, 467))
        exact = slide.read(0, 0, 1700, 1500, (750, 850))
        monkeypatch.setattr("pathassets.slides.slide.MAX_BLOCK_PX", 160_000)
        monkeypatch.setattr("pathassets.slides.slide.BLOCK_SIDE_PX", 400)
        in_blocks = slide.read(11, 13, 1400, 1300, (433, 467))
        assert np.abs(whole.astype(int) - in_blocks).max() <= 1
        assert np.array_equal(exact, slide.read(0, 0, 1700, 1500, (750, 850)))
        small = {out_hw: slide.read(0, 0, 1700, 1500, out_hw) for out_hw in [(3, 4), (1, 300), (300, 1), (1, 1)]}
    for out_hw, pixels in small.items():
        assert np.abs(pixels - area_mean(smooth_picture(1500, 1700), *out_hw)).max() <= 9


def area_mean(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = area_weights(picture.shape[0], height), area_weights(picture.shape[1], width)
    return np.moveaxis(rows @ np.moveaxis(picture.astype(float), -1, 0) @ columns.T, 0, -1)


def test_an_output_too_large_to_hold_is_refused(cmu):
    from pathassets.errors import Reason, SlideError

    with open_slide(cmu) as slide, pytest.raises(SlideError) as caught:
        slide.read(0, 0, 1000, 1000, (100_000, 100_000))
    assert caught.value.reason is Reason.UNSUPPORTED_PIXELS


def test_the_second_reader_sees_what_openslide_sees(real_slide):
    """JPEG 2000 and JPEG decode alike to within a grey level or two of rounding."""
    with open_slide(real_slide) as slide:
        second = TiffReader(real_slide)
        assert second.facts.level_dimensions == slide.info.level_dimensions
        allowed = 4 if "TCGA" in real_slide.name else 0
        for level in range(slide.info.n_levels):
            width, height = slide.info.level_dimensions[level]
            expected = slide._reader.read_level(level, 0, 0, min(width, 1000), min(height, 1000))
            found = second.read_level(level, 0, 0, min(width, 1000), min(height, 1000))
            assert np.abs(expected.astype(int) - found).max() <= allowed
        second.close()


def test_both_readers_shift_alike_by_parts_of_a_pixel(data_dir):
    path = data_dir / "slides" / "her2st_C2_HE_pyr.tif"
    with open_slide(path) as slide:
        second = TiffReader(path)
        for x, y in ((4001, 5003), (3303, 4702)):
            d = second.facts.downsamples[1]
            found = second.read_level(1, x / d, y / d, 200, 200).astype(int)
            assert np.abs(found - slide._reader.read_level(1, x / d, y / d, 200, 200)).max() <= 12
            assert np.abs(found - slide._reader.read_level(1, x / d, y / d, 200, 200)).mean() < 0.6
        second.close()


def test_ome_with_hidden_levels_is_read_from_them(tmp_path):
    picture = smooth_picture(1024, 1280)
    path = write_ome(tmp_path / "x.ome.tif", picture, metadata={"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25})
    with open_slide(path) as slide:
        assert (slide.info.reader, slide.info.vendor, slide.info.n_levels) == ("tifffile", "ome", 3)
        assert (slide.info.mpp, slide.info.mpp_origin) == (0.25, "vendor")
        assert np.array_equal(slide.read(0, 0, 1280, 1024, (1024, 1280)), picture)
        assert np.array_equal(slide.read(0, 0, 1280, 1024, (256, 320)), halved(picture, 4))


@pytest.mark.parametrize("kind", ["planar", "strips", "pages", "webp", "jpeg2000", "zstd"])
def test_kinds_of_tiff_that_only_the_second_reader_takes(tmp_path, kind):
    picture = smooth_picture(300, 500)
    path = tmp_path / "x.tif"
    if kind == "planar":
        tifffile.imwrite(path, np.moveaxis(picture, -1, 0), photometric="rgb", planarconfig="separate", tile=(64, 64))
    elif kind == "strips":
        tifffile.imwrite(path, picture, photometric="rgb", rowsperstrip=16)
    elif kind == "pages":
        tifffile.imwrite(path, np.moveaxis(picture, -1, 0), ome=True, metadata={"axes": "CYX"}, tile=(64, 64))
    else:
        arguments = {"lossless": True} if kind == "webp" else {"reversible": True} if kind == "jpeg2000" else None
        tifffile.imwrite(path, picture, photometric="rgb", tile=(64, 64), compression=kind, compressionargs=arguments)
    reader = TiffReader(path)
    assert np.array_equal(reader.read_level(0, 0, 0, 500, 300), picture)
    assert np.array_equal(reader.read_level(0, 37, 51, 111, 99), picture[51:150, 37:148])
    reader.close()


def test_threads_see_what_one_thread_sees(real_slide):
    with open_slide(real_slide) as slide:
        corners = random_corners(slide.info, 60, seed=5)
        alone = [slide.read(x, y, 300, 300, (150, 150)) for x, y in corners]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda c: slide.read(*c, 300, 300, (150, 150)), corners * 2))
    for expected, found in zip(alone * 2, together, strict=True):
        assert np.array_equal(expected, found)


def test_threads_of_the_second_reader(tmp_path):
    picture = smooth_picture(1024, 1280)
    path = write_ome(tmp_path / "x.ome.tif", picture)
    rng = np.random.default_rng(0)
    corners = [(int(x), int(y)) for x, y in rng.integers(0, 800, (200, 2))]
    with open_slide(path) as slide, ThreadPoolExecutor(8) as pool:
        tiles = list(pool.map(lambda c: slide.read(*c, 200, 200, (200, 200)), corners))
    assert all(np.array_equal(t, picture[y : y + 200, x : x + 200]) for t, (x, y) in zip(tiles, corners, strict=True))


def test_reads_after_closing_say_so(cmu, tmp_path):
    from pathassets.errors import SlideError

    for path in (cmu, write_ome(tmp_path / "x.ome.tif", smooth_picture(256, 256), factors=(2,))):
        slide = open_slide(path)
        slide.close()
        slide.close()
        with pytest.raises(SlideError, match="closed"):
            slide.read(0, 0, 10, 10, (10, 10))


def test_closing_while_others_read_is_safe(cmu):
    from pathassets.errors import SlideError

    started = threading.Barrier(5)
    strange = []

    def read(slide):
        started.wait()
        try:
            for i in range(40):
                slide.read(i * 10, i * 10, 200, 200, (200, 200))
        except SlideError:
            pass
        except Exception as error:
            strange.append(error)

    slide = open_slide(cmu)
    threads = [threading.Thread(target=read, args=(slide,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    slide.close()
    for thread in threads:
        thread.join()
    assert strange == []
