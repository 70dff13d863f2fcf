"""The page of tiles that are alike: like one tile, or like words.

Belongs here: the form, the strip of what was found. Does not belong: comparing (`dashboard/search`).
"""

from __future__ import annotations

from typing import Any

from dash import Dash, dcc, html

from pathassets.dashboard import parts, search
from pathassets.dashboard.catalog import Catalog, UnknownNameError, tiling_of
from pathassets.dashboard.parts import Context, Query
from pathassets.dashboard.search import Found

SHOWN = 24


def layout(context: Context, rest: str, query: Query) -> Any:
    """The page; `recipe` with `slide` and `tile`, or with `text`."""
    catalog = context.catalog
    recipes = catalog.recipes()
    if not recipes:
        what = "No slide has embeddings yet, so that nothing can be compared."
        return parts.empty("Nothing to search", what, "Run `pathassets run SLIDES`.")
    recipe = query["recipe"] if query.get("recipe") in recipes else recipes[0]
    return [html.H1("Search"), _form(catalog, recipes, recipe, query), *_result(context, recipe, query)]


def register(app: Dash, context: Context) -> None:
    """The address alone decides what the page shows."""


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


def _result(context: Context, recipe: str, query: Query) -> list[Any]:
    catalog = context.catalog
    text = query.get("text", "").strip()
    if text:
        return _words(context, recipe, text)
    if "slide" not in query:
        return [html.P("Choose a term, or choose “more like this” beside a tile on a slide's page.", className="quiet")]
    asked = parts.integer(query.get("tile"))
    tile_id = -1 if asked is None else asked
    catalog.tile(query["slide"], tiling_of(recipe), tile_id)
    vector = search.tile_vector(catalog, query["slide"], recipe, tile_id)
    found = search.similar_tiles(catalog, recipe, vector, SHOWN, but=(query["slide"], tile_id))
    title = html.H2(["Tiles like tile ", html.A(f"{tile_id} of {query['slide']}", href=_back(query, recipe))])
    here = parts.tile_image(context, query["slide"], recipe, tile_id, "The tile asked about", large=True)
    return [title, here, _told(found, "cosine"), _strip(context, found, recipe, "cosine")]


def _words(context: Context, recipe: str, text: str) -> list[Any]:
    catalog = context.catalog
    if text in search.terms_of(catalog, recipe):
        found, score = search.top_of_term(catalog, recipe, text, SHOWN), "probability"
    else:
        found, score = search.top_of_words(catalog, recipe, text, SHOWN), "cosine"
    said: list[Any] = [html.H2(f"Tiles that look most like “{text[: search.MAX_TEXT]}”"), _told(found, score)]
    if found.unknown_words:
        words = ", ".join(found.unknown_words)
        said.append(html.P(f"The encoder has never seen: {words}. Such scores mean little.", className="warning"))
    return [*said, _strip(context, found, recipe, score)]


def _told(found: Found, score: str) -> html.P:
    text = f"{found.n_tiles:,} tiles of {found.n_slides:,} slides compared in {found.seconds:.2f} s, by {score}"
    if found.skipped:
        text += f"; not readable: {', '.join(found.skipped[:5])} (see `pathassets verify`)"
    return html.P(parts.commands(text), className="quiet")


def _strip(context: Context, found: Found, recipe: str, score: str) -> html.Div:
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
