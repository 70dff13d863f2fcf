"""The page of one slide: its pixels, what lies over them, its tiles in feature space, one tile in detail.

Belongs here: the page's layout. Does not belong: what happens on it (`slide_events`), drawing (`figures/slide_view`).
"""

from __future__ import annotations

import math
from typing import Any

from dash import Dash, dcc, html

from pathassets.core import palette
from pathassets.dashboard import parts
from pathassets.dashboard.catalog import tiling_of
from pathassets.dashboard.dagster_links import Dagster, linked
from pathassets.dashboard.layers import SCALES, Choice
from pathassets.dashboard.pages import slide_events
from pathassets.dashboard.parts import Context, Query
from pathassets.dashboard.pixels import TILE_PX, n_levels
from pathassets.figures.interactive import OPACITY
from pathassets.figures.slide_view import LEGEND_ROOM
from pathassets.store import layout as layout_of

# How many tiles wide the view is when an address names a tile and no view.
TILES_ROUND = 12
KEYS = "Arrows move, + and − zoom, 0 shows all, Enter takes the tile in the middle."


def layout(context: Context, rest: str, query: Query) -> Any:
    """The page of slide `rest`.

    `view` is a recipe or a tiling, `layer` (`none` for none), `scale`, `opacity`, `least` how tiles are coloured, `piece` the
    tissue they are of, `outline=off` and `image=off` what is not shown, `tile` the one that is looked
    at, `x`, `y`, `w` the middle and the width of what is seen in level-0 px, `method` and `lasso` the map beside it.

    Raises:
        UnknownNameError: There is no such slide.
    """
    slide = context.catalog.slide(rest)
    views = context.catalog.views(rest)
    view = query["view"] if query.get("view") in views else next(iter(views), "")
    head = _head(slide, view)
    if not slide["width_px"]:
        what = "Nothing of this file's pixels is known: it could not be opened."
        return [head, parts.empty("No picture", what), _outcomes(context, rest)]
    return [
        head,
        *_pixels(context, slide),
        html.Div([_viewer(context, slide, view, query), _side(context, rest, views, view, query)], className="viewer"),
        _outcomes(context, rest),
    ]


def register(app: Dash, context: Context) -> None:
    """See `slide_events`."""
    slide_events.register(app, context)


def _head(slide: dict[str, Any], view: str) -> html.Div:
    mpp, width, height = slide["mpp"], slide["width_px"], slide["height_px"]
    told = [slide["file"]]
    if width and mpp:
        told.append(f"{width * mpp / 1000:.1f} × {height * mpp / 1000:.1f} mm")
    if width:
        told.append(f"{width:,} × {height:,} px")
    told.append(f"{mpp:.4g} µm/px" if mpp else "resolution unknown")
    if slide["vendor"]:
        told.append(slide["vendor"])
    told_and_alike: list[Any] = [" · ".join(told)]
    if "/" in view:
        alike = parts.address("/atlas", recipe=view, slide=slide["slide_id"])
        told_and_alike += [" · ", html.A("slides like it", href=alike)]
    return html.Div([html.H1(slide["slide_id"]), html.P(told_and_alike, className="summary")], className="head")


def _pixels(context: Context, slide: dict[str, Any]) -> list[Any]:
    """A word where the slide's own pixels cannot be had."""
    error = context.pool.trouble(slide["slide_id"])
    if error is None:
        return []
    why = str(error.reason).replace("_", " ")
    text = f"The slide itself cannot be shown ({why}); below is the thumbnail that was stored when it was registered. "
    return [
        html.P([text, *parts.commands("`pathassets run SLIDES` finds a file that was moved.")], className="warning")
    ]


