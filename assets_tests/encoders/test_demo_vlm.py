"""demo-vlm as shipped: it knows the procedural classes, reads misspelt words and says which words it cannot know."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pathassets.encoders import demo_vlm, demo_words, load_encoder
from pathassets.encoders.weights import find_weights
from pathassets.slides.synthetic import CLASSES, synthetic_tile, synthetic_tiles


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("demo-vlm", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def tiles():
    return synthetic_tiles(60, seed=811)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _guess(encoder, images: np.ndarray, terms: list[str]) -> np.ndarray:
    return (_unit(encoder(images)) @ encoder.embed_text(terms).T).argmax(axis=1)


def test_the_card_states_what_the_network_is(encoder):
    card = demo_vlm.card()
    images = sum(p.numel() for p in demo_vlm.build().image.parameters())
    assert images / 1e6 == pytest.approx(card.params_m, abs=0.005)
    assert encoder(np.zeros((1, 224, 224, 3), np.uint8)).shape == (1, card.dim)
    assert "never for biological conclusions" in card.description


def test_the_weights_are_small_enough_to_ship():
    assert find_weights(demo_vlm.card(), download=False).stat().st_size < 3_000_000


def test_the_weights_belong_to_this_vocabulary(encoder):
    """Another synonym list gives another table; the weights must then be trained again."""
    from safetensors.torch import load_file

    state = load_file(find_weights(demo_vlm.card(), download=False))
    assert tuple(state["text.hashes"].tolist()) == demo_words.vocabulary()


def test_it_speaks_of_the_classes_that_the_generator_draws():
    assert tuple(demo_words.SYNONYMS) == CLASSES
    assert all(terms[0] == name for name, terms in demo_words.SYNONYMS.items())


def test_zero_shot_finds_the_classes(encoder, tiles):
    assert (_guess(encoder, tiles.images, list(CLASSES)) == tiles.labels).mean() >= 0.95


def test_zero_shot_stands_other_stains_and_resolutions(encoder):
    for how in ({"stain_jitter": 2.0}, {"mpp": 0.4}, {"mpp": 0.65}):
        batch = synthetic_tiles(40, seed=812, **how)
        assert (_guess(encoder, batch.images, list(CLASSES)) == batch.labels).mean() >= 0.85, how


def test_untrained_weights_know_nothing(tiles):
    untrained = load_encoder("demo-vlm", random_weights=True, device="cpu", precision="fp32")
    assert (_guess(untrained, tiles.images, list(CLASSES)) == tiles.labels).mean() < 0.5


@pytest.mark.parametrize(
    ("term", "kind"),
    [
        ("musclaris", "muscularis"), ("muscularis propria", "muscularis"), ("smooth muscle", "muscularis"),
        ("sub-mucosa", "submucosa"), ("bleeding", "blood"), ("red cells", "blood"), ("fat", "adipose"),
        ("glands", "mucosa"), ("tumour", "tumor"), ("cancer", "tumor"), ("carcinoma", "tumor"),
        ("lymphoid aggregate", "lymphocytes"), ("lymphocites", "lymphocytes"), ("necrotik tissue", "necrosis"),
        ("an image of connective tissue", "stroma"), ("Adipocytes", "adipose"),
    ],
)  # fmt: skip
def test_a_term_scores_its_own_tissue_highest(encoder, term, kind):
    images = np.stack([synthetic_tile(name, seed=500 + k)[0] for name in CLASSES for k in range(3)])
    scores = (_unit(encoder(images)) @ encoder.embed_text([term])[0]).reshape(len(CLASSES), 3).mean(axis=1)
    assert CLASSES[int(scores.argmax())] == kind


def test_words_that_were_never_seen_are_flagged(encoder):
    assert encoder.unknown_words("kidney glomerulus with blood") == ["kidney", "glomerulus"]
    assert encoder.unknown_words("musclaris") == []
    assert encoder.unknown_words("an image of sub-mucosa") == []
    assert encoder.unknown_words("") == []


def test_text_of_unknown_words_still_has_a_vector(encoder):
    vector = encoder.embed_text(["zzzz", ""])
    assert np.isfinite(vector).all()
    np.testing.assert_allclose(vector[0], vector[1], atol=1e-6)


def test_text_vectors_do_not_depend_on_their_company(encoder):
    alone = encoder.embed_text(["fat"])
    np.testing.assert_allclose(
        alone[0], encoder.embed_text(["lymphoid aggregate in a tissue section", "fat"])[1], atol=1e-6
    )


def test_image_vectors_do_not_depend_on_their_company(encoder, tiles):
    alone = np.concatenate([encoder(tiles.images[k : k + 1]) for k in range(3)])
    np.testing.assert_allclose(encoder(tiles.images[:20])[:3], alone, atol=1e-4)


@pytest.mark.parametrize("size", [64, 150, 300])
def test_any_size_goes_into_the_network(size):
    import torch

    network = demo_vlm.build().eval()
    with torch.inference_mode():
        assert network.encode_image(torch.zeros(2, 3, size, size)).shape == (2, 128)


def test_bf16_agrees_with_fp32(encoder, tiles):
    assert encoder.at("bf16").agreement(tiles.images[:20]).cosine > 0.99


def test_the_card_and_the_words_need_no_torch():
    code = (
        "import sys; from pathassets.encoders import demo_vlm; demo_vlm.card();"
        "demo_vlm.demo_words.unknown_words('fat'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
