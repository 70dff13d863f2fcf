from __future__ import annotations

import hashlib
import os
import shutil
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import polars as pl
import pytest

from pathassets.errors import Reason, StoreError
from pathassets.store import Tables, layout, open_root
from pathassets.store.schema import TABLES

from .conftest import PART, RECIPE, SmallStudy, start, tile_frame


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(open_root(tmp_path / "store"))


def _state(tables: Tables) -> dict[str, tuple[str, str]]:
    return {e.key: (e.etag, hashlib.sha256(tables.root.read(e.key)).hexdigest()) for e in tables.root.entries()}


def test_rows_come_back_as_they_were(tables: Tables):
    rows = tile_frame(5)
    assert tables.write("tiles", rows, slide_id="s-1", part="px224_mpp050")
    back = tables.read("tiles", "s-1", "px224_mpp050")
    assert back.schema == TABLES["tiles"].polars_schema
    assert back.select(rows.columns).equals(rows.cast(back.select(rows.columns).schema))
    assert back["slide_id"].unique().to_list() == ["s-1"]
    assert tables.read("tiles", "s-1") is None
    assert tables.exists("tiles", "s-1", "px224_mpp050")
    assert not tables.exists("tiles", "s-2", "px224_mpp050")


def test_no_rows_are_a_result_too(tables: Tables):
    tables.write("tissues", [], slide_id="s-1")
    assert tables.read("tissues", "s-1").height == 0
    assert tables.exists("tissues", "s-1")


def test_the_same_numbers_from_another_run_change_no_byte(tables: Tables):
    row = {"tissue_id": 0, "area_mm2": 1.5, "geometry": "{}", "digest": "d1", "run_id": "first"}
    assert tables.write("tissues", [row], slide_id="s-1")
    before = _state(tables)
    assert not tables.write("tissues", [{**row, "run_id": "second"}], slide_id="s-1")
    assert _state(tables) == before
    assert tables.write("tissues", [{**row, "digest": "d2", "run_id": "second"}], slide_id="s-1")
    assert tables.read("tissues", "s-1")["run_id"].to_list() == ["second"]


def test_nan_and_null_count_as_the_same_and_not_as_each_other(tables: Tables):
    frame = tile_frame(2).with_columns(sharpness=pl.Series([float("nan"), None], dtype=pl.Float32))
    assert tables.write("tiles", frame, slide_id="s-1", part="a")
    assert not tables.write("tiles", frame, slide_id="s-1", part="a")
    assert tables.write("tiles", frame.with_columns(sharpness=pl.lit(float("nan"))), slide_id="s-1", part="a")


def test_every_row_says_when_it_was_written_in_utc(tables: Tables):
    tables.write("tissues", [{"tissue_id": 0, "area_mm2": 1.0, "geometry": "{}"}], slide_id="s-1")
    written = tables.read("tissues", "s-1")["created_at"][0]
    assert abs(datetime.now(UTC).replace(tzinfo=None) - written) < timedelta(minutes=5)


def test_times_of_any_zone_are_kept_as_utc_beside_plain_ones(tables: Tables):
    base = {"recipe": None, "status": "ok", "reason": None, "message": None, "remedy": None}
    rows = [
        {**base, "step": "slide", "created_at": datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))},
        {**base, "step": "tissue", "created_at": datetime(2026, 1, 1, 12)},
    ]
    tables.write("outcomes", rows, slide_id="s-1")
    assert [t.hour for t in tables.read("outcomes", "s-1")["created_at"]] == [10, 12]


def test_scan_gives_all_rows_and_without_rows_all_columns(tables: Tables):
    for name, spec in TABLES.items():
        assert tables.scan(name).collect_schema() == spec.polars_schema
    tables.ensure_schema_files()
    assert tables.scan("tiles").collect().height == 0
    for slide in ("s-1", "s-2"):
        tables.write("tiles", tile_frame(3), slide_id=slide, part="a")
    assert tables.scan("tiles").group_by("slide_id").len().sort("slide_id").collect()["len"].to_list() == [3, 3]


def test_columns_of_the_manifest_are_united_and_empty_ones_decide_no_type(tables: Tables):
    tables.write("slides", [{"path": "/a", "age": 61, "site": "colon"}], slide_id="s-1")
    tables.write("slides", [{"path": "/b", "age": None, "batch": 2}], slide_id="s-2")
    tables.write("slides", [{"path": "/c"}], slide_id="s-3")
    frame = tables.scan("slides").collect().sort("slide_id")
    assert frame["age"].to_list() == [61, None, None]
    assert frame["batch"].to_list() == [None, 2, None]
    assert frame.columns[:2] == ["slide_id", "path"]
    again = tables.read("slides", "s-1")
    assert not tables.write("slides", again.to_dicts(), slide_id="s-1")


@pytest.mark.parametrize("name", ["Path", "MPP", "Slide_ID"])
def test_a_manifest_cannot_shadow_a_column(tables: Tables, name: str):
    with pytest.raises(StoreError, match=r"slides\.csv") as caught:
        tables.write("slides", [{"path": "/a", name: "x"}], slide_id="s-1")
    assert caught.value.reason is Reason.MANIFEST_INVALID


