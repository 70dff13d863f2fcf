"""Opening: every odd file ends in the right outcome, with a reason and a remedy, and never in another exception."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys

import numpy as np
import openslide
import pytest
import tifffile
from tiffs_for_tests import smooth_picture, write_ome, write_pyramid

from pathassets.errors import Reason, SlideError
from pathassets.slides import check_mpp, open_slide

ODD = {
    "highdicom_sm_image.dcm": ("openslide", "dicom", None),
    "large_image_test_orient3.tif": ("openslide", "generic-tiff", Reason.MPP_IMPLAUSIBLE),
    "libvips_sample.tif": Reason.UNSUPPORTED_PIXELS,
    "openslide-python_boxes.tiff": ("openslide", "generic-tiff", Reason.MPP_IMPLAUSIBLE),
    "openslide-python_small.svs": ("openslide", "aperio", None),
    "openslide-python_unopenable.tiff": Reason.UNSUPPORTED_PIXELS,
    "openslide-python_unreadable.svs": Reason.FILE_UNREADABLE,
    "sharp_cmyk_fogra.tif": Reason.UNSUPPORTED_PIXELS,
    "slaid_patch.tif": ("openslide", "generic-tiff", Reason.MPP_MISSING),
    "slideio_test3-TRITC-2-560.ndpi": ("openslide", "hamamatsu", None),
    "wsic_CMU-1-Small-Region.jpeg.tiff": ("openslide", "generic-tiff", Reason.MPP_IMPLAUSIBLE),
    "wsic_bfconvert_JPEG.ome.tiff": ("tifffile", "ome", Reason.MPP_MISSING),
}


def refusal(path) -> SlideError:
    with pytest.raises(SlideError) as caught:
        open_slide(path)
    assert caught.value.remedy
    assert path.name[:100] in caught.value.message
    return caught.value


@pytest.mark.parametrize("name", ODD)
def test_every_odd_file_has_its_outcome(odd, name):
    expected = ODD[name]
    if isinstance(expected, Reason):
        assert refusal(odd / name).reason is expected
        return
    reader, vendor, mpp_reason = expected
    with open_slide(odd / name) as slide:
        assert (slide.info.reader, slide.info.vendor) == (reader, vendor)
        assert slide.thumbnail(64).shape[2] == 3
        if mpp_reason is None:
            check_mpp(slide.info)
        else:
            with pytest.raises(SlideError) as caught:
                check_mpp(slide.info)
            assert caught.value.reason is mpp_reason


def test_real_slides_and_their_resolutions(real_slide):
    expected = {
        "CMU-1-Small-Region.svs": (2220, 2967, 0.499, "vendor"),
        "TCGA-CR-7395-01A-01-TS1.svs": (4443, 3567, None, None),
        "her2st_C2_HE_pyr.tif": (9274, 9911, 0.69, "tiff"),
        "molluscum_HE_skin.tif": (14467, 12258, 0.504, "tiff"),
    }[real_slide.name]
    with open_slide(real_slide) as slide:
        info = slide.info
    assert (info.width_px, info.height_px) == expected[:2]
    assert info.mpp == pytest.approx(expected[2])
    assert info.mpp_origin == expected[3]
    assert info.level_dimensions[0] == (info.width_px, info.height_px)
    assert info.n_levels == len(info.level_dimensions)
    assert info.size_bytes == real_slide.stat().st_size
    assert info.path.is_absolute()


def test_names_of_label_and_macro_are_listed_and_their_pixels_are_not_read(cmu, monkeypatch):
    def forbidden(*_):
        raise AssertionError("an associated image was read")

    monkeypatch.setattr("openslide.lowlevel.read_associated_image", forbidden)
    with open_slide(cmu) as slide:
        assert slide.info.associated_images == ("label", "macro", "thumbnail")
        slide.thumbnail(100)


def test_the_manifests_resolution_wins(cmu, data_dir):
    with open_slide(cmu, mpp=0.25) as slide:
        assert (slide.info.mpp, slide.info.mpp_x, slide.info.mpp_origin) == (0.25, 0.25, "manifest")
    with open_slide(data_dir / "slides" / "TCGA-CR-7395-01A-01-TS1.svs", mpp=0.25) as slide:
        check_mpp(slide.info)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_copy_is_refused(real_slide, tmp_path, share):
    data = real_slide.read_bytes()
    path = tmp_path / real_slide.name
    path.write_bytes(data[: int(len(data) * share)])
    assert refusal(path).reason is Reason.FILE_UNREADABLE


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["slaid_patch.tif", "wsic_bfconvert_JPEG.ome.tiff", "slideio_test3-TRITC-2-560.ndpi"])
def test_truncated_odd_files_are_refused(odd, tmp_path, name, share):
    data = (odd / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * share)])
    assert refusal(path).reason is Reason.FILE_UNREADABLE


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.svs", b"", Reason.FILE_EMPTY),
        ("text.svs", b"patient;slide\n1;2\n", Reason.NOT_A_SLIDE),
        ("utf8.svs", "Präparat".encode() * 1000, Reason.NOT_A_SLIDE),
        ("page.svs", b"<!DOCTYPE html><p>Please log in", Reason.NOT_A_SLIDE),
        ("picture.svs", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), Reason.NOT_A_SLIDE),
        ("noise.svs", bytes(range(256)) * 20, Reason.NOT_A_SLIDE),
        ("zeros.svs", bytes(10_000), Reason.FILE_UNREADABLE),
        ("head.tif", b"II*\0", Reason.FILE_UNREADABLE),
        ("no_pages.tif", b"II*\0\0\0\0\0", Reason.FILE_UNREADABLE),
        ("bigtiff_head.tif", b"II+\0\x08\0\0\0", Reason.FILE_UNREADABLE),
        ("noise.tif", b"MM\0*" + bytes(range(256)) * 20, Reason.FILE_UNREADABLE),
        ("tomography.dcm", bytes(128) + b"DICM" + bytes(10), Reason.NOT_A_SLIDE),
    ],
)
def test_files_that_are_no_slides(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    assert refusal(path).reason is reason


def test_a_folder_a_pipe_and_nothing(tmp_path):
    (tmp_path / "folder.svs").mkdir()
    assert refusal(tmp_path / "folder.svs").reason is Reason.NOT_A_SLIDE
    os.mkfifo(tmp_path / "pipe.svs")
    assert refusal(tmp_path / "pipe.svs").reason is Reason.NOT_A_SLIDE
    assert refusal(tmp_path / "nothing.svs").reason is Reason.FILE_MISSING
    (tmp_path / "gone.svs").symlink_to(tmp_path / "nowhere")
    assert refusal(tmp_path / "gone.svs").reason is Reason.FILE_MISSING
    (tmp_path / "circle.svs").symlink_to(tmp_path / "circle.svs")
    assert refusal(tmp_path / "circle.svs").reason is Reason.FILE_UNREADABLE
    assert refusal(tmp_path / ("x" * 300 + ".svs")).reason is Reason.FILE_UNREADABLE


def test_a_file_that_may_not_be_read(cmu, tmp_path, monkeypatch):
    """The tests may run as root, who may read everything: so the refusal is played."""
    path = tmp_path / "secret.svs"
    shutil.copy(cmu, path)

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", denied)
    problem = refusal(path)
    assert problem.reason is Reason.FILE_UNREADABLE
    assert "right to read" in problem.remedy


@pytest.mark.parametrize(
    "name",
    [
        'it\'s a "slide" é 切片 ☃.svs',
        "  lead.svs",
        "a;b&c$(x).svs",
        "..svs",
        "-rf.svs",
        "new\nline.svs",
        "noext",
        "x.png",
    ],
)
def test_names_do_not_matter(cmu, tmp_path, name):
    path = tmp_path / name
    shutil.copy(cmu, path)
    with open_slide(path) as slide, open_slide(cmu) as original:
        assert np.array_equal(slide.read(500, 500, 224, 224, (224, 224)), original.read(500, 500, 224, 224, (224, 224)))


@pytest.mark.parametrize(
    ("kind", "picture", "options"),
    [
        ("16 bits", np.zeros((256, 256, 3), np.uint16), {"photometric": "rgb"}),
        ("CMYK", np.zeros((256, 256, 4), np.uint8), {"photometric": "separated"}),
        ("Lab", np.zeros((256, 256, 3), np.uint8), {"photometric": "cielab"}),
        ("5 channels", np.zeros((256, 256, 5), np.uint8), {"photometric": "rgb", "extrasamples": (0, 0)}),
        ("float", np.zeros((256, 256), np.float32), {"photometric": "minisblack"}),
    ],
)
def test_tiles_of_colours_that_would_come_out_wrong_are_refused(tmp_path, kind, picture, options):
    """OpenSlide opens most of these and shows them in wrong colours."""
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, picture, tile=(128, 128), **options)
    assert refusal(path).reason is Reason.UNSUPPORTED_PIXELS


def test_fluorescence_channels_are_refused(tmp_path):
    path = tmp_path / "x.ome.tif"
    tifffile.imwrite(path, np.zeros((5, 256, 256), np.uint8), ome=True, metadata={"axes": "CYX"}, rowsperstrip=16)
    assert refusal(path).reason is Reason.UNSUPPORTED_PIXELS


def test_giant_tiles_are_refused_before_they_are_allocated(cmu, data_dir, tmp_path):
    """OpenSlide would allocate 17 GB for one tile, and end the process where it cannot."""
    path = tmp_path / "giant.tif"
    shutil.copy(data_dir / "slides" / "her2st_C2_HE_pyr.tif", path)
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages.first.tags["TileWidth"]
        offset, order = tag.valueoffset, tiff.byteorder
    patched = bytearray(path.read_bytes())
    patched[offset : offset + 4] = (2**24 + 256).to_bytes(4, "little" if order == "<" else "big")
    path.write_bytes(patched)
    assert refusal(path).reason in (Reason.UNSUPPORTED_PIXELS, Reason.FILE_UNREADABLE)


def test_a_single_giant_strip_is_refused(tmp_path):
    path = tmp_path / "strip.tif"
    tifffile.imwrite(path, shape=(9000, 9000, 3), dtype=np.uint8, photometric="rgb", rowsperstrip=9000)
    problem = refusal(path)
    assert problem.reason is Reason.UNSUPPORTED_PIXELS
    assert "vips tiffsave" in problem.remedy


def test_damaged_bytes_never_end_in_another_exception(odd, data_dir, tmp_path):
    """Bytes are changed in the structure and in the pixels; whatever opens must read or refuse, in the project's words."""
    rng = random.Random(2)
    names = [
        "wsic_bfconvert_JPEG.ome.tiff",
        "openslide-python_boxes.tiff",
        "large_image_test_orient3.tif",
        "highdicom_sm_image.dcm",
    ]
    originals = [(odd / name).read_bytes() for name in names]
    write_ome(tmp_path / "x.ome.tif", smooth_picture(256, 256))
    originals.append((tmp_path / "x.ome.tif").read_bytes())
    outcomes = set()
    for i in range(120):
        data = bytearray(originals[i % len(originals)])
        for _ in range(rng.choice([1, 3, 30])):
            data[rng.randrange(min(len(data), 3000 if i % 2 else len(data)))] = rng.choice([0, 255, rng.randrange(256)])
        path = tmp_path / "damaged"
        path.write_bytes(data)
        try:
            with open_slide(path, mpp=0.5) as slide:
                slide.thumbnail(100)
                slide.read(0, 0, 100, 100, (50, 50))
            outcomes.add("read")
        except SlideError as error:
            outcomes.add(error.reason if error.remedy else "without a remedy")
    assert {"read", Reason.FILE_UNREADABLE} <= outcomes
    assert "without a remedy" not in outcomes


