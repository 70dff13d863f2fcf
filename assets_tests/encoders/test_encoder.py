"""Encoders at work: preprocessing, batches, precision, devices, words."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform

import pathassets
from pathassets.encoders import check_device, load_encoder
from pathassets.encoders.card import EncoderCard
from pathassets.encoders.device import resolve_devices
from pathassets.encoders.encoder import Encoder
from pathassets.encoders.precision import compare, resolve_precision
from pathassets.encoders.preprocess import Preprocess
from pathassets.errors import EncoderError, Reason


def tiles(n: int, height: int = 160, width: int = 160) -> np.ndarray:
    """Smooth colourful tiles: resizing noise says little about resizing."""
    rows, columns = np.mgrid[0:height, 0:width] / 20.0
    waves = [
        np.stack([np.sin(rows + k), np.cos(columns * (1 + k / 7)), np.sin(rows * columns / 30 + k)], -1)
        for k in range(n)
    ]
    return (127 + 120 * np.stack(waves)).astype(np.uint8)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("timm/test_vit", random_weights=True, device="cpu", precision="fp32")


class Echo(torch.nn.Module):
    """Gives back the mean of what it sees."""

    def forward(self, inputs):
        return inputs.mean((2, 3))


def echo(**card) -> Encoder:
    fields = {"name": "echo", "dim": 3, "input_px": 32, "description": "", "mean": (0, 0, 0), "std": (1, 1, 1), **card}
    return Encoder(EncoderCard(**fields), Echo(), device="cpu", precision="fp32", weights_sha256="random-echo")


def test_the_public_function_embeds_a_batch_of_arrays(encoder):
    vectors = pathassets.load_encoder("timm/test_vit", random_weights=True, device="cpu", precision="fp32")(tiles(3))
    assert vectors.shape == (3, 64)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, encoder(tiles(3)))


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 33])
def test_any_number_of_tiles_gives_the_same_vectors(encoder, n):
    one_by_one = np.concatenate([encoder(tile) for tile in tiles(33)])
    np.testing.assert_allclose(encoder(tiles(33)[:n]), one_by_one[:n], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "images", [np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 3, 8, 8), np.uint8), np.zeros((8, 8), np.uint8)]
)
def test_what_is_no_batch_of_rgb_tiles_is_refused(encoder, images):
    with pytest.raises(EncoderError, match=r"uint8 RGB tiles of shape \(n, h, w, 3\)"):
        encoder(images)


def test_a_read_only_or_strided_array_is_embedded_like_any_other(encoder):
    frozen = tiles(4)[:, ::-1]
    frozen.flags.writeable = False
    np.testing.assert_array_equal(encoder(frozen), encoder(frozen.copy()))


# Preprocessing


def test_normalisation_follows_the_card():
    white = np.full((1, 32, 32, 3), 255, np.uint8)
    np.testing.assert_allclose(echo(mean=(0.5, 0.25, 0), std=(0.5, 0.25, 2))(white), [[1, 3, 0.5]], rtol=1e-6)


def test_a_tile_larger_than_the_input_is_seen_whole():
    half = np.zeros((1, 64, 64, 3), np.uint8)
    half[:, :32] = 255
    np.testing.assert_allclose(echo()(half), [[0.5] * 3], atol=0.01)


def test_a_card_with_a_crop_sees_the_middle():
    ring = np.full((1, 64, 64, 3), 255, np.uint8)
    ring[:, 16:48, 16:48] = 0
    np.testing.assert_allclose(echo(resize=64)(ring), [[0] * 3], atol=1e-6)


def test_a_long_tile_is_cropped_or_squashed_as_the_card_says():
    long = np.zeros((1, 32, 96, 3), np.uint8)
    long[:, :, :32] = long[:, :, 64:] = 255
    np.testing.assert_allclose(echo()(long), [[0] * 3], atol=1e-6)
    np.testing.assert_allclose(echo(crop="squash")(long), [[2 / 3] * 3], atol=0.02)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(256, 256), (300, 200), (100, 130)])
def test_preprocessing_equals_timms_own(interpolation, size):
    """Resize, crop and scale against the transform that timm builds (Pillow), on tiles of other sizes."""
    card = EncoderCard(name="x", dim=1, input_px=112, resize=128, description="", interpolation=interpolation)
    reference = create_transform(
        (3, 112, 112), interpolation=interpolation, crop_pct=112 / 128, mean=card.mean, std=card.std
    )
    image = tiles(1, *size)[0]
    expected = reference(Image.fromarray(image)).numpy()
    ours = Preprocess(card, "cpu", torch.float32)(torch.from_numpy(image[None]))[0].numpy()
    assert ours.shape == expected.shape
    grey_levels = np.abs(ours - expected) * np.array(card.std).reshape(3, 1, 1) * 255
    assert grey_levels.max() < 3
    assert grey_levels.mean() < 0.3


def test_an_encoder_whose_output_is_not_what_its_card_says_is_refused():
    with pytest.raises(EncoderError, match="its card says 4 numbers each"):
        echo(dim=4)(tiles(1))


# Real weights


def test_real_weights_give_the_published_numbers(data_dir):
    """MobileNetV2 with real ImageNet weights: the probe that came with the file."""
    path = data_dir / "weights" / "mobilenetv2_100.tf_dequantised.safetensors"
    half = [0.5, 0.5, 0.5]
    encoder = load_encoder(
        "timm/mobilenetv2_100", weights=path, device="cpu", precision="fp32", pad_type="same", mean=half, std=half
    )
    row, column = np.mgrid[0:224, 0:224]
    probe = np.stack([row, column, (3 * row + 5 * column) % 256], -1).astype(np.uint8)
    features = encoder(probe)[0]
    assert features.sum() == pytest.approx(482.0968, abs=2e-3)
    assert np.linalg.norm(features) == pytest.approx(36.8877, abs=1e-3)
    assert features.argmax() == 147
    np.testing.assert_allclose(features[:8], [0, 3.5248, 0, 0.01526, 0, 0, 0, 0.06428], atol=1e-4)
    assert encoder.weights_sha256.startswith("c618f45446e347ef")
    assert encoder.dropped == ("classifier.bias", "classifier.weight")


# Precision and device


@pytest.mark.parametrize("model", ["timm/test_vit", "timm/test_resnet", "timm/test_convnext"])
def test_bf16_agrees_with_fp32(model):
    encoder = load_encoder(model, random_weights=True, device="cpu", precision="bf16")
    agreement = encoder.agreement(tiles(4))
    assert 0.99 < agreement.cosine < 1, "equal to the last digit would mean that nothing was in bf16"
    assert 0 < agreement.max_rel_error < 0.1
    assert agreement.n_tiles == 4


def test_fp32_agrees_with_itself(encoder):
    assert encoder.agreement(tiles(2)).cosine == 1.0
    assert encoder.at("fp32") is encoder


def test_another_precision_shares_card_and_weights(encoder):
    reduced = encoder.at("bf16")
    assert (reduced.precision, reduced.weights_sha256, reduced.card) == ("bf16", encoder.weights_sha256, encoder.card)
    assert reduced.at("fp32").precision == "fp32"
    np.testing.assert_array_equal(reduced.at("fp32")(tiles(2)), encoder(tiles(2)))


def test_agreement_is_measured_on_the_worst_tile():
    reference = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    agreement = compare(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]]), reference)
    assert agreement.cosine == pytest.approx(0.0)
    assert agreement.max_rel_error == pytest.approx(np.sqrt(2))


@pytest.mark.parametrize("able", [{"amx_bf16": True}, {"avx512_bf16": True}, {"avx512_f": True}, {}])
def test_auto_takes_bf16_where_the_cpu_computes_in_it(monkeypatch, able):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert resolve_precision("auto", "cpu") == ("bf16" if "amx_bf16" in able or "avx512_bf16" in able else "fp32")
    assert resolve_precision("fp32", "cpu") == "fp32"


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_takes_bf16_on_cuda_from_ampere_on(monkeypatch, capability, precision):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision("auto", "cuda:0") == precision


def test_auto_takes_what_suits_all_devices(monkeypatch):
    new = torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0) if device == new else (7, 5))
    assert resolve_precision("auto", "cuda:1") == "bf16"
    assert resolve_precision("auto", "cuda:0", "cuda:1") == "fp32"


def test_unknown_precision_is_refused():
    with pytest.raises(EncoderError, match="auto, fp32, bf16, fp16"):
        resolve_precision("int8", "cpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(0, False, "cpu"), (0, True, "mps"), (2, False, "cuda:0"), (1, True, "cuda:0")]
)
def test_auto_takes_the_fastest_device_there_is(monkeypatch, cuda, mps, expected):
    set_devices(monkeypatch, cuda, mps)
    assert resolve_devices("auto") == (expected,)


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "tpu", "cuda:x", ""])
def test_a_device_that_is_not_there_is_refused(monkeypatch, name):
    set_devices(monkeypatch, 0, False)
    with pytest.raises(EncoderError) as caught:
        load_encoder("timm/test_vit", random_weights=True, device=name)
    assert caught.value.reason is Reason.DEVICE_MISSING
    assert "cpu" in caught.value.remedy


def test_the_second_device_of_two_is_taken_the_third_refused(monkeypatch):
    set_devices(monkeypatch, 2, False)
    assert resolve_devices("cuda:1") == ("cuda:1",)
    with pytest.raises(EncoderError, match="CUDA devices 0 to 1"):
        resolve_devices("cuda:2")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("cuda:all", ("cuda:0", "cuda:1", "cuda:2")),
        ("cuda:2, cuda:0", ("cuda:2", "cuda:0")),
        ("cuda,cuda:1", ("cuda:0", "cuda:1")),
        ("cpu,cpu", ("cpu", "cpu")),
    ],
)
def test_several_devices_are_named_with_commas(monkeypatch, names, expected):
    set_devices(monkeypatch, 3, False)
    assert resolve_devices(names) == expected


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ("cuda:0,cuda:9", "cuda:9 is not there"),
        ("cuda:0,cpu", "different kinds"),
        ("cuda,cuda:0", "names cuda:0 twice"),
        ("cuda:0,", "'' is no device"),
    ],
)
def test_devices_that_cannot_share_a_study_are_refused(monkeypatch, names, why):
    set_devices(monkeypatch, 2, False)
    with pytest.raises(EncoderError, match=why) as caught:
        resolve_devices(names)
    assert caught.value.reason is Reason.DEVICE_MISSING


def test_all_of_no_devices_is_refused(monkeypatch):
    set_devices(monkeypatch, 0, False)
    with pytest.raises(EncoderError, match="no CUDA device"):
        resolve_devices("cuda:all")


def set_devices(monkeypatch, cuda: int, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def test_the_device_is_told_in_words():
    assert check_device("cpu") in ("cpu (bf16)", "cpu (fp32)")
    assert check_device("cpu,cpu").count("cpu (") == 2


# Words


class Words(torch.nn.Module):
    """A text tower that knows the length of words."""

    def encode_image(self, inputs):
        return inputs.mean((2, 3))[:, :2]

    def encode_text(self, texts):
        return torch.tensor([[float(len(text)), 1.0] for text in texts])

    def unknown_words(self, text):
        return [word for word in text.split() if not word.isalpha()]


def test_text_becomes_unit_vectors_in_fp32():
    card = EncoderCard(
        name="words", dim=2, input_px=32, description="", has_text=True, logit_scale=7.5, templates=("{}!",)
    )
    encoder = Encoder(card, Words(), device="cpu", precision="bf16", weights_sha256="random-words")
    vectors = encoder.embed_text(["a", "abc"])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[np.sqrt(0.5), np.sqrt(0.5)], np.array([3, 1]) / np.sqrt(10)], rtol=1e-6)
    assert encoder.unknown_words("one tw0") == ["tw0"]
    assert (encoder.logit_scale, encoder.templates) == (7.5, ("{}!",))
    assert encoder(tiles(2)).shape == (2, 2)


def test_an_encoder_without_text_says_so(encoder):
    for ask in (lambda: encoder.embed_text(["x"]), lambda: encoder.unknown_words("x"), lambda: encoder.logit_scale):
        with pytest.raises(EncoderError, match="has no text tower"):
            ask()


def test_the_card_of_every_kind_of_timm_model_fits_its_network():
    for name in ("test_vit", "test_efficientnet", "test_mambaout"):
        assert timm.is_model(name)
        found = load_encoder(f"timm/{name}", random_weights=True, device="cpu", precision="fp32")
        assert found(tiles(1)).shape == (1, found.card.dim)


@pytest.mark.parametrize(
    "images",
    [
        [np.zeros((64, 64, 3), np.uint8), np.zeros((32, 64, 3), np.uint8)],
        np.zeros((1, 0, 64, 3), np.uint8),
        np.zeros((2, 64, 64, 4), np.uint8),
        np.zeros((2, 64, 64, 3), np.float32),
    ],
    ids=["of different sizes", "without height", "RGBA", "floats"],
)
def test_what_are_no_tiles_is_refused_in_words(encoder, images):
    with pytest.raises(EncoderError, match="uint8 RGB tiles") as caught:
        encoder(images)
    assert caught.value.remedy
