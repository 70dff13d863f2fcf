"""`pathassets run --dry-run`: how many tiles, how much space, how long, before anything is done.

Belongs here: looking at slides without registering them. Does not belong: any write.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pathassets.cli.console import log_to, print_json, print_rows, say
from pathassets.cli.notes import say_notes, untrained
from pathassets.cli.running import Request, check_asked_for, check_paths, study_of
from pathassets.config import Study, check_home
from pathassets.core.geometry import tile_size
from pathassets.editing import tiling_for
from pathassets.encoders import check_device
from pathassets.errors import PathassetsError
from pathassets.recipes import Recipe, Tiling, slug
from pathassets.steps.predictions import check_classes
from pathassets.steps.session import Session

if TYPE_CHECKING:
    from pathassets.encoders.outputs import RowLayout

TRIAL_PIXELS = 32 * 224 * 224


def dry_run_study(request: Request) -> int:
    """Prints the estimate for what `run` would do; exit code 1 when some slides would be refused."""
    check_home(request.home)
    check_paths(request)
    study = study_of(request)
    log_to(None)
    check_asked_for(request, download=False)
    recipes = _wanted_recipes(study, request)
    session = Session(study)
    rows = [_estimate(session, path, recipes) for path in _files(session, request)]
    for recipe in recipes:
        check_classes(recipe, session.encoder(recipe).layout.n_classes)
    rates = {recipe.key: _tiles_per_second(session, recipe) for recipe in recipes}
    layouts = {recipe.key: session.encoder(recipe).layout for recipe in recipes}
    total = _total(rows, recipes, rates, layouts)
    devices = check_device(study.device)
    if request.as_json:
        print_json({"slides": rows, "recipes": total, "devices": devices})
    else:
        tiles = dict.fromkeys(f"tiles {recipe.tiling.name}" for recipe in recipes)
        print_rows(rows, ("file", "width_px", "height_px", "mpp", *tiles, "problem"))
        print_rows(total, ("recipe", "tiles", "GB", "minutes", "tiles_per_second"))
        say_notes(recipes)
        for warning in untrained(recipes):
            say(f"warning: {warning}")
        say(f"devices: {devices}; minutes are those of the tiles' way through the encoder")
        say("nothing was written")
    return 1 if any(row["problem"] for row in rows) else 0


def _wanted_recipes(study: Study, request: Request) -> list[Recipe]:
    """The recipes as `run` would write them, without writing them."""
    if not request.changes_recipes:
        return list(study.recipes)
    if not request.encoders:
        tiling = tiling_for(study, None, request.tile_px, request.mpp)
        return [recipe.model_copy(update={"tiling": tiling}) for recipe in study.recipes]
    weights = str(request.weights) if request.weights else None
    random = request.random_weights
    tilings = [tiling_for(study, name, request.tile_px, request.mpp) for name in request.encoders]
    return [
        Recipe(name=slug(name), tiling=tiling, encoder=name, weights=weights, random_weights=random)
        for name, tiling in zip(request.encoders, tilings, strict=True)
    ]


def _files(session: Session, request: Request) -> list[str]:
    from pathassets.steps.register import files_to_register, known_slides

    files = [found.path for found in files_to_register(session, list(request.paths)) if not found.ignored]
    if not request.paths:
        files += known_slides(session)["path"].to_list()
    return list(dict.fromkeys(files))


def _estimate(session: Session, path: str, recipes: Sequence[Recipe]) -> dict[str, Any]:
    from pathassets.slides import check_mpp, open_slide
    from pathassets.steps.sources import file_at

    row: dict[str, Any] = {"file": path, "problem": None}
    try:
        with file_at(session, path) as file, open_slide(file, mpp=session.manifest_entry(path).get("mpp")) as slide:
            info = slide.info
            row |= {"width_px": info.width_px, "height_px": info.height_px, "mpp": info.mpp}
            check_mpp(info)
            rgb = slide.read_mpp(max(session.study.tissue.mpp, info.mpp or 0))
        for recipe in recipes:
            row[f"tiles {recipe.tiling.name}"] = _count_tiles(session, rgb, info, recipe.tiling)
    except PathassetsError as error:
        row["problem"] = f"{error.message} [{error.reason}] {error.remedy}"
    return row


def _count_tiles(session: Session, rgb: np.ndarray, info: Any, tiling: Tiling) -> int:
    from pathassets.core.pieces import tissue_pieces
    from pathassets.core.tiling import grid_tiles
    from pathassets.core.tissue import find_tissue

    options = session.study.tissue
    found = find_tissue(rgb, info.width_px * info.mpp / rgb.shape[1], options)
    scale_x, scale_y = info.width_px / rgb.shape[1], info.height_px / rgb.shape[0]
    _, labels = tissue_pieces(found.mask, mpp=info.mpp, scale_x=scale_x, scale_y=scale_y, options=options)
    size = tile_size(tiling, info.mpp, info.objective_power, info.level_dimensions)
    return len(grid_tiles(info.width_px, info.height_px, size, labels, tiling.min_tissue, tiling.edge))


def _tiles_per_second(session: Session, recipe: Recipe) -> float:
    """Forward passes per second on all devices, tried on one of them with noise; reading overlaps with it."""
    encoder = session.encoder(recipe)
    height, width = recipe.tiling.tile_hw
    n = max(1, TRIAL_PIXELS // (height * width))
    tiles = np.random.default_rng(0).integers(0, 255, (n, height, width, 3), dtype=np.uint8)
    encoder(tiles[:4])
    start = time.perf_counter()
    encoder(tiles)
    return n / (time.perf_counter() - start) * len(set(encoder.devices))  # the CPU, named twice, is still one


def _total(
    rows: Sequence[dict[str, Any]], recipes: Sequence[Recipe], rates: dict[str, float], layouts: dict[str, RowLayout]
) -> list[dict[str, Any]]:
    total = []
    for recipe in recipes:
        tiles = sum(row.get(f"tiles {recipe.tiling.name}") or 0 for row in rows)
        bytes_each = layouts[recipe.key].tile_bytes(recipe.embeddings.dtype)
        rate = rates[recipe.key]
        total.append(
            {
                "recipe": recipe.key,
                "tiles": tiles,
                "GB": round(tiles * bytes_each / 1e9, 4),
                "minutes": round(tiles / rate / 60, 2),
                "tiles_per_second": round(rate, 1),
            }
        )
    return total
