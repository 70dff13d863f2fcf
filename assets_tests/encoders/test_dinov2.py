"""A training of DINOv2: its YAML says what its teacher checkpoint holds; and what is no such file is refused in words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml

from pathassets import load_encoder
from pathassets.encoders.dinov2 import NAME, _gated_ratio
from pathassets.encoders.registry import get_card, get_spec
from pathassets.errors import EncoderError, Reason


def write_config(folder, **student):
    path = folder / "config.yaml"
    told = {
        "student": {"arch": "vit_small", "patch_size": 16, **student},
        "crops": {"global_crops_size": 64},
        "train": {},
    }
    path.write_text(yaml.safe_dump(told))
    return path


def write_teacher(folder, network, *, chunks=False):
    """What DINOv2 saves: the teacher with its heads, blocks in chunks if it was sharded, a class token that has a position."""
    state = {}
    for name, value in network.state_dict().items():
        name = name.replace("reg_token", "register_tokens").replace(
            ".mlp.fc1.", ".mlp.w12." if network.gated else ".mlp.fc1."
        )
        name = name.replace(".mlp.fc2.", ".mlp.w3." if network.gated else ".mlp.fc2.")
        state[f"backbone.{name.replace('blocks.', 'blocks.0.') if chunks else name}"] = value
    if "backbone.register_tokens" in state:
        position = state["backbone.pos_embed"]
        state["backbone.pos_embed"] = torch.cat([torch.zeros(1, 1, position.shape[2]), position], 1)
    state["backbone.mask_token"] = torch.zeros(1, 384)
    state["dino_head.mlp.0.weight"] = torch.zeros(2, 2)
    path = folder / "teacher_checkpoint.pth"
    torch.save({"teacher": state}, path)
    return path


@pytest.mark.parametrize("chunks", [False, True])
@pytest.mark.parametrize(
    "student", [{}, {"num_register_tokens": 4}, {"ffn_layer": "swiglufused"}, {"patch_size": 8, "layerscale": 0.0}]
)
def test_the_yaml_and_the_checkpoint_are_an_encoder(tmp_path, student, chunks):
    config = write_config(tmp_path, **student)
    network = get_spec(NAME, {"config": str(config)}).build()
    network.gated = student.get("ffn_layer") == "swiglufused"
    with torch.no_grad():
        for value in network.parameters():
            value.normal_(std=0.05)
    file = write_teacher(tmp_path, network, chunks=chunks)
    encoder = load_encoder(NAME, weights=file, config=str(config), device="cpu", precision="fp32")
    tiles = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    card = encoder.card
    assert (card.name, card.input_px, card.dim, card.mean) == (NAME, 64, 384, (0.485, 0.456, 0.406))
    pixels = (torch.tensor(tiles).permute(0, 3, 1, 2) / 255 - torch.tensor(card.mean)[:, None, None]) / torch.tensor(
        card.std
    )[:, None, None]
    with torch.no_grad():
        np.testing.assert_allclose(encoder(tiles), network(pixels).numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("width", "hidden"), [(384, 1024), (768, 2048), (1024, 2736), (1536, 4096)])
def test_a_gated_mlp_is_as_wide_as_dinov2s(width, hidden):
    assert int(width * _gated_ratio(width)) == 2 * hidden


def test_what_the_yaml_leaves_out_is_dinov2s_default(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("student: {arch: vit_base}\n")
    card = get_card(NAME, {"config": str(path)})
    assert (card.input_px, card.dim) == (224, 768)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "- a\n",
        "student: 3\n",
        "student: {arch: convnext}\n",
        "student: {arch: vit_base, ffn_layer: x}\n",
        "a: [\n",
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path, text):
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(EncoderError) as caught:
        get_spec(NAME, {"config": str(path)})
    assert caught.value.reason is Reason.CONFIG_INVALID
    assert caught.value.remedy


def test_without_a_yaml_its_user_is_told_what_to_do():
    with pytest.raises(EncoderError, match="YAML") as caught:
        get_spec(NAME)
    assert "config" in caught.value.remedy


def test_a_recipe_finds_the_yaml_beside_its_settings(tmp_path):
    from pathassets import Study

    config = write_config(tmp_path)
    (tmp_path / "pathassets.toml").write_text(
        '[[recipes]]\nencoder = "dinov2"\nweights = "w.pth"\nencoder_kwargs = {config = "config.yaml"}\n'
    )
    (recipe,) = Study(tmp_path).recipes
    assert recipe.encoder_kwargs == {"config": str(config)}
