"""Layers: what the tiles of a slide can show, and the values that show it.

Belongs here: the menu, and one layer's values in the tiles' order. Does not belong: colours and figures (`figures/`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pathassets.core import palette
from pathassets.dashboard.catalog import Catalog, UnknownNameError, tiling_of
from pathassets.figures.interactive import Layer
from pathassets.store.derived import read_array
from pathassets.store.schema import table_spec

# Even in lightness or grey: all can be read by the colour-blind.
SCALES = (palette.SEQUENTIAL_SCALE, "viridis", "greys", palette.DIVERGING_SCALE)
PCA = "pca"
# Identities and places are no quality of a tile.
_NOT_SHOWN = {"tile_id", "grid_row", "grid_col", "x_px", "y_px", "size_px", "width_px", "height_px", "tissue_id"}
# What of a component is stretched over the scale of a colour: one odd tile must not make all others grey.
_RGB_PERCENTILES = (2.0, 98.0)


@dataclass(frozen=True)
class Choice:
    """A line of the menu.

    Attributes:
        key: Stands in addresses: `domain:leiden`, `term:stroma`, `column:sharpness`, `pca`.
        title: What the user reads.
        about: What the values mean, with their unit or range.
    """

    key: str
    title: str
    about: str


@dataclass(frozen=True)
class Places:
    """Where tiles lie in feature space.

    Attributes:
        method: `umap` or `pca`.
        xy: (n, 2) in the tiles' order; NaN where a tile has no embedding.
    """

    method: str
    xy: NDArray[np.float32]


class Layers:
    """The layers of all slides.

    Args:
        catalog: Where values come from.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._array = lru_cache(8)(self._read_array)

    def choices(self, slide_id: str, view: str) -> list[Choice]:
        """The menu of a slide seen by a recipe, or by a tiling alone: domains, terms, colours of PCA, numeric columns."""
        recipe = view if "/" in view else ""
        found = [
            Choice(f"domain:{name}", f"Spatial domains ({name})", "tiles that look alike; numbers hold for this slide")
            for name in self._distinct("variant", "domains", slide_id, recipe)
        ]
        if self._catalog.derived_uri(slide_id, recipe) is not None:
            about = "first three principal components of the embeddings as red, green, blue; like colours are alike"
            found.append(Choice(PCA, "Embedding colours (PCA)", about))
        about = "probability among the study's terms, 0 to 1"
        terms = self._distinct("term", "text_scores", slide_id, recipe)
        found += [Choice(f"term:{term}", f"Looks like: {term}", about) for term in terms]
        return found + self._columns(self._catalog.tiles(slide_id, tiling_of(view)))

    def layer(self, slide_id: str, view: str, key: str, scale: str = palette.SEQUENTIAL_SCALE) -> Layer:
        """One layer, its values in the order of the slide's tiles.

        Raises:
            UnknownNameError: The slide has no such layer.
        """
        chosen = next((choice for choice in self.choices(slide_id, view) if choice.key == key), None)
        if chosen is None:
            raise UnknownNameError("layer", "Choose one in the slide's menu.")
        kind, _, name = key.partition(":")
        tiles = self._catalog.tiles(slide_id, tiling_of(view))
        if kind == "domain":
            return self._domains(slide_id, view, name, tiles)
        if kind == PCA:
            return self._colours(slide_id, view, tiles)
        scale = scale if scale in SCALES else palette.SEQUENTIAL_SCALE
        if kind == "term":
            return replace(self._term(slide_id, view, name, tiles), scale=scale)
        return Layer(scale_name(name), tiles[name].cast(pl.Float64).fill_null(float("nan")).to_numpy(), scale=scale)

    def places(self, slide_id: str, view: str) -> list[Places]:
        """The layouts of the slide's tiles that there are, UMAP first; of too few tiles all lie in one place, which is none."""
        tiles = self._catalog.tiles(slide_id, tiling_of(view))
        found = []
        for method in ("umap", "pca"):
            rows = self._derived(slide_id, view, f"obsm/X_{method}", tiles)
            if rows is not None and rows.shape[1] >= 2 and _is_spread(rows[:, :2]):
                found.append(Places(method, rows[:, :2]))
        return found

    # -- values ----------------------------------------------------------------------------------------------------

    def _distinct(self, column: str, table: str, slide_id: str, recipe: str) -> list[str]:
        sql = f"SELECT DISTINCT {column} FROM results.{table} WHERE slide_id = ? AND recipe = ? ORDER BY 1"
        return self._catalog.frame(sql, slide_id, recipe)[column].to_list()

    @staticmethod
    def _columns(tiles: pl.DataFrame) -> list[Choice]:
        """Numeric columns of `tiles` of which some value is there."""
        known = {column.name: column for column in table_spec("tiles").columns}
        return [
            Choice(f"column:{name}", name.replace("_", " ").capitalize(), known[name].comment if name in known else "")
            for name, dtype in tiles.schema.items()
            if dtype.is_numeric() and name not in _NOT_SHOWN and tiles[name].null_count() < len(tiles)
        ]

    def _domains(self, slide_id: str, recipe: str, variant: str, tiles: pl.DataFrame) -> Layer:
        sql = "SELECT tile_id, domain, label FROM results.domains WHERE slide_id = ? AND recipe = ? AND variant = ?"
        frame = self._catalog.frame(sql, slide_id, recipe, variant)
        names = dict(frame.select("domain", "label").unique().iter_rows())
        values = _by_tile(tiles, frame, "domain").fill_null(-1).to_numpy()
        return Layer(f"domain ({variant})", values, kind="domain", names=names)

    def _term(self, slide_id: str, recipe: str, term: str, tiles: pl.DataFrame) -> Layer:
        sql = "SELECT tile_id, probability FROM results.text_scores WHERE slide_id = ? AND recipe = ? AND term = ?"
        frame = self._catalog.frame(sql, slide_id, recipe, term)
        values = _by_tile(tiles, frame, "probability").cast(pl.Float64).fill_null(float("nan")).to_numpy()
        return Layer(f"{term} (probability)", values, limits=(0.0, 1.0))

    def _colours(self, slide_id: str, recipe: str, tiles: pl.DataFrame) -> Layer:
        components = self._derived(slide_id, recipe, "obsm/X_pca", tiles)
        assert components is not None
        return Layer("embedding colours", pca_colours(components), kind="rgb")

    def _derived(self, slide_id: str, recipe: str, name: str, tiles: pl.DataFrame) -> NDArray[np.float32] | None:
        """A derived array (len(tiles), k), NaN for tiles that have no row in it; None where there is none."""
        uri = self._catalog.derived_uri(slide_id, recipe)
        if uri is None:
            return None
        rows, ids = self._array(uri, name), self._array(uri, "obs/tile_id")
        place = dict(zip(tiles["tile_id"].to_list(), range(len(tiles)), strict=True))
        at = np.array([place.get(tile_id, -1) for tile_id in ids.tolist()], dtype=np.int64)
        full = np.full((len(tiles), rows.shape[1]), np.nan, dtype=np.float32)
        full[at[at >= 0]] = rows[at >= 0]
        return full

    def _read_array(self, uri: str, name: str) -> np.ndarray:
        return read_array(self._catalog.session.root, uri, name)


