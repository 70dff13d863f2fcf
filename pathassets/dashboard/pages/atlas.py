"""The page of the cohort: slides as points, tiles as a mosaic and as points, what each slide is made of.

Belongs here: the maps, shares of domains, nearest slides. Does not belong: figures (`figures/maps`, `figures/mosaic`,
`figures/shares`).
"""

from __future__ import annotations

from typing import Any

import polars as pl
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html

from pathassets.dashboard import parts, search
from pathassets.dashboard.catalog import Catalog
from pathassets.dashboard.parts import Context, Query
from pathassets.figures import maps, mosaic, shares
from pathassets.figures.cohort_pictures import read_mosaic
from pathassets.figures.interactive import safe

NEAREST = 8
MOSAIC, POINTS = "atlas-mosaic", "atlas-tiles"
# Beyond this many values a colour for each says nothing.
MAX_GROUPS = 24
_SHARES = """
    SELECT slide_id, coalesce(label, 'domain ' || domain) AS label, sum(share) AS share FROM results.domain_summary
    WHERE recipe = ? AND variant = (SELECT min(variant) FROM results.domain_summary WHERE recipe = ?) GROUP BY ALL"""
_OWN = ("vendor", "objective_power", "mpp_origin")


def layout(context: Context, rest: str, query: Query) -> Any:
    """The page; `recipe`, `method`, `colour` (a column of slides, `share:<label>` or `term:<term>`), `slide`."""
    catalog = context.catalog
    recipes = _recipes(catalog)
    if not recipes:
        what = "The slides have not been laid out yet: that takes a run over the whole study."
        return parts.empty("No map yet", what, 'Run `pathassets run --select "*"`.')
    recipe = query["recipe"] if query.get("recipe") in recipes else recipes[0]
    choices = _colours(catalog, recipe)
    colour = query.get("colour") if query.get("colour") in choices else None
    shown = _coloured(catalog, recipe, colour, choices)
    slide_id = query.get("slide")
    points = catalog.frame("SELECT slide_id, method, x, y FROM results.slide_map WHERE recipe = ?", recipe)
    methods = sorted(points["method"].unique(), key=lambda method: (method != "umap", method))
    method = query["method"] if query.get("method") in methods else methods[0]
    return [
        html.H1("Atlas"),
        _form(recipes, recipe, methods, method, choices, colour, slide_id),
        html.Div([_map(points.filter(method=method), shown), _nearest(catalog, recipe, slide_id)], className="two"),
        _tiles(context, recipe, shown),
        _shares(catalog, recipe),
    ]


def register(app: Dash, context: Context) -> None:
    """A click on a slide asks for its neighbours, one on a tile for its slide: another address."""
    app.clientside_callback(
        ClientsideFunction("pathassets", "choose_slide"),
        Output("atlas-map", "className"),
        Input("atlas-map", "clickData"),
        State("atlas-map", "className"),
        prevent_initial_call=True,
    )
    for name in (MOSAIC, POINTS):
        app.clientside_callback(
            ClientsideFunction("pathassets", "choose_tile"),
            Output(name, "className"),
            Input(name, "clickData"),
            State(name, "className"),
            prevent_initial_call=True,
        )


def _recipes(catalog: Catalog) -> list[str]:
    found = catalog.frame("SELECT DISTINCT recipe FROM results.slide_map")["recipe"].to_list()
    return [recipe for recipe in catalog.recipes() if recipe in found]


def _colours(catalog: Catalog, recipe: str) -> dict[str, str]:
    """What slides can be coloured by, key and title: columns with a few values (the manifest's first), domains, terms."""
    slides = catalog.slides()
    columns = [name for name in (*catalog.labels(), *_OWN) if 1 < slides[name].n_unique() <= MAX_GROUPS]
    labels = catalog.frame(f"SELECT DISTINCT label FROM ({_SHARES}) ORDER BY 1", recipe, recipe)["label"]
    return (
        {name: name.replace("_", " ") for name in columns}
        | {f"share:{label}": f"share of {label} (%)" for label in labels}
        | {f"term:{term}": f"looks like {term} (mean probability)" for term in search.terms_of(catalog, recipe)}
    )


def _coloured(catalog: Catalog, recipe: str, colour: str | None, titles: dict[str, str]) -> pl.DataFrame | None:
    """`slide_id` and, under its title, what slides are coloured by: text for groups, a float for a scale."""
    if colour is None:
        return None
    kind, _, name = colour.partition(":")
    if kind == "share" and name:
        sql = f"SELECT slide_id, 100.0 * share AS value FROM ({_SHARES}) WHERE label = ?"
        frame = catalog.frame(sql, recipe, recipe, name)
    elif kind == "term" and name:
        sql = "SELECT slide_id, avg(probability)::DOUBLE AS value FROM results.text_scores WHERE recipe = ? AND term = ? GROUP BY 1"
        frame = catalog.frame(sql, recipe, name)
    else:
        frame = catalog.slides().select("slide_id", pl.col(colour).cast(pl.String).alias("value"))
    return frame.rename({"value": titles[colour]})


