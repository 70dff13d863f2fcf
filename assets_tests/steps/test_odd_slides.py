"""Slides without tissue, without room for a tile, with a mask of their user's: valid, visible outcomes."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from pathassets.config import CONFIG_FILE, Study
from pathassets.steps.batch import run_batch
from pathassets.steps.nodes import chain
from pathassets.steps.register import register
from pathassets.steps.session import Session

CONFIG = """
[study]
device = "cpu"
[[recipes]]
encoder = "timm/test_vit"
name = "tiny"
random_weights = true
"""


def write_slide(path, pixels, mpp=0.5):
    """A tiled TIFF whose resolution tags say `mpp`."""
    per_cm = 10_000 / mpp
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), resolution=(per_cm, per_cm),
                     resolutionunit="CENTIMETER")  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """Runs slides through the chain; gives status and reason by step."""
    (tmp_path / CONFIG_FILE).write_text(CONFIG)

    def run_slide(path):
        session = Session(Study(tmp_path))
        slide_id = register(session, [path])[0].slide_id
        results = []
        run_batch(session, [slide_id], chain(session.study), results.append)
        return {str(r.node.step): (r.outcome.status, r.outcome.reason) for r in results if r.outcome}

    return run_slide


def blank(height=1500, width=2000):
    noise = np.random.default_rng(0).normal(243, 2, (height, width, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)


def test_no_tissue_is_a_result(tmp_path, run):
    write_slide(tmp_path / "blank.tiff", blank())
    outcome = run(tmp_path / "blank.tiff")
    assert outcome["tissue"] == ("empty", "no_tissue")
    assert outcome["tiles"] == ("empty", "no_tiles")
    assert {outcome[step] for step in ("embeddings", "slide_vector", "spatial_domains")} == {("empty", "no_tiles")}


def test_a_slide_smaller_than_a_tile_has_no_tiles(tmp_path, data_dir, run):
    outcome = run(data_dir / "odd-slides" / "openslide-python_small.svs")
    assert outcome["tiles"][1] in ("no_tiles", "resolution_too_coarse") or outcome["slide"][1] == "mpp_missing"


def test_a_mask_of_the_user_s_is_taken(tmp_path, run):
    path = tmp_path / "masked.tiff"
    write_slide(path, blank())
    mask = np.zeros((150, 200), np.uint8)
    mask[:, :100] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "slides.csv").write_text("path,tissue_mask\nmasked.tiff,mask.png\n")
    assert run(path)["tissue"] == ("ok", None)
    tables = Study(tmp_path).scan
    assert tables("tissues").collect()["area_mm2"].sum() == pytest.approx(1500 * 1000 * 0.25e-6, rel=0.01)
    assert (tables("tiles").collect()["x_px"] <= 1000 - 112).all()


def test_a_mask_that_cannot_be_read_fails_the_slide_alone(tmp_path, run):
    path = tmp_path / "masked.tiff"
    write_slide(path, blank())
    (tmp_path / "slides.csv").write_text("path,tissue_mask\nmasked.tiff,nowhere.png\n")
    assert run(path)["tissue"] == ("failed", "mask_unreadable")


def test_a_coarse_slide_is_enlarged_up_to_twice_and_flagged(tmp_path, run):
    write_slide(tmp_path / "coarse.tiff", blank() // 2, mpp=0.9)
    (tmp_path / CONFIG_FILE).write_text(CONFIG + '[tissue]\nmethod = "none"\n')
    assert run(tmp_path / "coarse.tiff")["tiles"] == ("flagged", "resolution_upsampled")
    write_slide(tmp_path / "coarser.tiff", blank() // 2, mpp=1.5)
    assert run(tmp_path / "coarser.tiff")["tiles"] == ("failed", "resolution_too_coarse")


def test_a_few_tiles_are_one_domain(tmp_path, run):
    write_slide(tmp_path / "few.tiff", blank(700, 700))
    (tmp_path / CONFIG_FILE).write_text(CONFIG + '[tissue]\nmethod = "none"\n')
    assert run(tmp_path / "few.tiff")["spatial_domains"] == ("flagged", "too_few_tiles")
    assert Study(tmp_path).scan("domains").collect()["domain"].unique().to_list() == [0]


def test_a_file_that_was_replaced_is_another_slide(tmp_path, run):
    path = tmp_path / "slide.tiff"
    write_slide(path, blank())
    run(path)
    write_slide(path, blank(800, 900))
    run(path)
    slides = Study(tmp_path).scan("slides").collect()
    assert slides["slide_id"].n_unique() == 2
    assert sorted(slides["width_px"]) == [900, 2000]
