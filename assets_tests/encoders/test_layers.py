"""Features of inner layers: the right activations, pooled and side by side, whoever runs the network at the same time."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from pathassets.encoders import get_card, load_encoder
from pathassets.encoders.layers import in_torch
from pathassets.errors import EncoderError, Reason
from pathassets.testing import check_encoder, small_copy


def tiles(n: int = 3, px: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, px, px, 3), dtype=np.uint8)


def of(name: str, **kwargs):
    return load_encoder(name, random_weights=True, device="cpu", precision="fp32", **kwargs)


def activations(encoder, images: np.ndarray, *names: str) -> list[torch.Tensor]:
    """What named modules of an encoder's network give, caught by hooks of this test's own."""
    found, network = {}, encoder._networks.master
    hooks = [
        network.get_submodule(name).register_forward_hook(lambda m, i, out, name=name: found.update({name: out}))
        for name in names
    ]
    encoder(images)
    for hook in hooks:
        hook.remove()
    return [found[name] for name in names]


@pytest.mark.parametrize("pool", ["avg", "max"])
def test_layers_are_pooled_and_put_side_by_side(pool):
    encoder = of("timm/test_resnet", layers=["layer2", "layer1"], layer_pool=pool)
    maps = activations(of("timm/test_resnet"), tiles(), "layer2", "layer1")
    expected = [m.mean((2, 3)) if pool == "avg" else m.amax((2, 3)) for m in maps]
    np.testing.assert_allclose(encoder(tiles()), torch.cat(expected, 1).numpy(), rtol=1e-5, atol=1e-6)
    assert encoder.dim == sum(m.shape[1] for m in maps)
    assert encoder.card.pooling == f"{pool} of layer2, layer1"


def test_without_pooling_maps_are_flattened():
    (features,) = activations(of("timm/test_resnet"), tiles(), "layer4")
    encoder = of("timm/test_resnet", layers="layer4", layer_pool="none")
    np.testing.assert_allclose(encoder(tiles()), features.flatten(1).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "last"),
    [("timm/test_resnet", "layer4"), ("timm/test_vit", "norm"), ("resnet18_imagenet", "layer4")],
)  # fmt: skip
def test_no_layer_named_means_the_last_map(name, last):
    assert get_card(name, {"layer_pool": "avg"}).pooling == f"avg of {last}"
    assert get_card(name, {"layers": "postconv"}).pooling == f"avg of {last}"


def test_the_last_tokens_before_a_learned_query_are_the_trunks():
    kwargs = {"depth": 1, "img_size": 64}
    assert get_card("conch", {**kwargs, "layer_pool": "avg"}).pooling == "avg of trunk.norm"
    assert get_card("conceptclip", {"depth": 1, "img_size": 56, "layer_pool": "avg"}).pooling == "avg of trunk.norm"


def test_tokens_are_pooled_over_patches_alone():
    plain = of("timm/test_vit")
    (tokens,) = activations(plain, tiles(), "blocks.1")
    encoder = of("timm/test_vit", layers=["blocks.1"])
    np.testing.assert_allclose(encoder(tiles()), tokens[:, 1:].mean(1).numpy(), rtol=1e-4, atol=1e-5)


def test_a_map_with_channels_last_is_pooled_over_places():
    encoder = of("ctranspath", layers=["layers.2"])
    assert encoder.dim == 384
    (features,) = activations(of("ctranspath"), tiles(1, 224), "trunk.layers.2")
    np.testing.assert_allclose(encoder(tiles(1, 224)), features.mean((1, 2)).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kwargs", [{"layers": ["blocks.0", "norm"]}, {"layer_pool": "max"}])
def test_such_an_encoder_keeps_the_contract(kwargs):
    check_encoder(small_copy("virchow2", precision="fp32", **kwargs))


def test_threads_that_share_a_network_do_not_see_each_others_activations():
    encoder = of("timm/test_resnet", layers=["layer1", "layer3"])
    pictures = [tiles(2) if k % 2 else 255 - tiles(2) for k in range(8)]
    alone, found = [encoder(picture) for picture in pictures], {}
    threads = [threading.Thread(target=lambda k=k: found.update({k: encoder(pictures[k])})) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, vectors in found.items():
        np.testing.assert_allclose(vectors, alone[k], rtol=1e-4, atol=1e-6)
    assert len(found) == 8


def test_trained_weights_are_loaded_before_layers_are_taken(tmp_path):
    torch.save(of("timm/test_resnet")._networks.master.state_dict(), tmp_path / "w.pth")
    saved = load_encoder(
        "timm/test_resnet", weights=tmp_path / "w.pth", device="cpu", precision="fp32", layers="layer2"
    )
    np.testing.assert_array_equal(saved(tiles()), of("timm/test_resnet", layers="layer2")(tiles()))


# Names


@pytest.mark.parametrize(
    ("name", "keras", "torch_name"),
    [
        ("timm/resnet50", "conv1_relu", "act1"),
        ("resnet50_imagenet", "conv1_relu", "relu"),
        ("timm/resnet50", "conv3_block4_out", "layer2.3"),
        ("timm/resnet50", "conv2_block1_2_conv", "layer1.0.conv2"),
        ("timm/resnet50", "avg_pool", "postconv"),
    ],
)
def test_names_of_keras_are_refused_with_torchs(name, keras, torch_name):
    with pytest.raises(EncoderError, match="is a name of Keras") as caught:
        get_card(name, {"layers": [keras]})
    assert caught.value.reason is Reason.CONFIG_INVALID
    assert repr(torch_name) in caught.value.message
    if torch_name != "postconv":
        get_card(name, {"layers": [torch_name]})


def test_all_foreign_layers_are_translated_at_once():
    with pytest.raises(EncoderError) as caught:
        get_card("timm/resnet50", {"layers": ["conv5_block3_out", "conv2_block3_out"]})
    assert "layers = ['layer4.2', 'layer1.2']" in caught.value.remedy


def test_a_name_of_keras_is_not_translated_into_a_layer_that_there_is_not():
    with pytest.raises(EncoderError, match="has no layer 'conv1_relu'"):
        get_card("timm/test_vit", {"layers": ["conv1_relu"]})


def test_other_names_are_answered_with_the_nearest():
    with pytest.raises(EncoderError, match="has no layer 'layer5'") as caught:
        get_card("timm/resnet18", {"layers": ["layer5"]})
    assert "layer4" in caught.value.remedy
    assert in_torch("layer5", ["layer4"]) is None


def test_other_poolings_are_refused():
    with pytest.raises(EncoderError, match="avg, max, none"):
        get_card("timm/test_vit", {"layer_pool": "median"})


def test_a_layer_that_is_never_run_is_refused():
    with pytest.raises(EncoderError, match="gives no tensor"):
        get_card("uni", {"depth": 1, "img_size": 32, "layers": ["head_drop"]})