def test_rows_of_another_slide_are_refused(tables: Tables):
    with pytest.raises(StoreError, match="another slide"):
        tables.write("tissues", [{"slide_id": "s-2", "tissue_id": 0, "area_mm2": 1.0, "geometry": ""}], slide_id="s-1")


def test_tables_of_the_study_have_no_slide_and_others_have_one(tables: Tables):
    with pytest.raises(ValueError, match="per slide"):
        tables.read("tiles")
    with pytest.raises(ValueError, match="per study"):
        tables.write("slide_map", [], slide_id="s-1")
    with pytest.raises(ValueError, match="slide id"):
        tables.write("tissues", [], slide_id="../../etc")


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"not parquet at all", None])
def test_a_damaged_file_is_said_and_can_be_written_again(tables: Tables, damage: bytes | None):
    tables.write("tiles", tile_frame(50), slide_id="s-1", part="a")
    key = layout.table_key("tiles", "s-1", "a")
    whole = tables.root.read(key)
    tables.root.local(key).write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with pytest.raises(StoreError, match="damaged") as caught:
        tables.read("tiles", "s-1", "a")
    assert caught.value.reason is Reason.STORE_CORRUPT
    assert tables.write("tiles", tile_frame(50), slide_id="s-1", part="a")
    assert tables.read("tiles", "s-1", "a").height == 50


def test_files_of_an_older_version_are_read_with_todays_columns(tables: Tables):
    tables.write("tiles", tile_frame(3), slide_id="s-1", part="a")
    path = tables.root.local(layout.table_key("tiles", "s-1", "a"))
    pl.read_parquet(path).drop("eosin").with_columns(gone=pl.lit(1)).write_parquet(path)
    tables.write("tiles", tile_frame(2), slide_id="s-2", part="a")
    assert tables.read("tiles", "s-1", "a").schema == TABLES["tiles"].polars_schema
    scanned = tables.scan("tiles").collect()
    assert scanned.schema == TABLES["tiles"].polars_schema
    assert scanned.height == 5


def test_a_uri_follows_the_study_when_it_moves(study: SmallStudy):
    study.add("s-1")
    moved = study.home.parent / "elsewhere"
    shutil.move(study.home, moved)
    tables = Tables(open_root(moved / "store"))
    uri = tables.read("embeddings", "s-1", PART)["uri"][0]
    assert uri == tables.scan("embeddings").collect()["uri"][0]
    assert uri.startswith(str(moved))
    assert Path(uri).is_dir()
    row = tables.read("embeddings", "s-1", PART)
    assert not tables.write("embeddings", row, slide_id="s-1", part=PART)


def test_delete_takes_a_part_or_a_slide(tables: Tables):
    for part in ("a", "b"):
        tables.write("tiles", tile_frame(1), slide_id="s-1", part=part)
    assert tables.delete("tiles", "s-1", "a")
    assert tables.read("tiles", "s-1", "a") is None
    assert tables.delete("tiles", "s-1")
    assert tables.keys("tiles") == []
    assert not tables.delete("tiles", "s-1")


WRITER = """
    import sys
    from pathassets.store import Tables, open_root
    tables, n = Tables(open_root(sys.argv[1])), int(sys.argv[2])
    rows = [{"recipe": sys.argv[3], "variant": "leiden", "tile_id": i, "domain": n, "label": None, "embeddings_digest": "a"}
            for i in range(n)]
    print("ready")
    for k in range(40):
        tables.write("domains", [{**row, "digest": str(k)} for row in rows], slide_id="s-1", part="a")
"""


def test_two_writers_of_one_file_never_mix_rows(tables: Tables):
    children = [start(WRITER, tables.root.path, n, RECIPE) for n in (200, 300)]
    seen = set()
    while any(child.poll() is None for child in children):
        frame = tables.read("domains", "s-1", "a")
        if frame is not None:
            assert frame["domain"].unique().to_list() == [frame.height]
            assert frame["digest"].n_unique() == 1
            seen.add(frame.height)
    for child in children:
        assert child.communicate()[1] == ""
    assert seen <= {200, 300}
    assert seen
    names = os.listdir(tables.root.local(layout.table_key("domains", "s-1", "a")).parent)
    assert names == ["a.parquet"]


@pytest.mark.parametrize("lot", [1, 3, 100])
def test_a_scan_in_lots_has_every_row_in_order_and_can_be_of_one_slide(tables: Tables, monkeypatch, lot: int):
    monkeypatch.setattr("pathassets.store.tables._FILES_OF_A_SCAN", lot)
    for i in range(7):
        for part in ("a", "b"):
            tables.write("tiles", tile_frame(2), slide_id=f"s{i}", part=part)
    found = tables.scan("tiles").select("slide_id", "tile_id").collect()
    assert found.rows() == [(f"s{i}", tile) for i in range(7) for _ in "ab" for tile in range(2)]
    assert tables.scan("tiles", "s1").select("slide_id").collect().rows() == [("s1",)] * 4
    assert tables.scan("tiles", "s9").collect().is_empty()
