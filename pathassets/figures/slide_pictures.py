"""The pictures of a slide's assets, drawn from what the store holds; the slide itself need not be there any more.

Belongs here: which table becomes which picture, where pages are kept. Does not belong: drawing (`overlays`,
`interactive`, `maps`), telling Dagster (`defs/describe.py`).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from pathassets.core import palette
from pathassets.figures import images, interactive, overlays
from pathassets.recipes import Recipe
from pathassets.steps.embedded import recipe_of, recipe_part
from pathassets.steps.nodes import Node, Step
from pathassets.steps.session import Session
from pathassets.store import layout

QUALITY_LAYERS = ("tissue_share", "brightness", "saturation", "sharpness", "haematoxylin", "eosin", "pen_share")


def picture(session: Session, slide_id: str, node: Node) -> str | None:
    """A small picture of an asset as Markdown; None where there is nothing to show."""
    draw = _PICTURES.get(node.step)
    thumbnail = load_thumbnail(session, slide_id)
    if draw is None or thumbnail is None:
        return None
    image = draw(session, slide_id, node, thumbnail)
    return None if image is None else images.as_markdown_image(image, f"{node.step} of {slide_id}")


def load_thumbnail(session: Session, slide_id: str) -> np.ndarray | None:
    """The stored thumbnail, uint8 (h, w, 3)."""
    from PIL import Image

    data = session.root.read_if_there(layout.thumbnail_key(slide_id))
    return None if data is None else np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def write_page(session: Session, slide_id: str, recipe: Recipe) -> str | None:
    """Writes the slide's interactive overlay; its absolute path, or None where there is nothing to lay over."""
    rgb = load_thumbnail(session, slide_id)
    tiles = session.tables.read("tiles", slide_id, recipe.tiling.name)
    if rgb is None or tiles is None or tiles.is_empty():
        return None
    layers = [*_domain_layers(session, slide_id, recipe, tiles), *_term_layers(session, slide_id, recipe, tiles)]
    layers += [interactive.Layer(name, tiles[name].to_numpy()) for name in QUALITY_LAYERS]
    figure = interactive.slide_overlay(rgb, tiles, layers, _size(session, slide_id), _mpp(session, slide_id), slide_id)
    script = layout.figure_key(None, interactive.PLOTLY_FILE)
    if not session.root.exists(script):
        session.root.put(script, interactive.plotly_script().encode())
    key = layout.figure_key(slide_id, f"{recipe_part(recipe)}.html")
    html = interactive.page(figure, slide_id, script=f"../study/{interactive.PLOTLY_FILE}")
    session.root.put_if_changed(key, html.encode())
    return session.root.address(key)


def map_picture(session: Session, recipe: Recipe) -> str | None:
    """The slide map as Markdown; None where no slide was laid out."""
    from pathassets.figures.named_map import named_map

    frame = session.tables.read("slide_map", None, recipe_part(recipe))
    if frame is None or frame.is_empty():
        return None
    method = "umap" if (frame["method"] == "umap").any() else "pca"
    picture, _ = named_map(frame.filter(frame["method"] == method), method)
    return images.as_markdown_image(picture, f"slides, {method}")


def _slide(session: Session, slide_id: str, node: Node, rgb: np.ndarray) -> bytes:
    return overlays.thumbnail(rgb)


def _tissue(session: Session, slide_id: str, node: Node, rgb: np.ndarray) -> bytes | None:
    from shapely import from_geojson

    frame = session.tables.read("tissues", slide_id)
    if frame is None:
        return None
    return overlays.tissue(rgb, [from_geojson(text) for text in frame["geometry"]], _size(session, slide_id))


def _tiles(session: Session, slide_id: str, node: Node, rgb: np.ndarray) -> bytes | None:
    assert node.tiling is not None
    tiles = session.tables.read("tiles", slide_id, node.tiling.name)
    if tiles is None or tiles.is_empty():
        return None
    return overlays.scores(rgb, tiles, tiles["sharpness"].to_numpy(), _size(session, slide_id), "sharpness")


