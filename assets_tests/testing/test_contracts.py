"""The public contracts: kept by what ships, broken by what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from pathassets import load_encoder
from pathassets.slides import open_slide
from pathassets.testing import check_encoder, check_slide, synthetic_slide


@pytest.mark.parametrize("name", ["demo-vlm", "timm/test_vit", "timm/test_resnet"])
def test_encoders_keep_the_contract(name):
    check_encoder(load_encoder(name, random_weights=name != "demo-vlm", device="cpu"))


def test_an_encoder_that_looks_at_the_whole_batch_breaks_it():
    encoder = load_encoder("timm/test_vit", random_weights=True, device="cpu", precision="fp32")

    class Centred:
        card, precision = encoder.card, encoder.precision

        def __call__(self, images):
            vectors = encoder(images)
            return vectors - vectors.mean(axis=0) if len(vectors) else vectors

    with pytest.raises(AssertionError, match="depends on its batch"):
        check_encoder(Centred())


def test_synthetic_and_real_slides_keep_the_contract(tmp_path, data_dir):
    path = tmp_path / "synthetic.tiff"
    synthetic_slide(path, seed=5, width_px=1024, height_px=768)
    for file in (path, *sorted((data_dir / "slides").iterdir())):
        with open_slide(file) as slide:
            check_slide(slide)


def test_a_slide_that_is_shifted_breaks_it(tmp_path):
    path = tmp_path / "synthetic.tiff"
    synthetic_slide(path, seed=5, width_px=1024, height_px=768)
    with open_slide(path) as slide:
        read = slide.read
        slide.read = lambda x, y, w, h, out: np.roll(read(x, y, w, h, out), 1, axis=1) if x else read(x, y, w, h, out)
        with pytest.raises(AssertionError, match="not what the region shows"):
            check_slide(slide)
