"""Any table as Parquet or CSV."""

from __future__ import annotations

import json
import re
import shutil

import polars as pl
import pyarrow.parquet
import pytest
from polars.testing import assert_frame_equal

from pathassets.config import Study
from pathassets.errors import ConfigError
from pathassets.exports.files import Target
from pathassets.exports.places import Places
from pathassets.exports.run import export_tables
from pathassets.steps.session import Session
from pathassets.store.schema import TABLES

# Columns that hold paths or addresses in the store; in an export they hold names.
HOLD_PLACES = {"path", "other_paths", "uri", "message", "inputs"}


def test_every_table_can_be_taken_along_and_says_what_its_columns_mean(made, target):
    assert export_tables(made.session, [], None, None, target, csv=False) == []
    assert target.written == [f"{name}.parquet" for name in TABLES]
    for name in TABLES:
        path = target.path / f"{name}.parquet"
        kept = [column for column in made.table(name).columns if column not in HOLD_PLACES]
        assert_frame_equal(pl.read_parquet(path).select(kept), made.table(name).select(kept))
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


@pytest.mark.parametrize("csv", [True, False])
def test_no_table_tells_where_files_lie(made, tmp_path, target, csv):
    shutil.copytree(made.home, tmp_path / "study")
    session = Session(Study(tmp_path / "study"))
    row = session.tables.read("slides", made.slide_id)
    told = row.with_columns(
        path=pl.lit("/data/Erika Muster/good.tiff"), other_paths=pl.Series([["s3://lab/muster/good.tiff"]]),
        tissue_mask=pl.lit("masks/muster/good.png"), site=pl.lit("north/south"),
    )  # fmt: skip
    session.tables.write("slides", told, slide_id=made.slide_id)
    outcome = session.tables.read("outcomes", made.bad_id)
    message = "/data/Erika Muster/good.tiff and /scans/muster/b.svs. differ: https://example.org/a/b"
    session.tables.write("outcomes", outcome.with_columns(message=pl.lit(message)), slide_id=made.bad_id)
    assert export_tables(session, [], None, None, target, csv=csv) == []
    everything = b"".join(path.read_bytes() for path in sorted(target.path.iterdir()))
    if csv:
        assert not re.search(rb"muster|/data|s3:|" + str(made.home).encode(), everything, re.IGNORECASE)
        read = {name: pl.read_csv(target.path / f"{name}.csv") for name in ("slides", "outcomes", "embeddings")}
    else:
        read = {name: pl.read_parquet(target.path / f"{name}.parquet") for name in ("slides", "outcomes", "embeddings")}
    slide = read["slides"].row(by_predicate=pl.col("slide_id") == made.slide_id, named=True)
    assert (slide["path"], slide["tissue_mask"], slide["site"]) == ("good.tiff", "good.png", "north/south")
    assert "good.tiff and b.svs. differ: https://example.org/a/b" in read["outcomes"]["message"].to_list()
    assert session.root.exists(f"{read['embeddings']['uri'][0]}/zarr.json"), "the key of a group finds it again"
    manifests = [json.loads(text).get("manifest", {}) for text in read["outcomes"]["inputs"].drop_nulls()]
    assert all("/" not in str(manifest) for manifest in manifests)


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("cannot read /data/muster/a.png: no such file.", "cannot read a.png: no such file."),
        ("gone: C:\\lab\\muster\\a.svs.", "gone: a.svs."),
        ("s3://lab/muster/a.svs", "a.svs"),
        ("tiles of 0.5 µm/px and/or 20x/40x", "tiles of 0.5 µm/px and/or 20x/40x"),
        ("px224_mpp050/demo", "px224_mpp050/demo"),
        ('{"weights": "/models/muster/uni.bin", "mpp": 0.5}', '{"mpp": 0.5, "weights": "uni.bin"}'),
    ],
)
def test_places_become_names_and_nothing_else_changes(made, told, kept):
    assert Places(made.session).plain(told) == kept


def test_a_sentence_that_begins_with_a_path_is_no_path(made):
    frame = pl.DataFrame({"message": ["/scans/muster/a.svs and b/c differ"], "path": ["muster/a.svs"]})
    assert Places(made.session).without(frame).row(0) == ("a.svs and b/c differ", "a.svs")
