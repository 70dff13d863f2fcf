"""Weights: from files and the hub's cache, whole or not at all, and never random in silence."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import timm
import torch
from huggingface_hub.errors import GatedRepoError
from safetensors.torch import save_file

from pathassets.cli.running import Request, check_asked_for
from pathassets.config import Study
from pathassets.encoders import load_encoder, registry, weights, weights_are_here, weights_digest
from pathassets.encoders.card import EncoderCard
from pathassets.errors import ConfigError, EncoderError, Reason

MODEL = "timm/test_resnet"


def trained(**kwargs) -> torch.nn.Module:
    """A network whose weights differ from those of any seed of ours."""
    torch.manual_seed(12345)
    return timm.create_model("test_resnet", **kwargs).eval()


def tiles(n: int = 3, px: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, px, px, 3), dtype=np.uint8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a classifier, as published weights have one."""
    path = tmp_path / "weights.safetensors"
    save_file(trained(num_classes=10).state_dict(), path)
    return path


def refused(reason: Reason, **kwargs) -> EncoderError:
    with pytest.raises(EncoderError) as caught:
        load_encoder(MODEL, **{"device": "cpu", **kwargs})
    assert caught.value.reason is reason
    return caught.value


def test_a_local_file_gives_its_own_numbers_and_hash(file):
    encoder = load_encoder(MODEL, weights=file, device="cpu", precision="fp32")
    assert encoder.weights_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert encoder.dropped == ("fc.bias", "fc.weight")
    model = trained(num_classes=10).eval()
    resized = encoder._preprocess(torch.from_numpy(tiles()))
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(resized), pre_logits=True).numpy()
    np.testing.assert_allclose(encoder(tiles()), expected, rtol=1e-4, atol=1e-5)


def test_a_folder_stands_for_the_file_in_it(file):
    file.rename(file.with_name("model.safetensors"))
    assert (
        weights_digest(MODEL, weights=file.parent)
        == load_encoder(MODEL, weights=file.parent, device="cpu").weights_sha256
    )


def test_a_checkpoint_of_tensors_is_read_and_unwrapped(file, tmp_path):
    state = trained(num_classes=10).state_dict()
    path = tmp_path / "checkpoint.pth"
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    ours, theirs = (load_encoder(MODEL, weights=p, device="cpu")(tiles()) for p in (path, file))
    np.testing.assert_array_equal(ours, theirs)


class Malice:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path, capsys):
    for name, data in (("evil.pth", pickle.dumps(Malice())), ("evil.safetensors", pickle.dumps(Malice()))):
        (tmp_path / name).write_bytes(data)
        refused(Reason.WEIGHTS_MISMATCH, weights=tmp_path / name)
    torch.save({"state_dict": {}, "extra": Malice()}, tmp_path / "evil.bin")
    error = refused(Reason.WEIGHTS_MISMATCH, weights=tmp_path / "evil.bin")
    assert "more than tensors" in error.message
    assert "must never run" not in capsys.readouterr().out


def test_a_broken_file_is_refused(file):
    file.write_bytes(file.read_bytes()[:1000])
    refused(Reason.WEIGHTS_MISMATCH, weights=file)
    file.write_bytes(b"")
    refused(Reason.WEIGHTS_MISMATCH, weights=file)


def test_missing_and_foreign_keys_are_accounted_for(tmp_path):
    state = trained(num_classes=10).state_dict()
    state["stranger.weight"] = torch.zeros(1)
    del state["conv1.0.weight"], state["bn1.bias"]
    state["bn1.weight"] = torch.zeros(3)
    save_file(state, tmp_path / "w.safetensors")
    message = refused(Reason.WEIGHTS_MISMATCH, weights=tmp_path / "w.safetensors").message
    assert "2 missing (conv1.0.weight, bn1.bias)" in message
    assert "1 not of this network (stranger.weight)" in message
    assert "1 of another shape (bn1.weight (3,) instead of" in message
    assert "fc.weight" not in message, "a classifier is dropped, not complained about"


def test_weights_of_another_network_are_refused(tmp_path):
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "w.safetensors")
    assert ", …" in refused(Reason.WEIGHTS_MISMATCH, weights=tmp_path / "w.safetensors").message


