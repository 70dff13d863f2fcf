"""Networks of one's own: programs in files, checkpoints of self-supervised training, torchvision's names."""

from __future__ import annotations

import argparse
import io
import json
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torchvision import models

from pathassets.config import Study
from pathassets.encoders import get_card, load_encoder, torchvision_models, weights_are_here, weights_digest
from pathassets.errors import EncoderError, Reason
from pathassets.steps.publish import publish_results
from pathassets.steps.session import Session
from pathassets.testing import check_encoder

WIDTH = 64


def tiles(n: int = 3, px: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, px, px, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(7)
    return timm.create_model("test_vit", img_size=64, num_classes=0).eval()


@pytest.fixture
def program(network, tmp_path, request) -> Path:
    path = tmp_path / f"mine.{request.param}"
    example = torch.zeros(2, 3, 64, 64)
    if request.param == "pt":
        with warnings.catch_warnings():  # that checks of shapes are not traced, and that TorchScript is old
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.trace(network, example), path)
    else:
        batch = torch.export.Dim("batch", min=1, max=1024)
        torch.export.save(torch.export.export(network, (example,), dynamic_shapes=({0: batch},)), path)
    return path


@pytest.mark.parametrize("program", ["pt", "pt2"], indirect=True)
def test_a_program_in_a_file_is_an_encoder(program, network):
    kwargs = {"dim": WIDTH, "input_px": 64, "mean": [0.5] * 3, "std": [0.5] * 3}
    encoder = load_encoder("exported", weights=program, device="cpu", **kwargs)
    with torch.inference_mode():
        expected = network(torch.from_numpy(encoder.inputs(tiles()))).numpy()
    np.testing.assert_allclose(encoder(tiles()), expected, rtol=1e-4, atol=1e-5)
    assert encoder.precision == "fp32", "a program computes in what it was saved in"
    assert encoder.weights_sha256 == weights_digest("exported", weights=program)
    check_encoder(encoder)
    assert load_encoder("exported", weights=program, device="cpu", **kwargs).at("bf16")(tiles()).shape == (3, WIDTH)


def test_a_program_needs_its_length_and_its_file(tmp_path):
    with pytest.raises(EncoderError, match="needs `dim`"):
        get_card("exported")
    with pytest.raises(EncoderError, match="does not know 'depth'"):
        get_card("exported", {"dim": 3, "depth": 2})
    with pytest.raises(EncoderError, match="the file is the network"):
        load_encoder("exported", dim=3, random_weights=True, device="cpu")
    with pytest.raises(EncoderError, match="has no public weights"):
        load_encoder("exported", dim=3, device="cpu")
    (tmp_path / "x.pt").write_bytes(b"not a program")
    with pytest.raises(EncoderError, match="neither TorchScript nor torch") as caught:
        load_encoder("exported", dim=3, weights=tmp_path / "x.pt", device="cpu")
    assert caught.value.reason is Reason.WEIGHTS_MISMATCH


class Malice:
    def __reduce__(self):
        return (print, ("this must never run",))


