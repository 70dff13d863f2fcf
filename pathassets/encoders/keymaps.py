"""Layouts of published checkpoints, and how their names become those of the zoo's networks.

Belongs here: one `Layout` for each way in which people save weights. Does not belong: reading files, comparing keys (`weights`),
which encoder has which layout (`zoo.toml`).

A layout is a table of renamings, in order. What an image encoder has no use for (text towers, training heads) is kept under
`UNUSED`, so that it is accounted for and not mistaken for weights that found no place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pathassets.encoders.zoo import UNUSED

State = dict[str, Tensor]
Rules = tuple[tuple[str, str], ...]

# Parts of our own network; every other name is the trunk's.
PARTS = ("head.", "pool.")
# Training frameworks wrap networks; what they prepend says nothing.
WRAPPED = r"^(?:module\.|_orig_mod\.|model\.|teacher\.|backbone\.|base_model\.model\.)+"
LORA_SCALE = 2.0  # CRISP: alpha 16 over rank 8


@dataclass(frozen=True)
class Layout:
    """How a checkpoint is read.

    Attributes:
        rules: Regular expressions and what replaces them, applied in order to every name.
        unused: Names (after the rules) that an image encoder has no place for.
        before: Changes tensors before names are looked at.
        positions: How position embeddings of another picture size are resampled: interpolation, antialias; None = as DINOv2 and
            transformers do, with it where the network has registers.
        after: Changes tensors when names are ours.
    """

    rules: Rules = ()
    unused: str = r"$^"
    before: Callable[[State], State] = dict
    positions: tuple[str, bool | None] = ("bicubic", True)
    after: Callable[[State, nn.Module], State] = lambda state, trunk: state


def translate(state: State, model: nn.Module, layout: str) -> State:
    """A checkpoint's tensors under the names of a zoo network.

    Args:
        state: The file's tensors.
        model: The network, for its trunk's shape.
        layout: A name in `LAYOUTS`.

    Returns:
        Tensors under the network's names, and what has no place in it under `UNUSED`.
    """
    how, trunk = LAYOUTS[layout], model.get_submodule("trunk")
    ours, unused = {}, {}
    for key, value in how.before(state).items():
        name = renamed(how.rules, re.sub(WRAPPED, "", key))
        if re.match(how.unused, name):
            unused[UNUSED + key] = value
        else:
            ours[name] = value
    ours = how.after(fused(ours), trunk)
    interpolation, antialias = how.positions
    ours |= resampled(ours, trunk, interpolation, antialias if antialias is not None else "reg_token" in ours)
    if not any(name.startswith("head.") for name in model.state_dict()):  # a projection that this encoder does without
        unused |= {UNUSED + name: ours.pop(name) for name in list(ours) if name.startswith("head.")}
    return {(name if name.startswith(PARTS) else f"trunk.{name}"): value for name, value in ours.items()} | unused


def renamed(rules: Rules, name: str) -> str:
    """A tensor's name after all rules, applied in order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def fused(state: State) -> State:
    """`attn.q`, `attn.k` and `attn.v` as the one layer `attn.qkv` that timm has."""
    found = dict(state)
    for name in state:
        trio = [name.replace(".attn.q.", f".attn.{part}.") for part in "qkv"]
        if ".attn.q." in name and all(part in found for part in trio):
            found[name.replace(".attn.q.", ".attn.qkv.")] = torch.cat([found.pop(part) for part in trio])
    return found


def resampled(state: State, trunk: nn.Module, interpolation: str, antialias: bool) -> State:
    """Position embeddings of another picture size, resampled by timm."""
    wanted, given = getattr(trunk, "pos_embed", None), state.get("pos_embed")
    if wanted is None or given is None or given.shape == wanted.shape or given.ndim != 3:
        return {}
    from timm.layers.pos_embed import resample_abs_pos_embed

    prefix = 0 if trunk.no_embed_class else int(trunk.num_prefix_tokens)  # type: ignore[arg-type]
    grid = list(trunk.patch_embed.grid_size)  # type: ignore[union-attr, arg-type]
    return {"pos_embed": resample_abs_pos_embed(given, grid, None, prefix, interpolation, antialias)}


