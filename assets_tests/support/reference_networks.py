"""Transformers written a second time, from their papers, in the names that published checkpoints use.

A state dict of random numbers under those names, run here and run by the zoo, must give the same vectors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape) * 0.2


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", torch.zeros(()))


def norm(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
    return (x - mean) / (var + eps).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    def split(x: Tensor) -> Tensor:
        return x.reshape(len(x), x.shape[1], heads, -1).transpose(1, 2)

    weights = (split(q) @ split(k).transpose(2, 3) / (q.shape[-1] // heads) ** 0.5).softmax(-1)
    return (weights @ split(v)).transpose(1, 2).reshape(len(q), q.shape[1], -1)


def patches(weight: Tensor, bias: Tensor | None, images: Tensor) -> Tensor:
    return functional.conv2d(images, weight, bias, stride=weight.shape[-1]).flatten(2).transpose(1, 2)


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def dense(state: State, name: str, out: int, width: int, *, bias: bool = True) -> None:
    state[f"{name}.weight"] = numbers(out, width)
    if bias:
        state[f"{name}.bias"] = numbers(out)


def norms(state: State, *names: str, width: int) -> None:
    for name in names:
        state[f"{name}.weight"], state[f"{name}.bias"] = 1 + numbers(width), numbers(width)


# -- transformers' ViT and DINOv2 --------------------------------------------------------------------------------------


def hf_embeddings(width: int, patch: int, tokens: int, registers: int = 0) -> State:
    state = {
        "embeddings.cls_token": numbers(1, 1, width),
        "embeddings.position_embeddings": numbers(1, tokens + 1, width),
        "embeddings.patch_embeddings.projection.weight": numbers(width, 3, patch, patch),
        "embeddings.patch_embeddings.projection.bias": numbers(width),
        "embeddings.mask_token": numbers(1, width),
    }
    if registers:
        state["embeddings.register_tokens"] = numbers(1, registers, width)
    norms(state, "layernorm", width=width)
    return state


def hf_tokens(state: State, images: Tensor) -> Tensor:
    kernel, bias = (state[f"embeddings.patch_embeddings.projection.{kind}"] for kind in ("weight", "bias"))
    x = torch.cat([state["embeddings.cls_token"].expand(len(images), -1, -1), patches(kernel, bias, images)], 1)
    x = x + state["embeddings.position_embeddings"]
    if "embeddings.register_tokens" in state:
        registers = state["embeddings.register_tokens"].expand(len(images), -1, -1)
        x = torch.cat([x[:, :1], registers, x[:, 1:]], 1)
    return x


def hf_attention(state: State, name: str, x: Tensor, heads: int) -> Tensor:
    q, k, v = (linear(state, f"{name}.attention.attention.{part}", x) for part in ("query", "key", "value"))
    return linear(state, f"{name}.attention.output.dense", attend(q, k, v, heads))


def hf_attention_weights(state: State, name: str, width: int) -> None:
    for part in ("attention.query", "attention.key", "attention.value", "output.dense"):
        dense(state, f"{name}.attention.{part}", width, width)


def hf_vit(width: int, patch: int, tokens: int) -> State:
    state, name = hf_embeddings(width, patch, tokens), "encoder.layer.0"
    hf_attention_weights(state, name, width)
    dense(state, f"{name}.intermediate.dense", 4 * width, width)
    dense(state, f"{name}.output.dense", width, 4 * width)
    norms(state, f"{name}.layernorm_before", f"{name}.layernorm_after", width=width)
    return state


def run_hf_vit(state: State, images: Tensor, heads: int) -> Tensor:
    x, name = hf_tokens(state, images), "encoder.layer.0"
    x = x + hf_attention(state, name, norm(state, f"{name}.layernorm_before", x, 1e-12), heads)
    hidden = functional.gelu(
        linear(state, f"{name}.intermediate.dense", norm(state, f"{name}.layernorm_after", x, 1e-12))
    )
    x = x + linear(state, f"{name}.output.dense", hidden)
    return norm(state, "layernorm", x, 1e-12)


def hf_dinov2(width: int, patch: int, tokens: int, *, registers: int, swiglu: int) -> State:
    """`swiglu` is the width within the gated MLP; 0 = an ordinary one."""
    state, name = hf_embeddings(width, patch, tokens, registers), "encoder.layer.0"
    hf_attention_weights(state, name, width)
    if swiglu:
        dense(state, f"{name}.mlp.weights_in", 2 * swiglu, width)
        dense(state, f"{name}.mlp.weights_out", width, swiglu)
    else:
        dense(state, f"{name}.mlp.fc1", 4 * width, width)
        dense(state, f"{name}.mlp.fc2", width, 4 * width)
    norms(state, f"{name}.norm1", f"{name}.norm2", width=width)
    state[f"{name}.layer_scale1.lambda1"] = numbers(width)
    state[f"{name}.layer_scale2.lambda1"] = numbers(width)
    return state


def run_hf_dinov2(state: State, images: Tensor, heads: int) -> Tensor:
    x, name = hf_tokens(state, images), "encoder.layer.0"
    attended = hf_attention(state, name, norm(state, f"{name}.norm1", x, 1e-6), heads)
    x = x + state[f"{name}.layer_scale1.lambda1"] * attended
    y = norm(state, f"{name}.norm2", x, 1e-6)
    if f"{name}.mlp.weights_in.weight" in state:
        gate, value = linear(state, f"{name}.mlp.weights_in", y).chunk(2, -1)
        y = linear(state, f"{name}.mlp.weights_out", functional.silu(gate) * value)
    else:
        y = linear(state, f"{name}.mlp.fc2", functional.gelu(linear(state, f"{name}.mlp.fc1", y)))
    return norm(state, "layernorm", x + state[f"{name}.layer_scale2.lambda1"] * y, 1e-6)


# -- CLIP, in transformers' and in open_clip's names -------------------------------------------------------------------


def hf_clip(width: int, patch: int, tokens: int, out: int) -> State:
    prefix, name = "vision_model.embeddings", "vision_model.encoder.layers.0"
    state = {
        f"{prefix}.class_embedding": numbers(width),
        f"{prefix}.position_embedding.weight": numbers(tokens + 1, width),
        f"{prefix}.position_ids": torch.arange(tokens + 1)[None],
        f"{prefix}.patch_embedding.weight": numbers(width, 3, patch, patch),
        "visual_projection.weight": numbers(out, width),
        "text_projection.weight": numbers(out, 8),
        "text_model.final_layer_norm.weight": numbers(8),
        "logit_scale": numbers(),
    }
    for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
        dense(state, f"{name}.self_attn.{part}", width, width)
    dense(state, f"{name}.mlp.fc1", 4 * width, width)
    dense(state, f"{name}.mlp.fc2", width, 4 * width)
    norms(state, f"{name}.layer_norm1", f"{name}.layer_norm2", width=width)
    norms(state, "vision_model.pre_layrnorm", "vision_model.post_layernorm", width=width)
    return state


def run_hf_clip(state: State, images: Tensor, heads: int) -> Tensor:
    prefix, name = "vision_model.embeddings", "vision_model.encoder.layers.0"
    token = state[f"{prefix}.class_embedding"].expand(len(images), 1, -1)
    x = torch.cat([token, patches(state[f"{prefix}.patch_embedding.weight"], None, images)], 1)
    x = norm(state, "vision_model.pre_layrnorm", x + state[f"{prefix}.position_embedding.weight"], 1e-5)
    y = norm(state, f"{name}.layer_norm1", x, 1e-5)
    q, k, v = (linear(state, f"{name}.self_attn.{part}_proj", y) for part in "qkv")
    x = x + linear(state, f"{name}.self_attn.out_proj", attend(q, k, v, heads))
    y = linear(state, f"{name}.mlp.fc1", norm(state, f"{name}.layer_norm2", x, 1e-5))
    x = x + linear(state, f"{name}.mlp.fc2", quick_gelu(y))
    return linear(state, "visual_projection", norm(state, "vision_model.post_layernorm", x[:, 0], 1e-5))


def open_clip(width: int, patch: int, tokens: int, out: int) -> State:
    name = "visual.transformer.resblocks.0"
    state = {
        "visual.class_embedding": numbers(width),
        "visual.positional_embedding": numbers(tokens + 1, width),
        "visual.conv1.weight": numbers(width, 3, patch, patch),
        "visual.proj": numbers(width, out),
        "positional_embedding": numbers(77, 8),
        "transformer.resblocks.0.ln_1.weight": numbers(8),
        "text_projection": numbers(8, out),
        "token_embedding.weight": numbers(9, 8),
        "logit_scale": numbers(),
    }
    state[f"{name}.attn.in_proj_weight"] = numbers(3 * width, width)
    state[f"{name}.attn.in_proj_bias"] = numbers(3 * width)
    dense(state, f"{name}.attn.out_proj", width, width)
    dense(state, f"{name}.mlp.c_fc", 4 * width, width)
    dense(state, f"{name}.mlp.c_proj", width, 4 * width)
    norms(state, f"{name}.ln_1", f"{name}.ln_2", "visual.ln_pre", "visual.ln_post", width=width)
    return state


def open_clip_tokens(state: State, images: Tensor, heads: int, act: Callable[[Tensor], Tensor]) -> Tensor:
    name = "visual.transformer.resblocks.0"
    token = state["visual.class_embedding"].expand(len(images), 1, -1)
    x = torch.cat([token, patches(state["visual.conv1.weight"], None, images)], 1)
    x = norm(state, "visual.ln_pre", x + state["visual.positional_embedding"], 1e-5)
    y = norm(state, f"{name}.ln_1", x, 1e-5)
    packed = y @ state[f"{name}.attn.in_proj_weight"].T + state[f"{name}.attn.in_proj_bias"]
    x = x + linear(state, f"{name}.attn.out_proj", attend(*packed.chunk(3, -1), heads))
    y = linear(state, f"{name}.mlp.c_fc", norm(state, f"{name}.ln_2", x, 1e-5))
    return x + linear(state, f"{name}.mlp.c_proj", act(y))


def run_open_clip(state: State, images: Tensor, heads: int) -> Tensor:
    x = open_clip_tokens(state, images, heads, functional.gelu)
    return norm(state, "visual.ln_post", x[:, 0], 1e-5) @ state["visual.proj"]


# -- Attention pooling: torch's own layer, as CoCa has it --------------------------------------------------------------


def coca_pool(name: str, dim: int, context: int, queries: int) -> tuple[State, torch.nn.Module]:
    """Weights of the pooling layer under `name`, and torch's layer that has them."""
    layer = torch.nn.MultiheadAttention(dim, 8, kdim=context, vdim=context, batch_first=True)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(numbers(*weight.shape))
    state = {f"{name}.attn.{key}": value for key, value in layer.state_dict().items()}
    state[f"{name}.query"] = numbers(queries, dim)
    norms(state, f"{name}.ln_q", width=dim)
    norms(state, f"{name}.ln_k", width=context)
    return state, layer


