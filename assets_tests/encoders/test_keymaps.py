"""Published layouts of checkpoints: a reference network in their names and the zoo's give the same vectors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from support import reference_networks as ref
from torch import nn
from torch.nn import functional
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.ops import Permute

from pathassets.encoders import keymaps, load_encoder, zoo, zoo_networks
from pathassets.encoders.registry import get_spec
from pathassets.encoders.weights import load_strict
from pathassets.errors import EncoderError, Reason

WIDTH, HEADS, EDGE = 64, 8, 64


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def narrow(name, **kwargs):
    """The network of `name` with one narrow block; embeddings' lengths that follow from the width follow it."""
    shape = {"depth": 1, "img_size": EDGE, "embed_dim": WIDTH, "num_heads": HEADS, "mlp_ratio": 4.0, **kwargs}
    return zoo_networks.build(zoo.encoders()[name].entry, shape)


def loaded(name, network, state):
    """`network` with `state`, as a file of it would be loaded; and what of the file found no use."""
    return load_strict(network, state, get_spec(name), Path("published.bin"))


def of_transformers(kind, **sizes):
    """transformers' own network of one narrow block, with weights that say something."""
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=HEADS, **sizes
    )
    theirs = getattr(transformers, f"{kind}Model")(config).eval()
    for value in theirs.parameters():
        value.normal_(std=0.3)
    return theirs


def images(n=2, edge=EDGE):
    return torch.rand(n, 3, edge, edge)


def agree(ours, theirs):
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.01, "vectors that say nothing would agree anyhow"
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_transformers_vit_is_phikon():
    network, state = narrow("phikon"), ref.hf_vit(WIDTH, 16, 16)
    state["pooler.dense.weight"] = ref.numbers(3, 3)
    assert loaded("phikon", network, state) == ["embeddings.mask_token", "pooler.dense.weight"]
    x = images()
    agree(network(x), ref.run_hf_vit(state, x, HEADS)[:, 0])


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "dinov2.", "module.model."])
def test_transformers_dinov2_is_phikon_v2(prefix):
    network, state = narrow("phikon-v2"), ref.hf_dinov2(WIDTH, 16, 16, registers=0, swiglu=0)
    loaded("phikon-v2", network, {prefix + key: value for key, value in state.items()})
    x = images()
    agree(network(x), ref.run_hf_dinov2(state, x, HEADS)[:, 0])


@torch.no_grad()
def test_transformers_dinov2_with_registers_and_swiglu_is_hibou():
    network = narrow("hibou-b", img_size=56)
    state = ref.hf_dinov2(WIDTH, 14, 16, registers=4, swiglu=2 * WIDTH)
    loaded("hibou-b", network, state)
    x = images(edge=56)
    agree(network(x), ref.run_hf_dinov2(state, x, HEADS)[:, 0])


@torch.no_grad()
@pytest.mark.parametrize("image_size", [56, 98], ids=["its own size", "positions of a larger picture"])
@pytest.mark.parametrize("saved", [False, True], ids=["as in memory", "as in a file"])
def test_midnight_is_what_transformers_itself_makes_of_it(tmp_path, image_size, saved):
    network = narrow("midnight", img_size=56, mlp_ratio=5.5)  # two thirds of four, in steps of eight, twice
    theirs = of_transformers("Dinov2", image_size=image_size, patch_size=14, use_swiglu_ffn=True)
    theirs.save_pretrained(tmp_path)
    loaded("midnight", network, load_file(tmp_path / "model.safetensors") if saved else theirs.state_dict())
    x = images(edge=56)
    tokens = theirs(x).last_hidden_state
    agree(network(x), torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1))


@torch.no_grad()
@pytest.mark.parametrize("image_size", [56, 98], ids=["its own size", "positions of a larger picture"])
def test_hibou_is_what_transformers_itself_makes_of_it(image_size):
    network = narrow("hibou-b", img_size=56, mlp_ratio=5.5)
    theirs = of_transformers("Dinov2WithRegisters", image_size=image_size, patch_size=14, use_swiglu_ffn=True)
    loaded("hibou-b", network, theirs.state_dict())
    x = images(edge=56)
    agree(network(x), theirs(x).last_hidden_state[:, 0])


