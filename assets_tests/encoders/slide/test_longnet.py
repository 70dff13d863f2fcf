"""LongNet against a second writing of it, token by token; positions against the whole table; memory that does not explode."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support import reference_slide_networks as reference

from pathassets.encoders.slide import get_slide_card
from pathassets.encoders.slide.longnet import SEGMENTS, LongNet, attend, branch, grid_cells, positions
from pathassets.encoders.slide.networks import build
from pathassets.errors import Reason, SlideError


def network(seed=0, **kwargs) -> LongNet:
    """Narrow, with weights that make attention far from even."""
    torch.manual_seed(seed)
    made = LongNet(6, 16, **{"depth": 2, "heads": 4, "segments": (4, 6, 16), "ratios": (1, 2, 4), **kwargs}).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight) * 0.5)
    return made


def slide(n: int, dim: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(n)
    places = np.sort(rng.choice(64, n, replace=False))
    cells = torch.from_numpy(np.stack(np.divmod(places, 8), 1))
    return torch.from_numpy(rng.standard_normal((n, dim), dtype=np.float32)), cells


def difference(made: LongNet, n: int, **told) -> float:
    features, cells = slide(n)
    with torch.no_grad():
        ours = made(features, cells)
        theirs = reference.longnet(dict(made.state_dict()), features, cells, **told)
    assert theirs.abs().mean() > 0.1
    return float((ours - theirs).abs().max())


# 1: a tile and the class token; 3: one whole segment; 4: a segment with three zeros; 15 and 16: round the longest segment; 40: many.
@pytest.mark.parametrize("n", [1, 3, 4, 5, 11, 15, 16, 40])
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_it_is_what_the_paper_and_its_code_say(n, pool):
    told = {"heads": 4, "depth": 2, "segments": (4, 6, 16), "ratios": (1, 2, 4), "pool": pool}
    assert difference(network(pool=pool), n, **told) < 1e-5


@pytest.mark.parametrize("n", [5, 13, 40])
def test_segments_that_are_no_multiple_of_their_ratio_are_put_back_late_as_in_training(n):
    """7 tokens at a ratio of 4 become 8: all later segments lie a token late, as beyond 185,363 tokens of the real network."""
    told = {"segments": (4, 7), "ratios": (1, 4)}
    assert difference(network(**told), n, heads=4, depth=2, pool="cls", **told) < 1e-5


def test_heads_that_are_no_multiple_of_a_ratio():
    told = {"segments": (4, 8), "ratios": (1, 3), "heads": 4}
    assert difference(network(**told), 21, depth=2, pool="cls", **told) < 1e-5


def test_zeros_take_part_in_the_softmax():
    """The check above would be worth nothing if zeros changed nothing."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(5, 8) for _ in range(3))
    found = {where.start: (out, seen) for where, out, seen in branch(q, k, v, 4, 1, 0)}
    out, seen = found[4]  # the fifth token: alone with three zeros
    alone = float(q[4] @ k[4]) / math.sqrt(8)
    assert float(seen) == pytest.approx(math.log(math.exp(alone) + 3), abs=1e-6)
    torch.testing.assert_close(out[0], v[4] * math.exp(alone) / (math.exp(alone) + 3))
    torch.testing.assert_close(found[0][0], torch.nn.functional.scaled_dot_product_attention(q[:4], k[:4], v[:4]))


def test_blocks_of_scores_change_nothing(monkeypatch):
    features, cells = slide(40)
    made = network()
    with torch.no_grad():
        whole = made(features, cells)
        monkeypatch.setattr("pathassets.encoders.slide.longnet.BLOCK", 8)
        monkeypatch.setattr("pathassets.encoders.slide.longnet.ROWS", 3)
        torch.testing.assert_close(made(features, cells), whole, rtol=1e-5, atol=1e-6)


def test_nothing_but_zeros_gives_nothing():
    out, seen = attend(torch.randn(2, 4), torch.empty(0, 4), torch.empty(0, 4), 3)
    assert not out.any()
    assert seen[:, 0].tolist() == pytest.approx([math.log(3)] * 2)


def test_positions_are_rows_of_the_table():
    cells = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    torch.testing.assert_close(positions(cells, 16), reference.table(5, 16)[1:], rtol=0, atol=1e-12)


def test_places_far_from_the_origin_are_told_apart():
    near, far = positions(torch.tensor([[0, 0], [999, 998]]), 768)
    assert (near - far).abs().max() > 0.5


# -- Places ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [256.0, 512.0, 511.6, 512.4, 509.09090909])
def test_tiles_of_the_grid_lie_in_their_cells_whatever_the_resolution(width):
    """Edges are rounded to whole pixels, tile by tile: 511.6, 1023.2, ... must not fall into one cell."""
    numbers = np.arange(300)
    corners = np.rint(numbers * width).astype(int)
    cells = grid_cells(np.stack([corners, corners[::-1]], 1), width)
    np.testing.assert_array_equal(cells[:, 0], numbers)
    np.testing.assert_array_equal(cells[:, 1], numbers[::-1])


def test_tiles_beside_the_grid_fall_into_the_cell_of_their_corner():
    found = grid_cells(np.array([[255, 256], [100, 511]]), 256)
    np.testing.assert_array_equal(found, [[0, 1], [0, 1]])


@pytest.mark.parametrize("corner", [(256_000, 0), (0, 256_000), (-256, 0)])
def test_a_slide_beyond_the_grid_is_refused(corner):
    with pytest.raises(SlideError, match="grid") as caught:
        grid_cells(np.array([corner]), 256)
    assert caught.value.reason is Reason.TILING_MISMATCH
    assert "mpp" in caught.value.remedy


# -- The published network ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gigapath-slide", "gigapath-slide/mean", "gigapath-flash-slide"])
def test_the_published_network_has_the_size_of_its_card(name):
    card = get_slide_card(name)
    with torch.device("meta"):
        made = build(card, {})
    assert sum(weight.numel() for weight in made.parameters()) / 1e6 == pytest.approx(card.params_m, rel=2e-3)
    assert made.norm.weight.shape == (card.dim,)


def test_the_segments_are_those_of_the_authors_formula():
    exponents = np.linspace(np.log2(1024), np.log2((262144 // 256) ** 2), 5)
    assert tuple(int(2**exponent) for exponent in exponents) == SEGMENTS


def test_the_mean_is_of_the_eleventh_layer_and_leaves_out_the_class_token():
    made = network(depth=3, layer=2, pool="mean")
    shorter = network(depth=3, layer=2, pool="mean")
    shorter.encoder["layers"][2].ffn["fc1"].weight.data.zero_()
    features, cells = slide(9)
    with torch.no_grad():
        torch.testing.assert_close(made(features, cells), shorter(features, cells), rtol=0, atol=0)
    told = {"heads": 4, "depth": 2, "segments": (4, 6, 16), "ratios": (1, 2, 4), "pool": "mean"}
    assert difference(made, 9, **told) < 1e-5


def test_where_a_tile_lies_matters_and_its_tissue_does_not_know_of_others_order():
    made, (features, cells) = network(), slide(12)
    with torch.no_grad():
        moved = made(features, cells + torch.tensor([3, 0]))
        assert (made(features, cells) - moved).abs().max() > 1e-3
