"""The page of one question at a time.

Belongs here: the box, what there is to ask, the answer. Does not belong: what may be asked (`sql_box`).
"""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Any

import polars as pl
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html

from pathassets.dashboard import parts, sql_box
from pathassets.dashboard.parts import Context, Query
from pathassets.dashboard.sql_worker import ask_worker
from pathassets.errors import ConfigError

GRID = "answer"
SAVED = "sql-kept"
EXAMPLES = (
    ("What went wrong", "SELECT slide_id, step, reason, remedy\nFROM outcomes\nWHERE status = 'failed'"),
    (
        "Tissue of each slide",
        "SELECT slide_id, count(*) AS pieces, round(sum(area_mm2), 2) AS tissue_mm2\n"
        "FROM tissues\nGROUP BY slide_id\nORDER BY tissue_mm2 DESC",
    ),
    (
        "Domains by share",
        "SELECT slide_id, recipe, variant, domain, label, n_tiles, round(share, 3) AS share\n"
        "FROM domain_summary\nORDER BY slide_id, recipe, variant, share DESC",
    ),
    (
        "Which weights made which vectors",
        "SELECT slide_id, recipe, encoder, n_tiles, dim, precision, left(weights_sha256, 12) AS weights\nFROM embeddings",
    ),
    ("Where the time went", "SELECT slide_id, recipe, stage, round(seconds, 2) AS seconds, tiles, device\n"
     "FROM timings\nORDER BY seconds DESC\nLIMIT 20"),
)  # fmt: skip


def layout(context: Context, rest: str, query: Query) -> Any:
    """The page; `q` is the question."""
    question = query.get("q", "")
    return [
        html.H1("SQL"),
        html.Div(
            [html.Div([_form(question), html.Div(answer(context, question), id="sql-answer")]), _tables(context)],
            className="two wide-left",
        ),
    ]


def register(app: Dash, context: Context) -> None:
    """The answer comes without the rest of the page; CSV, the list of tables and saved questions are the browser's."""
    app.callback(
        Output("sql-answer", "children"),
        Input("sql-ask", "n_clicks"),
        State("sql-text", "value"),
        running=[(Output("sql-ask", "disabled"), True, False)],
        prevent_initial_call=True,
    )(lambda clicks, question: answer(context, question or ""))
    app.clientside_callback(
        ClientsideFunction("pathassets", "asked"),
        Output("sql-text", "className"),
        Input("sql-ask", "n_clicks"),
        State("sql-text", "value"),
        prevent_initial_call=True,
    )
    _saved(app)
    app.clientside_callback(
        ClientsideFunction("pathassets", "csv"),
        Output(GRID, "exportDataAsCsv"),
        Input("answer-csv", "n_clicks"),
        prevent_initial_call=True,
    )


def _saved(app: Dash) -> None:
    """Questions that a reader keeps: in this browser's storage, never on the server."""
    app.clientside_callback(
        ClientsideFunction("pathassets", "keep_question"),
        Output(SAVED, "data"),
        Input("sql-save", "n_clicks"),
        Input("sql-forget", "n_clicks"),
        State("sql-text", "value"),
        State(SAVED, "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("pathassets", "list_questions"),
        Output("sql-saved", "className"),
        Input(SAVED, "modified_timestamp"),
        State(SAVED, "data"),
    )
    app.clientside_callback(
        ClientsideFunction("pathassets", "list_tables"), Output("sql-tables", "className"), Input("sql-columns", "data")
    )


def _form(question: str) -> html.Div:
    box = parts.labelled(
        "One SELECT", dcc.Textarea(id="sql-text", name="q", value=question or EXAMPLES[1][1], spellCheck=False, rows=7)
    )
    examples = [html.A(title, href=parts.address("/sql", q=text), className="chip") for title, text in EXAMPLES]
    limits = f"One SELECT over the published snapshot; at most {sql_box.ROWS:,} rows and {sql_box.SECONDS:g} s. Ctrl+Enter asks."
    return html.Div(
        [
            box,
            html.Div(
                [
                    html.Button("Ask", id="sql-ask"),
                    html.Button("Save", id="sql-save", title="Keep this question in this browser"),
                    html.Button("Forget", id="sql-forget", title="Take this question out of the saved ones"),
                ],
                className="tools",
            ),
            html.P(["Try: ", *examples]),
            html.P(id="sql-saved"),
            dcc.Store(id=SAVED, storage_type="local"),
            html.P(limits, className="quiet"),
        ]
    )


def answer(context: Context, question: str) -> list[Any]:
    """What the question gives, or why it gives nothing; nothing for no question."""
    if not question.strip():
        return []
    try:
        found = ask_worker(context.catalog, question)
    except ConfigError as error:
        return [
            html.Div([html.P(error.message), html.P(parts.commands(error.remedy))], className="warning", role="alert")
        ]
    rows = f"the first {len(found.frame):,} rows" if found.cut else f"{len(found.frame):,} rows"
    told = html.P([f"{rows} in {found.seconds:.2f} s ", html.Button("CSV", id="answer-csv")], className="tools")
    columns = [
        {"field": f"c{i}", "headerName": name, **_kind(dtype)}
        for i, (name, dtype) in enumerate(found.frame.schema.items())
    ]
    return [told, parts.grid(GRID, columns, _rows(found.frame))]


def _kind(dtype: pl.DataType) -> dict[str, Any]:
    return {"type": "rightAligned", "filter": "agNumberColumnFilter"} if dtype.is_numeric() else {}


def _rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values under names that no column's own name can break."""
    return [{f"c{i}": _plain(value) for i, value in enumerate(row)} for row in frame.iter_rows()]


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value != value:
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, datetime | date):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    return json.dumps(value, default=str) if isinstance(value, list | dict) else str(value)


def _tables(context: Context) -> html.Section:
    """All tables as one piece of data: a component for each of more than a thousand cells would take the browser half a minute."""
    told = dcc.Store(id="sql-columns", data=sql_box.described(context.catalog))
    return html.Section([html.H2("Tables"), told, html.Div(id="sql-tables")], className="tables")
