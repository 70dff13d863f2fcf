"""Parts: what several pages are put together from.

Belongs here: small pieces of page, numbers with their units, addresses. Does not belong: whole pages, questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import dash_ag_grid as dag
from dash import dcc, html

from pathassets.dashboard.catalog import Catalog, UnknownNameError
from pathassets.dashboard.layers import Layers
from pathassets.dashboard.pixels import SlidePool
from pathassets.errors import PathassetsError, Reason, StudyError
from pathassets.figures.interactive import PLOT_CONFIG

Query = Mapping[str, str]
GRAPH_CONFIG: Any = {**PLOT_CONFIG, "scrollZoom": True}
MAP_CONFIG: Any = {**GRAPH_CONFIG, "scrollZoom": False}
LASSO_CONFIG: Any = {**MAP_CONFIG, "modeBarButtons": [["lasso2d", "select2d"], *PLOT_CONFIG["modeBarButtons"]]}
# The wheel is viewer.js's: a notch of Plotly's own is a tenth, and has no end.
SLIDE_CONFIG: Any = {**LASSO_CONFIG, "responsive": True}
# Programs that calculate take a cell that begins so for a formula.
CSV = {"processCellCallback": {"function": "plainCell(params)"}}


@dataclass(frozen=True)
class Context:
    """What every page gets.

    Attributes:
        catalog: The snapshot.
        layers: What tiles can show.
        pool: Open slides.
    """

    catalog: Catalog
    layers: Layers
    pool: SlidePool


def address(path: str, **values: object) -> str:
    """`path` with what is not None or empty as its query."""
    given = {name: value for name, value in values.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def slide_address(slide_id: str, **values: object) -> str:
    """A slide's page."""
    return address(f"/slide/{slide_id}", **values)


def tile_picture(slide_id: str, tiling: str, tile_id: int) -> str:
    """Address of a tile's picture."""
    return f"/picture/{slide_id}/{tiling}/tile/{tile_id}.jpg"


def notice(error: PathassetsError) -> html.Div:
    """What went wrong and what to do, in words."""
    title = "Not found" if isinstance(error, UnknownNameError) else str(error.reason)
    if isinstance(error, StudyError) and error.reason is Reason.FILE_MISSING:
        title = "Nothing to show yet"
    return empty(title, error.message, error.remedy)


def empty(title: str, what: str, remedy: str = "") -> html.Div:
    """A page, or a part of one, that has nothing to show."""
    body = [html.H2(title.replace("_", " ").capitalize()), html.P(what)]
    return html.Div([*body, html.P(commands(remedy), className="remedy")] if remedy else body, className="empty")


def commands(text: str) -> list[Any]:
    """`text` whose words in backticks are shown as what one types."""
    return [html.Code(part) if i % 2 else part for i, part in enumerate(text.split("`"))]


def facts(pairs: Iterable[tuple[str, str]]) -> html.Dl:
    """Names with values."""
    return html.Dl([cell for name, value in pairs for cell in (html.Dt(name), html.Dd(value))], className="facts")


def integer(text: str | None) -> int | None:
    """A whole number out of an address; None for anything else, and for what no table could hold."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 12 else None


def number(value: Any, unit: str = "", digits: int = 4) -> str:
    """A number with its unit; a dash where there is none."""
    if value is None or value != value:
        return "–"
    whole = isinstance(value, int) or abs(value) >= 10**digits
    text = f"{value:,.0f}" if whole else f"{value:.{digits}g}"
    return f"{text} {unit}".strip()


def select(name: str, label: str, options: Sequence[tuple[str, str]], value: str | None) -> html.Label:
    """A menu of a form; it is sent as soon as something is chosen."""
    entries = [html.Option(text, value=key, selected="selected" if key == value else None) for key, text in options]
    return html.Label([label, html.Select(entries, name=name, className="auto")])


def hidden(**values: object) -> list[Any]:
    """What a form sends along."""
    return [
        dcc.Input(type="hidden", name=name, value=str(value)) for name, value in values.items() if value is not None
    ]


def tile_strip(context: Context, tiles: Sequence[tuple[str, str, int, str, str]]) -> html.Div:
    """Pictures of tiles that lead to their slides.

    Args:
        context: What every page gets.
        tiles: Slide, recipe, tile, caption, and what a screen reader says, of each.
    """
    cards = [
        html.A(
            [tile_image(context, slide, view, tile, alt), html.Span(caption)],
            href=slide_address(slide, view=view, tile=tile),
            className="tile",
            title=alt,
        )
        for slide, view, tile, caption, alt in tiles
    ]
    return html.Div(cards, className="strip")


def tile_image(context: Context, slide_id: str, view: str, tile_id: int, alt: str, large: bool = False) -> Any:
    """A tile's picture; a word in its place where the slide cannot be read."""
    size = "asked" if large else ""
    if context.pool.trouble(slide_id) is not None:
        return html.Div("slide not here", className=f"no-picture {size}")
    return html.Img(src=tile_picture(slide_id, view.partition("/")[0], tile_id), alt=alt, className=size)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> html.Table:
    """A small table."""
    head = html.Thead(html.Tr([html.Th(text) for text in header]))
    return html.Table([head, html.Tbody([html.Tr([html.Td(cell) for cell in row]) for row in rows])], className="small")


def grid(name: str, columns: list[dict[str, Any]], rows: list[dict[str, Any]], **options: Any) -> dag.AgGrid:
    """A table to sort and filter, whose rows can be had as CSV."""
    settings = {
        "enableCellTextSelection": True,
        "ensureDomOrder": True,
        "animateRows": False,
        "suppressFieldDotNotation": True,
        **options,
    }
    return dag.AgGrid(
        id=name,
        columnDefs=columns,
        rowData=rows,
        defaultColDef={"sortable": True, "filter": True, "resizable": True, "minWidth": 70},
        columnSize="autoSize",
        csvExportParams={"fileName": f"{name}.csv", **CSV},
        dashGridOptions=settings,
        className="table",
        style={"height": None, "width": "100%"},
    )


def labelled(label: str, field: Any) -> html.Label:
    """A field whose name is said by screen readers and seen by nobody."""
    return html.Label([html.Span(label, className="unseen"), field], className="whole")
