"""What happens on a slide's page: choosing a layer, a tile, a group of tiles.

Belongs here: callbacks, each a question and a piece of page. Does not belong: the page's layout (`slide`), what the browser
does alone (`assets/viewer.js`).

A browser sends what it likes: everything is looked up again.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import polars as pl
from dash import ClientsideFunction, Dash, Input, Output, State, ctx, html, no_update
from numpy.typing import NDArray

from pathassets.dashboard import parts, search
from pathassets.dashboard.catalog import UnknownNameError, tiling_of
from pathassets.dashboard.layers import Choice, Places, at_least, inside, scale_name, within
from pathassets.dashboard.parts import Context
from pathassets.figures import slide_view
from pathassets.figures.interactive import Layer
from pathassets.figures.overlays import domain_title, robust_limits
from pathassets.store.arrays import tile_centres

NEIGHBOURS = 6
NO_LAYER = "none"
_CHOICES = ("view", "layer", "scale", "opacity", "least", "outline", "method", "piece", "image")
_SLIDE = State("slide-facts", "data")


def entries(choices: list[Choice]) -> list[dict[str, str]]:
    """The menu of layers, and the line for none."""
    found = [{"value": choice.key, "label": choice.title} for choice in choices]
    return [*found, {"value": NO_LAYER, "label": "Nothing"}] if found else []


def register(app: Dash, context: Context) -> None:
    """Adds the page's callbacks."""
    events = Events(context)
    view, layer, tile = Input("slide-view", "value"), Input("slide-layer", "value"), Input("slide-tile", "data")
    scale, least, lasso = Input("slide-scale", "value"), Input("slide-least", "value"), Input("slide-lasso", "data")
    method, piece = Input("slide-method", "value"), Input("slide-piece", "value")
    app.callback(
        Output("slide-layer", "options"), Output("slide-layer", "value"), view, State("slide-layer", "value"), _SLIDE,
        prevent_initial_call=True,
    )(events.menu)  # fmt: skip
    app.callback(
        Output("slide-graph", "figure"), Output("slide-about", "children"), view, layer, scale, least,
        Input("slide-outline", "value"), lasso, tile, piece, State("slide-opacity", "value"), State("slide-method", "value"), _SLIDE,
    )(events.picture)  # fmt: skip
    app.callback(Output("slide-map", "figure"), view, layer, scale, least, method, tile, piece, lasso, _SLIDE)(
        events.map
    )
    app.callback(
        Output("slide-tile", "data"), Input("slide-graph", "clickData"), Input("slide-map", "clickData"),
        State("slide-view", "value"), State("slide-method", "value"), _SLIDE, prevent_initial_call=True,
    )(events.click)  # fmt: skip
    app.callback(Output("slide-card", "children"), tile, view, _SLIDE)(events.card)
    app.callback(Output("slide-selection", "children"), lasso, view, method, piece, _SLIDE)(events.selection)
    _browser(app)


def _browser(app: Dash) -> None:
    """What needs no server."""
    app.clientside_callback(
        ClientsideFunction("pathassets", "draw"), Output("slide-remembered", "data"),
        Input("slide-graph", "figure"), Input("slide-facts", "data"), Input("slide-opacity", "value"),
        Input("slide-layer", "value"), Input("slide-image", "value"),
    )  # fmt: skip
    app.clientside_callback(
        ClientsideFunction("pathassets", "lasso"), Output("slide-lasso", "data"), Input("slide-map", "selectedData"),
        Input("slide-graph", "selectedData"), _SLIDE, State("slide-lasso", "data"), prevent_initial_call=True,
    )  # fmt: skip
    app.clientside_callback(
        ClientsideFunction("pathassets", "clear"), Output("slide-lasso", "data", allow_duplicate=True),
        Output("slide-map", "selectedData"), Output("slide-graph", "selectedData"), Input("slide-clear", "n_clicks"),
        prevent_initial_call=True,
    )  # fmt: skip
    app.clientside_callback(
        ClientsideFunction("pathassets", "remember_slide"), Output("slide-remembered", "storage_type"),
        *(Input(f"slide-{name}", "value") for name in _CHOICES),
        Input("slide-tile", "data"), Input("slide-lasso", "data"), prevent_initial_call=True,
    )  # fmt: skip