@torch.no_grad()
def test_phikon_is_what_transformers_itself_makes_of_it():
    network = narrow("phikon")
    theirs = of_transformers("ViT", image_size=64, intermediate_size=4 * WIDTH)
    loaded("phikon", network, theirs.state_dict())
    x = images()
    agree(network(x), theirs(x).last_hidden_state[:, 0])


@torch.no_grad()
def test_midnight_is_the_class_token_and_the_mean_patch_of_dinov2():
    network = narrow("midnight", img_size=56)
    state = ref.hf_dinov2(WIDTH, 14, 16, registers=0, swiglu=2 * WIDTH)
    loaded("midnight", network, state)
    x = images(edge=56)
    tokens = ref.run_hf_dinov2(state, x, HEADS)
    agree(network(x), torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1))


@torch.no_grad()
def test_transformers_clip_is_plip():
    network, state = narrow("plip"), ref.hf_clip(WIDTH, 32, 4, 512)
    unused = loaded("plip", network, state)
    assert "text_projection.weight" in unused
    assert "logit_scale" in unused
    x = images()
    agree(network(x), ref.run_hf_clip(state, x, HEADS))


@torch.no_grad()
def test_open_clip_is_quiltnet():
    network, state = narrow("quiltnet-b16"), ref.open_clip(WIDTH, 16, 16, 512)
    assert "token_embedding.weight" in loaded("quiltnet-b16", network, state)
    x = images()
    agree(network(x), ref.run_open_clip(state, x, HEADS))


@torch.no_grad()
def test_coca_pools_with_torchs_attention_as_omiclip():
    network = narrow("omiclip", img_size=56)
    state = ref.open_clip(WIDTH, 14, 16, 768)
    pool, layer = ref.coca_pool("visual.attn_pool", 768, WIDTH, 256)
    state |= pool | {"visual.proj": ref.numbers(768, 768)}
    ref.norms(state, "visual.ln_post", width=768)
    loaded("omiclip", network, {f"module.{key}": value for key, value in state.items()})
    x = images(edge=56)
    tokens = ref.open_clip_tokens(state, x, HEADS, functional.gelu)
    pooled = ref.norm(state, "visual.ln_post", ref.run_coca_pool(state, "visual.attn_pool", layer, tokens), 1e-5)
    agree(network(x), pooled[:, 0] @ state["visual.proj"])


@torch.no_grad()
@pytest.mark.parametrize("name", ["conch", "conch/projected"])
def test_conch_projects_only_where_its_name_says_so(name):
    network = narrow(name)
    trunk = network.trunk.state_dict()
    state = {f"visual.trunk.{key}": ref.numbers(*value.shape) for key, value in trunk.items()}
    pool, layer = ref.coca_pool("visual.attn_pool_contrast", 512, WIDTH, 1)
    caption, _ = ref.coca_pool("visual.attn_pool_caption", 64, WIDTH, 3)
    state |= pool | caption | {"visual.proj_contrast": ref.numbers(512, 512), "logit_scale": ref.numbers()}
    ref.norms(state, "visual.ln_contrast", width=512)
    unused = loaded(name, network, state)
    assert any("attn_pool_caption" in key for key in unused)
    x = images()
    tokens = network.trunk.forward_features(x)
    pooled = ref.run_coca_pool(state, "visual.attn_pool_contrast", layer, tokens)[:, 0]
    expected = ref.norm(state, "visual.ln_contrast", pooled, 1e-5)
    agree(network(x), expected @ state["visual.proj_contrast"] if "projected" in name else expected)


