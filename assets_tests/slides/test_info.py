"""Which source of the resolution wins, and when none is good enough."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tiffs_for_tests import smooth_picture, write_ome, write_pyramid

from pathassets.errors import Reason, SlideError
from pathassets.slides import check_mpp, manifest_line, open_slide, read_manifest
from pathassets.slides.info import Facts, make_info, positive
from pathassets.slides.ome import parse_aperio, parse_ome

FACTS = Facts("x", ((1000, 800),), (1.0,))


def info(facts: Facts, mpp: float | None = None, path: str = "/data/x.svs"):
    return make_info(Path(path), "openslide", facts, mpp=mpp, size_bytes=1)


def test_the_order_is_manifest_vendor_tiff_power():
    facts = replace(FACTS, vendor_mpp=(0.5, 0.5), tiff_mpp=(0.6, 0.6), objective_power=40.0)
    assert (info(facts, 0.3).mpp, info(facts, 0.3).mpp_origin) == (0.3, "manifest")
    assert (info(facts).mpp, info(facts).mpp_origin) == (0.5, "vendor")
    facts = replace(facts, vendor_mpp=None)
    assert (info(facts).mpp, info(facts).mpp_origin) == (0.6, "tiff")
    facts = replace(facts, tiff_mpp=None)
    assert (info(facts).mpp, info(facts).mpp_origin) == (0.25, "power")
    facts = replace(facts, objective_power=None)
    assert (info(facts).mpp, info(facts).mpp_origin) == (None, None)


def test_screen_resolution_tags_give_way_to_the_objective():
    facts = replace(FACTS, tiff_mpp=(352.8, 352.8), objective_power=20.0)
    assert (info(facts).mpp, info(facts).mpp_origin) == (0.5, "power")
    assert info(replace(facts, objective_power=None)).mpp_origin == "tiff"


@pytest.mark.parametrize(
    ("resolution", "reason"),
    [
        (None, Reason.MPP_MISSING),
        ((0.049, 0.049), Reason.MPP_IMPLAUSIBLE),
        ((10.1, 10.1), Reason.MPP_IMPLAUSIBLE),
        ((0.5, 0.52), Reason.MPP_ANISOTROPIC),
        ((0.52, 0.5), Reason.MPP_ANISOTROPIC),
    ],
)
def test_resolutions_that_are_refused(resolution, reason):
    with pytest.raises(SlideError) as caught:
        check_mpp(info(replace(FACTS, vendor_mpp=resolution)))
    assert caught.value.reason is reason
    assert 'path,mpp\n"/data/x.svs",0.25' in caught.value.remedy


@pytest.mark.parametrize("resolution", [(0.05, 0.05), (10.0, 10.0), (0.5, 0.5099), (0.2521, 0.2522)])
def test_resolutions_that_are_taken(resolution):
    check_mpp(info(replace(FACTS, vendor_mpp=resolution)))


def test_an_implausible_manifest_is_refused_too():
    with pytest.raises(SlideError) as caught:
        check_mpp(info(FACTS, 50.0))
    assert caught.value.reason is Reason.MPP_IMPLAUSIBLE
    assert "slides.csv" in caught.value.message


@pytest.mark.parametrize("name", ['a "b", c.svs', "it's.svs", "plain.svs", "ä ö,ü.svs", "new\nline.svs"])
def test_the_line_to_add_is_the_line_that_is_read(tmp_path, name):
    path = tmp_path / name
    line = manifest_line(path, 0.25)
    assert next(csv.reader(io.StringIO(line, newline=""))) == [str(path), "0.25"]
    (tmp_path / "slides.csv").write_text(f"path,mpp\n{line}\n", encoding="utf-8", newline="")
    assert read_manifest(tmp_path / "slides.csv").lookup(path)["mpp"] == 0.25


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "", "x", None, "1e999"])
def test_what_is_no_positive_number(value):
    assert positive(value) is None


def test_ome_units_and_objectives():
    text = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Instrument ID="I:0"><Objective ID="O:0" NominalMagnification="20.0"/>'
        '<Objective ID="O:1" NominalMagnification="40"/></Instrument>'
        '<Image ID="Image:0"><Pixels PhysicalSizeX="1"/></Image>'
        '<Image ID="Image:1"><ObjectiveSettings ID="O:1"/>'
        '<Pixels PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.00026" PhysicalSizeYUnit="mm"/></Image></OME>'
    )
    mpp, power = parse_ome(text, 1)
    assert mpp == pytest.approx((0.25, 0.26))
    assert power == 40
    assert parse_ome(text, 0) == ((1.0, 1.0), None)
    assert parse_ome(text, 7) == (None, None)
    assert parse_ome(text.replace("nm", "parsec"), 1)[0] == pytest.approx((0.26, 0.26))
    for nonsense in (None, "", "<OME", "no xml", "<OME><Image/></OME>"):
        assert parse_ome(nonsense) == (None, None)


def test_an_xml_bomb_does_not_go_off():
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "x" * 100}">' for i in range(12))
    assert parse_ome(f"<!DOCTYPE OME [{entities}]><OME><Image>&e11;</Image></OME>") == (None, None)


def test_aperio_text():
    text = (
        "Aperio Image Library v11\r\n46000x32914 (256x256) JPEG|AppMag = 20|StripeWidth = 2040|MPP = 0.4990|Left = 25"
    )
    assert parse_aperio(text) == ((0.499, 0.499), 20.0)
    assert parse_aperio("nothing") == (None, None)


def test_resolution_of_each_kind_of_tiff(tmp_path):
    picture = smooth_picture(256, 256)
    cases = {
        "tags": (write_pyramid(tmp_path / "a.tif", picture, mpp=0.3), 0.3, "tiff"),
        "none": (write_pyramid(tmp_path / "b.tif", picture, mpp=None), None, None),
        "ome": (write_ome(tmp_path / "c.ome.tif", picture, metadata={"PhysicalSizeX": 0.4}), 0.4, "vendor"),
        "ome without levels": (
            write_ome(
                tmp_path / "d.ome.tif", picture, factors=(), metadata={"PhysicalSizeX": 0.4, "PhysicalSizeY": 0.4}
            ),
            0.4,
            "vendor",
        ),
    }
    for name, (path, mpp, origin) in cases.items():
        with open_slide(path) as slide:
            assert (slide.info.mpp, slide.info.mpp_origin) == (pytest.approx(mpp), origin), name


def test_resolution_in_inches(tmp_path):
    path = tmp_path / "x.tif"
    tifffile.imwrite(
        path, np.zeros((256, 256, 3), np.uint8), photometric="rgb", compression="webp", tile=(128, 128),
        resolution=(50_800, 50_800), resolutionunit="INCH",
    )  # fmt: skip
    with open_slide(path) as slide:
        assert (slide.info.reader, slide.info.mpp_origin) == ("tifffile", "tiff")
        assert slide.info.mpp == pytest.approx(0.5)
