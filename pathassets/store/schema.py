"""Schema: every table of a study, column by column, with units and descriptions.

Belongs here: the tables. Does not belong: what a spec can do (`spec`), files, SQL.
From here come the Parquet schema, the comments in SQL, Dagster's column schemas and `docs/data-contract.md`, which
`python -m pathassets.store.schema [FILE]` writes.
"""

from __future__ import annotations

from pathassets.core.qc import QC_COLUMNS
from pathassets.errors import Reason
from pathassets.store import card_columns
from pathassets.store.columns import FROM, MADE_BY, MADE_FROM, RECIPE, SLIDE, TILE
from pathassets.store.schema_outputs import PATCH_TOKENS, PREDICTIONS
from pathassets.store.spec import BOOL, FLOAT, FLOAT32, INT, SIZES, TEXT, TEXTS, TIME, VECTOR, Column, TableSpec

STATUSES = ("ok", "flagged", "empty", "failed")
# What may differ between runs that make the same numbers.
VOLATILE = ("run_id", "created_at", "pathassets_version")

_SLIDES = TableSpec(
    "slides",
    "Every registered file, also those that cannot be opened; columns of `slides.csv` come last",
    ("slide_id",),
    (
        SLIDE,
        Column("path", TEXT, "Where the file lies"),
        Column("size_bytes", INT, "Size of the file", "bytes", optional=True),
        Column("mtime_ns", INT, "When the file was last changed, since 1970", "ns", optional=True),
        Column(
            "content_sha256",
            TEXT,
            "Hash of the content (of samples of it, above 1 GB; of the path until it can be read)",
            optional=True,
        ),
        Column("file_version", TEXT, "State of a remote file, or of the parts of a slide of many files", optional=True),
        Column(
            "missing_since", TIME, "When the file was found gone or replaced, UTC; what it gave is kept", optional=True
        ),
        Column("other_paths", TEXTS, "Further copies of the same file", optional=True),
        Column("duplicate_of", TEXT, "The slide with the same content that was registered first", optional=True),
        Column("reader", TEXT, "What reads its pixels", optional=True),
        Column(
            "decoder",
            TEXT,
            "What decodes them: the reader, or `jpeg`, `jpeg2000` where tiles are decoded directly",
            optional=True,
        ),
        Column("vendor", TEXT, "Scanner or format as the reader names it", optional=True),
        Column("width_px", INT, "Width of level 0", "px", optional=True),
        Column("height_px", INT, "Height of level 0", "px", optional=True),
        Column("n_levels", INT, "Levels of the pyramid", optional=True),
        Column("level_dimensions", SIZES, "Width and height of every level", "px", optional=True),
        Column("objective_power", FLOAT, "Magnification of the objective", optional=True),
        Column("mpp", FLOAT, "Size of a level-0 pixel", "µm/px", optional=True),
        Column("mpp_origin", TEXT, "Where mpp comes from: manifest, vendor, tiff or power", optional=True),
        Column("associated_images", TEXTS, "Names of images beside the slide; never shown or stored", optional=True),
        *MADE_BY,
    ),
    open=True,
)

_TISSUES = TableSpec(
    "tissues",
    "Pieces of tissue on a slide",
    ("slide_id", "tissue_id"),
    (
        SLIDE,
        Column("tissue_id", INT, "Piece, counted from 0 within the slide"),
        Column("area_mm2", FLOAT, "Area without holes", "mm²"),
        Column("n_holes", INT, "Number of holes", optional=True),
        Column("geometry", TEXT, "Outline with holes: GeoJSON text in level-0 pixels"),
        Column("method", TEXT, "How tissue was told from background", optional=True),
        *MADE_BY,
    ),
)

