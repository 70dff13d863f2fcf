"""Editing: recipes written into `pathassets.toml`, with its comments kept.

Belongs here: changes to the settings file. Does not belong: reading it (`config`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import tomlkit

from pathassets.config import CONFIG_FILE, Study
from pathassets.errors import ConfigError
from pathassets.recipes import Tiling, slug

# Where an encoder's weights come from: what is said of it anew takes the place of what was said before.
WEIGHTS = ("weights", "random_weights", "weights_sha256")


def add_recipes(
    home: Path,
    encoders: list[str],
    *,
    tile_px: int | None = None,
    mpp: float | None = None,
    weights: str | None = None,
    random_weights: bool = False,
    tokenizer: str | None = None,
    slide_encoder: str | None = None,
    slide_weights: str | None = None,
    replace: bool = False,
) -> list[str]:
    """Writes recipes for `encoders` into the settings file, so that the daemon, the UI and the next run know them.

    Args:
        home: The study's folder.
        encoders: Encoder names; empty = the recipes that are there, at the new tiling.
        tile_px: Tile edge in pixels; None = see `tiling_for`.
        mpp: µm per pixel; None = see `tiling_for`.
        weights: Local weight file for the (single) encoder.
        random_weights: Mark the recipes as untrained.
        tokenizer: Local tokenizer of the (single) encoder's text tower.
        slide_encoder: Slide encoder of the (single) encoder's tiles, beside the study's other methods.
        slide_weights: Its local weight file.
        replace: Drop the recipes that are there (the template's, in a new study).

    Returns:
        The keys (`<tiling>/<recipe>`) that were asked for, whether new or there already.
    """
    study = Study(home)
    given: dict[str, Any] = {}
    for name, file in (("weights", weights), ("tokenizer", tokenizer)):
        if file:
            given[name] = str(Path(file).resolve())
    if random_weights:
        given["random_weights"] = True
    if slide_encoder:
        given["vectors"] = _with_slide_encoder(study, slide_encoder, slide_weights)
    # without encoders: the recipes that are there, with all that they say, at the new tiling
    asked = [{"name": slug(name), "encoder": name} for name in encoders] or _written_recipes(study)
    tilings = [tiling_for(study, str(item["encoder"]) if encoders else None, tile_px, mpp) for item in asked]
    wanted = [{**item, "tiling": tiling.name} for item, tiling in zip(asked, tilings, strict=True)]
    _write_recipes(study, tilings, wanted, given, replace)
    return list(dict.fromkeys(f"{item['tiling']}/{item['name']}" for item in wanted))


def _with_slide_encoder(study: Study, name: str, weights: str | None) -> dict[str, Any]:
    """The study's options of slide vectors with a slide encoder more."""
    options = study.vectors
    methods = [*dict.fromkeys((*options.methods, name))]
    files = options.weights | ({name: str(Path(weights).resolve())} if weights else {})
    return {"methods": methods, **({"weights": files} if files else {})}


def tiling_for(study: Study, encoder: str | None, tile_px: int | None, mpp: float | None) -> Tiling:
    """How tiles are cut for an encoder that the command line names, or for all recipes (None).

    What the command line says comes first, then what the encoder's recipe in the settings says, then what the encoder's authors
    cut, then the study's first tiling; overlap and the like are those of the study's first tiling.
    """
    from pathassets.encoders import canonical, recommended_tiles

    first = study.recipes[0].tiling if study.recipes else next(iter(study.tilings.values()))
    if encoder is not None and tile_px is None and mpp is None:
        name = canonical(encoder)
        there = [
            recipe.tiling for recipe in study.recipes if (canonical(recipe.encoder), recipe.name) == (name, slug(name))
        ]
        if there:
            return there[0]
    authors = recommended_tiles(encoder) if encoder is not None else None
    if authors is not None:
        tile_px, mpp = tile_px or authors[0], mpp or authors[1]
    if tile_px is None and mpp is None:
        return first
    fields = first.model_dump(exclude={"name", "power", "level", "tile_um"}, exclude_defaults=True)
    asked = Tiling(**{**fields, "tile_px": tile_px or first.tile_px, "mpp": mpp or first.mpp or 0.5})
    return next((tiling for tiling in study.tilings.values() if tiling.digest() == asked.digest()), asked)


def _written_recipes(study: Study) -> list[dict[str, Any]]:
    """The file's recipes as they are written there, each with its name."""
    path = study.home / CONFIG_FILE
    written = tomlkit.parse(path.read_text(encoding="utf-8")).unwrap().get("recipes") if path.exists() else None
    items = written or [{"encoder": "demo-vlm"}]
    return [{**item, "name": item.get("name") or slug(item.get("encoder", "demo-vlm"))} for item in items]


def _write_recipes(
    study: Study, tilings: list[Tiling], wanted: list[dict[str, Any]], given: dict[str, Any], replace: bool
) -> None:
    path = study.home / CONFIG_FILE
    document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    before = tomlkit.dumps(document)
    for tiling in {tiling.name: tiling for tiling in tilings if tiling.name not in study.tilings}.values():
        table = tomlkit.table()
        for key, value in tiling.model_dump(exclude={"name"}, exclude_defaults=True).items():
            table[key] = list(value) if isinstance(value, tuple) else value
        document.setdefault("tilings", tomlkit.table(is_super_table=True))[tiling.name] = table
    if replace:
        document["recipes"] = tomlkit.aot()
    recipes = document.setdefault("recipes", tomlkit.aot())
    if not isinstance(recipes, tomlkit.items.AoT):
        raise ConfigError(f"{path}: `recipes` must be written as [[recipes]] tables", remedy="Rewrite it so.")
    known = {
        (item.get("tiling", next(iter(study.tilings))), item.get("name") or slug(item["encoder"])): item
        for item in recipes
    }
    for item in wanted:
        there = known.get((item["tiling"], item["name"]))
        if there is None:
            recipes.append(tomlkit.item({**item, **given}))
        else:
            for key in WEIGHTS if given.keys() & set(WEIGHTS) else ():
                there.pop(key, None)
            there.update(given)
    after = tomlkit.dumps(document)
    if after != before:
        temporary = path.with_suffix(".toml.tmp")
        temporary.write_text(after, encoding="utf-8")
        os.replace(temporary, path)