def _form(
    recipes: list[str],
    recipe: str,
    methods: list[str],
    method: str,
    choices: dict[str, str],
    colour: str | None,
    slide_id: str | None,
) -> html.Form:
    fields = [
        parts.select("recipe", "Recipe ", [(key, key) for key in recipes], recipe),
        parts.select("method", "Layout ", [(key, key.upper()) for key in methods], method),
        parts.select("colour", "Colour ", [("", "one colour"), *choices.items()], colour or ""),
        *parts.hidden(slide=slide_id),
    ]
    return html.Form(fields, action="/atlas", method="get", className="tools")


def _map(points: pl.DataFrame, shown: pl.DataFrame | None) -> html.Section:
    points, by = points.sort("slide_id"), None
    if shown is not None:
        by = shown.columns[1]
        points = points.join(shown, on="slide_id", how="left", maintain_order="left")
    figure = maps.slide_map(points, "", by, _groups(shown)).update_layout(
        margin={"l": 10, "r": 10, "t": 10, "b": 10}, legend={"title": {"text": safe(by or "")}}
    )
    return html.Section(
        [
            dcc.Graph(id="atlas-map", figure=figure, config=parts.GRAPH_CONFIG, className="map"),
            html.P(
                "One point per slide; near points are slides that look alike. Axes have no unit.", className="quiet"
            ),
        ]
    )


def _nearest(catalog: Catalog, recipe: str, slide_id: str | None) -> html.Section:
    if slide_id is None:
        return html.Section(html.P("Click a slide for those that are most like it.", className="quiet"))
    catalog.slide(slide_id)
    rows = [
        [html.Img(src=f"/picture/{other}/thumbnail.jpg?side=160", alt=""),
         html.A(other, href=parts.slide_address(other, view=recipe)), f"{cosine:.4f}"]
        for other, cosine in search.similar_slides(catalog, recipe, slide_id, NEAREST)
    ]  # fmt: skip
    title = html.H2(["Most like ", html.A(slide_id, href=parts.slide_address(slide_id, view=recipe))])
    if not rows:
        return html.Section([title, html.P("No other slide has a mean vector by this recipe.", className="quiet")])
    return html.Section([title, parts.table(["", "Slide", "Cosine of mean vectors"], rows)])


def _groups(shown: pl.DataFrame | None) -> dict[Any, str] | None:
    """One colour for a value on all maps of the page, whichever slides they hold."""
    return None if shown is None or shown.dtypes[1].is_float() else maps.group_colours(shown.to_series(1))


def _tiles(context: Context, recipe: str, shown: pl.DataFrame | None) -> html.Section:
    """A sample of all slides' tiles: their pictures where they lie, and the same map as points."""
    parts_of_it = [part for part in (_mosaic(context, recipe), _points(context.catalog, recipe, shown)) if part]
    if not parts_of_it:
        told = parts.commands('Not laid out yet: `pathassets run --select "*"` does it, and so does the night.')
        return html.Section([html.H2("Tiles of all slides"), html.P(told, className="quiet")])
    about = "A sample of every slide's tiles, laid out by UMAP: near tiles look alike. A click leads to the slide."
    body = html.Div(parts_of_it, className="halves")
    return html.Section([html.H2("Tiles of all slides"), html.P(about, className="quiet"), body])


def _mosaic(context: Context, recipe: str) -> html.Div | None:
    found = read_mosaic(context.catalog.session, recipe)
    known = set(context.catalog.slides()["slide_id"])
    if found is None or not {slide for _, _, slide, _, _ in found.cells} <= known:
        return None  # it shows a slide that has been forgotten since
    source = parts.address(f"/picture/mosaic/{recipe}.webp", of=found.digest[:12])
    figure = mosaic.mosaic_figure(source, found.shape, found.cells)
    graph = dcc.Graph(id=MOSAIC, figure=figure, config=parts.MAP_CONFIG, className="map")
    unread = f" {found.unread} tiles could not be read." if found.unread else ""
    told = html.P(f"One tile for each place that has any.{unread}", className="quiet")
    return html.Div([graph, told])


def _points(catalog: Catalog, recipe: str, shown: pl.DataFrame | None) -> html.Div | None:
    points = catalog.frame("SELECT slide_id, tile_id, x, y FROM results.cohort_map WHERE recipe = ?", recipe)
    if points.is_empty():
        return None
    slides = points["slide_id"].n_unique()
    by = "slide_id" if slides <= MAX_GROUPS else "all"
    if shown is not None:
        by = shown.columns[1]
        points = points.join(shown, on="slide_id", how="left", maintain_order="left")
    elif by == "all":
        points = points.with_columns(all=pl.lit("all slides"))
    figure = mosaic.cohort_points(points, by, _groups(shown))
    graph = dcc.Graph(id=POINTS, figure=figure, config=parts.MAP_CONFIG, className="map")
    return html.Div([graph, html.P(f"{len(points):,} tiles of {slides:,} slides.", className="quiet")])


def _shares(catalog: Catalog, recipe: str) -> html.Section | None:
    frame = catalog.frame(_SHARES, recipe, recipe)
    if frame.is_empty():
        return None
    figure = shares.label_shares(frame)
    return html.Section(
        [
            html.H2("What slides are made of"),
            html.P("Share of a slide's tiles whose domain looks most like a term.", className="quiet"),
            dcc.Graph(id="atlas-shares", figure=figure, config=parts.GRAPH_CONFIG),
        ]
    )
