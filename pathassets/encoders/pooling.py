"""Pooling tokens with learned queries, as the contrastive captioners (CoCa) do.

Belongs here: that layer. Does not belong: pooling without weights, networks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class AttentionPool(nn.Module):
    """Multi-head attention of learned queries over all tokens; the first query's answer is the picture's vector.

    The queries do not see each other, so only the first is computed; the others are kept because files hold them
    (Yu 2022, arXiv:2205.01917).

    Args:
        dim: Width of queries and result.
        context: Width of the tokens.
        queries: Queries that the file holds.
        heads: Attention heads.
        bias: Whether the linear layers have a bias.
    """

    def __init__(self, dim: int, context: int, *, queries: int = 1, heads: int = 8, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.randn(queries, dim) * dim**-0.5)
        self.norm_query, self.norm_tokens = nn.LayerNorm(dim), nn.LayerNorm(context)
        self.to_q, self.to_kv = nn.Linear(dim, dim, bias=bias), nn.Linear(context, 2 * dim, bias=bias)
        self.to_out, self.norm = nn.Linear(dim, dim, bias=bias), nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, tokens, context) to (n, dim)."""
        query = self.to_q(self.norm_query(self.query[:1])).expand(len(tokens), 1, -1)
        keys, values = self.to_kv(self.norm_tokens(tokens)).chunk(2, dim=-1)
        split = self._split
        pooled = functional.scaled_dot_product_attention(split(query), split(keys), split(values))
        return self.norm(self.to_out(pooled.transpose(1, 2).flatten(2)))[:, 0]

    def _split(self, rows: Tensor) -> Tensor:
        """(n, rows, dim) to (n, heads, rows, dim / heads)."""
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)
