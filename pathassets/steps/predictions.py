"""Step `predictions`: what the encoder's own classifier says of each tile, as rows.

Belongs here: names of classes, how many of them become rows. Does not belong: the probabilities, which the forward pass of
`embeddings` has left beside the vectors: no tile is read again, and other names or another `top_k` cost no forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from pathassets.encoders.class_names import class_names
from pathassets.errors import EncoderError, Reason
from pathassets.recipes import Recipe
from pathassets.steps.chain import Made
from pathassets.steps.embedded import embeddings_row, open_embeddings, recipe_of, recipe_part
from pathassets.steps.nodes import Node
from pathassets.steps.outcomes import Status
from pathassets.steps.session import Session, made_by

# A thousand classes are a hundred million rows for a large slide, of which hardly one is looked at.
MAX_CLASSES = 32


def inputs(session: Session, slide_id: str, node: Node) -> tuple[Any, ...]:
    """The names that the weights bring, where the settings have none."""
    return (list(told_names(recipe_of(node))),)


def is_stored(session: Session, slide_id: str, node: Node) -> bool:
    """Whether the rows are there."""
    return session.tables.exists("predictions", slide_id, recipe_part(recipe_of(node)))


def make(session: Session, slide_id: str, node: Node, result_digest: str) -> Made:
    """Writes the table `predictions` of the tiles that count.

    Raises:
        EncoderError: `config_invalid` when there are other classes than the settings name, or too many for a table.
    """
    recipe = recipe_of(node)
    part, row = recipe_part(recipe), embeddings_row(session, slide_id, recipe)
    if row is None:
        session.tables.write("predictions", [], slide_id=slide_id, part=part)
        return Made(Status.EMPTY, Reason.NO_TILES, "the slide has no tiles to classify")
    embeddings = open_embeddings(session, row)
    ok = embeddings.ok
    probabilities = np.concatenate(list(embeddings.iter_predictions()))[ok]
    names = names_for(recipe, probabilities.shape[1])
    frame = prediction_rows(embeddings.obs["tile_id"].to_numpy()[ok], probabilities, names, recipe.predictions.top_k)
    named = {"slide_id": slide_id, "recipe": recipe.key, "embeddings_digest": row["digest"]}
    named |= made_by(session, node, result_digest)
    constants = [pl.lit(value, dtype=pl.String).alias(name) for name, value in named.items()]
    session.tables.write("predictions", frame.with_columns(constants), slide_id=slide_id, part=part)
    return Made()


def prediction_rows(
    tile_ids: np.ndarray, probabilities: np.ndarray, names: Sequence[str], top_k: int | None
) -> pl.DataFrame:
    """`tile_id`, `class`, `probability`, tile by tile: all classes in their order, or the most probable ones first.

    Args:
        tile_ids: (n,).
        probabilities: (n, classes).
        names: Of the classes.
        top_k: How many to keep; None = all. Of equal ones the first count.
    """
    n_kept = min(top_k or len(names), len(names))
    if top_k is None:
        places = np.broadcast_to(np.arange(len(names)), probabilities.shape)
    else:
        places = np.argsort(-probabilities, axis=1, kind="stable")[:, :n_kept]
    return pl.DataFrame(
        {
            "tile_id": np.repeat(tile_ids, n_kept),
            "class": pl.Series(list(names), dtype=pl.String).gather(places.ravel()),
            "probability": np.take_along_axis(probabilities, places, axis=1).ravel(),
        }
    )


def check_classes(recipe: Recipe, n_classes: int) -> None:
    """Refuses, before a slide is read, what could not become rows after it.

    Raises:
        EncoderError: `config_invalid` when there are other classes than the settings name, or too many for a table.
    """
    if not recipe.embeddings.include_preds:
        return
    named = len(recipe.predictions.classes)
    if named and named != n_classes:
        raise _invalid(
            f"{recipe.key} names {named} classes, and {recipe.encoder} has {n_classes}",
            "Name all of them, in the order of the network's, in `predictions.classes`.",
        )
    if n_classes > MAX_CLASSES and recipe.predictions.top_k is None:
        raise _invalid(
            f"{recipe.encoder} has {n_classes} classes: the table would have as many rows for each tile",
            'Set `predictions = {top_k = 5}`; all probabilities are in the embeddings\' `obsm["predictions"]` anyway.',
        )


def names_for(recipe: Recipe, n_classes: int) -> tuple[str, ...]:
    """Names of so many classes: the settings', those that the weights bring if they fit, or numbered ones.

    Raises:
        EncoderError: As `check_classes`.
    """
    check_classes(recipe, n_classes)
    told = recipe.predictions.classes or told_names(recipe)
    return told if len(told) == n_classes else tuple(f"class_{number}" for number in range(n_classes))


def told_names(recipe: Recipe) -> tuple[str, ...]:
    """The names that the weights bring; none where the settings have some, or the weights are random."""
    if recipe.predictions.classes or recipe.random_weights:
        return ()
    return class_names(recipe.encoder, weights=recipe.weights, encoder_kwargs=recipe.encoder_kwargs)


def _invalid(message: str, remedy: str) -> EncoderError:
    return EncoderError(message, reason=Reason.CONFIG_INVALID, remedy=remedy)
