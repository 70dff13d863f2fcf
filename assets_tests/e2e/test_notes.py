"""What has to be known of encoders is said where their numbers are first seen."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from PIL import Image
from support.commands import run_here

from pathassets.config import CONFIG_FILE
from pathassets.slides.synthetic import synthetic_slide

pytestmark = pytest.mark.e2e
MEANS_NOTHING = "random weights, so that its results mean nothing"


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("slides") / "s.tiff"
    synthetic_slide(path, seed=1, width_px=640, height_px=640)
    return path


def test_random_weights_are_said_in_every_output(slide, tmp_path):
    home, asked = tmp_path / "study", ("--encoder", "timm/test_vit", "--random-weights", "--tile-px", "160")
    assert MEANS_NOTHING in run_here("run", slide, "--home", home, *asked, "--dry-run").stdout
    assert MEANS_NOTHING in run_here("run", slide, "--home", home, *asked).stdout
    assert MEANS_NOTHING in run_here("run", "--home", home).stdout, "where there is nothing to do, too"
    assert any(
        MEANS_NOTHING in told for told in json.loads(run_here("run", "--home", home, "--json").stdout)["warnings"]
    )
    assert "ok (random weights)" in " ".join(run_here("status", "--home", home).stdout.split())
    assert MEANS_NOTHING in run_here("doctor", "--home", home).stdout
    for about, file in ((("s",), "slide.html"), (("--cohort",), "cohort.html")):
        assert run_here("report", *about, "--to", tmp_path / file, "--home", home).returncode == 0
        assert "The weights are untrained" in (tmp_path / file).read_text()
    asked = "SELECT DISTINCT random_weights FROM embeddings"
    assert json.loads(run_here("sql", asked, "--format", "json", "--home", home).stdout) == [{"random_weights": True}]


def test_terms_are_said_before_the_work(slide, tmp_path):
    home = tmp_path / "study"
    network = timm.create_model("vit_small_patch16_224", num_classes=0, dynamic_img_size=True)
    torch.save(network.state_dict(), tmp_path / "small.pth")
    asked = ("--encoder", "kaiko-vits16", "--weights", tmp_path / "small.pth", "--tile-px", "300", "--mpp", "1")
    said = run_here("run", slide, "--home", home, *asked).stdout
    assert said.index("kaiko non-commercial (no commercial use); cite kaiko.ai 2024") < said.index("tiles embedded")


@pytest.mark.parametrize("encoder", ["timm/test_vit", "kaiko-vits16"])
def test_patches_are_embedded_with_the_same_words(tmp_path, encoder):
    (tmp_path / "patches").mkdir()
    Image.new("RGB", (32, 32), "pink").save(tmp_path / "patches" / "a.png")
    asked = ("embed-patches", tmp_path / "patches", "--encoder", encoder, "--random-weights")
    assert MEANS_NOTHING in run_here(*asked, "--out", tmp_path / "a.parquet").stdout
    assert json.loads(run_here(*asked, "--out", tmp_path / "b.parquet", "--json").stdout)["random_weights"] is True


def test_a_failure_is_told_without_the_place_in_our_code(slide, tmp_path):
    home = tmp_path / "study"
    home.mkdir()
    (home / CONFIG_FILE).write_text(
        '[[recipes]]\nencoder = "timm/test_vit"\nrandom_weights = true\nencoder_kwargs = {nonsense = 1}\n'
    )
    run = run_here("run", slide, "--home", home, "--select", "*")
    assert run.returncode in (1, 2)
    assert "pathassets.errors" not in run.stdout + run.stderr
