"""The application: pages behind addresses, pictures behind theirs, one shell around all.

Belongs here: putting it together, choosing the page for an address, what happens when a page fails. Does not belong: pages.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update, set_props
from dash.exceptions import DependencyException, InvalidResourceError

from pathassets.config import Study
from pathassets.dashboard import parts
from pathassets.dashboard.catalog import Catalog
from pathassets.dashboard.layers import Layers
from pathassets.dashboard.pages import atlas, cohort, search, slide, sql
from pathassets.dashboard.parts import Context
from pathassets.dashboard.pixels import SlidePool
from pathassets.dashboard.routes import add_routes
from pathassets.errors import PathassetsError

log = logging.getLogger(__name__)

# First part of the address: title in the bar, and the page. `slide` is reached from the others.
PAGES: dict[str, tuple[str, Any]] = {
    "": ("Slides", cohort),
    "slide": ("", slide),
    "search": ("Search", search),
    "atlas": ("Atlas", atlas),
    "sql": ("SQL", sql),
}


def make_app(study: Study) -> Dash:
    """The dashboard of a study; nothing is read before a page is asked for."""
    catalog = Catalog(study)
    context = Context(catalog, Layers(catalog), SlidePool(catalog.session))
    app = Dash(
        "pathassets",
        assets_folder=str(Path(__file__).parent / "assets"),
        title="pathassets",
        update_title="",
        suppress_callback_exceptions=True,
        on_error=_tell,
    )
    app.layout = _shell()
    add_routes(app.server, catalog, context.pool)
    for refusal in (DependencyException, InvalidResourceError):  # Dash itself would answer 500
        app.server.register_error_handler(refusal, lambda error: ("there is no such file", 404))

    @app.callback(Output("page", "children"), Input("url", "pathname"), State("url", "search"))
    def show(pathname: str | None, search: str | None) -> list[Any]:
        return page(context, pathname or "/", search or "")

    app.clientside_callback(
        ClientsideFunction("pathassets", "arrive"), Output("arrived", "data"), Input("page", "children")
    )
    for _, module in PAGES.values():
        module.register(app, context)
    return app


def page(context: Context, pathname: str, search: str) -> list[Any]:
    """The bar and the page of an address; an address that names nothing says so."""
    name, _, rest = pathname.strip("/").partition("/")
    query = dict(parse_qsl(search.removeprefix("?")))
    known = PAGES.get(name)
    if known is None or (rest and name != "slide"):
        body: Any = parts.empty("Not found", "There is no such page.", "Choose one above.")
    else:
        try:
            body = known[1].layout(context, rest, query)
        except PathassetsError as error:
            body = parts.notice(error)
    return [_bar(context.catalog.study.name, name), html.Main(body, id="main")]


def _shell() -> html.Div:
    return html.Div(
        [dcc.Location(id="url"), dcc.Store(id="arrived"), html.Div(id="trouble", role="alert"), html.Div(id="page")]
    )


def _bar(study: str, current: str) -> html.Header:
    links = [
        html.A(title, href=f"/{name}", className="here" if name == current else "")
        for name, (title, _) in PAGES.items()
        if title
    ]
    skip = html.A("Skip to the page", href="#main", className="skip")
    return html.Header([skip, html.Strong("pathassets"), html.Span(study, className="study"), html.Nav(links)])


def _tell(error: Exception) -> Any:
    """A callback that fails says why above the page; what was there stays."""
    if not isinstance(error, PathassetsError):
        log.exception("a callback of the dashboard failed", exc_info=error)
        error = _unexpected(error)
    set_props("trouble", {"children": parts.notice(error)})
    return no_update


def _unexpected(error: Exception) -> PathassetsError:
    from pathassets.errors import Reason

    remedy = "Load the page again. If it comes back, see .dagster/pathassets.log in the study's folder."
    return PathassetsError(f"{type(error).__name__} on this page", reason=Reason.INTERNAL, remedy=remedy)
