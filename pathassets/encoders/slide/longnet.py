"""LongNet: GigaPath's slide encoder in plain torch, a transformer over all tiles of a slide with dilated attention.

Belongs here: the network, its attention, where tiles lie on its grid. Does not belong: weights, cards, slides.

Sources: Xu et al. 2024 (10.1038/s41586-024-07441-w), Ding et al. 2023 (arXiv:2307.02486), and the authors' published code for what the
papers leave open. Names of parameters are those of the published checkpoint.
Memory grows with the tiles as a few rows of the network's width each: attention goes head by head and block by block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pathassets.errors import Reason, SlideError

# Powers of two evenly spaced in the exponent from 1,024 to (262,144 / 256)^2 tokens, as the authors compute them.
SEGMENTS = (1024, 5792, 32768, 185363, 1048576)
RATIOS = (1, 2, 4, 8, 16)
GRID = 1000
ROWS = 8192
# Numbers of a block of attention scores: 16 MiB. Larger blocks leave the caches between one pass and the next.
BLOCK = 2**22


class LongNet(nn.Module):
    """Tiles and where they lie to one vector.

    Args:
        dim_in: Length of a tile's embedding.
        dim: Width of the network, and length of the slide's vector.
        depth: Layers in the checkpoint.
        heads: Attention heads.
        layer: The layer whose tokens are used, counted from 1; later ones are there for the checkpoint's sake.
        pool: `cls`: the class token; `mean`: the mean over tiles.
        segments: Length in tokens of each branch's segments.
        ratios: Of each branch: how many tokens stand for one that is looked at.
    """

    def __init__(
        self,
        dim_in: int,
        dim: int,
        *,
        depth: int = 12,
        heads: int = 16,
        layer: int = 0,
        pool: str = "cls",
        segments: tuple[int, ...] = SEGMENTS,
        ratios: tuple[int, ...] = RATIOS,
    ) -> None:
        super().__init__()
        self.layer, self.pool = layer or depth, pool
        self.patch_embed = nn.ModuleDict({"proj": nn.Linear(dim_in, dim)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        layers = nn.ModuleList(Layer(dim, heads, tuple(segments), tuple(ratios)) for _ in range(depth))
        # The last norm is not used for the vectors that the authors publish; their checkpoint holds it.
        self.encoder = nn.ModuleDict({"layers": layers, "layer_norm": nn.LayerNorm(dim)})
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, features: Tensor, cells: Tensor) -> Tensor:
        """The slide's vector.

        Args:
            features: Tiles' embeddings (n, dim_in), any float type.
            cells: Column and row of each tile on the network's grid, whole numbers (n, 2).

        Returns:
            float32 (dim,).
        """
        tokens = self._tokens(features, cells)
        for layer in list(self.encoder["layers"])[: self.layer]:  # type: ignore[call-overload]
            tokens = layer(tokens)
        pooled = tokens[0] if self.pool == "cls" else tokens[1:].mean(0)
        vector: Tensor = self.norm(pooled)
        return vector

    def _tokens(self, features: Tensor, cells: Tensor) -> Tensor:
        """The class token, then the tiles with their positions: (n + 1, dim)."""
        width = self.cls_token.shape[-1]
        tokens = self.cls_token.new_empty(len(features) + 1, width)
        tokens[0] = self.cls_token[0, 0]  # its position is zero
        for start in range(0, len(features), ROWS):
            rows = slice(start, start + ROWS)
            projected = self.patch_embed["proj"](features[rows].to(tokens.dtype))
            tokens[1:][rows] = projected + positions(cells[rows], width).to(tokens)
        return tokens


class Layer(nn.Module):
    """Attention, then two linear layers, each after a norm and added to what came in; with norms inside (sub-LN)."""

    def __init__(self, dim: int, heads: int, segments: tuple[int, ...], ratios: tuple[int, ...]) -> None:
        super().__init__()
        self.self_attn = DilatedAttention(dim, heads, segments, ratios)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.ffn = nn.ModuleDict(
            {"fc1": nn.Linear(dim, 4 * dim), "ffn_layernorm": nn.LayerNorm(4 * dim), "fc2": nn.Linear(4 * dim, dim)}
        )
        self.final_layer_norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, dim) to (n, dim); changes what it is given."""
        tokens += self.self_attn(self.self_attn_layer_norm(tokens))
        for rows in tokens.split(ROWS):
            rows += self._forward(self.final_layer_norm(rows))
        return tokens

    def _forward(self, rows: Tensor) -> Tensor:
        hidden = functional.gelu(self.ffn["fc1"](rows))
        out: Tensor = self.ffn["fc2"](self.ffn["ffn_layernorm"](hidden))
        return out


