"""Schema of what a forward pass gives besides the embeddings: what classifiers say, patch tokens.

Belongs here: these tables. Does not belong: all others, the list of them (`schema`).
"""

from __future__ import annotations

from pathassets.store.columns import FROM, MADE_BY, RECIPE, SLIDE, TILE
from pathassets.store.spec import FLOAT32, INT, TEXT, TEXTS, Column, TableSpec

PREDICTIONS = TableSpec(
    "predictions",
    "What the encoder's own classifier says of each tile: all classes, or the most probable ones",
    ("slide_id", "recipe", "tile_id", "class"),
    (
        SLIDE,
        TILE,
        RECIPE,
        Column("class", TEXT, "Class, as the settings or the weights call it; else `class_0` and so on"),
        Column("probability", FLOAT32, "Softmax over all classes of the network, 0 to 1"),
        FROM,
        *MADE_BY,
    ),
)

PATCH_TOKENS = TableSpec(
    "patch_tokens",
    "One row per slide and recipe whose patch tokens were kept; they lie in the Zarr group at `uri`",
    ("slide_id", "recipe"),
    (
        SLIDE,
        RECIPE,
        Column("name", TEXT, "Name of the group"),
        Column("uri", TEXT, "Zarr group, laid out as AnnData; relative to the folder of `results.duckdb`, or absolute"),
        Column("n_tiles", INT, "Rows of the group"),
        Column("grid_rows", INT, "Patches of a tile from top to bottom"),
        Column("grid_cols", INT, "Patches of a tile from left to right"),
        Column("dim", INT, "Length of a patch's vector"),
        Column("dtype", TEXT, "Type of the numbers on disk", choices=("float16", "float32")),
        Column("contents", TEXTS, "What the group holds, as `obsm/tokens`"),
        FROM,
        *MADE_BY,
    ),
)
