"""ABMIL's training against truth: a signal in few tiles is found, and found where it is; shuffled labels teach nothing.

Networks that are judged are trained as long as the command trains them.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open

from pathassets.encoders.slide import get_slide_card, load_slide_encoder, training_record
from pathassets.encoders.slide.training import (
    Bag,
    as_file,
    auroc,
    cross_validate,
    patients_per_class,
    probabilities,
    train,
)
from pathassets.errors import EncoderError, Reason
from pathassets.recipes import Tiling

DIM, TILES, PLANTED = 24, 40, 4


def cohort(n: int, seed: int = 0, share: float = 0.5, per_patient: int = 1) -> tuple[list[Bag], list[np.ndarray]]:
    """Slides of noise; in those of class 1 a few tiles are shifted. Gives the slides, and which tiles those are."""
    rng = np.random.default_rng(seed)
    signal = np.sign(rng.standard_normal(DIM)) * 1.5
    bags, planted = [], []
    for i in range(n):
        label = int(i % round(1 / share) == 0)
        tiles = rng.standard_normal((TILES, DIM)).astype(np.float16)
        where = rng.choice(TILES, PLANTED, replace=False) if label else np.empty(0, int)
        tiles[where] += signal.astype(np.float16)
        bags.append(Bag(tiles, label, f"p{i // per_patient}"))
        planted.append(where)
    return bags, planted


def shuffled(bags: list[Bag], seed: int) -> list[Bag]:
    labels = np.random.default_rng(seed).permutation([bag.label for bag in bags])
    return [Bag(bag.tiles, int(label), bag.patient) for bag, label in zip(bags, labels, strict=True)]


@pytest.fixture(scope="module")
def learned():
    bags, planted = cohort(40)
    return bags, planted, train(bags, 2, seed=1)


def test_a_signal_in_few_tiles_is_found_on_slides_that_were_held_out():
    verdict = cross_validate(cohort(30)[0], 2, folds=3, seed=0)
    assert verdict.auroc > 0.95
    assert verdict.low > 0.85
    assert verdict.low <= verdict.auroc <= verdict.high
    assert len(verdict.folds) == 3
    np.testing.assert_allclose(verdict.probabilities.sum(1), 1, rtol=1e-5)


@pytest.mark.e2e
def test_shuffled_labels_teach_nothing():
    scores = [cross_validate(shuffled(cohort(30)[0], seed), 2, folds=3, seed=seed) for seed in range(2)]
    assert 0.35 < np.mean([verdict.auroc for verdict in scores]) < 0.65
    assert all(verdict.low < 0.5 < verdict.high + 0.1 for verdict in scores)


def test_what_held_out_numbers_hide_is_that_training_slides_are_told_by_heart():
    """The reason for holding out: on its own slides the same network looks good with shuffled labels."""
    bags = shuffled(cohort(16)[0], 5)
    network = train(bags, 2, seed=0, epochs=40)
    own = auroc(np.array([bag.label for bag in bags]), np.stack([probabilities(network, bag.tiles) for bag in bags]))
    assert own > 0.9


def test_new_slides_are_told_apart_and_the_planted_tiles_are_looked_at(learned):
    _, _, network = learned
    fresh, where = cohort(64, seed=0)
    bags, planted = fresh[40:], where[40:]
    found = np.stack([probabilities(network, bag.tiles) for bag in bags])
    assert auroc(np.array([bag.label for bag in bags]), found) > 0.95
    import torch

    for bag, tiles in zip(bags, planted, strict=True):
        if bag.label:
            with torch.inference_mode():
                shares = network.attention(torch.from_numpy(bag.tiles)).numpy()
            assert shares[tiles].mean() > 2 * np.delete(shares, tiles).mean()


@pytest.mark.e2e
def test_a_rare_class_is_learned_too():
    bags, _ = cohort(50, share=0.2)
    assert patients_per_class(bags, 2) == [40, 10]
    verdict = cross_validate(bags, 2, folds=3, seed=0)
    assert verdict.auroc > 0.9
    rare = np.array([bag.label == 1 for bag in bags])
    assert (verdict.probabilities[rare, 1] > 0.5).mean() > 0.6, "weighted, else all are called common"


@pytest.mark.e2e
def test_slides_of_one_patient_are_never_on_both_sides():
    """Patients with a mark of their own and a label drawn at random: who splits slides learns the marks.

    More channels than patients, so that any labels of marks can be told apart by a line.
    """
    rng = np.random.default_rng(0)
    labels, bags = rng.permutation([0, 1] * 10), []
    for patient, label in enumerate(labels):
        mark = rng.standard_normal(64) * 2
        bags += [
            Bag((rng.standard_normal((20, 64)) * 0.1 + mark).astype(np.float32), int(label), f"p{patient}")
            for _ in range(3)
        ]
    by_patient = cross_validate(bags, 2, folds=3, seed=0, epochs=10)
    by_slide = cross_validate(
        [Bag(b.tiles, b.label, str(i)) for i, b in enumerate(bags)], 2, folds=3, seed=0, epochs=10
    )
    assert by_slide.auroc > 0.95
    assert by_patient.auroc < 0.8


def test_what_is_common_to_all_channels_of_a_tile_is_learned():
    """A norm over each tile's own channels takes it away, and leaves nothing to learn."""
    rng, bags = np.random.default_rng(0), []
    for i in range(24):
        tiles = rng.standard_normal((TILES, DIM)).astype(np.float32)
        tiles[:5] += 1.5 * (i % 2)
        bags.append(Bag(tiles, i % 2, str(i)))
    network, rest = train(bags[:16], 2, seed=0), bags[16:]
    found = np.stack([probabilities(network, bag.tiles) for bag in rest])
    assert auroc(np.array([bag.label for bag in rest]), found) > 0.95