class Events:
    """The callbacks' bodies.

    Args:
        context: What every page gets.
    """

    def __init__(self, context: Context) -> None:
        self._context, self._catalog, self._layers = context, context.catalog, context.layers
        self._outlines = lru_cache(8)(self._read_outlines)

    def menu(self, view: str, key: str, slide: dict[str, Any]) -> tuple[list[dict[str, str]], str | None]:
        """Layers of another recipe; the one that is shown stays, where that recipe has it too."""
        choices = self._layers.choices(self._id(slide), self._known(slide, view))
        options = entries(choices)
        keys = [option["value"] for option in options]
        return options, key if key in keys else next(iter(keys), None)

    def picture(
        self, view: str | None, key: str | None, scale: str, least: int, outline: list[str], lasso: Any, tile: int | None,
        piece: str, opacity: int, method: str, slide: dict[str, Any],
    ) -> tuple[Any, str]:  # fmt: skip
        """What lies over the slide, and a word about it."""
        slide_id = self._id(slide)
        row = self._catalog.slide(slide_id)
        tiles = self._tiles(slide, view)
        layer, about = self._layer(slide, view, key, scale, least, piece)
        figure = slide_view.slide_view(
            tiles,
            layer,
            (row["width_px"], row["height_px"]),
            row["mpp"],
            opacity=(opacity or 0) / 100,
            pieces=self._shown(slide_id, piece) if outline else (),
            selected=self._selected(slide, view, method, lasso, piece),
            around=_drawn(lasso, "slide"),
            marked=_row_of(tiles, tile),
        )
        return figure, about

    def map(
        self,
        view: str | None,
        key: str | None,
        scale: str,
        least: int,
        method: str,
        tile: int | None,
        piece: str,
        lasso: Any,
        slide: dict[str, Any],
    ) -> Any:
        """The slide's tiles in feature space, with the line that was drawn around some, here or on the slide."""
        places, on_slide = self._places(slide, view, method), _drawn(lasso, "slide")
        drawn_here = ctx.triggered_id == "slide-lasso" and _drawn(lasso, "map")
        if places is None or drawn_here:  # the browser shows already what it has drawn
            return no_update
        layer, _ = self._layer(slide, view, key, scale, least, piece)
        marked = _row_of(self._tiles(slide, view), tile)
        selected = self._selected(slide, view, method, lasso, piece) if on_slide else None
        line = _drawn(lasso, "map")
        figure = slide_view.tile_map(places.xy, layer, marked, places.method.upper(), line, selected)
        return figure.update_layout(uirevision=f"{view} {places.method}")

    def click(self, on_slide: Any, on_map: Any, view: str | None, method: str, slide: dict[str, Any]) -> Any:
        """The tile that was clicked on the slide, or on the map."""
        tiles = self._tiles(slide, view)
        event = on_slide if ctx.triggered_id == "slide-graph" else on_map
        point = ((event or {}).get("points") or [{}])[0]
        x, y = point.get("x"), point.get("y")
        if not isinstance(x, int | float) or not isinstance(y, int | float) or tiles.is_empty():
            return no_update
        if ctx.triggered_id == "slide-graph":
            unit = slide.get("mpp") or 1.0
            return _tile_at(tiles, x / unit, y / unit)
        places = self._places(slide, view, method)
        if places is None:
            return no_update
        nearest = np.nanargmin(((places.xy - [x, y]) ** 2).sum(axis=1))
        return int(tiles["tile_id"][int(nearest)])

    def card(self, tile_id: int | None, view: str | None, slide: dict[str, Any]) -> list[Any]:
        """One tile: its picture, its numbers, the tiles of this slide that are most like it."""
        tiles = self._tiles(slide, view)
        if tile_id is None or view is None or tiles.is_empty():
            return [html.H2("One tile"), html.P("Click a tile on the slide.", className="quiet")]
        slide_id, tiling = self._id(slide), tiling_of(view)
        tile = self._catalog.tile(slide_id, tiling, tile_id)
        picture = parts.tile_image(self._context, slide_id, view, tile_id, f"Tile {tile_id}", large=True)
        numbers = parts.facts([*_place(tile, slide.get("mpp")), *self._values(slide_id, view, tile)])
        return [
            html.H2(f"Tile {tile_id}"),
            html.Div([picture, numbers], className="beside"),
            *self._alike(slide_id, view, tile_id),
        ]

    def selection(self, lasso: Any, view: str | None, method: str, piece: str, slide: dict[str, Any]) -> list[Any]:
        """How many tiles were drawn around, and of which domains they are."""
        chosen = self._selected(slide, view, method, lasso, piece)
        if chosen is None or view is None:
            return []
        tiles = self._tiles(slide, view).filter(pl.Series(chosen))
        mpp = slide.get("mpp")
        area = f", {float((tiles['width_px'] * tiles['height_px']).sum()) * (mpp / 1000) ** 2:.2f} mm²" if mpp else ""
        sql = "SELECT tile_id, variant, domain, label FROM results.domains WHERE slide_id = ? AND recipe = ?"
        frame = self._catalog.frame(sql, self._id(slide), view).join(tiles.select("tile_id"), on="tile_id", how="semi")
        counts = frame.group_by("variant", "domain", "label").len().sort("variant", "len", descending=[False, True])
        rows = [
            [row["variant"], domain_title(row["domain"], {row["domain"]: row["label"]}), f"{row['len']:,}",
             f"{100 * row['len'] / max(len(tiles), 1):.0f} %"]
            for row in counts.iter_rows(named=True)
        ]  # fmt: skip
        told = html.P(f"{len(tiles):,} tiles selected{area}")
        return [told, parts.table(["Variant", "Domain", "Tiles", "Share"], rows)] if rows else [told]

    # -- what they share -------------------------------------------------------------------------------------------

    def _id(self, slide: dict[str, Any]) -> str:
        """The slide that the browser names.

        Raises:
            UnknownNameError: There is none.
        """
        return str(self._catalog.slide(slide.get("slide", ""))["slide_id"])

    def _known(self, slide: dict[str, Any], view: str) -> str:
        if view not in self._catalog.views(self._id(slide)):
            raise UnknownNameError("recipe", "Choose one in the menu.")
        return view

    def _tiles(self, slide: dict[str, Any], view: str | None) -> pl.DataFrame:
        return self._catalog.tiles(self._id(slide), tiling_of(view or ""))

    def _layer(
        self, slide: dict[str, Any], view: str | None, key: str | None, scale: str, least: int, piece: str
    ) -> tuple[Layer | None, str]:
        """The chosen layer without what is hidden, and what it means."""
        if not view or not key or key == NO_LAYER:
            return None, ""
        choice = next((item for item in self._layers.choices(self._id(slide), view) if item.key == key), None)
        if choice is None:  # the menu still shows another recipe's
            return None, ""
        layer = within(self._layers.layer(self._id(slide), view, key, scale), self._of_piece(slide, view, piece))
        if layer.kind != "score":
            return layer, choice.about
        low, high = layer.limits or robust_limits(np.asarray(layer.values, dtype=np.float64))
        edge = low + (high - low) * (least or 0) / 100
        hidden = f"; hidden below {parts.number(edge, digits=3)}" if least else ""
        return at_least(layer, edge if least else None), f"{choice.about}{hidden}"

    def _places(self, slide: dict[str, Any], view: str | None, method: str) -> Places | None:
        if not view or "/" not in view:
            return None
        found = self._layers.places(self._id(slide), view)
        return next((places for places in found if places.method == method), next(iter(found), None))

    def _of_piece(self, slide: dict[str, Any], view: str | None, piece: str) -> NDArray[np.bool_] | None:
        """Tiles of the chosen piece of tissue; None where all are wanted."""
        number = parts.integer(str(piece))
        if number is None:
            return None
        found: NDArray[np.bool_] = (self._tiles(slide, view)["tissue_id"] == number).fill_null(False).to_numpy()
        return found

    def _shown(self, slide_id: str, piece: str) -> list[Any]:
        """Outlines of the chosen piece, or of all."""
        numbers = [number for number, _ in self._catalog.pieces(slide_id)]
        outlines = self._outlines(self._catalog.version, slide_id)
        wanted = parts.integer(str(piece))
        return [one for number, one in zip(numbers, outlines, strict=True) if wanted in (None, number)]

    def _selected(
        self, slide: dict[str, Any], view: str | None, method: str, lasso: Any, piece: str
    ) -> NDArray[np.bool_] | None:
        """Tiles inside what was drawn on the map or on the slide; None where nothing was drawn."""
        on_slide, on_map = _drawn(lasso, "slide"), _drawn(lasso, "map")
        tiles = self._tiles(slide, view)
        places = self._places(slide, view, method) if on_map else None
        if on_slide and len(tiles):
            found = inside(tile_centres(tiles), on_slide)
        elif places is not None:
            found = inside(places.xy, on_map)
        else:
            return None
        of_piece = self._of_piece(slide, view, piece)
        return found if of_piece is None else found & of_piece

    def _values(self, slide_id: str, view: str, tile: dict[str, Any]) -> list[tuple[str, str]]:
        """Domain and terms by the recipe, then the numeric columns of `tiles`."""
        at = (slide_id, view, tile["tile_id"])
        where = "WHERE slide_id = ? AND recipe = ? AND tile_id = ?"
        domains = self._catalog.frame(
            f"SELECT variant, domain, label FROM results.domains {where} ORDER BY variant", *at
        )
        sql = f"SELECT term, probability FROM results.text_scores {where} ORDER BY probability DESC LIMIT 3"
        found = [(f"domain ({v})", domain_title(d, {d: label})) for v, d, label in domains.iter_rows()]
        found += [(term, f"{score:.2f} probability") for term, score in self._catalog.frame(sql, *at).iter_rows()]
        names = [choice.key.removeprefix("column:") for choice in self._layers.choices(slide_id, view)]
        return found + [(scale_name(name), parts.number(tile[name], digits=3)) for name in names if name in tile]

    def _alike(self, slide_id: str, view: str, tile_id: int) -> list[Any]:
        if self._catalog.embeddings_row(slide_id, view) is None:
            return []
        vector = search.tile_vector(self._catalog, slide_id, view, tile_id)
        found = search.similar_tiles(self._catalog, view, vector, NEIGHBOURS, only=slide_id, but=(slide_id, tile_id))
        strip = [
            (hit.slide_id, view, hit.tile_id, f"{hit.score:.3f}", f"tile {hit.tile_id}, cosine {hit.score:.3f}")
            for hit in found.hits
        ]
        everywhere = parts.address("/search", recipe=view, slide=slide_id, tile=tile_id)
        title = html.H3(
            ["Most like it on this slide (cosine) ", html.A("more like this in all slides", href=everywhere)]
        )
        return [title, parts.tile_strip(self._context, strip)]

    def _read_outlines(self, version: str, slide_id: str) -> list[Any]:
        from shapely import from_geojson

        return [from_geojson(text) for text in self._catalog.outlines(slide_id)]


