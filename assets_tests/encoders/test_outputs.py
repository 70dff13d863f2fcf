"""Classes and patch tokens beside the vectors: what the whole network says, in one pass, and no other vectors than without."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import models

from pathassets.encoders import get_card, load_encoder
from pathassets.encoders.class_names import class_names
from pathassets.errors import EncoderError, Reason
from pathassets.testing import check_encoder, small_copy

CLASSES = 7


def tiles(n: int = 3, px: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, px, px, 3), dtype=np.uint8)


def saved(network: torch.nn.Module, path):
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    torch.save(network.state_dict(), path)
    return path


def of(name: str, **kwargs):
    return load_encoder(name, device="cpu", precision="fp32", **kwargs)


# -- classes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["test_vit", "test_resnet", "test_efficientnet", "test_convnext", "deit_tiny_distilled_patch16_224"]
)
def test_a_labs_timm_checkpoint_gives_its_classes_beside_the_vectors(name, tmp_path):
    torch.manual_seed(4)
    whole = timm.create_model(name, num_classes=CLASSES).eval()
    weights = saved(whole, tmp_path / "lab.pth")
    encoder, plain = of(f"timm/{name}", weights=weights, include_preds=True), of(f"timm/{name}", weights=weights)
    found = encoder.outputs(tiles())
    with torch.inference_mode():
        expected = whole(torch.from_numpy(encoder.inputs(tiles()))).softmax(1).numpy()
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found.vectors, plain(tiles()))
    np.testing.assert_array_equal(encoder(tiles()), plain(tiles()))
    assert encoder.dropped == (), "nothing of the file is left out"
    assert plain.dropped, "without `include_preds` the classifier is"
    check_encoder(encoder)


@pytest.mark.parametrize(
    "name", ["resnet18", pytest.param("vgg11", marks=pytest.mark.e2e), "squeezenet1_1", "densenet121", "mobilenet_v2"]
)
def test_torchvisions_networks_do_too(name, tmp_path):
    torch.manual_seed(4)
    whole = models.get_model(name, weights=None, num_classes=CLASSES).eval()
    weights = saved(whole, tmp_path / "lab.pth")
    encoder, plain = (
        of(f"{name}_imagenet", weights=weights, include_preds=True),
        of(f"{name}_imagenet", weights=weights),
    )
    inputs = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    found = encoder.outputs(inputs, preprocess=False)
    with torch.inference_mode():
        expected = whole(torch.from_numpy(inputs)).softmax(1).numpy()
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.vectors, plain(inputs, preprocess=False), rtol=1e-4, atol=1e-5)


class Double(torch.nn.Module):
    """A network of one's own that gives vectors and logits, or logits alone."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.trunk, self.head, self.both = (
            timm.create_model("test_vit", img_size=64, num_classes=0),
            torch.nn.Linear(64, 5),
            both,
        )

    def forward(self, images):
        vectors = self.trunk(images)
        return (vectors, self.head(vectors)) if self.both else self.head(vectors)


@pytest.mark.parametrize("form", ["pt", "pt2"])
@pytest.mark.parametrize("both", [True, False])
def test_a_program_gives_its_logits_after_its_vectors_or_alone(form, both, tmp_path):
    torch.manual_seed(4)
    network, example, path = Double(both).eval(), torch.zeros(2, 3, 64, 64), tmp_path / f"mine.{form}"
    if form == "pt":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.trace(network, example), path)
    else:
        sizes = ({0: torch.export.Dim("batch", min=1, max=1024)},)
        torch.export.save(torch.export.export(network, (example,), dynamic_shapes=sizes), path)
    dim = 64 if both else 5
    kwargs = {"weights": path, "dim": dim, "input_px": 64}
    encoder = of("exported", include_preds=True, classes=5, **kwargs)
    found = encoder.outputs(tiles())
    with torch.inference_mode():
        given = network(torch.from_numpy(encoder.inputs(tiles())))
    vectors, logits = given if both else (given, given)
    np.testing.assert_allclose(found.probabilities, logits.softmax(1).numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.vectors, vectors.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(of("exported", **kwargs)(tiles()), vectors.numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(EncoderError, match="and 4 classes"):
        of("exported", include_preds=True, classes=4, **kwargs)(tiles())
    with pytest.raises(EncoderError, match="has no classifier") as caught:
        of("exported", include_preds=True, **kwargs)
    assert "classes = 9" in caught.value.remedy


def test_what_has_no_classifier_is_refused(tmp_path):
    for name in ("demo-vlm", "uni"):
        with pytest.raises(EncoderError, match="has no classifier") as caught:
            of(name, include_preds=True)
        assert caught.value.reason is Reason.CONFIG_INVALID
    weights = saved(timm.create_model("test_vit", num_classes=0), tmp_path / "w.pth")
    with pytest.raises(EncoderError, match="hold no classifier"):
        of("timm/test_vit", weights=weights, include_preds=True)
    with pytest.raises(EncoderError, match="do not go with `layers`"):
        of("timm/test_vit", weights=weights, include_preds=True, layers="norm")


def test_untrained_networks_have_the_classes_of_their_own_weights():
    encoder = of("timm/test_vit", random_weights=True, include_preds=True)
    assert encoder.layout.n_classes == 1000
    assert encoder.outputs(tiles()).probabilities.sum(1) == pytest.approx(1)


def test_in_bf16_probabilities_still_sum_to_one():
    encoder = of("timm/test_resnet", random_weights=True, include_preds=True).at("bf16")
    assert encoder.outputs(tiles()).probabilities.sum(1) == pytest.approx(1, abs=1e-5)


# -- their names -------------------------------------------------------------------------------------------------------

NAMES = ("adipose", "mucus", "tumour")


@pytest.mark.parametrize(
    "told",
    [
        {"label_names": list(NAMES)},
        {"pretrained_cfg": {"label_names": list(NAMES)}},
        {"id2label": {"2": "tumour", "0": "adipose", "1": "mucus"}},
        {"classes": list(NAMES)},
    ],
)
def test_classes_are_called_what_the_file_beside_the_weights_says(told, tmp_path):
    weights = tmp_path / "w.safetensors"
    save_file({"x": torch.zeros(1)}, weights)
    assert class_names("timm/test_vit", weights=str(weights)) == ()
    (tmp_path / "config.json").write_text(json.dumps(told))
    assert class_names("timm/test_vit", weights=str(weights)) == NAMES


def test_the_weights_own_metadata_comes_first(tmp_path):
    weights = tmp_path / "w.safetensors"
    save_file({"x": torch.zeros(1)}, weights, metadata={"classes": json.dumps(NAMES)})
    (tmp_path / "config.json").write_text(json.dumps({"classes": ["a", "b", "c"]}))
    assert class_names("timm/test_vit", weights=str(weights)) == NAMES
    save_file({"x": torch.zeros(1)}, weights, metadata={"classes": "adipose, mucus,tumour"})
    assert class_names("timm/test_vit", weights=str(weights)) == NAMES


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"classes": 3}', '{"classes": ["a", 4]}', '{"classes": ["a", "a"]}', '{"id2label": {"x": "a"}}'],
)
def test_names_that_are_none_are_passed_over(text, tmp_path):
    weights = tmp_path / "w.pth"
    torch.save({"x": torch.zeros(1)}, weights)
    (tmp_path / "config.json").write_text(text)
    assert class_names("timm/test_vit", weights=str(weights)) == ()
    assert class_names("timm/test_vit", weights=str(tmp_path / "nowhere.pth")) == ()


