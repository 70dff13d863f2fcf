"""The contract of `pathassets.testing`, kept by every listed encoder and by some of timm's families, broken by bad ones."""

from __future__ import annotations

import pytest
import torch

from pathassets.encoders import list_cards, load_encoder, weights_are_here
from pathassets.encoders.card import EncoderCard
from pathassets.encoders.encoder import Encoder
from pathassets.testing import check_encoder

NAMED = [card.name for card in list_cards()]
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