_TILES = TableSpec(
    "tiles",
    "Tiles on tissue, with what each looks like at a glance",
    ("slide_id", "tiling", "tile_id"),
    (
        SLIDE,
        Column("tiling", TEXT, "Tiling: the first part of `recipe`"),
        TILE,
        Column("grid_row", INT, "Row in the slide's grid", optional=True),
        Column("grid_col", INT, "Column in the slide's grid", optional=True),
        Column("x_px", INT, "Left edge, level 0", "px"),
        Column("y_px", INT, "Top edge, level 0", "px"),
        Column("size_px", INT, "Edge (of an oblong tile: the width), level 0", "px"),
        Column("width_px", INT, "Width, level 0", "px", optional=True),
        Column("height_px", INT, "Height, level 0", "px", optional=True),
        Column("tissue_id", INT, "Piece of tissue that most of the tile lies on", null=True),
        Column("tissue_share", FLOAT32, "Share of the tile's area that is tissue, 0 to 1"),
        *(Column(name, FLOAT32, f"{text[0].upper()}{text[1:]}", optional=True) for name, text in QC_COLUMNS.items()),
        *MADE_BY,
    ),
)

_EMBEDDINGS = TableSpec(
    "embeddings",
    "One row per slide and recipe whose tile embeddings are finished; the vectors lie in the Zarr group at `uri`",
    ("slide_id", "recipe"),
    (
        SLIDE,
        RECIPE,
        Column("tiling", TEXT, "Tiling: the first part of `recipe`", optional=True),
        Column("encoder", TEXT, "Encoder's name", optional=True),
        Column("uri", TEXT, "Zarr group, laid out as AnnData; relative to the folder of `results.duckdb`, or absolute"),
        Column("n_tiles", INT, "Rows of the group"),
        Column("n_bad_tiles", INT, "Rows that are NaN because their pixels could not be read", optional=True),
        Column("dim", INT, "Length of an embedding"),
        Column("dtype", TEXT, "Type of the numbers on disk", choices=("float16", "float32")),
        Column("precision", TEXT, "What the encoder computed in: fp32, bf16 or fp16", null=True),
        Column("precision_cosine", FLOAT, "Least cosine to fp32 on the slide's first batch", optional=True),
        Column("precision_max_rel_error", FLOAT, "Largest error relative to fp32 there", optional=True),
        Column("batch_size", INT, "Tiles per forward pass", optional=True),
        Column("compiled", BOOL, "Whether torch had compiled the encoder", optional=True),
        Column("device", TEXT, "What it ran on", optional=True),
        Column("tile_px", INT, "Tile's edge as the encoder saw it", "px", optional=True),
        Column("mpp", FLOAT, "Resolution of the tiles", "µm/px", optional=True),
        Column("weights_sha256", TEXT, "Hash of the weights", optional=True),
        Column("random_weights", BOOL, "Whether the weights are untrained: such numbers mean nothing", optional=True),
        Column("tiles_digest", TEXT, "Digest of the rows of `tiles` that were embedded", optional=True),
        Column("seconds", FLOAT, "Time from opening the slide to the last shard", "s", optional=True),
        Column("libraries", TEXT, "Versions of the libraries that mattered, as JSON", optional=True),
        Column("digest", TEXT, "Digest of everything that the numbers depend on; names the group"),
        *MADE_BY[1:],
    ),
)

_SLIDE_VECTORS = TableSpec(
    "slide_vectors",
    "Slides, and pieces of tissue, as one vector",
    ("slide_id", "recipe", "method", "tissue_id"),
    (
        SLIDE,
        RECIPE,
        Column("method", TEXT, "How the tiles' embeddings were reduced: mean, max, median, std or a slide encoder"),
        Column("tissue_id", INT, "Piece of tissue; empty = the whole slide", null=True),
        Column("n_tiles", INT, "Tiles that went in", optional=True),
        Column("vector", VECTOR, "The vector; its length differs between recipes"),
        Column("weights_sha256", TEXT, "Hash of a slide encoder's weights; empty for reductions", optional=True),
        Column("random_weights", BOOL, "Whether those are untrained: such a vector means nothing", optional=True),
        FROM,
        *MADE_BY,
    ),
)

