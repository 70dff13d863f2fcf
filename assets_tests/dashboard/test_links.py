"""Links between the dashboard and Dagster's UI: to what there is, where the address is known, and nowhere else."""

from __future__ import annotations

import json

import dagster as dg
import pytest
from dash import html

from pathassets import links
from pathassets.config import Study
from pathassets.dashboard import cohort
from pathassets.dashboard.catalog import Catalog
from pathassets.dashboard.dagster_links import Dagster, linked
from pathassets.dashboard.layers import Layers
from pathassets.dashboard.pages import cohort as cohort_page
from pathassets.dashboard.parts import Context
from pathassets.dashboard.pixels import SlidePool
from pathassets.definitions import build_defs
from pathassets.defs import describe
from pathassets.errors import ConfigError
from pathassets.steps.chain import StepResult
from pathassets.steps.nodes import Step, chain
from pathassets.steps.outcomes import Outcome
from pathassets.steps.session import Session

from .conftest import VIEW, Finished
from .test_pages import shown

DAGSTER, DASHBOARD = "http://127.0.0.1:3123", "https://lab.example:8443/look"


@pytest.fixture
def linked_study(finished: Finished) -> Study:
    return Study(finished.study.home, dagster_url=f"{DAGSTER}/", dashboard_url=DASHBOARD)


@pytest.fixture
def context(linked_study: Study) -> Context:
    catalog = Catalog(linked_study)
    return Context(catalog, Layers(catalog), SlidePool(catalog.session))


def test_a_slides_page_leads_to_its_partition_of_each_asset(context: Context, finished: Finished):
    text = shown(context, f"/slide/{finished.first}")
    for asset in ("slide", "tissue", "small/tiles", "small/demo/embeddings", "small/demo/text_similarity"):
        assert f"{DAGSTER}/assets/{asset}?view=partitions&partition={finished.first}" in text
    keys = {spec.key.to_user_string() for spec in build_defs(finished.study).resolve_all_asset_specs()}
    assert "small/demo/embeddings" in keys, "as Dagster calls it"


def test_the_grid_leads_to_assets_and_runs(context: Context):
    frame = cohort.rows(context.catalog, VIEW)
    columns = cohort_page._columns(frame, VIEW, Dagster(context.catalog.study))
    assets = {c["field"]: c["cellRendererParams"]["asset"] for c in columns if c.get("cellRenderer") == "Status"}
    assert assets["step_slide"] == f"{DAGSTER}/assets/slide"
    assert assets["step_tiles"] == f"{DAGSTER}/assets/small/tiles"
    assert assets["step_embeddings"] == f"{DAGSTER}/assets/small/demo/embeddings"
    assert not [c for c in columns if c["field"] == "run"], "no run made these slides"
    made = frame.with_columns(run=cohort.pl.lit("0b2f7c1e"))
    [run] = [c for c in cohort_page._columns(made, VIEW, Dagster(context.catalog.study)) if c["field"] == "run"]
    assert run["cellRendererParams"]["runs"] == f"{DAGSTER}/runs/"


def test_the_last_run_of_a_slide_is_the_one_that_is_shown():
    rows = [("s", "late", 3), ("s", "early", 1), ("s", None, 9), ("t", None, 1)]
    outcomes = cohort.pl.DataFrame(rows, schema=["slide_id", "run_id", "created_at"], orient="row")
    assert cohort._last_runs(outcomes).rows() == [("s", "late")]


def test_without_an_address_nothing_is_linked(catalog: Catalog, finished: Finished):
    plain = Context(catalog, Layers(catalog), SlidePool(catalog.session))
    for address in (f"/slide/{finished.first}", "/"):
        assert "partition=" not in shown(plain, address)
        assert "/runs/" not in shown(plain, address)
    dagster = Dagster(catalog.study)
    assert dagster.asset("slide", None, None) is None
    assert dagster.run("0b2f7c1e") is None


def test_what_was_adopted_is_no_asset(context: Context):
    dagster = Dagster(context.catalog.study)
    assert dagster.asset("embeddings", "adopted_uni", "adopted_uni/uni") is None
    assert linked("embeddings", None) == "embeddings"
    assert isinstance(linked("embeddings", DAGSTER), html.A)


@pytest.mark.parametrize("run_id", ["../../x", "a?b=c", "a b", "<script>", "javascript:alert(1)"])
def test_whatever_stands_where_a_run_should_stays_one_part_of_the_address(run_id: str):
    address = links.dagster_run(DAGSTER, run_id)
    rest = address.removeprefix(f"{DAGSTER}/runs/")
    assert not set(rest) & set("/?#<> \"'")
    assert json.dumps(address).isascii()


def test_dagster_leads_back_to_the_slide(linked_study: Study, finished: Finished):
    session = Session(linked_study)
    node = next(node for node in chain(linked_study) if node.step is Step.SPATIAL_DOMAINS)
    outcome = Outcome(
        slide_id=finished.first, tiling="small", recipe=VIEW, step=str(node.step), status="ok", digest="00"
    )
    metadata = describe.materialised(session, StepResult(finished.first, node, outcome))
    assert metadata["dashboard"] == dg.MetadataValue.url(f"{DASHBOARD}/slide/{finished.first}?view=small%2Fdemo")
    specs = build_defs(linked_study).resolve_all_asset_specs()
    assert [spec.key for spec in specs if f"({DASHBOARD}" not in (spec.description or "")] == []
    plain = build_defs(finished.study).resolve_all_asset_specs()
    assert [spec.key for spec in plain if "dashboard" in (spec.description or "")] == []


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)", "ftp://x", "http://", "//x", "x", "http://user:secret@x", "http://x/?a=b", "http://x/#a",
        "http://x/ y", 'http://x/"onload=', "http://x/](http://evil", "file:///etc/passwd", "http://ü", "http://x/" + "a" * 600,
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(finished: Finished, url: str):
    for name in ("dagster_url", "dashboard_url"):
        with pytest.raises(ConfigError, match=name):
            Study(finished.study.home, **{name: url})