@torch.no_grad()
def test_the_newer_conch_has_the_same_pooling_without_biases():
    network = narrow("conch-v1.5")
    state = {f"trunk.{key}": ref.numbers(*value.shape) for key, value in network.trunk.state_dict().items()}
    pool = "attn_pool_contrast"
    for part, out, width in (("to_q", 768, 768), ("to_kv", 1536, WIDTH), ("to_out", 768, 768)):
        ref.dense(state, f"{pool}.{part}", out, width, bias=False)
    state[f"{pool}.query"] = ref.numbers(1, 768)
    ref.norms(state, f"{pool}.ln_q", "ln_contrast", width=768)
    ref.norms(state, f"{pool}.ln_k", width=WIDTH)
    assert loaded("conch-v1.5", network, state) == []
    x = images()
    tokens = ref.norm(state, f"{pool}.ln_k", network.trunk.forward_features(x), 1e-5)
    query = ref.norm(state, f"{pool}.ln_q", state[f"{pool}.query"], 1e-5).expand(2, -1, -1)
    keys, values = ref.linear(state, f"{pool}.to_kv", tokens).chunk(2, -1)
    answer = ref.attend(ref.linear(state, f"{pool}.to_q", query), keys, values, 8)
    agree(network(x), ref.norm(state, "ln_contrast", ref.linear(state, f"{pool}.to_out", answer), 1e-5)[:, 0])


@torch.no_grad()
def test_the_pictures_branch_of_beit3_is_musk():
    network, state = narrow("musk"), ref.beit3(WIDTH, 16, 16)
    unused = loaded("musk", network, state)
    assert any(".B." in key for key in unused)
    assert "head.0.weight" in unused, "the head belongs to musk/projected"
    x = images()
    agree(network(x), ref.run_beit3(state, x, HEADS))


@torch.no_grad()
def test_musk_at_two_scales_is_the_picture_and_its_quarters_at_twice_the_size():
    network, state = narrow("musk/multiscale"), ref.beit3(WIDTH, 16, 16)
    loaded("musk/multiscale", network, state)
    x = images()
    large = functional.interpolate(x, size=(2 * EDGE, 2 * EDGE), mode="bicubic")
    quarters = large.unfold(2, EDGE, EDGE).unfold(3, EDGE, EDGE).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    second = ref.run_beit3(state, quarters, HEADS).unflatten(0, (2, 4)).mean(1)
    agree(network(x), torch.cat([ref.run_beit3(state, x, HEADS), second], 1))


@torch.no_grad()
def test_siglip_packs_its_queries_apart():
    network = narrow("medsiglip", img_size=56)
    source = {key.removeprefix("trunk."): ref.numbers(*value.shape) for key, value in network.state_dict().items()}
    renamed = {}
    for key, value in source.items():
        if ".attn.qkv." in key:
            for part, chunk in zip("qkv", value.chunk(3), strict=True):
                name = key.replace(".attn.qkv.", f".self_attn.{part}_proj.")
                renamed[name.replace("blocks.", "encoder.layers.")] = chunk
            continue
        for ours, theirs in (
            ("pos_embed", "embeddings.position_embedding.weight"), ("patch_embed.proj.", "embeddings.patch_embedding."),
            (".attn.proj.", ".self_attn.out_proj."), (".norm1.", ".layer_norm1."), (".norm2.", ".layer_norm2."),
            ("attn_pool.latent", "head.probe"), ("attn_pool.proj.", "head.attention.out_proj."),
            ("attn_pool.norm.", "head.layernorm."), ("attn_pool.mlp.", "head.mlp."),
        ):  # fmt: skip
            key = key.replace(ours, theirs)
        key = f"post_layernorm.{key.removeprefix('norm.')}" if key.startswith("norm.") else key
        renamed[key.replace("blocks.", "encoder.layers.")] = value
    for kind in ("weight", "bias"):
        parts = [renamed.pop(f"attn_pool.{part}.{kind}") for part in ("q", "kv")]
        renamed[f"head.attention.in_proj_{kind}"] = torch.cat(parts)
    renamed["embeddings.position_embedding.weight"] = renamed["embeddings.position_embedding.weight"][0]
    published = {f"vision_model.{key}": value for key, value in renamed.items()}
    published["text_model.head.weight"] = ref.numbers(3)
    assert loaded("medsiglip", network, published) == ["text_model.head.weight"]
    for key, value in source.items():
        torch.testing.assert_close(network.state_dict()[f"trunk.{key}"], value, rtol=0, atol=0)