_DOMAINS = TableSpec(
    "domains",
    "The spatial domain of each tile",
    ("slide_id", "recipe", "variant", "tile_id"),
    (
        SLIDE,
        TILE,
        RECIPE,
        Column("variant", TEXT, "`leiden`: features as they are; `utag`: smoothed over neighbours"),
        Column("domain", INT, "Domain, counted from 0; numbers of different slides mean nothing together"),
        Column("label", TEXT, "The term that fits the domain best; empty without text", null=True),
        FROM,
        *MADE_BY,
    ),
)

_DOMAIN_SUMMARY = TableSpec(
    "domain_summary",
    "The spatial domains of a slide",
    ("slide_id", "recipe", "variant", "domain"),
    (
        SLIDE,
        RECIPE,
        Column("variant", TEXT, "As in `domains`"),
        Column("domain", INT, "As in `domains`"),
        Column("n_tiles", INT, "Tiles in it"),
        Column("share", FLOAT, "Share of the slide's tiles, 0 to 1"),
        Column("contiguity", FLOAT, "Share of its tiles' neighbours that are in it too, 0 to 1", null=True),
        Column("n_pieces", INT, "Separate pieces that it lies in", optional=True),
        Column("label", TEXT, "The term that fits best", null=True),
        Column("label_cosine", FLOAT, "Cosine of that term and the domain's mean embedding", optional=True),
        FROM,
        *MADE_BY,
    ),
)

_TEXT_SCORES = TableSpec(
    "text_scores",
    "How much each tile looks like each term",
    ("slide_id", "recipe", "tile_id", "term"),
    (
        SLIDE,
        TILE,
        RECIPE,
        Column("term", TEXT, "Term, as it stands in the settings"),
        Column("cosine", FLOAT32, "Cosine of tile and term, -1 to 1"),
        Column("probability", FLOAT32, "Softmax over the recipe's terms, 0 to 1"),
        FROM,
        *MADE_BY,
    ),
)

_OUTCOMES = TableSpec(
    "outcomes",
    "What became of each step of each slide",
    ("slide_id", "tiling", "recipe", "step"),
    (
        SLIDE,
        Column("tiling", TEXT, "Tiling; empty for steps that tilings share", optional=True),
        Column("recipe", TEXT, "Recipe; empty for steps that recipes share", null=True),
        Column("step", TEXT, "Step, as slide, tissue, tiles or embeddings"),
        Column("status", TEXT, "flagged and empty are results too", choices=STATUSES),
        Column("reason", TEXT, "Why it is not plainly ok", null=True, choices=tuple(str(r) for r in Reason)),
        Column("message", TEXT, "What happened, in a sentence", null=True),
        Column("remedy", TEXT, "What to do about it", null=True),
        Column("digest", TEXT, "Digest of everything that the step was made from", optional=True),
        Column("result_digest", TEXT, "What later steps depend on, where it is not `digest`", optional=True),
        Column("seconds", FLOAT, "How long the step took", "s", optional=True),
        *MADE_FROM,
        *MADE_BY[1:],
    ),
)

_TIMINGS = TableSpec(
    "timings",
    "Where the time went",
    ("slide_id", "recipe", "step", "stage"),
    (
        SLIDE,
        Column("recipe", TEXT, "Recipe; empty for steps that recipes share", null=True),
        Column("step", TEXT, "Step that the stage is part of", optional=True),
        Column("stage", TEXT, "Stage, as open, decode, transfer, forward or write"),
        Column("seconds", FLOAT, "Time spent, summed over threads", "s"),
        Column("tiles", INT, "Tiles worked on", null=True),
        Column("device", TEXT, "What it ran on", null=True),
        *MADE_BY[2:],
    ),
)

