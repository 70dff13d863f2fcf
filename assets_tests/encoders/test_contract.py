"""The contract of `pathassets.testing`: kept by what ships and by some of timm's families (the zoo: test_zoo), broken by bad ones."""

from __future__ import annotations

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