def pca_colours(components: NDArray[np.floating]) -> NDArray[np.float32]:
    """The first three components (n, k) as red, green, blue (n, 3), 0 to 255; a missing component is the middle."""
    colours = np.full((len(components), 3), 127.0, dtype=np.float32)
    for channel in range(min(3, components.shape[1])):
        values = components[:, channel]
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = np.percentile(finite, _RGB_PERCENTILES)
            colours[:, channel] = 255 * np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    colours[~np.isfinite(components).all(axis=1)] = np.nan
    return colours


def scale_name(column: str) -> str:
    """A column of `tiles` as people read it, with its unit, or its range, out of the schema."""
    known = {spec.name: spec for spec in table_spec("tiles").columns}.get(column)
    unit = (
        "" if known is None else known.unit or known.description.partition(";")[0].partition(", ")[2].partition(", ")[0]
    )
    name = column.replace("_", " ")
    return f"{name} ({unit})" if unit and unit != "0 and more" else name


def within(layer: Layer, shown: NDArray[np.bool_] | None) -> Layer:
    """`layer` without the tiles that are not `shown` (n,); colours mean what they meant. None = all."""
    if shown is None:
        return layer
    values = np.array(layer.values, dtype=np.float64)
    limits = (layer.limits or _limits(values)) if layer.kind == "score" else layer.limits
    values[~shown] = np.nan
    return replace(layer, values=values, limits=limits)


def at_least(layer: Layer, least: float | None) -> Layer:
    """`layer` without the tiles whose number is below `least`; domains and colours stay as they are."""
    if least is None or layer.kind != "score":
        return layer
    values = np.asarray(layer.values, dtype=np.float64)
    limits = layer.limits or _limits(values)
    return replace(layer, values=np.where(values >= least, values, np.nan), limits=limits)


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """Of all values, so that a colour means the same whatever is hidden."""
    from pathassets.figures.overlays import robust_limits

    return robust_limits(values)


def _by_tile(tiles: pl.DataFrame, frame: pl.DataFrame, column: str) -> pl.Series:
    """A column of `frame` in the order of `tiles`; null where `frame` has no row for a tile."""
    return tiles.select("tile_id").join(frame, on="tile_id", how="left", maintain_order="left")[column]


def _is_spread(xy: NDArray[np.floating]) -> bool:
    finite = xy[np.isfinite(xy).all(axis=1)]
    return len(finite) > 0 and bool((finite != finite[0]).any())


def inside(xy: NDArray[np.floating], corners: Iterable[tuple[float, float]]) -> NDArray[np.bool_]:
    """Which points (n, 2) lie in the polygon of `corners`; none for fewer than three."""
    from shapely import Polygon, contains_xy

    ring = list(corners)
    if len(ring) < 3:
        return np.zeros(len(xy), dtype=bool)
    found: NDArray[np.bool_] = contains_xy(Polygon(ring).buffer(0), xy[:, 0], xy[:, 1])
    return found & np.isfinite(xy).all(axis=1)