# -- What renaming cannot say ------------------------------------------------------------------------------------------


def _class_token_with_its_position(state: State, trunk: nn.Module) -> State:
    """DINOv2 with registers adds a position to the class token; timm keeps the sum."""
    if "reg_token" not in state or not getattr(trunk, "no_embed_class", False):
        return state
    position = state["pos_embed"]
    return {**state, "cls_token": state["cls_token"] + position[:, :1], "pos_embed": position[:, 1:]}


def _hf_dinov2(state: State, trunk: nn.Module) -> State:
    """The halves of a gated MLP, which transformers 5 has apart in memory, as one layer."""
    found = dict(state)
    for name in state:
        if ".mlp.gate_proj." in name:
            halves = [found.pop(name), found.pop(name.replace("gate_proj", "up_proj"))]
            found[name.replace("gate_proj", "fc1")] = torch.cat(halves)
    return _class_token_with_its_position(found, trunk)


def _clip(state: State, trunk: nn.Module) -> State:
    """CLIP saves tokens without the batch's dimension, and OpenAI's projections the other way round."""
    found = dict(state)
    if "cls_token" in found:
        found["cls_token"] = found["cls_token"].reshape(1, 1, -1)
    if found.get("pos_embed", torch.empty(0, 0, 0)).ndim == 2:
        found["pos_embed"] = found["pos_embed"].unsqueeze(0)
    if "head.transposed" in found:
        found["head.0.weight"] = found.pop("head.transposed").T.contiguous()
    return _attention_pool(found)


def _attention_pool(state: State) -> State:
    """torch's attention layer with its parts apart becomes a query's layer and one for keys and values."""
    found = dict(state)
    if "pool.k" in found:
        found["pool.to_kv.weight"] = torch.cat([found.pop("pool.k"), found.pop("pool.v")])
        bias = found.pop("pool.in_bias")
        width = len(bias) // 3
        found |= {"pool.to_q.bias": bias[:width], "pool.to_kv.bias": bias[width:]}
    return found


def _siglip(state: State, trunk: nn.Module) -> State:
    found = _clip(state, trunk)
    for kind in ("weight", "bias"):
        packed = found.pop(f"attn_pool.in_{kind}", None)
        if packed is not None:
            width = len(packed) // 3
            found |= {f"attn_pool.q.{kind}": packed[:width], f"attn_pool.kv.{kind}": packed[width:]}
    return found


def _beit3(state: State, trunk: nn.Module) -> State:
    """The first two positions are fairseq's padding."""
    return {name: value[2:].unsqueeze(0) if name == "pos_embed" else value for name, value in state.items()}


def _swin(state: State, trunk: nn.Module) -> State:
    from timm.models.swin_transformer import checkpoint_filter_fn

    return dict(checkpoint_filter_fn(dict(state), trunk))


def _timm(state: State, trunk: nn.Module) -> State:
    """timm's own translation of its older layouts; a layout that it does not know comes back as it is."""
    import sys

    translate_older = getattr(sys.modules[type(trunk).__module__], "checkpoint_filter_fn", None)
    return dict(translate_older(dict(state), trunk)) if translate_older is not None else state


def merged_lora(state: State) -> State:
    """Low-rank updates folded into the weights they belong to: W + scale · B A (Hu 2021, arXiv:2106.09685)."""
    found: State = {}
    for key, value in state.items():
        module, base, kind = key.rpartition(".base_layer.")
        if ".lora_" in key:
            continue
        if base and kind == "weight":
            down, up = (_lora(state, module, part) for part in ("A", "B"))
            value = value + LORA_SCALE * (up @ down).to(value.dtype)
        found[f"{module}.{kind}" if base else key] = value
    return found


def _lora(state: State, module: str, part: str) -> Tensor:
    return next(value for key, value in state.items() if key.startswith(f"{module}.lora_{part}."))