def _drawn(lasso: Any, on: str) -> list[tuple[float, float]]:
    """The corners of what was drawn on the `map` or on the `slide`; nothing for nothing, and for what is no line."""
    try:
        corners = [(float(x), float(y)) for x, y in lasso["corners"][:500]] if lasso and lasso["on"] == on else []
    except (TypeError, ValueError, KeyError):
        return []
    return corners if all(map(math.isfinite, chain.from_iterable(corners))) else []


def _row_of(tiles: pl.DataFrame, tile_id: int | None) -> int | None:
    """The row of a tile; None where there is no such tile."""
    if tile_id is None or tiles.is_empty():
        return None
    rows = (tiles["tile_id"] == tile_id).arg_true()
    return int(rows[0]) if len(rows) else None


def _tile_at(tiles: pl.DataFrame, x: float, y: float) -> int:
    """The tile whose middle is nearest to a place in level-0 px."""
    return int(tiles["tile_id"][int((((tile_centres(tiles) - [x, y]) ** 2).sum(axis=1)).argmin())])


def _place(tile: dict[str, Any], mpp: float | None) -> list[tuple[str, str]]:
    width, height = tile["width_px"] or tile["size_px"], tile["height_px"] or tile["size_px"]
    size = f"{width * mpp:.0f} × {height * mpp:.0f} µm" if mpp else f"{width} × {height} px"
    return [("left, top", f"{tile['x_px']:,}, {tile['y_px']:,} px"), ("size", size)]
