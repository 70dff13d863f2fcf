"""Any table as Parquet or CSV."""

from __future__ import annotations

import json

import polars as pl
import pyarrow.parquet
import pytest
from polars.testing import assert_frame_equal

from pathassets.errors import ConfigError
from pathassets.exports.files import Target
from pathassets.exports.run import export_tables
from pathassets.store.schema import TABLES


def test_every_table_can_be_taken_along_and_says_what_its_columns_mean(made, target):
    assert export_tables(made.session, [], None, None, target, csv=False) == []
    assert target.written == [f"{name}.parquet" for name in TABLES]
    for name in TABLES:
        path = target.path / f"{name}.parquet"
        assert_frame_equal(pl.read_parquet(path), made.table(name))
        about = json.loads(pyarrow.parquet.read_schema(path).metadata[b"pathassets"])
        assert about["table"] == name
        assert set(about["columns"]) == set(made.table(name).columns)


def test_csv_has_lists_as_json_and_its_meaning_beside_it(made, target):
    export_tables(made.session, ["slides", "slide_vectors"], None, None, target, csv=True)
    assert target.written == ["slides.csv", "slides.csv.json", "slide_vectors.csv", "slide_vectors.csv.json"]
    vectors = pl.read_csv(target.path / "slide_vectors.csv")
    assert json.loads(vectors["vector"][0]) == pytest.approx(made.table("slide_vectors")["vector"][0].to_list())
    about = json.loads((target.path / "slides.csv.json").read_text())
    assert "µm" in about["columns"]["mpp"]


def test_only_some_slides_and_recipes(made, target):
    export_tables(made.session, ["slides"], [made.bad_id], None, target, csv=False)
    assert pl.read_parquet(target.path / "slides.parquet")["slide_id"].to_list() == [made.bad_id]
    export_tables(made.session, ["embeddings", "outcomes"], None, ["px224_mpp050/other"], target, csv=False)
    assert pl.read_parquet(target.path / "embeddings.parquet").is_empty()
    steps = set(pl.read_parquet(target.path / "outcomes.parquet")["step"])
    assert steps == {"slide", "tissue", "tiles"}, "what belongs to no recipe stays"


def test_a_table_that_there_is_not_is_refused_before_anything_is_written(made, target):
    with pytest.raises(ConfigError, match="no table 'nothing'"):
        export_tables(made.session, ["slides", "nothing"], None, None, target, csv=False)
    assert not target.path.exists()


def test_a_file_that_holds_something_else_is_told_and_the_others_are_written(made, tmp_path):
    (tmp_path / "slides.parquet").write_text("mine")
    target = Target(tmp_path)
    left = export_tables(made.session, ["slides", "tiles"], None, None, target, csv=False)
    assert [item.slide_id for item in left] == ["table slides"]
    assert target.written == ["tiles.parquet"]
    assert (tmp_path / "slides.parquet").read_text() == "mine"
