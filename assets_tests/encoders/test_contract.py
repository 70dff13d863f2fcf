"""The contract of `pathassets.testing`: kept by what ships and by some of timm's families (the zoo: test_zoo), broken by bad ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pathassets.encoders import load_encoder, weights_are_here
from pathassets.encoders.card import EncoderCard
from pathassets.encoders.encoder import Encoder
from pathassets.testing import check_card, check_encoder

NAMED = ["demo-vlm"]
TIMM = ["timm/test_vit", "timm/test_resnet", "timm/test_efficientnet", "timm/test_convnext", "timm/test_mambaout"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NAMED + TIMM)
def test_the_contract_is_kept(name, precision):
    random = not weights_are_here(name)
    check_encoder(load_encoder(name, random_weights=random, device="cpu", precision=precision))


class LooksAtItsCompany(torch.nn.Module):
    """Subtracts the batch's mean, as a network left in training mode does."""

    def forward(self, images):
        means = images.mean((2, 3))
        return means - means.mean(0)


class GivesNan(torch.nn.Module):
    def forward(self, images):
        return images.mean((2, 3)) / 0 * 0


@pytest.mark.parametrize(
    ("network", "complaint"), [(LooksAtItsCompany(), "depends on its batch"), (GivesNan(), "not finite")]
)
def test_an_encoder_that_breaks_it_is_found(network, complaint):
    card = EncoderCard(name="bad", dim=3, input_px=32, tile_px=32, description="")
    with pytest.raises(AssertionError, match=complaint):
        check_encoder(Encoder(card, network, device="cpu", precision="fp32", weights_sha256="random-bad"))


class Forgets(torch.nn.Module):
    """Another number each time, as with dropout left on."""

    calls = 0

    def forward(self, images):
        self.calls += 1
        return images.mean((2, 3)) + self.calls


class LosesMost(torch.nn.Module):
    """Differences of large numbers, beside one small number that lasts."""

    def forward(self, images):
        lost = (images.mean((2, 3))[:, :2] + 1000) - 1000
        return torch.cat([lost, images[:, :1, 0, 0] * 0.01], dim=1)


class SeesNothing(torch.nn.Module):
    def forward(self, images):
        return torch.ones(len(images), 3)


class Means(torch.nn.Module):
    def forward(self, images):
        return images.mean((2, 3))


def bad(network=None, kind=Encoder, dim=3, precision="fp32", **card):
    said = EncoderCard(name="bad", dim=dim, input_px=32, tile_px=32, description="", **card)
    return kind(said, network or Means(), device="cpu", precision=precision, weights_sha256="random-bad")


class Doubles(Encoder):
    def __call__(self, images, preprocess=True):
        return super().__call__(images, preprocess).astype("float64")


class Overlong(Encoder):
    def __call__(self, images, preprocess=True):
        vectors = super().__call__(images, preprocess)
        return vectors.repeat(2, axis=1)


class HasWords(Encoder):
    """Words as a list of rows."""

    words = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))

    def embed_text(self, texts):
        return torch.tensor(self.words).numpy()


class LongWords(HasWords):
    words = ((1.0, 0.0), (0.0, 1.0))


class LoudWords(HasWords):
    words = ((3.0, 0.0, 0.0), (0.0, 1.0, 0.0))


class Unsure(Encoder):
    """Probabilities that are none."""

    def outputs(self, images, preprocess=True):
        found = super().outputs(images, preprocess)
        return replace(found, probabilities=found.vectors[:, :2], tokens=None)


class Elsewhere(Encoder):
    """Vectors that follow from what was asked for besides."""

    def outputs(self, images, preprocess=True):
        found = super().outputs(images, preprocess)
        return replace(found, vectors=found.vectors * 2)


TEXT = {"has_text": True, "vision_language": True, "logit_scale": 1.0, "templates": ("{}",)}


def test_a_sound_encoder_of_this_kind_keeps_it():
    check_encoder(bad())
    check_encoder(bad(kind=HasWords, **TEXT))


@pytest.mark.parametrize(
    ("encoder", "complaint"),
    [
        (lambda: bad(Forgets()), "other numbers the second time"),
        (lambda: bad(SeesNothing()), "one and the same vector"),
        (lambda: bad(kind=Doubles), "float32, not float64"),
        (lambda: bad(kind=Overlong), r"gave \(3, 6\), the card says 3"),
        (lambda: bad(LosesMost(), precision="bf16"), "in bf16 a tile's vector"),
        (lambda: bad(kind=LongWords, **TEXT), "share one space"),
        (lambda: bad(kind=LoudWords, **TEXT), "length one"),
        (lambda: bad(kind=Unsure), "classes: "),
        (lambda: bad(kind=Elsewhere), "vectors are others"),
    ],
)
def test_each_promise_is_really_looked_at(encoder, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_encoder(encoder())


class LosesItsNumbers(torch.nn.Module):
    """Differences of large numbers: nothing of them is left in bf16."""

    def forward(self, images):
        return (images.mean((2, 3)) + 1000) - 1000


class Blurs(Encoder):
    """Shows the network something else than its card says."""

    def inputs(self, images):
        return super().inputs(images) * 0.9


@pytest.mark.parametrize(
    ("encoder", "network", "complaint"),
    [
        (Encoder, LosesItsNumbers(), "in bf16 a tile's vector"),
        (Blurs, torch.nn.Flatten(), "something else than the card"),
    ],
)
def test_lost_numbers_and_other_pixels_are_found(encoder, network, complaint):
    card = EncoderCard(name="bad", dim=3 if encoder is Encoder else 3072, input_px=32, tile_px=32, description="")
    with pytest.raises(AssertionError, match=complaint):
        check_encoder(encoder(card, network, device="cpu", precision="fp32", weights_sha256="random-bad"))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"licence": "unknown"}, "does not say its licence"), ({"description": ""}, "does not say its description"),
        ({"citation": ""}, "neither a paper nor a page"), ({"gated": True}, "gated by nobody"),
        ({"mean": (123.0, 116.0, 103.0)}, "RGB in 0..1"),
        ({"has_text": True, "logit_scale": 1.0}, "no prompt templates"),
    ],
)  # fmt: skip
def test_a_card_that_leaves_something_out_is_found(changes, complaint):
    whole = {
        "name": "x",
        "dim": 3,
        "input_px": 32,
        "description": "a",
        "licence": "MIT",
        "citation": "b",
        "source": "c",
    }
    check_card(EncoderCard(**whole))
    with pytest.raises(AssertionError, match=complaint):
        check_card(EncoderCard(**{**whole, **changes}))