@torch.no_grad()
def test_dinov2_saves_blocks_in_chunks_and_its_class_token_without_its_position():
    network = narrow("openmidnight", img_size=56, depth=3)
    state = {}
    for key, value in network.trunk.state_dict().items():
        key = (
            key.replace("reg_token", "register_tokens")
            .replace(".mlp.fc1.", ".mlp.w12.")
            .replace(".mlp.fc2.", ".mlp.w3.")
        )
        chunk = "2" if key.startswith("blocks.2.") else "0"
        state[key.replace("blocks.", f"blocks.{chunk}.", 1)] = ref.numbers(*value.shape)
    state["pos_embed"] = ref.numbers(1, 17, WIDTH)
    state["mask_token"] = ref.numbers(1, WIDTH)
    assert loaded("openmidnight", network, state) == ["mask_token"]
    trunk = network.trunk
    torch.testing.assert_close(trunk.cls_token, state["cls_token"] + state["pos_embed"][:, :1])
    torch.testing.assert_close(trunk.pos_embed, state["pos_embed"][:, 1:])
    torch.testing.assert_close(trunk.blocks[2].mlp.fc2.weight, state["blocks.2.2.mlp.w3.weight"])


@torch.no_grad()
def test_low_rank_updates_are_merged():
    network = narrow("crisp", img_size=56)
    plain = {key.removeprefix("trunk."): ref.numbers(*value.shape) for key, value in network.state_dict().items()}
    saved = {f"base_model.model.{key}": value for key, value in plain.items()}
    layer = "base_model.model.blocks.0.attn.qkv"
    for kind in ("weight", "bias"):
        saved[f"{layer}.base_layer.{kind}"] = saved.pop(f"{layer}.{kind}")
    down, up = ref.numbers(8, WIDTH), ref.numbers(3 * WIDTH, 8)
    saved |= {f"{layer}.lora_A.default.weight": down, f"{layer}.lora_B.default.weight": up}
    loaded("crisp", network, saved)
    merged = network.trunk.blocks[0].attn.qkv.weight
    torch.testing.assert_close(merged, plain["blocks.0.attn.qkv.weight"] + 16 / 8 * up @ down)


@torch.no_grad()
def test_keep_calls_its_scales_weights():
    network, entry = narrow("keep"), {}
    for key, value in network.state_dict().items():
        key = key.replace("trunk.", "visual.").replace(".gamma", ".weight")
        entry[f"visual_{key}" if key.startswith("head.") else key] = ref.numbers(*value.shape)
    entry |= {"text.embeddings.weight": ref.numbers(2), "logit_scale": ref.numbers()}
    assert loaded("keep", network, entry) == ["logit_scale", "text.embeddings.weight"]
    x = images()
    hidden = functional.gelu(ref.linear(entry, "visual_head.0", network.trunk(x)))
    agree(network(x), functional.normalize(ref.linear(entry, "visual_head.2", hidden), dim=1))


@torch.no_grad()
def test_open_clip_with_a_timm_trunk_is_biomedclip():
    network, state = narrow("biomedclip"), {}
    for key, value in network.trunk.state_dict().items():
        state[f"visual.trunk.{key}"] = ref.numbers(*value.shape)
    state |= {"visual.head.proj.weight": ref.numbers(512, WIDTH), "text.proj.0.weight": ref.numbers(2)}
    assert loaded("biomedclip", network, state) == ["text.proj.0.weight"]
    x = images()
    agree(network(x), network.trunk(x) @ state["visual.head.proj.weight"].T)


# -- CTransPath against torchvision's Swin, with its stem put in -------------------------------------------------------


def reference_ctranspath() -> nn.Module:
    """Swin-T of torchvision, its patch embedding replaced by two strided convolutions and a pointwise one (Wang 2022)."""
    network = SwinTransformer([4, 4], 96, [2, 2, 6, 2], [3, 6, 12, 24], [7, 7], stochastic_depth_prob=0.0)
    stem = [nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU()]
    stem += [nn.Conv2d(12, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 96, 1)]
    network.features[0] = nn.Sequential(nn.Sequential(*stem), Permute([0, 2, 3, 1]), nn.LayerNorm(96))
    network.head = nn.Identity()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
        # torchvision's norms divide with another epsilon only where they are told to
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5
    return network.eval()