def test_absent_weights_are_said_and_never_replaced(tmp_path, monkeypatch):
    assert "nowhere" in refused(Reason.WEIGHTS_MISSING, weights=tmp_path / "nowhere.safetensors").message
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    error = refused(Reason.WEIGHTS_MISSING)
    assert "--random-weights" in error.remedy
    assert "timm/test_resnet.r160_in1k" in error.remedy
    assert not weights_are_here(MODEL)


def test_random_weights_are_the_same_everywhere_and_say_so(caplog):
    torch.manual_seed(1)
    one = load_encoder(MODEL, random_weights=True, device="cpu")
    state = torch.random.get_rng_state()
    two = load_encoder(MODEL, random_weights=True, device="cpu")
    assert torch.equal(state, torch.random.get_rng_state()), "the caller's own random numbers go on undisturbed"
    np.testing.assert_array_equal(one(tiles()), two(tiles()))
    assert one.is_random
    assert (
        one.weights_sha256
        == weights_digest(MODEL, random_weights=True)
        == weights_digest("test_resnet", random_weights=True)
    )
    assert "random weights" in caplog.text
    assert weights_digest(MODEL, random_weights=True, encoder_kwargs={"in_chans": 4}) != one.weights_sha256
    assert weights_digest("timm/test_vit", random_weights=True) != one.weights_sha256


def test_a_hash_is_not_computed_twice_and_follows_the_file(file, monkeypatch):
    first = weights_digest(MODEL, weights=file)
    reads = []
    monkeypatch.setattr(weights.hashlib, "sha256", lambda *a: reads.append(a) or hashlib.new("sha256"))
    assert weights_digest(MODEL, weights=file) == first
    assert not reads
    monkeypatch.undo()
    file.write_bytes(file.read_bytes() + b" ")
    assert weights_digest(MODEL, weights=file) != first


def test_the_hash_is_known_without_building_the_network(file, monkeypatch):
    monkeypatch.setattr(registry, "get_spec", lambda *a: pytest.fail("a hash needs no network"))
    assert len(weights_digest(MODEL, weights=file)) == 64


# The hub's cache


def put_into_cache(cache: Path, repo: str, files: dict[str, bytes]) -> None:
    """A repository as huggingface_hub lays it out: blobs by hash, a snapshot of links, a reference."""
    folder, commit = cache / f"models--{repo.replace('/', '--')}", "a" * 40
    snapshot = folder / "snapshots" / commit
    for path in (folder / "blobs", folder / "refs", snapshot):
        path.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    for name, data in files.items():
        blob = folder / "blobs" / hashlib.sha256(data).hexdigest()
        blob.write_bytes(data)
        (snapshot / name).symlink_to(blob)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return cache


def test_the_hubs_cache_is_used_without_a_network(hub_cache, file):
    config = json.dumps({"architecture": "test_resnet"}).encode()
    put_into_cache(
        hub_cache, "timm/test_resnet.r160_in1k", {"model.safetensors": file.read_bytes(), "config.json": config}
    )
    cached, local = load_encoder(MODEL, device="cpu"), load_encoder(MODEL, weights=file, device="cpu")
    assert cached.weights_sha256 == local.weights_sha256 == weights_digest(MODEL)
    np.testing.assert_array_equal(cached(tiles()), local(tiles()))
    assert weights_are_here(MODEL)