def with_members(source: Path, target: Path, change) -> Path:
    """`source` with members changed by `change(name, data)`, which gives (name, data) pairs."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            for key, data in change(name, old.read(name)):
                new.writestr(key, data)
    return target


@pytest.mark.parametrize("program", ["pt2"], indirect=True)
@pytest.mark.parametrize("where", ["sample", "weight", "opaque", "native"])
def test_an_archive_that_torch_would_unpickle_or_run_is_refused(program, tmp_path, where, capsys):
    evil = pickle.dumps(Malice())
    buffer = io.BytesIO()
    torch.save({"x": Malice()}, buffer)

    def change(name, data):
        if where == "sample" and "/data/sample_inputs/" in name:
            return [(name, buffer.getvalue())]
        if where == "weight" and name.endswith("weights_config.json"):
            config = json.loads(data)
            entry = next(iter(config["config"].values()))
            entry["use_pickle"] = True
            folder = name.rpartition("/")[0]
            return (
                [(name, json.dumps(config)), (f"{folder}/evil", evil)] if entry.update(path_name="evil") is None else []
            )
        if where in ("opaque", "native") and name.endswith("archive_format"):
            inner = "data/constants/opaque_obj_0" if where == "opaque" else "data/aotinductor/model/x.so"
            return [(name, data), (f"{name.rpartition('/')[0]}/{inner}", evil)]
        return [(name, data)]

    bad = with_members(program, tmp_path / "evil.pt2", change)
    with pytest.raises(EncoderError, match=r"holds") as caught:
        load_encoder("exported", dim=WIDTH, input_px=64, weights=bad, device="cpu")
    assert caught.value.reason is Reason.WEIGHTS_MISMATCH
    assert "must never run" not in capsys.readouterr().out


def test_a_program_for_one_number_of_images_is_refused_with_what_to_do(network, tmp_path):
    torch.export.save(torch.export.export(network, (torch.zeros(1, 3, 64, 64),)), tmp_path / "one.pt2")
    with pytest.raises(EncoderError, match="batches of 1 alone") as caught:
        load_encoder("exported", dim=WIDTH, input_px=64, weights=tmp_path / "one.pt2", device="cpu")
    assert "dynamic_shapes" in caught.value.remedy


def test_a_program_that_is_not_there_is_not_offered_untrained():
    with pytest.raises(EncoderError) as caught:
        load_encoder("exported", dim=WIDTH, input_px=64, device="cpu")
    assert "random" not in caught.value.remedy


# -- Self-supervised training ------------------------------------------------------------------------------------------


def checkpoint(kind: str, network: torch.nn.Module) -> dict:
    state = network.state_dict()
    heads = {"head.mlp.0.weight": torch.zeros(3, 3), "head.last_layer.weight": torch.zeros(2)}
    backbone = {f"backbone.{key}": value for key, value in state.items()}
    noise = {key: torch.randn_like(value.float()) for key, value in backbone.items()}
    if kind == "dino":
        student = {f"module.{key}": value for key, value in {**noise, **heads}.items()}
        args = argparse.Namespace(arch="vit_small", lr=0.1)
        return {"student": student, "teacher": {**backbone, **heads}, "epoch": 3, "args": args}
    if kind == "dinov2":
        chunked = {key.replace("blocks.", "blocks.0.", 1): value for key, value in backbone.items()}
        return {"teacher": {**chunked, "backbone.mask_token": torch.zeros(1, WIDTH), "dino_head.last": torch.zeros(2)}}
    if kind == "simclr":
        return {"state_dict": {**backbone, "projector.0.weight": torch.zeros(2), "fc.weight": torch.zeros(2)}}
    queue = {"module.queue": torch.zeros(3), "module.encoder_q.fc.0.weight": torch.zeros(2)}
    online = {f"module.encoder_q.{key}": value for key, value in state.items()}
    momentum = {f"module.encoder_k.{key}": torch.randn_like(value.float()) for key, value in state.items()}
    return {"state_dict": {**momentum, **online, **queue}}


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("dino", "test_vit"),
        ("dinov2", "test_vit"),
        ("simclr", "test_resnet"),
        ("moco", "test_resnet"),
        ("dino", "test_efficientnet"),
        ("simclr", "test_efficientnet"),
    ],
)
def test_the_encoder_is_taken_out_of_a_training_checkpoint(kind, model, tmp_path):
    torch.manual_seed(3)
    network = timm.create_model(model, num_classes=0).eval()
    torch.save(checkpoint(kind, network), tmp_path / "checkpoint.pth")
    encoder = load_encoder(f"timm/{model}", weights=tmp_path / "checkpoint.pth", device="cpu", precision="fp32")
    with torch.inference_mode():
        expected = network(torch.from_numpy(encoder.inputs(tiles()))).numpy()
    np.testing.assert_allclose(encoder(tiles()), expected, rtol=1e-4, atol=1e-5)
    assert encoder.dropped, "heads are accounted for"


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    torch.save(checkpoint("dino", timm.create_model("test_vit2", num_classes=0)), tmp_path / "checkpoint.pth")
    with pytest.raises(EncoderError, match="does not fit timm/test_vit") as caught:
        load_encoder("timm/test_vit", weights=tmp_path / "checkpoint.pth", device="cpu")
    assert caught.value.reason is Reason.WEIGHTS_MISMATCH


# -- torchvision's names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dim", "px"),
    [
        ("resnet18_imagenet", 512, 224), ("resnet50_imagenet", 2048, 224), ("alexnet_imagenet", 256, 224),
        ("squeezenet_imagenet", 512, 224), ("densenet_imagenet", 1024, 224), ("inception_imagenet", 2048, 299),
        ("googlenet_imagenet", 1024, 224), ("shufflenet_imagenet", 1024, 224), ("resnext50_32x4d_imagenet", 2048, 224),
        ("vgg16_imagenet", 512, 224), ("mobilenet_v2_imagenet", 1280, 224), ("mobilenet_v3_small_imagenet", 576, 224),
        ("mobilenet_v3_large_imagenet", 960, 224), ("wide_resnet50_2_imagenet", 2048, 224), ("mnasnet_imagenet", 1280, 224),
        ("alexnet", 256, 224), ("googlenet", 1024, 224), ("torchvision/densenet161", 2208, 224),
        # TIAToolbox's names, which are torchvision's own
        ("resnet18", 512, 224), ("resnet34", 512, 224), ("resnet50", 2048, 224), ("resnet101", 2048, 224),
        ("resnext50_32x4d", 2048, 224), ("resnext101_32x8d", 2048, 224), ("wide_resnet50_2", 2048, 224),
        ("wide_resnet101_2", 2048, 224), ("densenet121", 1024, 224), ("densenet161", 2208, 224), ("densenet169", 1664, 224),
        ("densenet201", 1920, 224), ("inception_v3", 2048, 299), ("mobilenet_v2", 1280, 224),
        ("mobilenet_v3_large", 960, 224), ("mobilenet_v3_small", 576, 224),
    ],
)  # fmt: skip
def test_other_frameworks_names_of_imagenet_networks_resolve(name, dim, px):
    card = get_card(name)
    assert (card.dim, card.input_px, card.family) == (dim, px, "torchvision")
    assert card.mean == (0.485, 0.456, 0.406)
    assert card.url.startswith("https://download.pytorch.org/models/")
    assert re.fullmatch(r"[0-9a-f]{8,}", card.sha256)


def test_what_torchvision_lacks_is_timms():
    assert get_card("xception_imagenet").name == "timm/legacy_xception.tf_in1k"
    assert get_card("xception_imagenet").mean == (0.5, 0.5, 0.5)
    assert get_card("timm/resnet50").family == "timm"
    assert get_card("efficientnet_b0").family == "timm"
    with pytest.raises(EncoderError, match="no encoder is called 'resnet7_imagenet'"):
        get_card("resnet7_imagenet")


@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", "mobilenet_v3_small", "shufflenet_v2_x1_0", "squeezenet1_1"]
)
def test_vectors_are_those_before_torchvisions_classifier(name, tmp_path):
    torch.manual_seed(1)
    network = models.get_model(name, weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    encoder = load_encoder(f"{name}_imagenet", weights=tmp_path / "w.pth", device="cpu", precision="fp32")
    assert encoder.dropped
    inputs = torch.randn(2, 3, 224, 224)
    caught = {}
    last = {"resnet18": "layer4", "densenet121": "features.norm5", "squeezenet1_1": "features"}.get(name)
    last = last or ("features" if name.startswith("mobilenet") else "conv5")
    network.get_submodule(last).register_forward_hook(lambda m, i, out: caught.update(map=out))
    with torch.inference_mode():
        network(inputs)
    features = caught["map"].relu() if name.startswith("densenet") else caught["map"]
    np.testing.assert_allclose(
        encoder(inputs.numpy(), preprocess=False), features.mean((2, 3)).numpy(), rtol=1e-4, atol=1e-5
    )


def test_timm_and_torchvision_agree_on_resnet50(tmp_path):
    torch.manual_seed(1)
    network = models.resnet50(weights=None)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    inputs = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    ours = [
        load_encoder(name, weights=tmp_path / "w.pth", device="cpu", precision="fp32")(inputs, preprocess=False)
        for name in ("resnet50_imagenet", "timm/resnet50.tv_in1k", "lunit-swav")
    ]
    for other in ours[1:]:
        np.testing.assert_allclose(ours[0], other, rtol=1e-4, atol=1e-5)
    third = load_encoder("resnet50-layer3", weights=tmp_path / "w.pth", device="cpu", precision="fp32")
    layer3 = load_encoder(
        "resnet50_imagenet", weights=tmp_path / "w.pth", device="cpu", precision="fp32", layers="layer3"
    )
    np.testing.assert_allclose(third(inputs, preprocess=False), layer3(inputs, preprocess=False), rtol=1e-4, atol=1e-5)


def test_older_names_of_densenets_layers_are_read():
    assert (
        torchvision_models._current("features.denseblock1.denselayer2.norm.1.weight")
        == "features.denseblock1.denselayer2.norm1.weight"
    )


def test_torchs_own_cache_is_used_and_a_wrong_file_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    assert not weights_are_here("squeezenet1_1_imagenet")
    file = tmp_path / "checkpoints" / get_card("squeezenet1_1_imagenet").url.rpartition("/")[2]
    file.parent.mkdir()
    torch.save(models.squeezenet1_1(weights=None).state_dict(), file)
    assert weights_are_here("squeezenet1_1_imagenet")
    with pytest.raises(EncoderError, match="is not the file that the card") as caught:
        load_encoder("squeezenet1_1_imagenet", device="cpu")
    assert caught.value.reason is Reason.WEIGHTS_MISMATCH


def test_without_a_network_torchvisions_weights_are_missing_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def nowhere(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr("torch.hub.download_url_to_file", nowhere)
    with pytest.raises(EncoderError, match="cannot be fetched: OSError") as caught:
        load_encoder("alexnet_imagenet", device="cpu")
    assert "docs.pytorch.org" in caught.value.remedy


@pytest.mark.parametrize("program", ["pt2"], indirect=True)
def test_a_study_with_a_program_publishes_its_card(program, tmp_path):
    (tmp_path / "pathassets.toml").write_text(
        f'[[recipes]]\nencoder = "exported"\nweights = "{program}"\nencoder_kwargs = {{dim = {WIDTH}, input_px = 64}}\n'
    )
    session = Session(Study(tmp_path))
    publish_results(session)
    rows = {row["name"]: row for row in session.tables.read("encoders").to_dicts()}
    assert (rows["exported"]["dim"], rows["exported"]["input_px"]) == (WIDTH, 64)
    assert rows["uni"]["bibtex"].startswith("@article")
    assert session.encoder(session.study.recipes[0]).dim == WIDTH
