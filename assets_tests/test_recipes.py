"""Recipes: names, digests, and what is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pathassets.recipes import DomainOptions, Recipe, TextOptions, Tiling, digest, slug


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"tile_px": 224, "mpp": 0.5}, "px224_mpp050"),
        ({"tile_px": 256, "power": 20}, "px256_20x"),
        ({"tile_px": 512, "level": 1}, "px512_level1"),
        ({"tile_px": 299, "tile_um": 302}, "px299_302um"),
        ({"tile_px": 299, "tile_um": "10x"}, "px299_10x"),
        ({"tile_px": (100, 200)}, "px100x200_native"),
    ],
)
def test_a_tiling_names_itself(fields, name):
    assert Tiling(**fields).name == name


def test_only_what_decides_the_tiles_is_in_a_tiling_s_digest():
    assert Tiling(name="a", mpp=0.5).digest() == Tiling(name="b", mpp=0.5).digest()
    assert Tiling(mpp=0.5).digest() != Tiling(mpp=0.5, min_tissue=0.6).digest()


@pytest.mark.parametrize(
    "fields",
    [
        {"mpp": 0.5, "power": 20},
        {"stride_px": 10, "overlap": 0.5},
        {"overlap": 1.0},
        {"tile_px": 0},
        {"tile_um": "ten"},
        {"name": "Not a Name"},
        {"name": "two__scores"},
        {"mmp": 0.5},
    ],
)
def test_impossible_tilings_are_refused(fields):
    with pytest.raises(ValidationError):
        Tiling(**fields)


def test_overlap_and_stride_say_the_same():
    assert Tiling(tile_px=224, overlap=0.5).stride_hw == Tiling(tile_px=224, stride_px=112).stride_hw == (112, 112)


def test_a_recipe_is_named_after_its_encoder():
    assert (
        Recipe(tiling=Tiling(mpp=0.5), encoder="timm/vit_small_patch16_224").key
        == "px224_mpp050/timm_vit_small_patch16_224"
    )


def test_the_tutorial_preset_can_be_refined():
    assert DomainOptions(preset="tutorial").variants == ("utag",)
    assert DomainOptions(preset="tutorial", resolution=0.5).resolution == 0.5


def test_terms_are_distinct():
    with pytest.raises(ValidationError):
        TextOptions(terms=("fat", " fat"))


def test_digests_know_order_and_are_stable():
    assert digest("a", 1) != digest(1, "a")
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    assert slug("H-optimus 0") == "h_optimus_0"
