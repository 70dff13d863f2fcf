"""Slide encoders from files: whole or not at all, never random in silence, refusing arrays that are not theirs."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pathassets.encoders import licences
from pathassets.encoders.slide import (
    check_slide_access,
    load_slide_encoder,
    slide_weights_are_here,
    slide_weights_digest,
)
from pathassets.encoders.slide.attention import Chief, Madeleine
from pathassets.encoders.slide.zoo import get_slide_card
from pathassets.errors import EncoderError, Reason, SlideError


def trained(network: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(7)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn_like(weight) * 0.05)
    return network.eval()


def features(n: int, dim: int, dtype=np.float32) -> np.ndarray:
    return np.random.default_rng(n).standard_normal((n, dim)).astype(dtype)


@pytest.fixture
def chief_file(tmp_path):
    """A checkpoint as CHIEF's authors publish it, with what the vector does not need."""
    state = trained(Chief(768)).state_dict()
    others = {"classifiers.weight": (2, 512), "instance_classifiers.0.bias": (2,), "att_head.fc1.weight": (256, 512),
              "text_to_vision.0.weight": (512, 768), "organ_embedding": (19, 768)}  # fmt: skip
    torch.save({**state, **{key: torch.randn(shape) for key, shape in others.items()}}, tmp_path / "chief.pth")
    return tmp_path / "chief.pth"