def test_a_cropped_overview_is_no_level(tmp_path):
    """A generic TIFF with a page that shows a part only: reading from it would shift everything."""
    picture = smooth_picture(1024, 1024)
    path = tmp_path / "x.tif"
    options = {"photometric": "rgb", "tile": (128, 128)}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(picture, **options)
        tiff.write(picture[::4, ::4], subfiletype=1, **options)
        tiff.write(picture[:256, :64], subfiletype=1, **options)
    with openslide.OpenSlide(path) as reference:
        assert reference.level_count == 3
    with open_slide(path) as slide:
        assert slide.info.level_dimensions == ((1024, 1024), (256, 256))
        found = slide.read(0, 0, 1024, 1024, (256, 256))
    assert np.array_equal(found, picture[::4, ::4])


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("compression", ["jpeg", "zlib", None])
def test_the_orientation_tag_is_ignored(tmp_path, compression, orientation):
    """OpenSlide ignores it in JPEG tiles, and turns every other tile within itself; then the second reader is taken."""
    picture = smooth_picture(256, 256)
    options = {"compression": compression, "extratags": [(274, 3, 1, orientation, True)]}
    path = write_pyramid(tmp_path / "x.tif", picture, factors=(2,), **options)
    with open_slide(path) as slide:
        assert np.abs(slide.read(0, 0, 256, 256, (256, 256)).astype(int) - picture).max() <= (
            8 if compression == "jpeg" else 0
        )
        assert slide.info.n_levels == 2


def test_importing_the_package_loads_no_reader():
    code = "import sys, pathassets.slides as s; s.find_slides; s.read_manifest; s.slide_id; s.check_mpp; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"openslide", "tifffile", "PIL", "imagecodecs"} & set(run.stdout.split())


@pytest.mark.parametrize("tag", ["ImageWidth", "ImageLength"])
@pytest.mark.parametrize("kind", [write_pyramid, write_ome])
def test_a_page_that_claims_more_pixels_than_it_has_tiles_is_refused(tmp_path, kind, tag):
    """Four billion pixels a side: an overview of them would never end."""
    path = kind(tmp_path / "bomb.tif", smooth_picture(512, 512))
    with tifffile.TiffFile(path) as tiff:
        entry = tiff.pages.first.tags[tag]
    data = bytearray(path.read_bytes())
    data[entry.valueoffset : entry.valueoffset + 4] = (2**32 - 256).to_bytes(4, "little")
    data[entry.offset + 2 : entry.offset + 4] = (4).to_bytes(2, "little")  # 32 bits
    path.write_bytes(data)
    assert refusal(path).reason in (Reason.FILE_UNREADABLE, Reason.UNSUPPORTED_PIXELS)
