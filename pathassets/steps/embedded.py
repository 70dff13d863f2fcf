"""What the steps after the embeddings have in common: finding them, and the tiles that count.

Belongs here: reading. Does not belong: making embeddings (`embeddings`).
"""

from __future__ import annotations

from typing import Any

from pathassets.recipes import Recipe
from pathassets.steps.nodes import Node
from pathassets.steps.session import Session
from pathassets.store import layout
from pathassets.store.arrays import Embeddings, read_embeddings


def recipe_of(node: Node) -> Recipe:
    """The recipe of a node that has one."""
    assert node.recipe is not None
    return node.recipe


def recipe_part(recipe: Recipe) -> str:
    """The part of a table that holds a recipe's rows."""
    return layout.recipe_part(recipe.key)


def embeddings_row(session: Session, slide_id: str, recipe: Recipe) -> dict[str, Any] | None:
    """The slide's row of `embeddings`; None where it has no tiles."""
    frame = session.tables.read("embeddings", slide_id, recipe_part(recipe))
    return None if frame is None or frame.is_empty() else frame.row(0, named=True)


def lies_first(session: Session, row: dict[str, Any], made_from: str, name: str) -> bool:
    """Whether a row names the first place of a group, so that the group is made again in the second."""
    return session.root.key_of(row["uri"]) == layout.group_places(row["slide_id"], made_from, name)[0]


def open_embeddings(session: Session, row: dict[str, Any]) -> Embeddings:
    """The arrays that a row of `embeddings` speaks of."""
    return read_embeddings(session.root, row["uri"])