_DERIVED_ARRAYS = TableSpec(
    "derived_arrays",
    "Arrays made from a slide's embeddings: principal components, graph, UMAP, smoothed features",
    ("slide_id", "recipe", "step", "name"),
    (
        SLIDE,
        RECIPE,
        Column("step", TEXT, "Step that made them"),
        Column("name", TEXT, "Name of the group"),
        Column("uri", TEXT, "Zarr group, laid out as AnnData; relative to the folder of `results.duckdb`, or absolute"),
        Column("n_tiles", INT, "Rows of the group"),
        Column("contents", TEXTS, "What the group holds, as `obsm/X_pca`"),
        FROM,
        *MADE_BY,
    ),
)

_ENCODERS = TableSpec(
    "encoders", "Cards of the encoders", ("name",), (*card_columns.ENCODERS, *MADE_BY[2:]), study=True
)

_SLIDE_ENCODERS = TableSpec(
    "slide_encoders",
    "Cards of the slide encoders, those that cannot run here too",
    ("name",),
    (*card_columns.SLIDE_ENCODERS, *MADE_BY[2:]),
    study=True,
)

_TERM_EMBEDDINGS = TableSpec(
    "term_embeddings",
    "The recipes' search terms as vectors",
    ("recipe", "term"),
    (
        RECIPE,
        Column("term", TEXT, "Term, as it stands in the settings"),
        Column("vector", VECTOR, "Mean over the prompt templates, length 1"),
        Column("unknown_words", TEXTS, "Words of the term that the text tower cannot know", optional=True),
        Column("logit_scale", FLOAT, "The model's factor on cosines before a softmax", optional=True),
        Column("logit_bias", FLOAT, "Its addend, where it was trained with a sigmoid", optional=True),
        *MADE_FROM,
        *MADE_BY,
    ),
    study=True,
)

_SLIDE_MAP = TableSpec(
    "slide_map",
    "The slides' vectors laid out in two dimensions",
    ("slide_id", "recipe", "method"),
    (
        SLIDE,
        RECIPE,
        Column("method", TEXT, "pca or umap"),
        Column("x", FLOAT, "First coordinate; only distances mean something"),
        Column("y", FLOAT, "Second coordinate"),
        Column(
            "outlier_score",
            FLOAT,
            "How far its three nearest slides are: modified z-score, above 3.5 unlike all others; empty for fewer than 10 slides",
            optional=True,
        ),
        FROM,
        *MADE_FROM,
        *MADE_BY,
    ),
    study=True,
)

_COHORT_MAP = TableSpec(
    "cohort_map",
    "Tiles of all slides laid out together in two dimensions: a sample, the same number of each slide",
    ("slide_id", "recipe", "tile_id"),
    (
        SLIDE,
        TILE,
        RECIPE,
        Column("method", TEXT, "umap; pca where there are too few tiles"),
        Column("x", FLOAT, "First coordinate; only distances mean something"),
        Column("y", FLOAT, "Second coordinate"),
        FROM,
        *MADE_FROM,
        *MADE_BY,
    ),
    study=True,
)

# In the order in which the snapshot takes them: derived tables after `embeddings`.
TABLES: dict[str, TableSpec] = {
    spec.name: spec
    for spec in (
        _SLIDES, _TISSUES, _TILES, _EMBEDDINGS, _SLIDE_VECTORS, _DOMAINS, _DOMAIN_SUMMARY, _TEXT_SCORES,
        PREDICTIONS, PATCH_TOKENS,
        _OUTCOMES, _TIMINGS, _DERIVED_ARRAYS, _ENCODERS, _SLIDE_ENCODERS, _TERM_EMBEDDINGS, _SLIDE_MAP, _COHORT_MAP,
    )
}  # fmt: skip


def table_spec(name: str) -> TableSpec:
    """The table called `name`.

    Raises:
        KeyError: There is none; the message lists those there are.
    """
    if name not in TABLES:
        raise KeyError(f"no table {name!r}; there are {', '.join(TABLES)}")
    return TABLES[name]


if __name__ == "__main__":
    from pathassets.store.contract import main

    main()