def test_a_published_layout_gives_its_own_numbers_and_its_hash(chief_file):
    encoder = load_slide_encoder("chief", weights=chief_file, device="cpu")
    x = features(31, 768)
    with torch.inference_mode():
        expected = trained(Chief(768))(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(encoder(x), expected, rtol=1e-6)
    assert encoder.weights_sha256 == hashlib.sha256(chief_file.read_bytes()).hexdigest()
    assert slide_weights_digest("chief", weights=chief_file) == encoder.weights_sha256
    assert not encoder.is_random


def test_embeddings_as_they_are_stored_are_taken(chief_file):
    encoder = load_slide_encoder("chief", weights=chief_file, device="cpu")
    half = features(31, 768, np.float16)
    np.testing.assert_array_equal(encoder(half), encoder(half.astype(np.float32)))


def test_wrapped_checkpoints_are_unwrapped(tmp_path):
    state = {f"module.{key}": value for key, value in trained(Madeleine(512)).state_dict().items()}
    torch.save({**state, "module.token_projector.weight": torch.zeros(128, 2048)}, tmp_path / "model.pt")
    encoder = load_slide_encoder("madeleine", weights=tmp_path / "model.pt", device="cpu")
    assert encoder(features(9, 512)).shape == (512,)
    shares = encoder.attention(features(9, 512))
    assert shares.shape == (9, 4)
    np.testing.assert_allclose(shares.sum(0), 1, rtol=1e-5)


@pytest.mark.parametrize("harm", ["missing", "extra", "shape"])
def test_a_file_that_does_not_fit_is_refused_whole(tmp_path, harm):
    state = {key: value.clone() for key, value in trained(Chief(768)).state_dict().items()}
    if harm == "missing":
        del state["attention_net.3.attention_c.bias"]
    elif harm == "extra":
        state["decoder.weight"] = torch.zeros(2)
    else:
        state["attention_net.0.weight"] = torch.zeros(512, 1024)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(EncoderError, match="does not fit chief") as caught:
        load_slide_encoder("chief", weights=tmp_path / "w.safetensors", device="cpu")
    assert caught.value.reason is Reason.WEIGHTS_MISMATCH


def test_no_weights_no_vector(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("chief", "gigapath-slide"):
        assert not slide_weights_are_here(get_slide_card(name))
        with pytest.raises(EncoderError) as caught:
            load_slide_encoder(name, device="cpu")
        assert caught.value.reason is Reason.WEIGHTS_MISSING
        assert f'`weights = {{ "{name}" = "FILE" }}`' in caught.value.remedy
    with pytest.raises(EncoderError) as caught:
        load_slide_encoder("chief", weights=tmp_path / "nowhere.pth", device="cpu")
    assert caught.value.reason is Reason.WEIGHTS_MISSING


def test_random_weights_are_asked_for_and_say_so():
    told = {"random_weights": True, "device": "cpu", "depth": 1}
    one, same = (load_slide_encoder("gigapath-slide", **told) for _ in range(2))
    assert one.is_random
    assert one.weights_sha256 == slide_weights_digest("gigapath-slide", random_weights=True)
    assert slide_weights_digest("chief", random_weights=True) != one.weights_sha256
    assert check_slide_access("gigapath-slide", random_weights=True).startswith("random-")
    x, xy = features(5, 1536), np.arange(10).reshape(5, 2) * 256
    np.testing.assert_array_equal(one(x, xy, 256), same(x, xy, 256))


def test_terms_are_told_before_weights_are_used(chief_file, caplog, monkeypatch):
    monkeypatch.setattr(licences, "_told", set())
    load_slide_encoder("madeleine", random_weights=True, device="cpu")
    assert "CC-BY-NC-ND" not in caplog.text, "untrained weights are nobody's"
    save_file(trained(Madeleine(512)).state_dict(), chief_file.with_name("m.safetensors"))
    load_slide_encoder("madeleine", weights=chief_file.with_name("m.safetensors"), device="cpu")
    assert "madeleine: weights under CC-BY-NC-ND-4.0 (no commercial use)" in caplog.text


@pytest.mark.parametrize("name", ["titan", "prism2", "cobra"])
def test_what_cannot_run_is_refused_with_random_weights_too(name):
    for load in (load_slide_encoder, slide_weights_digest, check_slide_access):
        with pytest.raises(EncoderError, match="cannot run here"):
            load(name, random_weights=True)


def test_a_file_that_nobody_trained_here_is_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 40)
    for file, reason in (("other", "holds no card"), ("broken", "cannot be read")):
        with pytest.raises(EncoderError, match=reason) as caught:
            load_slide_encoder(tmp_path / f"{file}.safetensors", device="cpu")
        assert caught.value.reason is Reason.WEIGHTS_MISMATCH
    with pytest.raises(EncoderError) as caught:
        load_slide_encoder(str(tmp_path / "gone.safetensors"), device="cpu")
    assert caught.value.reason is Reason.WEIGHTS_MISSING


# -- What it is given --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gigapath():
    return load_slide_encoder("gigapath-slide", random_weights=True, device="cpu", depth=1)


@pytest.mark.parametrize(
    "x",
    [np.zeros((0, 1536), np.float32), np.zeros((3, 768), np.float32), np.zeros(1536, np.float32), np.zeros((3, 1536), np.int64),
     np.full((3, 1536), np.nan, np.float32)],
    ids=["none", "width", "flat", "integers", "nan"],
)  # fmt: skip
def test_arrays_that_are_no_embeddings_are_refused(gigapath, x):
    with pytest.raises(EncoderError, match=r"\(n, 1536\)") as caught:
        gigapath(x, np.zeros((len(x), 2), int), 256)
    assert caught.value.reason is Reason.ENCODER_FAILED


@pytest.mark.parametrize(
    ("xy", "width"),
    [(None, 256), (np.zeros((2, 2), int), 256), (np.zeros((3, 2), int), None), (np.zeros((3, 2), int), 0)],
)
def test_an_encoder_that_uses_positions_wants_them(gigapath, xy, width):
    with pytest.raises(EncoderError, match="where its 3 tiles lie"):
        gigapath(features(3, 1536), xy, width)


def test_the_level_0_width_of_a_tile_counts(gigapath):
    x, cells = features(6, 1536), np.array([[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [5, 3]])
    at_20x, at_40x = gigapath(x, cells * 256, 256), gigapath(x, cells * 512, 512)
    np.testing.assert_array_equal(at_20x, at_40x)
    assert np.abs(gigapath(x, cells * 512, 256) - at_40x).max() > 1e-4
    with pytest.raises(SlideError, match="grid"):
        gigapath(x, cells * 512, 1)


def test_it_has_no_one_attention_and_no_classes(gigapath):
    for asked in (gigapath.attention, gigapath.probabilities):
        with pytest.raises(EncoderError) as caught:
            asked(features(3, 1536))
        assert caught.value.reason is Reason.ENCODER_FAILED


def test_weights_that_give_no_numbers_are_told(chief_file, tmp_path):
    state = torch.load(chief_file, weights_only=True)
    state["attention_net.0.weight"][:] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(EncoderError) as caught:
        load_slide_encoder("chief", weights=tmp_path / "nan.pth", device="cpu")(features(3, 768))
    assert caught.value.reason is Reason.NON_FINITE