def _viewer(context: Context, slide: dict[str, Any], view: str, query: Query) -> html.Div:
    slide_id, mpp = slide["slide_id"], slide["mpp"]
    known = {
        "slide": slide_id,
        "width": slide["width_px"],
        "height": slide["height_px"],
        "mpp": mpp,
        "levels": n_levels(slide["width_px"], slide["height_px"]),
        "tile": TILE_PX,
        "pixels": context.pool.trouble(slide_id) is None,
        "thumbnail": context.catalog.session.root.exists(layout_of.thumbnail_key(slide_id)),
        "seen": _seen(context, slide_id, view, query),
        "all": {"x": [0, LEGEND_ROOM * slide["width_px"] * (mpp or 1)], "y": [slide["height_px"] * (mpp or 1), 0]},
    }
    spoken: dict[str, Any] = {"aria-label": f"Slide {slide_id}. {KEYS}"}
    unspoken: dict[str, Any] = {"aria-hidden": "true"}
    return html.Div(
        [
            dcc.Store(id="slide-facts", data=known),
            dcc.Store(id="slide-tile", data=parts.integer(query.get("tile"))),
            dcc.Store(id="slide-lasso", data=_lasso(query.get("lasso", ""))),
            dcc.Store(id="slide-remembered"),
            html.Canvas(id="slide-canvas", **unspoken),
            dcc.Graph(id="slide-graph", config=parts.SLIDE_CONFIG, responsive=True),
            html.Div([html.Div(id="slide-bar-line"), html.Span(id="slide-bar-text")], id="slide-bar"),
        ],
        id="slide-viewer",
        tabIndex="0",
        role="application",
        **spoken,
    )


def _side(context: Context, slide_id: str, views: list[str], view: str, query: Query) -> html.Div:
    choices = context.layers.choices(slide_id, view) if view else []
    methods = [places.method for places in context.layers.places(slide_id, view)]
    keys = [choice["value"] for choice in slide_events.entries(choices)]
    layer = query["layer"] if query.get("layer") in keys else next(iter(keys), "")
    parts_of_it: list[Any] = [
        _controls(views, choices, view, layer, query, context.catalog.pieces(slide_id)),
        _map(methods, query),
        html.Section(html.Div(id="slide-card"), className="card" if choices else "none"),
    ]
    if not choices:
        what = "This slide has no tiles, so that nothing can be laid over it."
        parts_of_it.insert(0, parts.empty("No tiles", what, _remedy(context, slide_id)))
    elif not methods:
        what = "Its tiles have no embeddings, or are too few to be laid out: there is no map of them."
        parts_of_it.insert(1, parts.empty("Not in feature space", what, _remedy(context, slide_id)))
    return html.Div(parts_of_it, id="side")


def _controls(
    views: list[str], choices: list[Choice], view: str, layer: str, query: Query, pieces: list[tuple[int, float]]
) -> html.Section:
    scale = query["scale"] if query.get("scale") in SCALES else palette.SEQUENTIAL_SCALE
    opacity = _within(query.get("opacity"), 0, 100, round(100 * OPACITY))
    return html.Section(
        [
            _menu("slide-view", "Recipe", [(name, name) for name in views], view),
            _menu("slide-layer", "Tiles show",
                  [(entry["value"], entry["label"]) for entry in slide_events.entries(choices)], layer),
            html.P(id="slide-about", className="quiet"),
            _slider("slide-opacity", "Opacity (%)", opacity),
            html.Div(
                _slider("slide-least", "Hide below (% of the scale)", _within(query.get("least"), 0, 100, 0)),
                id="least",
            ),
            html.Div(_menu("slide-scale", "Colours", [(name, name) for name in SCALES], scale), id="scale"),
            _pieces(pieces, query),
            dcc.Checklist(
                id="slide-image",
                options=[{"label": "Picture of the slide", "value": "image"}],
                value=[] if query.get("image") == "off" else ["image"],
            ),
            dcc.Checklist(
                id="slide-outline",
                options=[{"label": "Outline of the tissue", "value": "tissue"}],
                value=[] if query.get("outline") == "off" else ["tissue"],
            ),
        ],
        className="controls" if choices else "controls none",
    )  # fmt: skip


def _pieces(pieces: list[tuple[int, float]], query: Query) -> html.Div:
    """One piece of tissue, or all; of a slide with one there is nothing to choose."""
    options = [("all", "all pieces"), *((str(piece), f"piece {piece}, {area:.2f} mm²") for piece, area in pieces)]
    chosen = query.get("piece", "all")
    known = chosen if chosen in dict(options) else "all"
    return _menu(
        "slide-piece", "Tissue", options if len(pieces) > 1 else options[:1], known if len(pieces) > 1 else "all"
    )


