"""Slide encoders written a second time, slowly, token by token, from their papers and the published code's behaviour.

A state dict of random numbers, run here and run by `encoders/slide`, must give the same vectors.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

State = dict[str, Tensor]


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def norm(state: State, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
    return (x - mean) / (var + eps).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


# -- LongNet -----------------------------------------------------------------------------------------------------------


def table(grid: int, dim: int) -> Tensor:
    """The whole table of positions; row 0 is the class token's. A place is column * grid + row of the tile on the slide."""
    rows = [torch.zeros(dim, dtype=torch.float64)]
    for first in range(grid):
        for second in range(grid):
            row = []
            for place in (second, first):
                angles = [place / 10000 ** (i / (dim / 4)) for i in range(dim // 4)]
                row += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            rows.append(torch.tensor(row, dtype=torch.float64))
    return torch.stack(rows)


def dilated(q: Tensor, k: Tensor, v: Tensor, segments, ratios) -> Tensor:
    """Dilated attention (n, heads, d), one query at a time, as the published code fills, thins and puts back."""
    n, heads, d = q.shape
    outs, lses = [], []
    for wanted, ratio in zip(segments, ratios, strict=True):
        segment = min(wanted, n)
        count = math.ceil(n / segment)
        filled = math.ceil(segment / ratio) * ratio
        out, lse = torch.zeros(count * filled, heads, d), torch.full((count * filled, heads), -1e8)
        for number in range(count):
            # zeros fill the last segment to its length, then each segment to a multiple of the ratio
            parts = []
            for x in (q, k, v):
                part = torch.zeros(filled, heads, d)
                inside = x[number * segment : (number + 1) * segment]
                part[: len(inside)] = inside
                parts.append(part)
            for head in range(heads):
                own = head // math.ceil(heads / ratio)
                for i in range(own, filled, ratio):
                    logits = [
                        float(parts[0][i, head] @ parts[1][j, head]) / math.sqrt(d) for j in range(own, filled, ratio)
                    ]
                    total = sum(math.exp(logit) for logit in logits)
                    weights = [math.exp(logit) / total for logit in logits]
                    mixed = sum(w * parts[2][j, head] for w, j in zip(weights, range(own, filled, ratio), strict=True))
                    out[number * filled + i, head], lse[number * filled + i, head] = mixed, math.log(total)
        outs.append(out[:n])
        lses.append(lse[:n])
    weights = torch.stack(lses).softmax(0)
    return (torch.stack(outs) * weights[..., None]).sum(0)


def longnet(
    state: State, features: Tensor, cells: Tensor, *, heads: int, depth: int, segments, ratios, pool: str
) -> Tensor:
    dim = state["cls_token"].shape[-1]
    grid = int(cells.max()) + 1
    rows = table(grid, dim).float()[(cells[:, 0] * grid + cells[:, 1]).long() + 1]
    x = torch.cat([state["cls_token"][0], linear(state, "patch_embed.proj", features) + rows])
    for number in range(depth):
        name = f"encoder.layers.{number}"
        y = norm(state, f"{name}.self_attn_layer_norm", x)
        q, k, v = (linear(state, f"{name}.self_attn.{part}_proj", y).reshape(len(x), heads, -1) for part in "qkv")
        y = dilated(q, k, v, segments, ratios).reshape(len(x), -1)
        x = x + linear(state, f"{name}.self_attn.out_proj", norm(state, f"{name}.self_attn.inner_attn_ln", y))
        y = gelu(linear(state, f"{name}.ffn.fc1", norm(state, f"{name}.final_layer_norm", x)))
        x = x + linear(state, f"{name}.ffn.fc2", norm(state, f"{name}.ffn.ffn_layernorm", y))
    pooled = x[0] if pool == "cls" else x[1:].mean(0)
    return norm(state, "norm", pooled, 1e-6)


# -- Gated attention ---------------------------------------------------------------------------------------------------


def gate(state: State, name: str, x: Tensor) -> Tensor:
    a = torch.tanh(linear(state, f"{name}.attention_a.0", x))
    b = 1 / (1 + torch.exp(-linear(state, f"{name}.attention_b.0", x)))
    return linear(state, f"{name}.attention_c", a * b)[:, 0]


def chief(state: State, features: Tensor) -> Tensor:
    hidden = linear(state, "attention_net.0", features).clamp(min=0)
    weights = gate(state, "attention_net.3", hidden).exp()
    return (features * (weights / weights.sum())[:, None]).sum(0)


def madeleine(state: State, features: Tensor, heads: int) -> Tensor:
    x = features
    for layer in (0, 4, 8):
        x = gelu(
            norm(state, f"wsi_embedders.pre_attn.{layer + 1}", linear(state, f"wsi_embedders.pre_attn.{layer}", x))
        )
    parts = []
    for head in range(heads):
        own = x[:, head::heads]
        weights = gate(state, f"wsi_embedders.attn.{head}", own).exp()
        parts.append((own * (weights / weights.sum())[:, None]).sum(0))
    return linear(state, "projector", torch.stack(parts, 1).reshape(-1))
