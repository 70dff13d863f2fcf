"""Pages as the server makes them: for every address the right one, a word where there is nothing, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import polars as pl
import pytest
from plotly.utils import PlotlyJSONEncoder

from pathassets.config import CONFIG_FILE, Study
from pathassets.core import palette
from pathassets.dashboard import app as application
from pathassets.dashboard import cohort, parts
from pathassets.dashboard.app import make_app
from pathassets.dashboard.catalog import Catalog
from pathassets.dashboard.layers import Layers
from pathassets.dashboard.pages import atlas, slide, sql
from pathassets.dashboard.pages import cohort as cohort_page
from pathassets.dashboard.parts import Context
from pathassets.dashboard.pixels import SlidePool
from pathassets.slides.synthetic import synthetic_slide
from pathassets.steps.publish import publish_results
from pathassets.steps.register import register
from pathassets.steps.session import Session

from .conftest import CONFIG, VIEW, Finished


@pytest.fixture(scope="module")
def context(catalog: Catalog) -> Context:
    return Context(catalog, Layers(catalog), SlidePool(catalog.session))


def shown(context: Context, address: str) -> str:
    """The page of an address as the JSON that the browser gets."""
    path, _, query = address.partition("?")
    return json.dumps(application.page(context, path, f"?{query}" if query else ""), cls=PlotlyJSONEncoder)


def test_the_cohort_page_has_a_row_for_every_file(context: Context, finished: Finished):
    frame = cohort.rows(context.catalog, VIEW)
    assert sorted(frame["slide_id"]) == sorted(
        [finished.first, finished.second, finished.gone, finished.half, finished.broken, finished.unscaled]
    )
    rows = {row["slide_id"]: row for row in frame.iter_rows(named=True)}
    first = rows[finished.first]
    assert first["width_mm"] == pytest.approx(2304 * 0.5 / 1000, abs=0.01)
    tissue = context.catalog.frame("SELECT sum(area_mm2) AS a FROM results.tissues WHERE slide_id = ?", finished.first)
    assert first["tissue_mm2"] == pytest.approx(tissue["a"][0], abs=0.001)
    assert first["tiles"] == len(context.catalog.tiles(finished.first, "small"))
    assert first["step_embeddings"] == "ok"
    assert first["label_patient"] == "P1"
    assert rows[finished.broken]["problem"]
    assert rows[finished.broken]["step_slide"].startswith("failed: ")
    assert rows[finished.half]["tiles"] is None
    assert rows[finished.half]["step_tissue"] == "ok"
    assert rows[finished.half]["step_embeddings"] is None
    assert "path" not in frame.columns
    assert "other_paths" not in frame.columns


def test_domains_of_a_row_are_its_largest(context: Context, finished: Finished):
    row = cohort.rows(context.catalog, VIEW).filter(pl.col("slide_id") == finished.first).row(0, named=True)
    sql = "FROM results.domain_summary WHERE slide_id = ? AND recipe = ? AND variant = 'leiden' ORDER BY share DESC"
    frame = context.catalog.frame(sql, finished.first, VIEW)
    assert row["domains"] == len(frame)
    assert row["looks_like"].startswith(f"{frame['label'][0]} {round(100 * frame['share'][0])} %")


ADDRESSES = [
    "/", f"/?recipe={VIEW}", "/?recipe=nonsense&q=P1&sort=tiles:desc", "/?filter={bad json", "/?filter=[1]&sort=;drop:asc",
    "/slide/{first}", f"/slide/{{first}}?view={VIEW}&layer=term:adipose&least=30&scale=viridis&opacity=20&tile=3",
    "/slide/{first}?view=small&layer=column:sharpness", "/slide/{first}?view=../..&layer=x&scale=x&opacity=-5&least=1e9",
    "/slide/{first}?lasso=nan,nan;1,2;inf,inf", "/slide/{first}?piece=0&layer=none&image=off", "/slide/{first}?piece=x",
    "/slide/{first}?x=100&y=100&w=500&lasso=1,2;3,4;5,6&method=pca", "/slide/{first}?lasso=;;;&x=a&y=b&w=c&tile=x",
    "/slide/{gone}", "/slide/{half}", "/slide/{broken}", "/slide/{unscaled}", "/search",
    "/search?text=adipose", "/search?text=fat cells",
    "/search?slide={first}&tile=3", "/atlas", "/atlas?colour=patient&slide={first}", "/atlas?colour=share:adipose",
    "/atlas?colour=term:adipose", "/atlas?colour=share:none", "/atlas?colour=term:", "/atlas?colour=slide_id&recipe=x",
    "/sql", "/sql?q=SELECT 1", "/sql?q=DROP TABLE slides", "/sql?q=SELECT * FROM read_text('/etc/passwd')",
]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_address_gives_a_page_that_names_no_path(context: Context, finished: Finished, address: str):
    filled = address.replace("{first}", finished.first).replace("{gone}", finished.gone)
    filled = filled.replace("{half}", finished.half).replace("{broken}", finished.broken)
    filled = filled.replace("{unscaled}", finished.unscaled)
    text = shown(context, filled)
    assert str(finished.study.home) not in text
    assert finished.study.home.name not in text, "nor a part of it"
    assert "no such" not in text
    assert "Not found" not in text


@pytest.mark.parametrize(
    "address",
    [
        "/slide/none-00000000", "/slide/", "/slide/../../etc/passwd", "/slide/%2e%2e", "/slide/{first}?tile=99999",
        "/slide/{first}/x", "/nowhere", "/search?slide={first}&tile=99999", "/search?slide={first}&tile=²",
        pytest.param("/search?slide={first}&tile=" + 6000 * "9", id="more digits than a number may have"),
        "/search?slide=../x&tile=1", "/atlas?slide=nobody",
        "/search?slide={half}&tile=0", "/sql/x", "/slide/' OR 1=1 --",
    ],
)  # fmt: skip
def test_addresses_that_name_nothing_say_so(context: Context, finished: Finished, address: str):
    text = shown(context, address.replace("{first}", finished.first).replace("{half}", finished.half))
    assert "here is no such" in text
    assert str(finished.study.home) not in text


def test_a_line_that_cannot_be_drawn_is_none(context: Context, finished: Finished):
    for corner in ("nan,nan", "inf,0", "0,-inf", "1", "a,b"):
        for on in ("", "slide:"):
            text = shown(context, f"/slide/{finished.first}?lasso={on}{corner};1,2;3,4")
            assert '"data": null' in text[text.index('"id": "slide-lasso"') - 40 :][:80], corner


def test_the_list_of_tables_costs_no_component_a_cell(context: Context, finished: Finished):
    """A browser takes half a minute to make one of each of more than a thousand cells."""
    text = shown(context, "/sql")
    assert "Left edge, level 0 [px]" in text
    assert text.count('"namespace"') < 60


def test_an_answer_comes_without_the_rest_of_the_page(app, context: Context, finished: Finished):
    [output] = [spec["output"] for spec in app._callback_list if spec["output"].startswith("sql-answer.")]
    assert output == "sql-answer.children"
    text = json.dumps(sql.answer(context, "SELECT 41 + 1 AS n"), cls=PlotlyJSONEncoder)
    assert '"c0": 42' in text
    assert "sql-tables" not in text
    assert sql.answer(context, " ") == []


def test_every_plot_names_its_buttons_and_none_sends_it_away():
    for config in (parts.GRAPH_CONFIG, parts.SLIDE_CONFIG, parts.MAP_CONFIG, parts.LASSO_CONFIG):
        names = {name for group in config["modeBarButtons"] for name in group}
        assert names <= {"zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "lasso2d", "select2d"}
        assert config["plotlyServerURL"] == ""


def test_what_there_is_not_is_headed_so(context: Context, empty_study: Study):
    assert '"children": "Not found"' in shown(context, "/slide/none-00000000")
    catalog = Catalog(empty_study)
    text = shown(Context(catalog, Layers(catalog), SlidePool(catalog.session)), "/")
    assert "Nothing to show yet" in text
    assert "File missing" not in text


def test_a_search_that_cannot_be_made_keeps_its_form(context: Context, finished: Finished, monkeypatch):
    monkeypatch.setattr("pathassets.dashboard.search.text_recipe", lambda *_: None)
    text = shown(context, f"/search?recipe={VIEW}&text=never compared")
    assert "here is no such text tower" in text
    assert '"action": "/search"' in text


def test_commands_in_what_became_of_a_slide_are_shown_as_such(context: Context, finished: Finished, monkeypatch):
    told = context.catalog.outcomes(finished.first).with_columns(remedy=pl.lit("Run `pathassets verify` first."))
    monkeypatch.setattr(context.catalog, "outcomes", lambda slide_id: told)
    text = json.dumps(slide._outcomes(context, finished.first), cls=PlotlyJSONEncoder)
    assert '"children": "pathassets verify"' in text
    assert "`" not in text


def test_slides_are_coloured_by_shares_and_terms(context: Context, finished: Finished):
    sql = "SELECT avg(probability) AS p FROM results.text_scores WHERE recipe = ? AND term = 'adipose' AND slide_id = ?"
    wanted = context.catalog.frame(sql, VIEW, finished.first)["p"][0]
    choices = atlas._colours(context.catalog, VIEW)
    frame = atlas._coloured(context.catalog, VIEW, "term:adipose", choices)
    assert dict(frame.iter_rows())[finished.first] == pytest.approx(wanted)
    shares = [key for key in choices if key.startswith("share:")]
    total = sum(atlas._coloured(context.catalog, VIEW, key, choices).to_series(1).sum() for key in shares)
    slides = context.catalog.frame("SELECT DISTINCT slide_id FROM results.domain_summary WHERE recipe = ?", VIEW)
    assert total == pytest.approx(100 * len(slides))
    assert "colorbar" in shown(context, "/atlas?colour=term:adipose")


def test_an_address_of_the_grid_keeps_its_pinned_columns():
    state = cohort_page._state({"sort": "tiles:asc"})
    assert state["columnPinning"] == {"leftColIds": ["picture", "slide_id"], "rightColIds": []}
    assert cohort_page._state({}) == {}


def test_a_half_made_slide_shows_what_there_is_and_names_the_command(context: Context, finished: Finished):
    text = shown(context, f"/slide/{finished.half}")
    assert "No tiles" in text
    assert "pathassets run" in text
    assert '"pixels": true' in text


def test_a_slide_whose_file_is_gone_says_so_and_keeps_its_page(context: Context, finished: Finished):
    text = shown(context, f"/slide/{finished.gone}")
    assert "file missing" in text
    assert '"pixels": false' in text
    assert "Spatial domains" in text


def test_a_file_that_is_no_slide_says_why(context: Context, finished: Finished):
    text = shown(context, f"/slide/{finished.broken}")
    assert "No picture" in text
    assert "slide-graph" not in text


def test_an_address_gives_back_what_it_says(context: Context, finished: Finished):
    text = shown(
        context,
        f"/slide/{finished.first}?view={VIEW}&layer=column:eosin&opacity=35&least=12&tile=7&outline=off&image=off",
    )
    for part in ('"value": "column:eosin"', '"value": 35', '"value": 12', '"data": 7', '"value": []'):
        assert part in text
    tile = context.catalog.tile(finished.first, "small", 7)
    assert f'"x": {tile["x_px"] + tile["size_px"] / 2}' in text
    assert '"value": "SELECT 41 + 1"' in shown(context, "/sql?q=" + quote("SELECT 41 + 1"))


@pytest.fixture
def empty_study(tmp_path: Path) -> Study:
    (tmp_path / CONFIG_FILE).write_text(CONFIG)
    return Study(tmp_path)


@pytest.mark.parametrize("address", ["/", "/slide/x-00000000", "/search?text=fat", "/atlas", "/sql?q=SELECT 1"])
def test_without_a_snapshot_every_page_names_the_command(empty_study: Study, address: str):
    catalog = Catalog(empty_study)
    text = shown(Context(catalog, Layers(catalog), SlidePool(catalog.session)), address)
    assert "nothing has been published yet" in text
    assert "pathassets publish" in text


def test_without_any_slide_every_page_names_the_command(empty_study: Study):
    publish_results(Session(empty_study))
    catalog = Catalog(empty_study)
    context = Context(catalog, Layers(catalog), SlidePool(catalog.session))
    for address in ("/", "/search", "/atlas"):
        assert "Run " in shown(context, address), address
        assert "pathassets run" in shown(context, address), address
    assert "0 rows" in shown(context, "/sql?q=FROM slides")


def test_what_is_published_meanwhile_is_seen(empty_study: Study):
    session = Session(empty_study)
    publish_results(session)
    catalog = Catalog(empty_study)
    assert len(catalog.slides()) == 0
    path = empty_study.home / "late.tiff"
    synthetic_slide(path, seed=3, width_px=600, height_px=600)
    register(session, [path])
    assert len(catalog.slides()) == 0
    publish_results(session)
    assert catalog.slides()["file"].to_list() == ["late.tiff"]


def test_looking_writes_nothing(context: Context, finished: Finished, client):
    before = {path: path.stat().st_mtime_ns for path in finished.study.home.rglob("*")}
    for address in ADDRESSES:
        shown(context, address.replace("{first}", finished.first).replace("{gone}", finished.gone))
    client.get(f"/picture/{finished.first}/0/0_0.jpg")
    assert {path: path.stat().st_mtime_ns for path in finished.study.home.rglob("*")} == before


def test_the_page_takes_its_accent_from_the_palette():
    style = (Path(application.__file__).parent / "assets" / "style.css").read_text(encoding="utf-8")
    assert f"--accent: {palette.ACCENT};" in style


def test_making_the_application_reads_nothing(tmp_path: Path):
    make_app(Study(tmp_path / "nowhere"))
    assert list(tmp_path.iterdir()) == []
