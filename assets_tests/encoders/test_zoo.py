"""The zoo: its table is complete, its networks are those of the table, small copies keep the contract."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from pathassets.encoders import get_card, list_cards, load_encoder, weights_digest, zoo
from pathassets.encoders.networks import encode_image
from pathassets.encoders.registry import get_spec
from pathassets.errors import Reason, UnknownEncoderError
from pathassets.testing import check_card, check_encoder, small_copy

NAMES = list(zoo.encoders())
# What decides a network's shape: of several entries with the same one, the first is run.
SHAPE = ("build", "arch", "kwargs", "swiglu", "eps", "px", "pool", "queries", "plain", "head", "unit", "twice")
DISTINCT = list(
    {
        str([encoder.entry.get(key) for key in SHAPE]): name for name, encoder in reversed(zoo.encoders().items())
    }.values()
)
FIRST = (
    "virchow", "ctranspath", "retccl", "phikon", "plip", "uni", "gigapath", "conch", "uni2-h", "virchow2", "h-optimus-0",
    "h-optimus-1", "phikon-v2", "hibou-b", "hibou-l", "kaiko-vits16", "kaiko-vitl14", "lunit-dino-s8", "lunit-bt",
)  # fmt: skip


@pytest.mark.parametrize("card", list_cards(), ids=lambda card: card.name)
def test_every_card_is_complete(card):
    check_card(card)


def test_the_zoo_is_as_large_as_its_sources_allow():
    assert len(NAMES) >= 45
    assert set(FIRST) <= set(NAMES)
    evidence = {name: encoder.card().evidence for name, encoder in zoo.encoders().items()}
    assert set(evidence.values()) == {"V", "S"}
    assert sum(value == "V" for value in evidence.values()) >= 40


def test_every_entry_says_nothing_that_nobody_reads():
    read = {
        "like", "about", "also", "arch", "kwargs", "swiglu", "eps", "build", "px", "resize", "crop", "norm", "interp", "tile",
        "mpp", "dim", "pool", "head", "unit", "twice", "queries", "plain", "precision", "params", "training", "wsis", "vl", "hub",
        "file", "gated", "licence", "commercial", "paper", "keys", "link", "source", "evidence", "text",
    }  # fmt: skip
    for name, encoder in zoo.encoders().items():
        assert set(encoder.entry) <= read, name


@pytest.mark.parametrize("name", DISTINCT)
def test_the_whole_network_has_the_length_and_the_size_of_its_card(name):
    """On torch's meta device: shapes and numbers of parameters, no memory."""
    with torch.device("meta"):
        network = zoo.encoders()[name].build().eval()
    card = get_card(name)
    with torch.no_grad():
        vectors = encode_image(network, torch.zeros(2, 3, card.input_px, card.input_px, device="meta"))
    assert tuple(vectors.shape) == (2, card.dim)
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    assert millions == pytest.approx(card.params_m, rel=2e-3)


def test_networks_of_one_shape_have_cards_of_one_shape():
    by_shape = {}
    for encoder in zoo.encoders().values():
        card = encoder.card()
        shape = str([encoder.entry.get(key) for key in SHAPE])
        by_shape.setdefault(shape, set()).add((card.dim, card.params_m, card.input_px, card.pooling))
    assert len(by_shape) == len(DISTINCT) < len(NAMES)
    assert {shape: found for shape, found in by_shape.items() if len(found) > 1} == {}


# Networks that cannot be made small.
LARGE = ("ctranspath", "retccl", "lunit-bt", "resnet50-layer3")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.e2e) if n in LARGE else n for n in DISTINCT])
def test_small_copies_keep_the_contract(name):
    encoder = small_copy(name, precision="fp32")
    assert encoder.dim == get_card(name).dim
    check_encoder(encoder)


@pytest.mark.parametrize(
    ("name", "dim", "pooling"),
    [
        ("h0-mini", 1536, "class token, then the mean of the patch tokens"),
        ("h0-mini/cls", 768, "class token"),
        ("virchow2", 2560, "class token, then the mean of the patch tokens"),
        ("virchow2/cls", 1280, "class token"),
        ("midnight", 3072, "class token, then the mean of the patch tokens"),
        ("resnet50-layer3", 1024, "mean of the third stage's map"),
    ],
)
def test_the_name_says_how_a_network_is_pooled(name, dim, pooling):
    card = get_card(name)
    assert (card.dim, card.pooling) == (dim, pooling)


