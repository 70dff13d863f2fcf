"""CHIEF's and MADELEINE's heads against their formulas written a second time; ABMIL's sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import reference_slide_networks as reference

from pathassets.encoders.slide import get_slide_card
from pathassets.encoders.slide.attention import Abmil, Chief, Madeleine
from pathassets.encoders.slide.networks import build


def random(network: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn_like(weight))
    return network.eval()


def tiles(n: int, dim: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(n).standard_normal((n, dim), dtype=np.float32))


@pytest.mark.parametrize("n", [1, 2, 57])
def test_chief_is_its_formula(n):
    network, features = random(Chief(12, hidden=10, gate=6)), tiles(n, 12)
    with torch.no_grad():
        torch.testing.assert_close(network(features), reference.chief(dict(network.state_dict()), features))


@pytest.mark.parametrize("n", [1, 2, 57])
def test_madeleine_is_its_formula(n):
    network, features = random(Madeleine(12, dim=8, heads=3)), tiles(n, 12)
    with torch.no_grad():
        torch.testing.assert_close(
            network(features), reference.madeleine(dict(network.state_dict()), features, 3), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    "network", [Chief(12, 10, 6), Madeleine(12, 8, 3), Abmil(12, 8, 3)], ids=["chief", "madeleine", "abmil"]
)
def test_some_tiles_at_a_time_give_what_all_at_once_give(network, monkeypatch):
    network, features = random(network), tiles(41, 12)
    with torch.no_grad():
        whole, shares = network(features), network.attention(features)
        monkeypatch.setattr("pathassets.encoders.slide.attention.ROWS", 7)
        torch.testing.assert_close(network(features), whole, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(network.attention(features), shares)
    torch.testing.assert_close(shares.sum(0), torch.ones_like(shares.sum(0)))
    assert shares.max() > 1.1 / 41, "attention that is even everywhere would prove nothing"


@pytest.mark.parametrize("name", ["chief", "madeleine"])
def test_the_published_network_has_the_size_and_the_length_of_its_card(name):
    card = get_slide_card(name)
    with torch.device("meta"):
        network = build(card, {})
        assert network(torch.zeros(5, card.dim_in)).shape == (card.dim,)
    assert sum(weight.numel() for weight in network.parameters()) / 1e6 == pytest.approx(card.params_m, rel=2e-3)


def test_the_order_of_tiles_is_nothing_to_attention():
    network, features = random(Madeleine(12, 8, 3)), tiles(20, 12)
    with torch.no_grad():
        torch.testing.assert_close(network(features.flip(0)), network(features), rtol=1e-4, atol=1e-5)
