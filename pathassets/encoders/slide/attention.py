"""Slide encoders that weigh tiles by attention: ABMIL, CHIEF's, MADELEINE's.

Belongs here: the networks. Does not belong: weights, cards, training (`training`), slides.

Sources: Ilse et al. 2018 (arXiv:1802.04712), Wang et al. 2024 (10.1038/s41586-024-07894-z), Jaume et al. 2024 (arXiv:2408.02859).
Names of parameters are those of the published checkpoints. All tiles of a slide share one softmax; what is computed for each
tile before it is computed a few thousand tiles at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn

ROWS = 8192


class GatedAttention(nn.Module):
    """One number for each tile: a linear layer of tanh times sigmoid.

    Args:
        dim: Length of what it looks at.
        hidden: Width within.
        dropout: While training.
    """

    def __init__(self, dim: int, hidden: int, dropout: float = 0.25) -> None:
        super().__init__()
        self.attention_a = nn.Sequential(nn.Linear(dim, hidden), nn.Tanh(), nn.Dropout(dropout))
        self.attention_b = nn.Sequential(nn.Linear(dim, hidden), nn.Sigmoid(), nn.Dropout(dropout))
        self.attention_c = nn.Linear(hidden, 1)

    def forward(self, tiles: Tensor) -> Tensor:
        """(n, dim) to (n,)."""
        scores: Tensor = self.attention_c(self.attention_a(tiles) * self.attention_b(tiles))
        return scores[:, 0]


def by_rows(function: Callable[[Tensor], Tensor], tiles: Tensor) -> Tensor:
    """`function` of all tiles, some thousand at a time."""
    return torch.cat([function(rows.float()) for rows in tiles.split(ROWS)])


class Standardize(nn.Module):
    """Takes from each channel the mean, and divides by the spread, that training tiles had; kept with the weights.

    A norm over a tile's own channels would not do: it takes away what is common to all of them.

    Args:
        dim: Channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def forward(self, tiles: Tensor) -> Tensor:
        """(n, dim) to the same."""
        return (tiles - self.mean) / self.std


class Abmil(nn.Module):
    """Attention-based multiple-instance learning: tiles to a vector, and a vector to classes.

    Args:
        dim_in: Length of a tile's embedding.
        dim: Length of the slide's vector.
        classes: How many labels it tells apart.
        dropout: While training.
    """

    def __init__(self, dim_in: int, dim: int = 256, classes: int = 2, dropout: float = 0.25) -> None:
        super().__init__()
        self.standardize = Standardize(dim_in)
        self.embed = nn.Sequential(nn.Linear(dim_in, dim), nn.GELU(), nn.Dropout(dropout))
        self.attend = GatedAttention(dim, dim // 2, dropout)
        self.classify = nn.Linear(dim, classes)

    def attention(self, features: Tensor) -> Tensor:
        """Each tile's share of the vector: (n,), sum 1."""
        return by_rows(lambda rows: self.attend(self._hidden(rows)), features).softmax(0)

    def forward(self, features: Tensor, cells: Tensor | None = None) -> Tensor:
        """Tiles (n, dim_in) to the slide's vector (dim,)."""
        hidden = by_rows(self._hidden, features)
        return self.attend(hidden).softmax(0) @ hidden

    def logits(self, features: Tensor) -> Tensor:
        """Tiles (n, dim_in) to one number for each class (classes,)."""
        out: Tensor = self.classify(self(features))
        return out

    def _hidden(self, rows: Tensor) -> Tensor:
        hidden: Tensor = self.embed(self.standardize(rows))
        return hidden


class Chief(nn.Module):
    """CHIEF's slide stage: attention of a small network over tiles, whose vectors themselves are averaged with it.

    Its organ's text embedding and its classifiers change class scores only, never the slide's vector, and are left out.

    Args:
        dim_in: Length of a tile's embedding, and of the slide's vector.
        hidden: Width of the layer before the attention.
        gate: Width within the attention.
    """

    def __init__(self, dim_in: int, hidden: int = 512, gate: int = 256) -> None:
        super().__init__()
        layers = nn.Linear(dim_in, hidden), nn.ReLU(), nn.Dropout(0.25), GatedAttention(hidden, gate)
        self.attention_net = nn.Sequential(*layers)

    def attention(self, features: Tensor) -> Tensor:
        """Each tile's share of the vector: (n,), sum 1."""
        return by_rows(self.attention_net, features).softmax(0)

    def forward(self, features: Tensor, cells: Tensor | None = None) -> Tensor:
        """Tiles (n, dim_in) to the slide's vector (dim_in,)."""
        shares = self.attention(features).split(ROWS)
        parts = [share @ rows.float() for share, rows in zip(shares, features.split(ROWS), strict=True)]
        return torch.stack(parts).sum(0)


class Madeleine(nn.Module):
    """MADELEINE's H&E branch: three layers before the attention, several heads, one layer after it.

    Args:
        dim_in: Length of a tile's embedding.
        dim: Width of the network, and length of the slide's vector.
        heads: Heads; channel c belongs to head c modulo `heads`.
    """

    def __init__(self, dim_in: int, dim: int = 512, heads: int = 4) -> None:
        super().__init__()
        widths = (dim_in, dim, dim, dim * heads)
        layers = [part for before, after in pairwise(widths) for part in _block(before, after)]
        attn = nn.ModuleList(GatedAttention(dim, dim) for _ in range(heads))
        self.wsi_embedders = nn.ModuleDict({"pre_attn": nn.Sequential(*layers), "attn": attn})
        self.projector = nn.Linear(dim * heads, dim)
        self.heads = heads

    def attention(self, features: Tensor) -> Tensor:
        """Each tile's share of each head's vector: (n, heads), each column's sum 1."""
        return by_rows(self._scores, features).softmax(0)

    def forward(self, features: Tensor, cells: Tensor | None = None) -> Tensor:
        """Tiles (n, dim_in) to the slide's vector (dim,)."""
        shares = self.attention(features).split(ROWS)
        parts = [
            torch.einsum("neh,nh->eh", self._hidden(rows.float()), share)
            for rows, share in zip(features.split(ROWS), shares, strict=True)
        ]
        vector: Tensor = self.projector(torch.stack(parts).sum(0).reshape(-1))
        return vector

    def _hidden(self, rows: Tensor) -> Tensor:
        hidden: Tensor = self.wsi_embedders["pre_attn"](rows)
        return hidden.reshape(len(rows), -1, self.heads)

    def _scores(self, rows: Tensor) -> Tensor:
        hidden = self._hidden(rows)
        heads: Iterable[nn.Module] = self.wsi_embedders["attn"].children()
        return torch.stack([attend(hidden[..., number]) for number, attend in enumerate(heads)], 1)


def _block(before: int, after: int) -> tuple[nn.Module, ...]:
    return nn.Linear(before, after), nn.LayerNorm(after), nn.GELU(), nn.Dropout(0.1)
