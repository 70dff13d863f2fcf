"""The per-slide assets of a study: their keys, their order, and what each depends on.

Belongs here: the shape of the graph. Does not belong: how a node is computed (its own module) or shown (`defs/`).
This module is imported by every Dagster process: it loads nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pathassets.config import Study
from pathassets.encoders import knows_words
from pathassets.recipes import Options, Recipe, Tiling, TissueOptions, digest


class Step(StrEnum):
    """The steps of a slide's chain; the column `step` of `outcomes`."""

    SLIDE = "slide"
    TISSUE = "tissue"
    TILES = "tiles"
    EMBEDDINGS = "embeddings"
    SLIDE_VECTOR = "slide_vector"
    SPATIAL_DOMAINS = "spatial_domains"
    TEXT_SIMILARITY = "text_similarity"
    PREDICTIONS = "predictions"


# Raised when the numbers a step gives for the same inputs change; part of every digest downstream.
ALGORITHM_VERSIONS = {
    Step.SLIDE: 1,
    Step.TISSUE: 2,
    Step.TILES: 1,
    Step.EMBEDDINGS: 4,
    Step.SLIDE_VECTOR: 1,
    Step.SPATIAL_DOMAINS: 1,
    Step.TEXT_SIMILARITY: 1,
    Step.PREDICTIONS: 1,
}


@dataclass(frozen=True)
class Node:
    """One per-slide asset.

    Attributes:
        step: What it does.
        tiling: The tiling it belongs to; None for steps that all tilings share.
        recipe: The recipe it belongs to; None for steps that all recipes share.
        tissue: How tissue is found (all nodes of a study have the same).
        upstream: The nodes it reads.
    """

    step: Step
    tiling: Tiling | None = None
    recipe: Recipe | None = None
    tissue: TissueOptions | None = None
    upstream: tuple[Node, ...] = ()

    @property
    def key(self) -> tuple[str, ...]:
        """Asset key: `slide`, `<tiling>/tiles`, `<tiling>/<recipe>/embeddings`."""
        return (*self.scope, str(self.step))

    @property
    def scope(self) -> tuple[str, ...]:
        """The asset key's prefix."""
        if self.recipe is not None:
            return (self.recipe.tiling.name, self.recipe.name)
        return (self.tiling.name,) if self.tiling is not None else ()

    @property
    def names(self) -> tuple[str | None, str | None, str]:
        """The columns `tiling`, `recipe` and `step` of `outcomes`; None where all tilings or recipes share the step."""
        tiling = self.tiling.name if self.tiling is not None else None
        return tiling, self.recipe.key if self.recipe is not None else None, str(self.step)

    @property
    def options_digest(self) -> str:
        """Digest of the algorithm's version and options, without inputs: the start of a code version."""
        return digest(str(self.step), ALGORITHM_VERSIONS[self.step], *self._options())

    def _options(self) -> tuple[object, ...]:
        recipe = self.recipe
        if self.step is Step.TISSUE:
            return (self.tissue,)
        if self.step is Step.TILES and self.tiling is not None:
            return (self.tiling.digest(),)
        if recipe is None:
            return ()
        if self.step is Step.EMBEDDINGS:
            return (recipe.encoder, recipe.encoder_kwargs, recipe.random_weights, recipe.embeddings.made_from())
        return (recipe.vectors.asked if self.step is Step.SLIDE_VECTOR else self.step_options(recipe),)

    def step_options(self, recipe: Recipe) -> Options:
        """The options of a step after the embeddings."""
        options: dict[Step, Options] = {
            Step.SLIDE_VECTOR: recipe.vectors,
            Step.SPATIAL_DOMAINS: recipe.domains,
            Step.PREDICTIONS: recipe.predictions,
        }
        return options.get(self.step, recipe.text)


def chain(study: Study) -> tuple[Node, ...]:
    """All per-slide assets of a study, each after what it depends on."""
    slide = Node(Step.SLIDE)
    tissue = Node(Step.TISSUE, tissue=study.tissue, upstream=(slide,))
    nodes = [slide, tissue]
    for tiling in study.used_tilings:
        tiles = Node(Step.TILES, tiling=tiling, upstream=(tissue,))
        nodes.append(tiles)
        for recipe in study.recipes:
            if recipe.tiling.name == tiling.name:
                nodes += _recipe_nodes(tiling, recipe, tiles)
    return tuple(nodes)


def _recipe_nodes(tiling: Tiling, recipe: Recipe, tiles: Node) -> list[Node]:
    embeddings = Node(Step.EMBEDDINGS, tiling=tiling, recipe=recipe, upstream=(tiles,))
    steps = [Step.SLIDE_VECTOR, Step.SPATIAL_DOMAINS]
    if knows_words(recipe.encoder) and recipe.text.terms:
        steps.insert(1, Step.TEXT_SIMILARITY)  # first, so that domains have names when they are shown
    if recipe.embeddings.include_preds:
        steps.append(Step.PREDICTIONS)
    return [embeddings, *(Node(step, tiling=tiling, recipe=recipe, upstream=(embeddings,)) for step in steps)]