# -- Layouts -----------------------------------------------------------------------------------------------------------

_HF_EMBEDDINGS: Rules = (
    (r"^(?:vit|dinov2|dinov2_with_registers)\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.attention\.(q|k|v)(?:uery|ey|alue)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"^layernorm\.", "norm."),
    # the names that networks have in memory since transformers 5; its files keep the older ones
    (r"^layers\.", "blocks."),
    (r"\.attention\.(q|k|v)_proj\.", r".attn.\1."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
)
_HF_UNUSED = r"^(pooler|classifier|decoder|embeddings\.mask_token)\b"
# How transformers names a block of CLIP's, of pictures and of words.
HF_CLIP_BLOCK: Rules = (
    (r"\.self_attn\.(q|k|v)_proj\.", r".attn.\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.layer_norm([12])\.", r".norm\1."),
)
_HF_CLIP: Rules = (
    (r"^.*\bvision_model\.", "vision_model."),
    (r"^vision_model\.embeddings\.class_embedding$", "cls_token"),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^vision_model\.encoder\.layers\.", "blocks."),
    *HF_CLIP_BLOCK,
    (r"^vision_model\.pre_layrnorm\.", "norm_pre."),
    (r"^vision_model\.post_layernorm\.", "norm."),
    (r"^visual_projection\.weight$", "head.0.weight"),
)
_ATTENTION_POOL: Rules = (
    (r"^pool\.attn\.q_proj_weight$", "pool.to_q.weight"),
    (r"^pool\.attn\.(k|v)_proj_weight$", r"pool.\1"),
    (r"^pool\.attn\.in_proj_bias$", "pool.in_bias"),
    (r"^pool\.attn\.out_proj\.", "pool.to_out."),
    (r"^pool\.ln_q\.", "pool.norm_query."),
    (r"^pool\.ln_k\.", "pool.norm_tokens."),
)
_CLIP_UNUSED = (
    r"^(text|text_model|text_encoder|text_decoder|text_projection|transformer|token_embedding|positional_embedding|"
    r"ln_final|logit_scale|logit_bias|attn_mask|bert|.*position_ids$)"
)
_DINOV2_POSITIONS = ("bicubic", None)
_DINOV2: Rules = (
    (r"^blocks\.\d+\.(?=\d+\.)", "blocks."),  # saved in chunks of blocks, which keep their own numbers
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
    (r"^register_tokens$", "reg_token"),
)
_OPEN_CLIP: Rules = (
    (r"^visual\.class_embedding$", "cls_token"),
    (r"^visual\.positional_embedding$", "pos_embed"),
    (r"^visual\.conv1\.", "patch_embed.proj."),
    (r"^visual\.ln_pre\.", "norm_pre."),
    (r"^visual\.transformer\.resblocks\.", "blocks."),
    (r"^(blocks\.\d+)\.attn\.in_proj_", r"\1.attn.qkv."),
    (r"^(blocks\.\d+)\.attn\.out_proj\.", r"\1.attn.proj."),
    (r"^(blocks\.\d+)\.ln_([12])\.", r"\1.norm\2."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"^visual\.proj$", "head.transposed"),
)
_BEIT3: Rules = (
    (r"^beit3\.", ""),
    (r"^vision_head\.", "head.0."),
    (r"\.A\.", "."),
    (r"^vision_embed\.cls_token$", "cls_token"),
    (r"^vision_embed\.proj\.", "patch_embed.proj."),
    (r"^encoder\.embed_positions\.weight$", "pos_embed"),
    (r"^encoder\.layers\.", "blocks."),
    (r"^encoder\.layer_norm\.", "norm."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.final_layer_norm\.", ".norm2."),
    (r"\.self_attn\.inner_attn_ln\.", ".attn.norm."),
    (r"\.self_attn\.(q|k|v)_proj\.", r".attn.\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.ffn\.ffn_layernorm\.", ".mlp.norm."),
    (r"\.ffn\.", ".mlp."),
)

LAYOUTS: dict[str, Layout] = {
    "timm": Layout(unused=r"^(fc|classifier|dino_head|ibot_head)\.", after=_timm),
    "timm-layer3": Layout(unused=r"^(fc|layer4)\."),
    "dinov2": Layout(
        _DINOV2,
        r"^(mask_token$|dino_head\.|ibot_head\.)",
        after=_class_token_with_its_position,
        positions=_DINOV2_POSITIONS,
    ),
    "hf-vit": Layout(
        (
            *_HF_EMBEDDINGS,
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
            (r"\.layernorm_before\.", ".norm1."),
            (r"\.layernorm_after\.", ".norm2."),
        ),
        _HF_UNUSED,
    ),
    "hf-dinov2": Layout(
        (
            *_HF_EMBEDDINGS,
            (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
            (r"\.mlp\.weights_in\.", ".mlp.fc1."),
            (r"\.mlp\.(?:weights_out|down_proj)\.", ".mlp.fc2."),
        ),
        _HF_UNUSED,
        after=_hf_dinov2,
        positions=_DINOV2_POSITIONS,
    ),
    "hf-clip": Layout(_HF_CLIP, _CLIP_UNUSED, after=_clip),
    "hf-siglip": Layout(
        (
            *_HF_CLIP,
            (r"^vision_model\.head\.probe$", "attn_pool.latent"),
            (r"^vision_model\.head\.attention\.in_proj_", "attn_pool.in_"),
            (r"^vision_model\.head\.attention\.out_proj\.", "attn_pool.proj."),
            (r"^vision_model\.head\.layernorm\.", "attn_pool.norm."),
            (r"^vision_model\.head\.mlp\.", "attn_pool.mlp."),
        ),
        _CLIP_UNUSED,
        after=_siglip,
    ),
    "open-clip": Layout(
        (*_OPEN_CLIP, (r"^visual\.attn_pool\.", "pool."), *_ATTENTION_POOL, (r"^visual\.ln_post\.", "norm.")),
        _CLIP_UNUSED,
        after=lambda state, trunk: _pool_norm(_clip(state, trunk)),
    ),
    "open-clip-timm": Layout(
        ((r"^visual\.trunk\.", ""), (r"^visual\.head\.proj\.", "head.0.")),
        r"^(text\.|(image|text)_proj\.|(concept_)?logit_(scale|bias))",
    ),
    "conch": Layout(
        (
            (r"^visual\.trunk\.", ""),
            (r"^visual\.attn_pool_contrast\.", "pool."),
            *_ATTENTION_POOL,
            (r"^visual\.ln_contrast\.", "pool.norm."),
            (r"^visual\.proj_contrast$", "head.transposed"),
        ),
        r"^(text\.|text_decoder\.|logit_scale|visual\.(attn_pool|ln)_caption\.)",
        after=_clip,
        positions=("bilinear", False),
    ),
    "conch-1.5": Layout(
        ((r"^trunk\.", ""), (r"^attn_pool_contrast\.", "pool."), *_ATTENTION_POOL, (r"^ln_contrast\.", "pool.norm."))
    ),
    "keep": Layout(
        ((r"^visual\.", ""), (r"\.ls([12])\.weight$", r".ls\1.gamma"), (r"^visual_head\.", "head.")),
        r"^(text\.|logit_scale)",
    ),
    "beit3": Layout(
        _BEIT3,
        r"^(language_head|text_embed|vision_embed\.mask_token|logit_scale|mim_head|mlm_head|.*\.B\.)",
        after=_beit3,
    ),
    "swin": Layout(unused=r"^(head\.|.*(relative_position_index|attn_mask)$)", after=_swin),
    "peft-lora": Layout(before=merged_lora),
}


def _pool_norm(state: State) -> State:
    """Behind attention pooling open_clip's last norm belongs to the pooled vectors."""
    if "pool.query" not in state:
        return state
    return {
        name.replace("norm.", "pool.norm.", 1) if name.startswith("norm.") else name: v for name, v in state.items()
    }
