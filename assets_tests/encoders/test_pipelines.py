"""Preprocessing: told in words, overridable, and grey level for grey level what torchvision's transforms give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from pathassets.encoders import get_card
from pathassets.encoders.card import EncoderCard
from pathassets.encoders.preprocess import Preprocess, _whole_levels
from pathassets.encoders.registry import override_card
from pathassets.errors import EncoderError, Reason

HOW = {"bilinear": transforms.InterpolationMode.BILINEAR, "bicubic": transforms.InterpolationMode.BICUBIC}


def picture(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width] / 20.0
    waves = [np.sin(rows), np.cos(columns), np.sin(rows * columns / 30)]
    return (127 + 120 * np.stack(waves, -1)).astype(np.uint8)


def ours(card: EncoderCard, image: np.ndarray) -> np.ndarray:
    return Preprocess(card, "cpu", torch.float32)(torch.from_numpy(image[None]))[0].numpy()


def grey_levels(card: EncoderCard, difference: np.ndarray) -> np.ndarray:
    return np.abs(difference) * np.array(card.std).reshape(3, 1, 1) * 255


def authors(card: EncoderCard) -> transforms.Compose:
    """torchvision's transform, as the card tells it."""
    size = (card.input_px, card.input_px) if card.crop == "squash" else card.resize_px
    crop = [] if card.crop == "squash" else [transforms.CenterCrop(card.input_px)]
    resize = transforms.Resize(size, HOW[card.interpolation], antialias=True)
    return transforms.Compose([resize, *crop, transforms.ToTensor(), transforms.Normalize(card.mean, card.std)])


@pytest.mark.parametrize("name", ["uni", "gigapath", "virchow", "conch", "gpfm", "lunit-dino-s8", "hibou-b"])
@pytest.mark.parametrize("size", [(256, 256), (512, 512), (300, 211), (257, 259), (180, 333)])
def test_it_is_torchvisions_to_the_grey_level(name, size):
    """Pillow computes in integers: a level of difference is rounding, and there is little of it."""
    card, image = get_card(name), picture(*size)
    expected = authors(card)(Image.fromarray(image)).numpy()
    found = ours(card, image)
    assert found.shape == expected.shape
    levels = grey_levels(card, found - expected)
    assert levels.max() < 2.01
    assert (levels > 0.5).mean() < 0.02, "hardly a value is another"


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
@pytest.mark.parametrize("hw", [(224, 224), (448, 448), (100, 150)])
def test_on_a_device_that_has_no_arithmetic_of_bytes_two_passes_come_close(how, hw):
    image = picture(512, 512)
    expected = np.asarray(Image.fromarray(image).resize(hw[::-1], getattr(Image.Resampling, how.upper())), np.float32)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    across = _whole_levels(pixels, (512, hw[1]), how, antialias=True)
    found = _whole_levels(across, hw, how, antialias=True)[0].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() <= 2
    assert (found != expected).mean() < 0.1


@pytest.mark.parametrize("size", [(224, 224), (256, 256)])
def test_a_tile_that_is_only_cropped_is_torchvisions_bit_for_bit(size):
    card = EncoderCard(name="x", dim=1, input_px=size[0] - 32, resize=size[0], description="")
    image = picture(*size)
    expected = authors(card)(Image.fromarray(image)).numpy()
    np.testing.assert_allclose(ours(card, image), expected, rtol=0, atol=2e-6)


def test_without_antialias_it_is_torchvisions_on_tensors():
    card = EncoderCard(name="x", dim=1, input_px=112, description="", antialias=False)
    image = picture(512, 512)
    resize = transforms.Resize(112, HOW["bilinear"], antialias=False)
    expected = transforms.Normalize(card.mean, card.std)(resize(torch.from_numpy(image).permute(2, 0, 1)) / 255).numpy()
    assert grey_levels(card, ours(card, image) - expected).max() < 1.01
    smooth = EncoderCard(name="x", dim=1, input_px=112, description="")
    assert grey_levels(card, ours(card, image) - ours(smooth, image)).max() > 3


@pytest.mark.parametrize("side", [65, 67, 70, 33])
def test_odd_margins_are_cropped_as_torchvision_crops_them(side):
    card = EncoderCard(name="x", dim=1, input_px=32, resize=side, description="")
    image = picture(side, side)
    expected = authors(card)(Image.fromarray(image)).numpy()
    np.testing.assert_allclose(ours(card, image), expected, rtol=0, atol=2e-6)


def test_a_card_tells_its_pipeline():
    assert get_card("gigapath").pipeline == (
        "Resize(256, bicubic)", "CenterCrop(224)", "ToTensor(0..1)", "Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))",
    )  # fmt: skip
    assert get_card("gpfm").pipeline[0] == "Resize((224, 224), bicubic)"
    other = get_card("uni", {"antialias": False, "interpolation": "nearest"})
    assert other.pipeline[:2] == ("Resize(224, nearest, no antialias)", "CenterCrop(224)")


def test_resize_is_a_number_or_true_for_the_input_size():
    card = get_card("gigapath")
    assert override_card(card, {"resize": True}).resize_px == 224
    assert override_card(card, {"resize": 300}).resize_px == 300
    for wrong in ({"resize": False}, {"resize": "large"}, {"resize": 100}, {"crop": "middle"}, {"antialias": "yes"}):
        with pytest.raises(EncoderError) as caught:
            override_card(card, wrong)
        assert caught.value.reason is Reason.CONFIG_INVALID