def _spatial_domains(session: Session, slide_id: str, node: Node, rgb: np.ndarray) -> bytes | None:
    recipe = recipe_of(node)
    tiles = session.tables.read("tiles", slide_id, recipe.tiling.name)
    layers = _domain_layers(session, slide_id, recipe, tiles) if tiles is not None else []
    if tiles is None or not layers:
        return None
    return overlays.domains(rgb, tiles, layers[0].values, _size(session, slide_id), layers[0].names)


def domains_painted(session: Session, slide_id: str, recipe: Recipe, rgb: np.ndarray) -> np.ndarray | None:
    """Domains over the picture `rgb` of a slide, without a legend; None where there are none."""
    tiles = session.tables.read("tiles", slide_id, recipe.tiling.name)
    layers = _domain_layers(session, slide_id, recipe, tiles) if tiles is not None else []
    if tiles is None or not layers:
        return None
    numbers = np.asarray(layers[0].values, np.int64)
    return overlays.paint(rgb, tiles, palette.domain_rgb(numbers), _size(session, slide_id), numbers >= 0)


def _text_similarity(session: Session, slide_id: str, node: Node, rgb: np.ndarray) -> bytes | None:
    """The term that this slide has most of."""
    recipe = recipe_of(node)
    tiles = session.tables.read("tiles", slide_id, recipe.tiling.name)
    layers = _term_layers(session, slide_id, recipe, tiles) if tiles is not None else []
    if tiles is None or not layers:
        return None
    best = max(layers, key=lambda layer: float(np.nanmean(np.asarray(layer.values))))
    return overlays.scores(rgb, tiles, best.values, _size(session, slide_id), best.name, (0.0, 1.0))


_PICTURES: dict[Step, Callable[[Session, str, Node, np.ndarray], bytes | None]] = {
    Step.SLIDE: _slide,
    Step.TISSUE: _tissue,
    Step.TILES: _tiles,
    Step.SPATIAL_DOMAINS: _spatial_domains,
    Step.TEXT_SIMILARITY: _text_similarity,
}


def _domain_layers(session: Session, slide_id: str, recipe: Recipe, tiles: pl.DataFrame) -> list[interactive.Layer]:
    """One layer for each variant; tiles without a domain have -1."""
    domains = session.tables.read("domains", slide_id, recipe_part(recipe))
    if domains is None:
        return []
    layers = []
    for (variant,), frame in domains.group_by("variant", maintain_order=True):
        names = dict(frame.select("domain", "label").unique().iter_rows())
        values = _by_tile(tiles, frame, "domain").fill_null(-1).to_numpy()
        layers.append(interactive.Layer(f"domains ({variant})", values, kind="domain", names=names))
    return layers


def _term_layers(session: Session, slide_id: str, recipe: Recipe, tiles: pl.DataFrame) -> list[interactive.Layer]:
    """One layer of probabilities for each term; tiles without scores have NaN."""
    scores = session.tables.read("text_scores", slide_id, recipe_part(recipe))
    if scores is None:
        return []
    layers = []
    for (term,), frame in scores.group_by("term", maintain_order=True):
        values = _by_tile(tiles, frame, "probability").fill_null(float("nan")).to_numpy()
        layers.append(interactive.Layer(str(term), values, limits=(0.0, 1.0)))
    return layers


def _by_tile(tiles: pl.DataFrame, frame: pl.DataFrame, column: str) -> pl.Series:
    """A column of `frame` in the order of `tiles`; null where `frame` has no row for a tile."""
    return tiles.select("tile_id").join(frame, on="tile_id", how="left", maintain_order="left")[column]


def _size(session: Session, slide_id: str) -> tuple[int, int]:
    row = session.slide_row(slide_id)
    return row["width_px"], row["height_px"]


def _mpp(session: Session, slide_id: str) -> Any:
    return session.slide_row(slide_id)["mpp"]
