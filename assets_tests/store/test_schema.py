from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from pathassets.encoders.card import EncoderCard
from pathassets.errors import Reason, StoreError
from pathassets.store import Tables, open_root
from pathassets.store.contract import render
from pathassets.store.schema import TABLES, table_spec
from pathassets.store.spec import INT, TEXT, Column, TableSpec

REPOSITORY = Path(__file__).resolve().parents[2]

# What users and outside checks rely on.
CORE = {
    "slides": "slide_id path reader vendor width_px height_px n_levels objective_power mpp mpp_origin",
    "tissues": "slide_id tissue_id area_mm2 geometry",
    "tiles": "slide_id tiling tile_id x_px y_px size_px tissue_id tissue_share",
    "embeddings": "slide_id recipe uri n_tiles dim dtype precision digest",
    "slide_vectors": "slide_id recipe method tissue_id vector",
    "domains": "slide_id tile_id recipe variant domain label",
    "text_scores": "slide_id tile_id recipe term cosine probability",
    "predictions": "slide_id tile_id recipe class probability",
    "patch_tokens": "slide_id recipe uri n_tiles grid_rows grid_cols dim dtype",
    "outcomes": "slide_id recipe step status reason message remedy",
    "timings": "slide_id recipe stage seconds tiles device",
    "encoders": "name dim tile_px mpp licence citation gated",
    "slide_map": "slide_id recipe method x y",
    "cohort_map": "slide_id tile_id recipe x y",
}


@pytest.mark.parametrize("table", CORE)
def test_the_names_that_users_rely_on_are_there(table: str):
    assert set(CORE[table].split()) <= set(table_spec(table).names)


@pytest.mark.parametrize("spec", TABLES.values(), ids=lambda spec: spec.name)
def test_every_table_is_described(spec: TableSpec):
    assert spec.description
    assert set(spec.key) <= set(spec.names)
    assert len(set(spec.names)) == len(spec.names)
    for column in spec.columns:
        assert column.description
        assert not column.description.endswith(".")
        assert column.sql_type
        for ending, unit in (("_px", "px"), ("_mm2", "mm²"), ("_bytes", "bytes")):
            if column.name.endswith(ending):
                assert column.unit == unit, column.name


def test_an_unknown_table_lists_those_there_are():
    with pytest.raises(KeyError, match="slides"):
        table_spec("slide")


def test_derived_tables_come_after_the_embeddings_that_they_are_judged_by():
    order = list(TABLES)
    assert order.index("tiles") < order.index("embeddings")
    derived = {name for name, spec in TABLES.items() if spec.derived}
    others = {
        "slide_vectors",
        "domains",
        "domain_summary",
        "text_scores",
        "predictions",
        "patch_tokens",
        "derived_arrays",
    }
    assert others | {"slide_map", "cohort_map"} == derived
    assert all(order.index(name) > order.index("embeddings") for name in derived)


SPEC = TableSpec(
    "things", "Things", ("id",),
    (Column("id", INT, "id"), Column("kind", TEXT, "kind", choices=("a", "b")), Column("note", TEXT, "n", optional=True)),
)  # fmt: skip


def test_a_frame_is_brought_into_order_and_type():
    frame = SPEC.conform(pl.DataFrame({"kind": ["a", "b"], "id": pl.Series([1, 2], dtype=pl.Int8)}))
    assert frame.schema == SPEC.polars_schema
    assert frame["note"].null_count() == 2


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"id": [1]}, "misses its column kind"),
        ({"id": [1], "kind": ["a"], "colour": [1]}, "no column colour"),
        ({"id": [None], "kind": ["a"]}, "1 rows without id"),
        ({"id": [1], "kind": ["c"]}, r"kind = \['c'\]"),
        ({"id": [1, 1], "kind": ["a", "b"]}, "two rows with one key"),
        ({"id": ["x"], "kind": ["a"]}, "cannot take id as BIGINT"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(columns: dict, says: str):
    with pytest.raises(StoreError, match=says) as caught:
        SPEC.conform(pl.DataFrame(columns))
    assert caught.value.reason is Reason.INTERNAL
    assert "things" in str(caught.value)


def test_column_schemas_are_plain_data():
    rows = table_spec("tissues").column_schema()
    assert ("area_mm2", "DOUBLE", "Area without holes [mm²]") in rows
    assert all(type(part) is str for row in rows for part in row)


def test_the_card_of_an_encoder_is_a_row_of_encoders(tmp_path: Path):
    card = EncoderCard(name="x", dim=4, input_px=224, description="d", templates=("a {}",))
    tables = Tables(open_root(tmp_path))
    tables.write("encoders", [card.to_row()])
    row = tables.read("encoders").row(0, named=True)
    assert {name: row[name] for name in card.to_row()} == card.to_row()


def test_the_committed_page_is_the_generated_one():
    page = (REPOSITORY / "docs" / "data-contract.md").read_text(encoding="utf-8")
    assert page == render(), "run: python -m pathassets.store.schema docs/data-contract.md"


def test_the_page_names_every_table_and_column():
    page = render()
    for spec in TABLES.values():
        section = page.partition(f"### `{spec.name}`")[2].partition("### ")[0]
        assert all(f"| `{name}` |" in section for name in spec.names), spec.name


def test_the_generator_writes_the_page(tmp_path: Path):
    target = tmp_path / "page.md"
    command = [sys.executable, "-W", "error", "-m", "pathassets.store.schema"]
    subprocess.run([*command, str(target)], check=True, cwd=REPOSITORY)
    printed = subprocess.run(command, check=True, cwd=REPOSITORY, capture_output=True, text=True).stdout
    assert target.read_text(encoding="utf-8") == printed == render()


@pytest.mark.parametrize(
    "module", ["schema", "layout", "tables", "arrays", "derived", "results", "query", "verify", "cache"]
)
def test_no_module_loads_what_it_does_not_need_yet(module: str):
    code = f"import pathassets.store.{module}, sys; print('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, capture_output=True, text=True)
    heavy = {"duckdb", "zarr", "anndata", "pandas", "dagster", "torch", "scanpy", "openslide"}
    assert set(run.stdout.split()) & heavy == set()