class DilatedAttention(nn.Module):
    """Each head looks at its own share of the tokens of each segment, in several branches of segments and shares."""

    def __init__(self, dim: int, heads: int, segments: tuple[int, ...], ratios: tuple[int, ...]) -> None:
        super().__init__()
        self.heads, self.branches = heads, tuple(zip(segments, ratios, strict=True))
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.add_module(name, nn.Linear(dim, dim))
        self.inner_attn_ln = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, dim) to (n, dim)."""
        mixed = torch.empty_like(tokens)
        width = tokens.shape[1] // self.heads
        for head in range(self.heads):
            columns = slice(head * width, (head + 1) * width)
            q, k, v = (self._projected(tokens, name, columns) for name in ("q_proj", "k_proj", "v_proj"))
            mixed[:, columns] = self._attend(q, k, v, head)
        out_proj = self.get_submodule("out_proj")
        for rows in mixed.split(ROWS):
            rows.copy_(out_proj(self.inner_attn_ln(rows)))
        return mixed

    def _projected(self, tokens: Tensor, name: str, columns: slice) -> Tensor:
        layer = self.get_submodule(name)
        return functional.linear(tokens, layer.weight[columns], layer.bias[columns])  # type: ignore[index]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, head: int) -> Tensor:
        """One head: the branches' results, weighted by the sum of exponentials that each has seen."""
        top, total = q.new_full((len(q), 1), -math.inf), q.new_zeros(len(q), 1)
        mixed = torch.zeros_like(q)
        for segment, ratio in self.branches:
            offset = head // -(-self.heads // ratio)
            for where, out, seen in branch(q, k, v, segment, ratio, offset):
                highest = torch.maximum(top[where], seen)
                before, now = (top[where] - highest).exp(), (seen - highest).exp()
                mixed[where] = mixed[where] * before + out * now
                total[where] = total[where] * before + now
                top[where] = highest
        return mixed / total


def branch(
    q: Tensor, k: Tensor, v: Tensor, segment: int, ratio: int, offset: int
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """One branch of one head: within each segment, attention among every `ratio`-th token from `offset` on.

    The authors fill the last segment, and each segment to a multiple of `ratio`, with zeros that nobody masks: every
    zero key takes part in the softmax with a logit of 0 and a value of 0. Where a segment's length is no multiple of `ratio`
    (the fourth branch, beyond 185,363 tokens) later segments are put back a few tokens late. Both are as in training.

    Args:
        q: Queries of the head (n, d); k, v alike.
        k: Keys.
        v: Values.
        segment: Tokens of a segment.
        ratio: Tokens that stand for one.
        offset: Which of them.

    Yields:
        Where the result belongs, the result (m, d), logarithm of the sum of exponentials (m, 1).
    """
    n = len(q)
    segment = min(segment, n)
    filled = -(-segment // ratio) * ratio
    for number in range(-(-n // segment)):
        inside = slice(number * segment + offset, min((number + 1) * segment, n), ratio)
        where = slice(number * filled + offset, min((number + 1) * filled, n), ratio)
        wanted = len(range(where.start, where.stop, ratio))
        keys, values, queries = k[inside], v[inside], q[inside][:wanted]
        zeros = filled // ratio - len(keys)
        if wanted:
            queries = functional.pad(queries, (0, 0, 0, wanted - len(queries)))
            yield where, *attend(queries, keys, values, zeros)


def attend(queries: Tensor, keys: Tensor, values: Tensor, zeros: int) -> tuple[Tensor, Tensor]:
    """Softmax attention beside `zeros` keys and values of zero: result (m, d) and logarithm of the sum of exponentials (m, 1)."""
    if not len(keys):
        return torch.zeros_like(queries), queries.new_full((len(queries), 1), math.log(zeros))
    out, seen = torch.empty_like(queries), queries.new_empty(len(queries), 1)
    scale, step = queries.shape[1] ** -0.5, max(1, BLOCK // len(keys))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        scores = (queries[rows] * scale) @ keys.T
        top = scores.amax(1, keepdim=True)
        top = top.clamp(min=0.0) if zeros else top
        weights = scores.sub_(top).exp_()
        total = weights.sum(1, keepdim=True) + zeros * (-top).exp()
        out[rows] = (weights @ values) / total
        seen[rows] = top + total.log()
    return out, seen


def positions(cells: Tensor, dim: int) -> Tensor:
    """Sine-cosine rows for places on the grid, computed where they are needed: the whole table would take 3 GB.

    Args:
        cells: Column and row, whole numbers (n, 2).
        dim: Length of a row, a multiple of 4; the first half says the row of the grid, the second the column.

    Returns:
        float64 (n, dim).
    """
    omega = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64, device=cells.device) / (dim / 4))
    angles = [cells[:, axis].double()[:, None] * omega for axis in (1, 0)]
    return torch.cat([turn(angle) for angle in angles for turn in (torch.sin, torch.cos)], 1)


def grid_cells(coordinates: NDArray[np.integer], tile_width: float) -> NDArray[np.int64]:
    """Column and row of tiles on the grid of the network.

    Args:
        coordinates: Left and top edges in level-0 pixels (n, 2).
        tile_width: Width of a tile in level-0 pixels; need not be whole, and the edges may be rounded.

    Raises:
        SlideError: `tiling_mismatch` when the slide has more tiles in a row than the network has places.
    """
    cells = np.floor((np.asarray(coordinates, np.float64) + 0.5) / tile_width).astype(np.int64)
    if cells.size and (cells.min() < 0 or cells.max() >= GRID):
        raise SlideError(
            f"a tile lies at place {int(cells.max())} of the slide encoder's grid, which has {GRID} x {GRID}",
            reason=Reason.TILING_MISMATCH,
            remedy="Check the slide's mpp in slides.csv: no glass slide is so large.",
        )
    return cells