# -- patch tokens ------------------------------------------------------------------------------------------------------


def test_tokens_of_a_transformer_lie_as_the_patches_do():
    """A patch alone is changed: before attention only its token changes, at its row and column."""
    encoder = small_copy("virchow2", precision="fp32", dense=True)
    edge = encoder.card.input_px
    rows, columns, channels = encoder.layout.grid
    assert (rows, columns, channels) == (4, 4, 1280)
    network = encoder._networks.master.network
    caught = {}
    network.trunk.norm.register_forward_hook(lambda m, i, out: caught.update(all=out))
    found = encoder.outputs(tiles(2, edge))
    tokens = caught["all"][:, 5:]  # a class token and four registers come first
    for y in range(rows):
        for x in range(columns):
            np.testing.assert_array_equal(found.tokens[:, y, x], tokens[:, y * columns + x].numpy())
    np.testing.assert_array_equal(found.vectors, small_copy("virchow2", precision="fp32")(tiles(2, edge)))
    np.testing.assert_allclose(found.vectors[:, 1280:], found.tokens.mean((1, 2)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "grid", "layer"),
    [
        ("timm/test_resnet", (5, 5, 96), "layer4"),
        ("resnet18_imagenet", (7, 7, 512), "layer4"),
        ("ctranspath", (7, 7, 768), "trunk.norm"),
    ],
)
def test_a_convolutional_network_gives_its_last_map(name, grid, layer):
    encoder = of(name, random_weights=True, dense=True)
    assert encoder.layout.grid == grid
    caught = {}
    network = encoder._networks.master.network
    network.get_submodule(layer).register_forward_hook(lambda m, i, out: caught.update(map=out))
    edge = encoder.card.input_px
    tokens = encoder.outputs(tiles(2, edge)).tokens
    last = caught["map"] if name == "ctranspath" else caught["map"].permute(0, 2, 3, 1)
    np.testing.assert_array_equal(tokens, last.numpy())


def test_a_bright_corner_is_where_the_map_says_so():
    encoder = of("timm/test_resnet", random_weights=True, dense=True)
    edge = encoder.card.input_px
    grey = np.full((1, edge, edge, 3), 128, np.uint8)
    spot = grey.copy()
    spot[:, : edge // 5, -(edge // 5) :] = 255  # top right
    change = np.abs(encoder.outputs(spot).tokens - encoder.outputs(grey).tokens).sum(-1)[0]
    assert np.unravel_index(change.argmax(), change.shape) == (0, encoder.layout.grid[1] - 1)


def test_classes_and_tokens_come_from_one_pass(tmp_path):
    torch.manual_seed(4)
    weights = saved(timm.create_model("test_vit", num_classes=CLASSES).eval(), tmp_path / "lab.pth")
    encoder = of("timm/test_vit", weights=weights, include_preds=True, dense=True)
    calls = []
    encoder._networks.master.network.patch_embed.register_forward_hook(lambda *_: calls.append(1))
    found = encoder.outputs(tiles())
    assert calls == [1]
    assert found.probabilities.shape == (3, CLASSES)
    assert found.tokens.shape == (3, 10, 10, 64)
    assert found.vectors.shape == (3, 64)
    check_encoder(encoder)


def test_text_is_still_there_beside_tokens():
    encoder = of("demo-vlm", dense=True)
    np.testing.assert_array_equal(encoder.embed_text(["mucosa"]), of("demo-vlm").embed_text(["mucosa"]))
    check_encoder(encoder)


def test_tokens_that_fill_no_square_and_programs_are_refused(tmp_path):
    with pytest.raises(EncoderError, match="fill no square"):
        of("timm/coat_lite_mini", random_weights=True, dense=True)
    with pytest.raises(EncoderError, match="no order of rows"):
        of("timm/hiera_tiny_224", random_weights=True, dense=True)
    with pytest.raises(EncoderError, match="nothing but its vectors"):
        of("exported", dense=True, dim=5)
    assert get_card("timm/test_vit").dim == 64
