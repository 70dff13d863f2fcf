"""Notes: what a user has to know of the encoders before their numbers are believed.

Belongs here: terms of weights, untrained weights, tiles that a network was not trained on, in words. Does not belong: refusing
anything.
"""

from __future__ import annotations

from collections.abc import Iterable

from pathassets.cli.console import say
from pathassets.recipes import Recipe

MEANS_NOTHING = "random weights, so that its results mean nothing"


def say_notes(recipes: Iterable[Recipe]) -> None:
    """Says, before the work, what nothing else would show."""
    from pathassets.encoders import get_card, unlike_authors
    from pathassets.encoders.licences import asks_something

    for recipe in _each(recipes):
        unlike = unlike_authors(recipe.encoder, recipe.tiling)
        if unlike:
            say(f"note: {unlike}")
        terms = None if recipe.random_weights else asks_something(get_card(recipe.encoder, recipe.encoder_kwargs))
        if terms:
            say(f"note: {terms}")


def untrained(recipes: Iterable[Recipe]) -> list[str]:
    """A line for each recipe whose weights are random."""
    return [f"{recipe.key}: {recipe.encoder} has {MEANS_NOTHING}" for recipe in _each(recipes) if recipe.random_weights]


def _each(recipes: Iterable[Recipe]) -> list[Recipe]:
    return list({recipe.key: recipe for recipe in recipes}.values())
