"""Bytes, bounds and Markdown of small pictures."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from pathassets.figures import images


def _noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("bound", [60_000, 15_000, 3_000])
def test_even_noise_stays_below_the_bound(bound):
    encoded = images.encode(_noise(512, 512), bound)
    assert len(encoded) <= bound
    assert Image.open(io.BytesIO(encoded)).format == "WEBP"


def test_the_longer_side_is_bounded_and_nothing_is_enlarged():
    assert images.shrink(_noise(100, 2000)).shape == (26, 512, 3)
    assert images.shrink(_noise(2000, 1)).shape == (512, 1, 3)
    small = _noise(20, 30)
    assert images.shrink(small) is small


def test_markdown_holds_the_picture_and_no_foreign_markup():
    encoded = images.encode(_noise(8, 8))
    text = images.as_markdown_image(encoded, "x](http://evil) <img src=a onerror=b>\n# y")
    match = re.fullmatch(r"!\[([^\]\[<>()\n#]*)\]\(data:image/webp;base64,([A-Za-z0-9+/=]+)\)", text)
    assert match
    assert base64.b64decode(match[2]) == encoded


def test_default_pictures_fit_dagsters_metadata():
    assert len(images.as_markdown_image(images.encode(_noise(512, 512)))) < 100_000


def test_plain_text_is_one_short_line():
    assert images.plain("a\n\tb\x00\u202ec") == "a b c"
    assert images.plain("x" * 100, 10) == "x" * 9 + "…"