def _menu(name: str, label: str, options: list[tuple[str, str]], value: str) -> html.Div:
    entries = [{"value": key, "label": text} for key, text in options]
    menu = dcc.Dropdown(id=name, options=entries, value=value or None, clearable=False, searchable=len(entries) > 12)
    return html.Div(
        [html.Label(label, htmlFor=name), menu], className="field" + (" single" if len(entries) < 2 else "")
    )


def _slider(name: str, label: str, value: int) -> html.Div:
    slider = dcc.Slider(0, 100, 1, value=value, id=name, marks=None, updatemode="mouseup",
                        tooltip={"placement": "bottom", "always_visible": False})  # fmt: skip
    return html.Div([html.Label(label, htmlFor=name), slider], className="field")


def _map(methods: list[str], query: Query) -> html.Section:
    method = query["method"] if query.get("method") in methods else next(iter(methods), "")
    return html.Section(
        [
            html.Div(
                [
                    html.H2("Tiles in feature space"),
                    dcc.RadioItems(id="slide-method", options=[{"label": name.upper(), "value": name} for name in methods],
                                   value=method, inline=True),
                    html.Button("Clear", id="slide-clear", title="Nothing drawn around any more"),
                ],
                className="tools",
            ),
            html.P("Draw around points, or around tiles on the slide: they are shown on both and counted.", className="quiet"),
            dcc.Graph(id="slide-map", config=parts.LASSO_CONFIG, className="points"),
            html.Div(id="slide-selection"),
        ],
        className="feature-space" if methods else "feature-space none",
    )  # fmt: skip


def _remedy(context: Context, slide_id: str) -> str:
    told = context.catalog.outcomes(slide_id)
    found = [row["remedy"] for row in told.iter_rows(named=True) if row["remedy"] and row["status"] != "ok"]
    return found[0] if found else "Run `pathassets run SLIDES` to make them."


def _outcomes(context: Context, slide_id: str) -> html.Section:
    frame = context.catalog.outcomes(slide_id)
    dagster = Dagster(context.catalog.study)
    rows = [
        [linked(row["step"].replace("_", " "), dagster.asset(row["step"], row["tiling"], row["recipe"], slide_id), "in Dagster"),
         row["recipe"] or row["tiling"] or "", html.Span(row["status"], className=f"is-{row['status']}"),
         row["reason"] or "", parts.commands(row["remedy"] or ""), parts.number(row["seconds"], "s", 3),
         *([linked((row["run_id"] or "")[:8], dagster.run(row["run_id"]), "in Dagster")] if dagster.url else [])]
        for row in frame.iter_rows(named=True)
    ]  # fmt: skip
    header = ["Step", "Of", "Status", "Reason", "What to do", "Took", *(["Run"] if dagster.url else [])]
    body = (
        parts.table(header, rows) if rows else html.P(parts.commands("Nothing has been tried; `pathassets run` does."))
    )
    return html.Section([html.H2("What became of it"), body], className="outcomes")


def _seen(context: Context, slide_id: str, view: str, query: Query) -> dict[str, float] | None:
    """The part of the slide that an address asks for: middle and width in level-0 px; None = all of it."""
    x, y, w = (parts.integer(query.get(name)) for name in ("x", "y", "w"))
    if x is not None and y is not None and w:
        return {"x": x, "y": y, "w": w}
    tile_id = parts.integer(query.get("tile"))
    if tile_id is None or not view:
        return None
    tile = context.catalog.tile(slide_id, tiling_of(view), tile_id)
    half = tile["size_px"] / 2
    return {"x": tile["x_px"] + half, "y": tile["y_px"] + half, "w": TILES_ROUND * tile["size_px"]}


def _within(text: str | None, low: int, high: int, otherwise: int) -> int:
    number = parts.integer(text)
    return otherwise if number is None else min(max(number, low), high)


def _lasso(text: str) -> dict[str, Any] | None:
    """`1.5,2;3,4;...` as corners of a line on the map, `slide:...` of one on the slide; None for nonsense."""
    on, text = ("slide", text.removeprefix("slide:")) if text.startswith("slide:") else ("map", text)
    try:
        corners = [[float(part) for part in pair.split(",")] for pair in text.split(";")[:200]]
    except ValueError:
        return None
    plain = all(len(pair) == 2 and all(map(math.isfinite, pair)) for pair in corners)
    return {"on": on, "corners": corners} if plain and len(corners) > 2 else None