# -- Scales of channels ------------------------------------------------------------------------------------------------


def test_scale_and_offset_of_an_encoders_channels_change_nothing():
    bags, rng = cohort(10)[0], np.random.default_rng(1)
    scale, offset = 10.0 ** rng.uniform(-2, 2, DIM), rng.standard_normal(DIM)
    exact = [Bag(bag.tiles.astype(np.float64), bag.label, bag.patient) for bag in bags]
    other = [Bag((bag.tiles + offset) * scale, bag.label, bag.patient) for bag in exact]
    networks = [train(told, 2, seed=0, epochs=3) for told in (exact, other)]
    found = [
        np.stack([probabilities(network, bag.tiles.astype(np.float32)) for bag in told])
        for network, told in zip(networks, (exact, other), strict=True)
    ]
    np.testing.assert_allclose(*found, atol=1e-3)


def test_channels_are_measured_on_training_slides_alone_and_each_slide_counts_the_same():
    few, many = np.full((2, 3), 4.0), np.zeros((50, 3))
    few[:, 1] = many[:, 1] = 7
    network = train([Bag(few, 0, "a"), Bag(many, 1, "b")], 2, seed=0, epochs=1)
    np.testing.assert_allclose(network.standardize.mean, [2, 7, 2])
    np.testing.assert_allclose(
        network.standardize.std, [2, 1, 2], err_msg="a channel that never changes divides by one"
    )
    assert np.isfinite(probabilities(network, few.astype(np.float32))).all()


def test_tiles_that_are_all_the_same_give_no_numbers_that_are_none():
    bags = [Bag(np.zeros((3, 4), np.float16), i % 2, str(i)) for i in range(4)]
    assert np.isfinite(probabilities(train(bags, 2, seed=0, epochs=2), bags[0].tiles)).all()


@pytest.mark.e2e
def test_three_classes():
    rng = np.random.default_rng(0)
    bags = []
    for i in range(45):
        tiles = rng.standard_normal((20, DIM)).astype(np.float32)
        tiles[:3, i % 3] += 4
        bags.append(Bag(tiles, i % 3, str(i)))
    verdict = cross_validate(bags, 3, folds=3, seed=0)
    assert verdict.auroc > 0.95
    assert verdict.probabilities.shape == (45, 3)


def test_the_area_is_the_share_of_pairs_in_order():
    labels, scores = np.array([0, 0, 1, 1, 0]), np.array([0.1, 0.6, 0.5, 0.6, 0.2])
    pairs = [(a > b) + (a == b) / 2 for a in scores[labels == 1] for b in scores[labels == 0]]
    assert auroc(labels, np.stack([1 - scores, scores], 1)) == pytest.approx(np.mean(pairs))
    assert auroc(np.zeros(3, int), np.full((3, 2), 0.5)) is None


# -- The file ----------------------------------------------------------------------------------------------------------

RECORD = {
    "encoder": "uni", "weights_sha256": "a" * 64, "tiling": Tiling(tile_px=256, mpp=0.5).model_dump(mode="json"),
    "label": "grade", "classes": ["high", "low"], "slide_ids": ["s1", "s2"],
}  # fmt: skip


@pytest.fixture
def file(learned, tmp_path):
    (tmp_path / "grade.safetensors").write_bytes(as_file(learned[2], RECORD))
    return tmp_path / "grade.safetensors"


def test_the_same_training_gives_the_same_file(learned):
    first, again, other = (as_file(train(learned[0], 2, seed=seed, epochs=2), RECORD) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_file_is_a_slide_encoder_with_a_card(learned, file):
    bags, _, network = learned
    card = get_slide_card(file)
    assert (card.name, card.takes, card.dim_in, card.dim, card.classes) == (
        "grade",
        ("uni",),
        DIM,
        256,
        ("high", "low"),
    )
    encoder = load_slide_encoder(file, device="cpu")
    tiles = bags[0].tiles
    np.testing.assert_allclose(encoder.probabilities(tiles), probabilities(network, tiles), rtol=1e-5)
    assert encoder(tiles).shape == (256,)
    assert encoder.attention(tiles).shape == (TILES,)
    assert training_record(file)["slide_ids"] == ["s1", "s2"]
    with safe_open(file, framework="np") as opened:
        assert json.loads(opened.metadata()["pathassets"])["kind"] == "abmil"


def test_it_takes_the_tiles_that_it_was_trained_on_and_no_others(file):
    card = get_slide_card(file)
    card.check_tiles("uni", Tiling(name="another_name", tile_px=256, mpp=0.5))
    card.check_weights("a" * 64)
    for encoder, tiling, reason in (
        ("uni2-h", Tiling(tile_px=256, mpp=0.5), Reason.ENCODER_MISMATCH),
        ("uni", Tiling(tile_px=224, mpp=0.5), Reason.TILING_MISMATCH),
        ("uni", Tiling(tile_px=256, mpp=0.5, overlap=0.5), Reason.TILING_MISMATCH),
    ):
        with pytest.raises(EncoderError) as caught:
            card.check_tiles(encoder, tiling)
        assert caught.value.reason is reason
    with pytest.raises(EncoderError, match="other weights") as caught:
        card.check_weights("b" * 64)
    assert "train-abmil" in caught.value.remedy


@pytest.mark.parametrize("harm", ["encoder", "tiling", "classes"])
def test_a_card_that_lacks_something_is_refused(learned, tmp_path, harm):
    (tmp_path / "x.safetensors").write_bytes(as_file(learned[2], {k: v for k, v in RECORD.items() if k != harm}))
    with pytest.raises(EncoderError, match="its card cannot be read") as caught:
        get_slide_card(tmp_path / "x.safetensors")
    assert caught.value.reason is Reason.WEIGHTS_MISMATCH
