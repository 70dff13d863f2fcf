"""The page of tiles that are alike: like one tile, or like words.

Belongs here: the form, the strip of what was found. Does not belong: comparing (`dashboard/search`).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update

from pathassets.dashboard import parts, search
from pathassets.dashboard.catalog import Catalog, UnknownNameError, tiling_of
from pathassets.dashboard.parts import Context, Query
from pathassets.dashboard.search import Found, Hit
from pathassets.errors import PathassetsError

SHOWN = 24
# After so long a page shows what it has and goes on.
LOT_SECONDS = 1.5


def layout(context: Context, rest: str, query: Query) -> Any:
    """The page; `recipe` with `slide` and `tile`, or with `text`."""
    catalog = context.catalog
    recipes = catalog.recipes()
    if not recipes:
        what = "No slide has embeddings yet, so that nothing can be compared."
        return parts.empty("Nothing to search", what, "Run `pathassets run SLIDES`.")
    recipe = query["recipe"] if query.get("recipe") in recipes else recipes[0]
    try:
        result, found = _result(context, recipe, query, None)
    except PathassetsError as error:  # the form is what helps
        result, found = [parts.notice(error)], None
    unfinished = asdict(found) if found is not None and found.n_rest else None
    return [
        html.H1("Search"),
        _form(catalog, recipes, recipe, query),
        html.Div(result, id="search-result"),
        dcc.Store(id="search-state", data=unfinished),
        dcc.Store(id="search-next", data={"query": {**query, "recipe": recipe}, "found": None}),
    ]


def register(app: Dash, context: Context) -> None:
    """A search that takes long goes on in lots, each of which shows what was found so far and how much is left."""
    app.clientside_callback(
        ClientsideFunction("pathassets", "go_on"),
        Output("search-state", "storage_type"),
        Input("search-state", "data"),
        State("search-next", "data"),
    )
    app.callback(
        Output("search-result", "children"),
        Output("search-state", "data"),
        Input("search-next", "data"),
        prevent_initial_call=True,
    )(lambda asked: go_on(context, asked))


def go_on(context: Context, asked: Any) -> tuple[Any, Any]:
    """The next lot of a search: what to show, and where it stands; None when it is over.

    Args:
        context: What every page gets.
        asked: What a page of ours keeps: the address's `query`, and what was `found`.
    """
    try:
        query, found = dict(asked["query"]), _found(asked["found"])
    except (KeyError, TypeError, ValueError):  # no page of ours asks so
        return no_update, None
    recipe = str(query.get("recipe"))
    if recipe not in context.catalog.recipes():
        return no_update, None
    shown, found_now = _result(context, recipe, query, found)
    return shown, asdict(found_now) if found_now is not None and found_now.n_rest else None


def _found(kept: dict[str, Any]) -> Found:
    hits = [Hit(str(hit["slide_id"]), int(hit["tile_id"]), float(hit["score"])) for hit in kept["hits"][:SHOWN]]
    skipped = [str(slide) for slide in kept["skipped"]]
    done = max(0, int(kept["n_slides"]))
    return Found(hits, int(kept["n_tiles"]), done, float(kept["seconds"]), skipped, last=str(kept["last"]))


def _form(catalog: Catalog, recipes: list[str], recipe: str, query: Query) -> html.Div:
    terms = search.terms_of(catalog, recipe)
    chips = [
        html.A(term, href=parts.address("/search", recipe=recipe, text=term), className="chip"
               + (" here" if term == query.get("text") else ""))
        for term in terms
    ]  # fmt: skip
    free = search.text_recipe(catalog, recipe) is not None
    words = [
        parts.labelled(
            "Words that a tile should look like",
            dcc.Input(name="text", id="search-text", type="search", value=query.get("text", ""), maxLength=search.MAX_TEXT,
                      placeholder="Words that a tile should look like"),
        ),
        html.Button("Search", type="submit"),
    ]  # fmt: skip
    return html.Div(
        [
            html.Form(
                [parts.select("recipe", "Recipe ", [(key, key) for key in recipes], recipe), *(words if free else [])],
                action="/search",
                method="get",
                className="tools",
            ),
            html.P(["The study's terms: ", *chips]) if chips else html.P("This recipe compares tiles with no terms."),
            html.P("Scores compare a tile with words. They are no diagnosis.", className="quiet")
            if chips or free
            else None,
        ]
    )


def _result(context: Context, recipe: str, query: Query, before: Found | None) -> tuple[list[Any], Found | None]:
    """What a search shows, and where it stands after another lot."""
    catalog = context.catalog
    text = query.get("text", "").strip()
    if text:
        return _words(context, recipe, text, before)
    if "slide" not in query:
        told = "Choose a term, or choose “more like this” beside a tile on a slide's page."
        return [html.P(told, className="quiet")], None
    asked = parts.integer(query.get("tile"))
    tile_id = -1 if asked is None else asked
    catalog.tile(query["slide"], tiling_of(recipe), tile_id)
    vector = search.tile_vector(catalog, query["slide"], recipe, tile_id)
    found = search.similar_tiles(
        catalog, recipe, vector, SHOWN, but=(query["slide"], tile_id), before=before, seconds=LOT_SECONDS
    )
    title = html.H2(["Tiles like tile ", html.A(f"{tile_id} of {query['slide']}", href=_back(query, recipe))])
    here = parts.tile_image(context, query["slide"], recipe, tile_id, "The tile asked about", large=True)
    return [title, here, *_told(found, "cosine"), _strip(context, found, recipe, "cosine")], found


def _words(context: Context, recipe: str, text: str, before: Found | None) -> tuple[list[Any], Found]:
    catalog = context.catalog
    if text in search.terms_of(catalog, recipe):
        found, score = search.top_of_term(catalog, recipe, text, SHOWN), "probability"
    else:
        found = search.top_of_words(catalog, recipe, text, SHOWN, before=before, seconds=LOT_SECONDS)
        score = "cosine"
    said: list[Any] = [html.H2(f"Tiles that look most like “{text[: search.MAX_TEXT]}”"), *_told(found, score)]
    if found.unknown_words:
        words = ", ".join(found.unknown_words)
        said.append(html.P(f"The encoder has never seen: {words}. Such scores mean little.", className="warning"))
    return [*said, _strip(context, found, recipe, score)], found


def _told(found: Found, score: str) -> list[Any]:
    text = f"{found.n_tiles:,} tiles of {found.n_slides:,} slides compared in {found.seconds:.2f} s, by {score}"
    if found.skipped:
        text += f"; not readable: {', '.join(found.skipped[:5])} (see `pathassets verify`)"
    said: list[Any] = [html.P(parts.commands(text), className="quiet")]
    if found.n_rest:
        done = found.n_slides + len(found.skipped)
        bar = html.Progress(value=str(done), max=str(done + found.n_rest))
        said.append(html.P([bar, f" {done:,} of {done + found.n_rest:,} slides; the best so far:"], role="status"))
    return said


def _strip(context: Context, found: Found, recipe: str, score: str) -> html.Div:
    if not found.hits and found.n_rest:
        return html.Div()
    if not found.hits:
        raise UnknownNameError("tile to compare with", "Run `pathassets run SLIDES` for more slides.")
    return parts.tile_strip(
        context,
        [
            (hit.slide_id, recipe, hit.tile_id, f"{hit.score:.3f}  {hit.slide_id}",
             f"tile {hit.tile_id} of {hit.slide_id}, {score} {hit.score:.3f}")
            for hit in found.hits
        ]
    )  # fmt: skip


def _back(query: Query, recipe: str) -> str:
    return parts.slide_address(query["slide"], view=recipe, tile=query.get("tile"))