def test_the_mean_is_of_patches_and_the_class_token_comes_first():
    both, alone = small_copy("virchow2", precision="fp32"), small_copy("virchow2/cls", precision="fp32")
    alone._networks.master.load_state_dict(both._networks.master.state_dict())
    trunk = both._networks.master.trunk
    tile = np.random.default_rng(1).integers(0, 256, (2, 56, 56, 3), dtype=np.uint8)
    tokens = trunk.forward_features(torch.from_numpy(both.inputs(tile)))
    assert tokens.shape[1] == 16 + 1 + 4, "16 patches, the class token and 4 registers"
    np.testing.assert_allclose(both(tile)[:, :1280], alone(tile), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(both(tile)[:, 1280:], tokens[:, 5:].mean(1).numpy(), rtol=1e-4, atol=1e-5)


def test_vectors_of_length_one_where_the_table_says_so():
    tile = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    for name, unit in (("keep", True), ("phaet", True), ("uni", False)):
        length = np.linalg.norm(small_copy(name, precision="fp32")(tile), axis=1)
        assert np.allclose(length, 1, atol=1e-5) is unit, name


@pytest.mark.parametrize(
    ("other", "ours"),
    [("UNI", "uni"), ("uni_v2", "uni2-h"), ("hoptimus0", "h-optimus-0"), ("conch_v15", "conch-v1.5"), ("histossl", "phikon"),
     ("gigapath.tile", "gigapath"), ("virchow2-cls", "virchow2/cls"), ("chief", "chief-ctranspath")],
)  # fmt: skip
def test_names_of_other_frameworks_mean_ours(other, ours):
    assert get_card(other) == get_card(ours)
    assert weights_digest(other, random_weights=True) == weights_digest(ours, random_weights=True)


def test_no_name_means_two_encoders():
    others = [other for encoder in zoo.tables()["encoders"].values() for other in encoder.get("also", [])]
    assert len(others) == len(set(others))
    assert not set(others) & set(NAMES)


def test_known_encoders_that_cannot_be_built_say_why():
    with pytest.raises(UnknownEncoderError, match="authors' own code") as caught:
        get_card("rudolfv-2")
    assert caught.value.reason is Reason.ENCODER_UNKNOWN
    assert "exported" in caught.value.remedy
    with pytest.raises(UnknownEncoderError, match="h-optimus-0"):
        get_card("h-optimus")


def test_what_is_like_another_takes_over_all_but_its_name():
    like, base = zoo.encoders()["virchow2/cls"].entry, zoo.encoders()["virchow2"].entry
    assert like["hub"] == base["hub"]
    assert like["about"] != base["about"]
    assert "virchow2-cls" not in base.get("also", [])


def test_papers_are_told_in_a_line_and_for_bibtex():
    card = get_card("uni")
    assert card.citation == "Chen 2024, doi:10.1038/s41591-024-02857-3"
    assert card.bibtex.startswith("@article{chen2024, author = {Chen, Richard J. and others}")
    assert get_card("kaiko-vits16").citation == "kaiko.ai 2024, arXiv:2404.15217"
    for card in list_cards():
        assert card.bibtex.count("{") == card.bibtex.count("}"), card.name


def test_the_picture_size_can_be_changed_and_the_card_follows():
    spec = get_spec("gigapath", {"img_size": 64, "depth": 1})
    assert (spec.card.input_px, spec.card.resize_px) == (64, 64)
    with pytest.raises(Exception, match="timm cannot build vit_large_patch16_224 with") as caught:
        load_encoder("uni", random_weights=True, device="cpu", no_such_argument=1)
    assert caught.value.reason is Reason.ENCODER_FAILED


def test_recommended_tiles_are_the_authors():
    assert (get_card("ctranspath").tile_px, get_card("ctranspath").mpp) == (256, 1.0)
    assert (get_card("conch").tile_px, get_card("conch").input_px) == (512, 448)
    assert get_card("biomedclip").mpp is None


def test_every_hub_id_is_a_repository():
    for name, encoder in zoo.encoders().items():
        hub = encoder.card().hub_id
        assert hub is None or re.fullmatch(r"[\w-]+/[\w.-]+", hub), name
