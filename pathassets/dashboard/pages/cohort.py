"""The page of all slides.

Belongs here: the grid, its columns, what its address remembers. Does not belong: putting the rows together (`cohort`).
"""

from __future__ import annotations

import json
from typing import Any

import polars as pl
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html

from pathassets.dashboard import cohort, parts
from pathassets.dashboard.catalog import tiling_of
from pathassets.dashboard.dagster_links import Dagster
from pathassets.dashboard.parts import Context, Query
from pathassets.steps.nodes import Step

GRID = "slides"
ROW_PX = 76
PINNED = ("picture", "slide_id")
_NUMBER = "rightAligned"


def layout(context: Context, rest: str, query: Query) -> Any:
    """The page; `recipe` chooses whose tiles, `q`, `filter` and `sort` are what the grid shows of them."""
    catalog = context.catalog
    recipes = catalog.recipes()
    recipe = query.get("recipe") if query.get("recipe") in recipes else next(iter(recipes), None)
    frame = cohort.rows(catalog, recipe)
    if frame.is_empty():
        what = "No slide has been registered in this study."
        return parts.empty("No slides yet", what, "Run `pathassets run SLIDES`, or `pathassets demo` to try it out.")
    return [
        html.Div(
            [
                html.H1("1 slide" if len(frame) == 1 else f"{len(frame)} slides", id="slides-count"),
                html.Form(
                    [parts.select("recipe", "Recipe ", [(key, key) for key in recipes], recipe)]
                    if len(recipes) > 1
                    else [],
                    action="/",
                    method="get",
                ),
                parts.labelled(
                    "Find in all columns",
                    dcc.Input(
                        id="slides-search", type="search", placeholder="Find in all columns", value=query.get("q", "")
                    ),
                ),
                html.Button("CSV", id="slides-csv", title="The rows as they are shown, as CSV"),
            ],
            className="tools",
        ),
        html.P(_summary(frame), className="summary"),
        parts.grid(
            GRID,
            _columns(frame, recipe, Dagster(catalog.study)),
            frame.to_dicts(),
            rowHeight=ROW_PX,
            quickFilterText=query.get("q", ""),
            initialState=_state(query),
        ),
    ]


def register(app: Dash, context: Context) -> None:
    """Search box and CSV work in the browser alone; the address follows what the grid shows."""
    app.clientside_callback(
        ClientsideFunction("pathassets", "find"),
        Output(GRID, "dashGridOptions"),
        Input("slides-search", "value"),
        State(GRID, "dashGridOptions"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("pathassets", "count"),
        Output("slides-count", "children"),
        Input(GRID, "virtualRowData"),
        State(GRID, "rowData"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("pathassets", "csv"),
        Output(GRID, "exportDataAsCsv"),
        Input("slides-csv", "n_clicks"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("pathassets", "remember_grid"),
        Output(GRID, "className"),
        Input(GRID, "filterModel"),
        Input(GRID, "columnState"),
        State(GRID, "className"),
        prevent_initial_call=True,
    )


def _state(query: Query) -> dict[str, Any]:
    """What the address says of filters and order, in the grid's words; nonsense is left out."""
    state: dict[str, Any] = {}
    try:
        wanted = json.loads(query.get("filter", "{}"))
    except ValueError:
        wanted = {}
    if isinstance(wanted, dict) and wanted:
        state["filter"] = {"filterModel": wanted}
    column, _, direction = query.get("sort", "").partition(":")
    if column and direction in ("asc", "desc"):
        state["sort"] = {"sortModel": [{"colId": column, "sort": direction}]}
    if state:  # what an initial state does not name is reset
        state["columnPinning"] = {"leftColIds": list(PINNED), "rightColIds": []}
    return state


def _summary(frame: pl.DataFrame) -> str:
    """The cohort in one line, every number with its unit."""
    told = [f"{frame['tissue_mm2'].sum():,.1f} mm² of tissue", f"{int(frame['tiles'].sum() or 0):,} tiles"]
    failed = int(frame["problem"].is_not_null().sum())
    if failed:
        told.append(f"{failed} {'slide needs' if failed == 1 else 'slides need'} a look")
    return ", ".join(told)


def _columns(frame: pl.DataFrame, recipe: str | None, dagster: Dagster) -> list[dict[str, Any]]:
    numbers = (
        ("width_mm", "Width (mm)"), ("height_mm", "Height (mm)"), ("mpp", "Resolution (µm/px)"),
        ("tissue_mm2", "Tissue (mm²)"), ("tiles", "Tiles"), ("domains", "Domains"), ("inked_percent", "Inked tiles (%)"),
    )  # fmt: skip
    picture = {"field": "slide_id", "colId": PINNED[0], "headerName": "", "cellRenderer": "Thumbnail", "sortable": False,
               "filter": False, "width": 112, "suppressAutoSize": True, "pinned": "left"}  # fmt: skip
    name = {"field": "slide_id", "colId": PINNED[1], "headerName": "Slide", "cellRenderer": "SlideLink", "pinned": "left",
            "minWidth": 180, "cellRendererParams": {"view": recipe or ""}}  # fmt: skip
    found = [
        picture,
        name,
        {"field": "problem", "headerName": "Needs a look", "cellRenderer": "Reason", "minWidth": 130},
    ]
    found += [
        {"field": field, "headerName": title, "type": _NUMBER, "filter": "agNumberColumnFilter",
         "valueFormatter": {"function": "shortNumber(params.value)"}}
        for field, title in numbers
    ]  # fmt: skip
    found.append(
        {"field": "looks_like", "headerName": "Largest domains", "minWidth": 260, "tooltipField": "looks_like"}
    )
    labels = [name for name in frame.columns if name.startswith("label_")]
    found += [
        {"field": name, "headerName": name.removeprefix("label_").replace("_", " "), "minWidth": 100} for name in labels
    ]
    found += [
        {"field": f"step_{step}", "headerName": str(step).replace("_", " "), "cellRenderer": "Status", "minWidth": 90,
         "cellRendererParams": {"asset": dagster.asset(step, tiling_of(recipe or ""), recipe)}}
        for step in Step
    ]  # fmt: skip
    if dagster.url and frame["run"].null_count() < len(frame):
        found.append({"field": "run", "headerName": "Last run", "cellRenderer": "Run", "minWidth": 90,
                      "cellRendererParams": {"runs": dagster.run("")}})  # fmt: skip
    return [*found, {"field": "vendor", "headerName": "Scanner"}, {"field": "file", "headerName": "File"}]
