"""Networks of the text towers: numbers of tokens to a vector.

Belongs here: embedding, blocks, which token counts, the layer to the space of the pictures. Does not belong: facts about single
towers (`towers.toml`), cutting texts up (`tokenizer`), names in checkpoints (`layouts`).

A text is run by itself, so that its vector cannot depend on its company; there is nothing to pad then, but where a tower was trained to
look at padding.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from timm.layers.activations import GELUTanh, QuickGELU
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from pathassets.encoders.text.spec import TowerSpec

FIRST_SCALE = math.log(1 / 0.07)  # where CLIP's training begins (Radford 2021, arXiv:2103.00020)
ACTIVATIONS: dict[str, Any] = {"gelu": nn.GELU, "quick_gelu": QuickGELU, "gelu_tanh": GELUTanh}


class TextNetwork(nn.Module):
    """What all towers have: the layer to the pictures' space, and the factor on cosines that was learned with it.

    Args:
        spec: The tower.
        dim: Length of its vectors.
    """

    def __init__(self, spec: TowerSpec, dim: int) -> None:
        super().__init__()
        self.spec = spec
        self.head = _head(spec, dim)
        self.logit_scale = nn.Parameter(torch.tensor(FIRST_SCALE))
        if spec.bias:
            self.logit_bias = nn.Parameter(torch.tensor(0.0))


class TransformerText(TextNetwork):
    """Blocks with their norms in front: CLIP, CoCa, SigLIP, and the words' branch of BEiT-3.

    CoCa's class token stands at the last position whatever the text's length, sees all tokens, and the first place behind
    them instead of itself: its mask was shifted by one when these weights were trained, and so it is here (open_clip's
    `correct_cls_mask = False`).
    """

    def __init__(self, spec: TowerSpec, dim: int) -> None:
        super().__init__(spec, dim)
        norm: Any = partial(nn.LayerNorm, eps=spec.eps)
        self.tokens = nn.Embedding(spec.vocab, spec.width)
        self.positions = nn.Parameter(torch.randn(spec.rows, spec.width) * 0.01)
        if spec.pool == "appended":
            self.cls = nn.Parameter(torch.randn(spec.width) * 0.01)
        self.blocks = nn.ModuleList(
            Block(
                spec.width,
                spec.heads,
                mlp_ratio=spec.ratio,
                qkv_bias=True,
                act_layer=ACTIVATIONS[spec.act],
                norm_layer=norm,
                scale_attn_norm=spec.inner,
                scale_mlp_norm=spec.inner,
            )
            for _ in range(spec.layers)
        )
        self.norm = norm(spec.width)

    def forward(self, ids: Tensor) -> Tensor:
        """Numbers of tokens (n,), begin and end among them, n at most the context, to (dim,)."""
        pool, context = self.spec.pool, self.spec.context
        missing = context - len(ids) if pool == "last" else int(pool == "appended" and len(ids) < context)
        filled = torch.cat([ids, ids.new_full((missing,), self.spec.pad)])
        x = self.tokens(filled) + self.positions[: len(filled)]
        if pool == "appended":
            x = torch.cat([x, (self.cls + self.positions[context])[None]])
        mask = self._mask(len(x), bool(missing)) if pool in ("end", "appended") else None
        x = x[None]
        for block in self.blocks:
            x = block(x, attn_mask=mask)
        return self.head(self.norm(x[0, 0 if pool == "first" else -1]))

    def _mask(self, n: int, filled: bool) -> Tensor:
        """Added to attention: each token sees itself and those before; CoCa's last not itself where there is padding."""
        mask = torch.full((n, n), float("-inf")).triu(1)
        if self.spec.pool == "appended" and filled:
            mask[-1, -1] = float("-inf")
        return mask


class BertText(TextNetwork):
    """BERT, its first token's vector or what its pooler makes of it, and the layers behind."""

    def __init__(self, spec: TowerSpec, dim: int) -> None:
        super().__init__(spec, dim)
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=spec.vocab,
            hidden_size=spec.width,
            num_hidden_layers=spec.layers,
            num_attention_heads=spec.heads,
            intermediate_size=int(spec.width * spec.ratio),
            max_position_embeddings=spec.rows,
            layer_norm_eps=spec.eps,
        )
        self.bert = BertModel(config, add_pooling_layer=spec.pool == "pooler")

    def forward(self, ids: Tensor) -> Tensor:
        """Numbers of tokens (n,), begin and end among them, to (dim,)."""
        found = self.bert(input_ids=ids[None])
        return self.head(found.pooler_output[0] if self.spec.pool == "pooler" else found.last_hidden_state[0, 0])


def build(spec: TowerSpec, dim: int) -> TextNetwork:
    """The tower's network with untrained weights."""
    return (BertText if spec.net == "bert" else TransformerText)(spec, dim).eval().requires_grad_(False)


def _head(spec: TowerSpec, dim: int) -> nn.Module:
    if spec.head == "none":
        return nn.Identity()
    if spec.head == "mlp":  # as open_clip has it: half way between both widths
        between = (spec.width + dim) // 2
        return nn.Sequential(nn.Linear(spec.width, between, bias=False), nn.GELU(), nn.Linear(between, dim, bias=False))
    return nn.Linear(spec.width, dim, bias=spec.head == "biased")
