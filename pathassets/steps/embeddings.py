"""Step `embeddings`: a slide's tiles through the encoder into Zarr, resumed where it was interrupted.

Belongs here: choosing the plan, what happens when it does not hold (memory, overflow), publishing the row.
Does not belong: the stream from pixels to shards (`engine/`).
"""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

import polars as pl

from pathassets.encoders import get_card
from pathassets.engine import EmbedPlan, EmbedResult, PlanError, embed_slide
from pathassets.errors import Reason
from pathassets.recipes import EmbeddingOptions, Recipe, digest
from pathassets.steps.chain import Made
from pathassets.steps.embedded import embeddings_row, recipe_of, recipe_part
from pathassets.steps.nodes import Node
from pathassets.steps.outcomes import Status
from pathassets.steps.session import Session
from pathassets.steps.tiles import slide_tile_size
from pathassets.store.arrays import EmbeddingsWriter
from pathassets.store.groups import is_done, key_of

LIBRARIES = ("torch", "timm", "openslide-python", "openslide-bin", "tifffile", "imagecodecs", "zarr", "numpy")


def inputs(session: Session, slide_id: str, node: Node) -> tuple[Any, ...]:
    """The weights."""
    return (session.weights_sha256(recipe_of(node)),)


def is_stored(session: Session, slide_id: str, node: Node) -> bool:
    """Whether the row is there and its group is finished; a slide without tiles has neither."""
    recipe = recipe_of(node)
    if not session.tables.exists("embeddings", slide_id, recipe_part(recipe)):
        return False
    row = embeddings_row(session, slide_id, recipe)
    return row is None or is_done(session.root, key_of(session.root, row["uri"]))


def make(session: Session, slide_id: str, node: Node, result_digest: str) -> Made:
    """Embeds the slide's tiles and publishes the row of `embeddings`.

    Raises:
        SlideError: Too many tiles cannot be read.
        EncoderError: The encoder cannot be had, or gives numbers that are none.
    """
    recipe = recipe_of(node)
    tiles = session.tables.read("tiles", slide_id, recipe.tiling.name)
    if tiles is None or tiles.is_empty():
        session.tables.write("embeddings", [], slide_id=slide_id, part=recipe_part(recipe))
        return Made(Status.EMPTY, Reason.NO_TILES, "the slide has no tiles to embed")
    options = _options(session, recipe)
    plan = EmbedPlan.of(options, session.encoder(recipe))
    while True:
        made_from = digest(result_digest, *plan.digest_parts())
        try:
            result, writer = _embed(session, slide_id, recipe, tiles, plan, made_from)
            break
        except PlanError as error:  # out of memory, overflow: the slide starts anew under a plan that can hold
            plan = error.next_plan
    _publish(session, slide_id, recipe, tiles, result, writer, made_from)
    return _verdict(result, plan, options, made_from)