def run_coca_pool(state: State, name: str, layer: torch.nn.Module, tokens: Tensor) -> Tensor:
    keys = norm(state, f"{name}.ln_k", tokens, 1e-5)
    query = norm(state, f"{name}.ln_q", state[f"{name}.query"], 1e-5).expand(len(tokens), -1, -1)
    return layer(query, keys, keys)[0]


# -- BEiT-3 ------------------------------------------------------------------------------------------------------------


def beit3(width: int, patch: int, tokens: int) -> State:
    name = "beit3.encoder.layers.0"
    state = {
        "beit3.vision_embed.cls_token": numbers(1, 1, width),
        "beit3.vision_embed.mask_token": numbers(1, 1, width),
        "beit3.text_embed.weight": numbers(11, width),
        "beit3.encoder.embed_positions.A.weight": numbers(tokens + 3, width),
        "beit3.encoder.embed_positions.B.weight": numbers(7, width),
        "vision_head.weight": numbers(width, width),
        "language_head.weight": numbers(width, width),
        "logit_scale": numbers(),
        "beit3.vision_embed.proj.weight": numbers(width, 3, patch, patch),
        "beit3.vision_embed.proj.bias": numbers(width),
    }
    for branch in "AB":
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            dense(state, f"{name}.self_attn.{part}.{branch}", width, width)
        dense(state, f"{name}.ffn.{branch}.fc1", 4 * width, width)
        dense(state, f"{name}.ffn.{branch}.fc2", width, 4 * width)
        norms(state, f"{name}.ffn.{branch}.ffn_layernorm", width=4 * width)
        parts = (f"{name}.self_attn.inner_attn_ln", f"{name}.self_attn_layer_norm", f"{name}.final_layer_norm")
        norms(state, *(f"{part}.{branch}" for part in (*parts, "beit3.encoder.layer_norm")), width=width)
    return state


def run_beit3(state: State, images: Tensor, heads: int) -> Tensor:
    name = "beit3.encoder.layers.0"
    kernel, bias = state["beit3.vision_embed.proj.weight"], state["beit3.vision_embed.proj.bias"]
    token = state["beit3.vision_embed.cls_token"].expand(len(images), -1, -1)
    x = torch.cat([token, patches(kernel, bias, images)], 1) + state["beit3.encoder.embed_positions.A.weight"][2:]
    y = norm(state, f"{name}.self_attn_layer_norm.A", x, 1e-5)
    q, k, v = (linear(state, f"{name}.self_attn.{part}_proj.A", y) for part in "qkv")
    y = norm(state, f"{name}.self_attn.inner_attn_ln.A", attend(q, k, v, heads), 1e-5)
    x = x + linear(state, f"{name}.self_attn.out_proj.A", y)
    y = functional.gelu(linear(state, f"{name}.ffn.A.fc1", norm(state, f"{name}.final_layer_norm.A", x, 1e-5)))
    x = x + linear(state, f"{name}.ffn.A.fc2", norm(state, f"{name}.ffn.A.ffn_layernorm", y, 1e-5))
    return norm(state, "beit3.encoder.layer_norm.A", x, 1e-5)[:, 0]