def hub_answers(monkeypatch, answer) -> None:
    """What the hub says when it is asked for a repository's files."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *a, **k: answer())


def repository_of(*names: str) -> SimpleNamespace:
    return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])


@pytest.fixture
def gated() -> Exception:
    return GatedRepoError("terms", response=MagicMock(status_code=403))


def raiser(error: Exception):
    def answer():
        raise error

    return answer


def test_without_a_network_the_weights_are_missing_at_once(hub_cache, monkeypatch):
    hub_answers(monkeypatch, raiser(ConnectionError("no route")))
    assert "cannot be fetched: ConnectionError" in refused(Reason.WEIGHTS_MISSING).message


def test_gated_weights_ask_for_the_terms_to_be_accepted(hub_cache, monkeypatch, gated):
    hub_answers(monkeypatch, raiser(gated))
    error = refused(Reason.WEIGHTS_MISSING)
    assert "is gated" in error.message
    assert "hf auth login" in error.remedy


def test_a_repository_without_weights_is_said_to_have_none(hub_cache, monkeypatch):
    hub_answers(monkeypatch, lambda: repository_of("README.md"))
    assert "holds none of model.safetensors" in refused(Reason.WEIGHTS_MISSING).message


def test_what_is_not_there_yet_is_downloaded_once(hub_cache, monkeypatch, file):
    hub_answers(monkeypatch, lambda: repository_of("pytorch_model.bin", "model.safetensors"))
    asked = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, name: asked.append((repo, name)) or str(file))
    assert load_encoder(MODEL, device="cpu").weights_sha256 == weights_digest(MODEL, weights=file)
    assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors")], "safetensors before a pickle"


def test_a_name_with_its_tag_is_hashed_without_timm(hub_cache, file, monkeypatch):
    put_into_cache(hub_cache, "timm/test_resnet.r160_in1k", {"model.safetensors": file.read_bytes()})
    monkeypatch.setattr(weights, "get_card", lambda *a: pytest.fail("the name says where the weights are"))
    assert len(weights_digest("timm/test_resnet.r160_in1k")) == 64


def test_an_older_cache_with_a_bin_file_is_used(hub_cache, tmp_path):
    torch.save(trained(num_classes=10).state_dict(), tmp_path / "w.bin")
    put_into_cache(hub_cache, "timm/test_resnet.r160_in1k", {"pytorch_model.bin": (tmp_path / "w.bin").read_bytes()})
    assert load_encoder(MODEL, device="cpu").dropped == ("fc.bias", "fc.weight")


def test_a_file_that_is_not_the_cards_is_refused(hub_cache, file):
    data = file.read_bytes()
    put_into_cache(hub_cache, "lab/model", {"model.safetensors": data})
    card = EncoderCard(
        name="lab", dim=1, input_px=1, description="", hub_id="lab/model", sha256=hashlib.sha256(data).hexdigest()
    )
    assert weights.find_weights(card, download=False).read_bytes() == data
    with pytest.raises(EncoderError, match="is not the file that the card of lab describes") as caught:
        weights.find_weights(EncoderCard(**{**card.__dict__, "sha256": "0" * 64}), download=False)
    assert caught.value.reason is Reason.WEIGHTS_MISMATCH


def test_a_card_without_public_weights_asks_for_a_file():
    card = EncoderCard(name="private", dim=1, input_px=1, description="")
    with pytest.raises(EncoderError, match="private has no public weights"):
        weights.find_weights(card, download=True)


def test_timms_older_layout_is_translated(tmp_path):
    """A position embedding of another image size is resampled by timm's own code, as timm would."""
    save_file(timm.create_model("test_vit", img_size=160).state_dict(), tmp_path / "w.safetensors")
    encoder = load_encoder("timm/test_vit", weights=tmp_path / "w.safetensors", device="cpu", img_size=96)
    assert encoder(tiles()).shape == (3, 64)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<!DOCTYPE html><html><head><title>Sign in", "web page"),
        (b"\n<html>401", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "Git LFS"),
        (b"", "empty"),
    ],
)
def test_what_a_failed_download_left_is_named(tmp_path, content, says):
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content)
    with pytest.raises(EncoderError, match=says) as caught:
        load_encoder(MODEL, weights=path, device="cpu")
    assert caught.value.reason is Reason.WEIGHTS_MISMATCH


def test_a_checkpoint_that_was_cut_off_is_said_to_be(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(trained().state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(EncoderError, match="cut off"):
        load_encoder(MODEL, weights=path, device="cpu")


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    state = trained().state_dict()
    name = next(name for name, value in state.items() if value.is_floating_point())
    state[name] = torch.full_like(state[name], float("nan"))
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(EncoderError, match=f"no numbers.*{name}"):
        load_encoder(MODEL, weights=tmp_path / "w.safetensors", device="cpu")


def test_a_file_and_random_weights_cannot_both_be_meant(file, tmp_path):
    with pytest.raises(EncoderError, match="both") as caught:
        load_encoder(MODEL, weights=file, random_weights=True)
    assert caught.value.reason is Reason.CONFIG_INVALID
    (tmp_path / "pathassets.toml").write_text(
        f'[[recipes]]\nencoder = "{MODEL}"\nweights = "w"\nrandom_weights = true\n'
    )
    with pytest.raises(ConfigError, match="leave out one"):
        Study(tmp_path)
    with pytest.raises(ConfigError, match="both"):
        check_asked_for(Request(tmp_path / "new", encoders=(MODEL,), weights=file, random_weights=True))