def published_ctranspath(network: nn.Module) -> dict[str, torch.Tensor]:
    """Its weights under the names of Swin's own code, in which CTransPath is published."""
    state = {}
    for key, value in network.state_dict().items():
        parts = key.split(".")
        if parts[0] == "features" and parts[1] == "0":
            place = f"patch_embed.proj.{parts[3]}" if parts[2] == "0" else "patch_embed.norm"
            name = ".".join([place, *parts[4 if parts[2] == "0" else 3 :]])
        elif parts[0] == "features":
            stage, inner = (int(parts[1]) - 1) // 2, parts[2:]
            name = (
                ".".join([f"layers.{stage}.blocks", *inner])
                if int(parts[1]) % 2
                else ".".join([f"layers.{stage}.downsample", *inner])
            )
            name = name.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.")
        else:
            name = key
        state[name] = value
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(1)
    state["head.weight"] = torch.zeros(2, 768)
    return state


@torch.no_grad()
def test_ctranspath_equals_a_swin_with_its_stem(tmp_path):
    reference = reference_ctranspath()
    torch.save({"model": published_ctranspath(reference)}, tmp_path / "ctranspath.pth")
    encoder = load_encoder("ctranspath", weights=tmp_path / "ctranspath.pth", device="cpu", precision="fp32")
    x = torch.randn(2, 3, 224, 224)
    agree(torch.from_numpy(encoder(x.numpy(), preprocess=False)), reference(x))
    assert "head.weight" in encoder.dropped


# -- Files that do not fit ---------------------------------------------------------------------------------------------


def test_a_file_of_another_layout_is_refused_by_name():
    with pytest.raises(EncoderError, match="does not fit phikon") as caught:
        loaded("phikon", narrow("phikon"), ref.hf_clip(WIDTH, 32, 4, 512))
    assert caught.value.reason is Reason.WEIGHTS_MISMATCH


def test_a_layer_that_is_missing_is_named():
    state = ref.hf_vit(WIDTH, 16, 16)
    del state["encoder.layer.0.attention.attention.key.weight"], state["layernorm.bias"]
    with pytest.raises(EncoderError, match=r"missing \(trunk.norm.bias|missing \(trunk.blocks.0.attn.qkv.weight"):
        loaded("phikon", narrow("phikon"), state)


def test_an_update_of_low_rank_without_its_other_half_is_refused():
    saved = {
        "blocks.0.attn.qkv.base_layer.weight": torch.zeros(3, 3),
        "blocks.0.attn.qkv.lora_A.default.weight": torch.zeros(8, 3),
    }
    with pytest.raises(EncoderError, match="not laid out as peft-lora"):
        loaded("crisp", narrow("crisp", img_size=56), saved)


def test_positions_of_another_picture_size_are_resampled():
    network, state = narrow("phikon"), ref.hf_vit(WIDTH, 16, 36)
    loaded("phikon", network, state)
    assert network.trunk.pos_embed.shape == (1, 17, WIDTH)
    torch.testing.assert_close(network.trunk.pos_embed[:, :1], state["embeddings.position_embeddings"][:, :1])


def test_every_layout_belongs_to_some_encoder():
    used = {encoder.card().key_map for encoder in zoo.encoders().values()}
    assert used == set(keymaps.LAYOUTS)


@torch.no_grad()
def test_conchs_positions_are_resampled_as_its_authors_do():
    """Bilinear and not smoothed, where timm would take bicubic and smooth."""
    network = narrow("conch/224")
    state = {f"visual.trunk.{key}": ref.numbers(*value.shape) for key, value in network.trunk.state_dict().items()}
    positions = state["visual.trunk.pos_embed"] = ref.numbers(1, 1 + 8 * 8, WIDTH)
    pool, _ = ref.coca_pool("visual.attn_pool_contrast", 512, WIDTH, 1)
    ref.norms(state, "visual.ln_contrast", width=512)
    loaded("conch/224", network, state | pool)
    grid = positions[:, 1:].reshape(1, 8, 8, WIDTH).permute(0, 3, 1, 2)
    expected = (
        functional.interpolate(grid, (4, 4), mode="bilinear", antialias=False).permute(0, 2, 3, 1).reshape(1, 16, WIDTH)
    )
    torch.testing.assert_close(network.trunk.pos_embed[:, 1:], expected)
    torch.testing.assert_close(network.trunk.pos_embed[:, :1], positions[:, :1])
