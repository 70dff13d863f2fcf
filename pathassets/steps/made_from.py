"""Made from: what a step's outcome says of its making: options, inputs, versions.

Belongs here: naming what a digest covers, so that a later reader can say what has changed. Does not belong: the digest
itself (`chain`), reading it back (`provenance`).
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pathassets.recipes import Recipe
from pathassets.steps.nodes import ALGORITHM_VERSIONS, Node, Step

Key = tuple[str, ...]

# What `inputs` of each step's module gives besides the upstream results, in its order.
OWN_INPUTS = {
    Step.SLIDE: ("content_sha256", "file_is_there", "manifest"),
    Step.TISSUE: ("mask_sha256",),
    Step.TILES: ("quality_mpp",),
    Step.EMBEDDINGS: ("weights_sha256",),
    Step.SLIDE_VECTOR: ("slide_weights",),  # where there is a slide encoder
    Step.SPATIAL_DOMAINS: (),
    Step.TEXT_SIMILARITY: ("term_embeddings",),
    Step.PREDICTIONS: ("class_names",),
}
_PIXELS = ("openslide-python", "openslide-bin", "tifffile", "imagecodecs", "simplejpeg", "numpy")
_NETWORK = ("torch", "torchvision", "timm")
_WORDS = ("tokenizers", "sentencepiece", "transformers")
LIBRARIES = {
    Step.SLIDE: _PIXELS,
    Step.TISSUE: (*_PIXELS, "pillow", "scikit-image", "scipy", "shapely"),
    Step.TILES: (*_PIXELS, "scikit-image", "scipy", "polars"),
    Step.EMBEDDINGS: (*_PIXELS, *_NETWORK, "zarr"),
    Step.SLIDE_VECTOR: ("numpy", "zarr", "torch"),
    Step.SPATIAL_DOMAINS: (
        "numpy", "scipy", "scanpy", "anndata", "igraph", "scikit-learn", "umap-learn", "pynndescent", "zarr",
    ),
    Step.TEXT_SIMILARITY: ("numpy", "zarr", *_NETWORK, *_WORDS),
    Step.PREDICTIONS: ("numpy", "zarr"),
}  # fmt: skip
TERMS_LIBRARIES = ("numpy", *_NETWORK, *_WORDS)
MAP_LIBRARIES = ("numpy", "scikit-learn", "umap-learn", "pynndescent")
COHORT_MAP_LIBRARIES = (*MAP_LIBRARIES, "scanpy", "anndata", "scipy", "zarr")


def options_of(node: Node) -> dict[str, Any]:
    """The options in force for a node, and the version of its algorithm; more than its digest covers, never less."""
    return {"algorithm_version": ALGORITHM_VERSIONS[node.step], **_settings(node)}


def _settings(node: Node) -> dict[str, Any]:
    recipe = node.recipe
    if node.tissue is not None:
        return node.tissue.model_dump(mode="json")
    if recipe is None:
        return node.tiling.model_dump(mode="json", exclude={"name"}) if node.tiling is not None else {}
    if node.step is Step.EMBEDDINGS:
        return encoder_settings(recipe) | recipe.embeddings.model_dump(mode="json")
    if node.step is Step.SLIDE_VECTOR:
        return recipe.vectors.asked
    return node.step_options(recipe).model_dump(mode="json")


def encoder_settings(recipe: Recipe) -> dict[str, Any]:
    """Which encoder a recipe asks for."""
    return recipe.model_dump(mode="json", include={"encoder", "encoder_kwargs", "random_weights"})


def inputs_of(step: Step, upstream: Mapping[Key, str], own: Sequence[Any]) -> dict[str, Any]:
    """What a result is made from besides its options, by name: upstream results by asset key, then the step's own."""
    names = OWN_INPUTS.get(step, ())
    own_names = names if len(names) == len(own) else [f"input_{number}" for number in range(len(own))]
    return {"/".join(key): upstream[key] for key in sorted(upstream)} | dict(zip(own_names, own, strict=True))


def as_json(value: Mapping[str, Any]) -> str:
    """One text for equal values, so that a column holds few different ones."""
    return json.dumps(value, sort_keys=True, default=str)


@cache
def library_versions(names: tuple[str, ...]) -> str:
    """Versions of Python and of libraries, as JSON; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return as_json(found)
