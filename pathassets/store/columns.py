"""Columns that many tables share.

Belongs here: those columns. Does not belong: tables (`schema`), what a column is (`spec`).
"""

from __future__ import annotations

from pathassets.store.spec import INT, TEXT, TIME, Column

SLIDE = Column("slide_id", TEXT, "Slide: slug of the file's stem and eight hex digits of its content")
TILE = Column("tile_id", INT, "Tile, counted from 0 in grid order within slide and tiling")
RECIPE = Column("recipe", TEXT, "Recipe: `<tiling>/<name>`")
FROM = Column("embeddings_digest", TEXT, "Digest of the embeddings that this was made from")
MADE_BY = (
    Column("digest", TEXT, "Digest of everything that this row was made from", optional=True),
    Column("code_version", TEXT, "Version of the algorithm with its options", optional=True),
    Column("run_id", TEXT, "Dagster's run that wrote this row; empty outside Dagster", optional=True),
    Column("created_at", TIME, "When this row was written, UTC", optional=True),
    Column("pathassets_version", TEXT, "Version of pathassets that wrote this row", optional=True),
)
MADE_FROM = (
    Column("options", TEXT, "Options in force and the algorithm's version, as JSON", optional=True),
    Column("inputs", TEXT, "Digests of what it was made from: upstream assets, files, weights; as JSON", optional=True),
    Column("libraries", TEXT, "Versions of Python and of the libraries that mattered, as JSON", optional=True),
)
