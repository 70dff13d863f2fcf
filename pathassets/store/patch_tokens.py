"""Patch tokens: what a network says of each patch of each tile, in a group beside the embeddings, shard for shard with them.

Belongs here: that group. Does not belong: the embeddings (`arrays`), whose writer drives this one: a shard's tokens are on the disk
before its embeddings are, and the group is finished before theirs is, so that embeddings that are there have their tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from pathassets.store import layout
from pathassets.store.groups import is_done, mark_done, obs_frame, write_elements
from pathassets.store.root import Root
from pathassets.store.sharded import ShardedRows

NAME = "tokens"
ELEMENT = "obsm/tokens"
Grid = tuple[int, int, int]


class PatchTokens:
    """The tokens of one slide while they are written.

    Args:
        root: The store.
        slide_id: The slide.
        digest: Of the embeddings beside which they lie.
        n_tiles: Rows.
        grid: Rows, columns and channels of a tile's tokens.
        dtype: `float16` or `float32`.
        shard_rows: Tiles per shard.
        again: Write in the second of the two places, as the embeddings are.
    """

    def __init__(
        self,
        root: Root,
        slide_id: str,
        digest: str,
        *,
        n_tiles: int,
        grid: Grid,
        dtype: str,
        shard_rows: int,
        again: bool = False,
    ) -> None:
        self.root, self.grid = root, grid
        self.group = layout.group_places(slide_id, digest, NAME)[again]
        self._facts = {"slide_id": slide_id, "digest": digest, "rows": n_tiles, "grid": list(grid), "dtype": dtype}
        shape = (n_tiles, *grid)
        self.rows = ShardedRows(root, self.group, ELEMENT, shape=shape, dtype=dtype, shard_rows=shard_rows)

    @property
    def done(self) -> bool:
        """Whether the group is finished."""
        return is_done(self.root, self.group)

    def finish(self, obs: pl.DataFrame, spatial: np.ndarray, uns: Mapping[str, Any]) -> None:
        """Writes which tiles they are, then the marker."""
        if self.done:
            return
        elements = {"obs": obs_frame(obs), "obsm/spatial": spatial, "uns": dict(uns)}
        write_elements(self.root, self.group, elements)
        mark_done(self.root, self.group, self._facts)
