"""Overlays as PNG files that say what they show."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from pathassets.exports.pictures import export_features, export_slide


@pytest.fixture
def written(made, target):
    export_slide(made.session, made.slide_id, target)
    export_features(made.session, made.features, target)
    return target


def test_there_is_a_picture_of_the_slide_its_tissue_each_variant_and_each_term(written, made):
    stem = f"{made.part}/{made.slide_id}"
    terms = ("text_adipose", "text_muscularis", "text_evil_term", "text_evil_term_2")
    assert written.written == [
        f"{made.slide_id}.thumbnail.png", f"{made.slide_id}.tissue.png", f"{stem}.leiden.png", f"{stem}.utag.png",
        *(f"{stem}.{term}.png" for term in terms),
    ]  # fmt: skip


def test_they_differ_and_say_what_made_them(written, made):
    seen = set()
    for key in written.written:
        with Image.open(written.path / key) as image:
            about = json.loads(image.text["pathassets"])
            pixels = np.asarray(image.convert("RGB"))
        assert about["slide_id"] == made.slide_id
        assert pixels.std() > 5, f"{key} is blank"
        seen.add(pixels.tobytes())
    assert len(seen) == len(written.written)
    assert about["embeddings_digest"] == made.features.row["digest"]
