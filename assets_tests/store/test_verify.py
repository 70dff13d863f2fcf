from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import polars as pl
import pytest

from pathassets.store import layout
from pathassets.store.derived import write_derived
from pathassets.store.query import query
from pathassets.store.results import publish
from pathassets.store.root import DAY_S
from pathassets.store.verify import Fault, Finding, Report, hush_busy, verify

from .conftest import PART, RECIPE, SmallStudy, tile_frame

GROUP = layout.group_key("s-1", "a" * 16, "embeddings")
OLD_GROUP = layout.group_key("s-1", "0" * 16, "embeddings")


@pytest.fixture
def whole(study: SmallStudy) -> SmallStudy:
    study.add("s-1")
    study.root.delete("arrays")
    study.embed("s-1", real=True)
    obs = pl.DataFrame({"tile_id": [0, 1]})
    uri = write_derived(study.root, "s-1", "d" * 16, "domains", obs=obs)
    row = {
        "recipe": RECIPE, "step": "spatial_domains", "name": "domains", "uri": uri, "n_tiles": 2, "contents": [],
        "embeddings_digest": "a" * 16, "digest": "d" * 16,
    }  # fmt: skip
    study.tables.write("derived_arrays", [row], slide_id="s-1", part=PART)
    publish(study.root, study.home)
    return study


def age(path: Path, days: float = 2) -> None:
    moment = time.time() - days * DAY_S
    for item in (path, *path.rglob("*")):
        os.utime(item, (moment, moment))


def look(study: SmallStudy, *, deep: bool = False) -> Report:
    return verify(study.root, study.home, deep=deep)


def found(study: SmallStudy, *, deep: bool = False) -> list[tuple[Fault, str]]:
    """What is damaged; an old snapshot follows from most damage."""
    return [(f.fault, f.key) for f in look(study, deep=deep).findings if not f.harmless]


def test_a_whole_study_has_no_findings(whole: SmallStudy):
    for deep in (True, False):
        report = look(whole, deep=deep)
        assert report.ok
        assert (report.findings, report.n_groups, report.n_files) == ([], 2, 7)


@pytest.mark.parametrize("name", ["X/c/0/0", "obs/_index/c/0", "zarr.json"])
def test_a_lost_file_is_found(whole: SmallStudy, name: str):
    whole.root.delete(f"{GROUP}/{name}")
    for deep in (True, False):
        assert found(whole, deep=deep) == [(Fault.MISSING, f"{GROUP}/{name}")]
    assert all(finding.remedy and finding.slide_id == "s-1" for finding in look(whole).findings)


@pytest.mark.parametrize("name", ["X/c/0/0", "obs/tile_id/c/0", "obsm/spatial/c/0/0"])
def test_a_torn_file_is_found_without_reading_every_byte(whole: SmallStudy, name: str):
    path = whole.root.local(f"{GROUP}/{name}")
    for left in (path.stat().st_size // 2, 0):
        os.truncate(path, left)
        assert found(whole) == [(Fault.TORN, f"{GROUP}/{name}")]


def test_a_torn_file_of_a_group_that_knows_no_sizes_is_found(whole: SmallStudy):
    key = layout.marker_key(GROUP)
    marker = json.loads(whole.root.read(key))
    whole.root.put(key, json.dumps({name: value for name, value in marker.items() if name != "sizes"}).encode())
    assert found(whole) == []
    os.truncate(whole.root.local(f"{GROUP}/X/c/0/0"), 0)
    os.truncate(whole.root.local(f"{GROUP}/X/c/1/0"), 20)
    assert found(whole) == [(Fault.TORN, f"{GROUP}/X/c/0/0")]
    assert (Fault.TORN, f"{GROUP}/X/c/1/0") in found(whole, deep=True)


def test_one_flipped_bit_is_found(whole: SmallStudy):
    data = bytearray(whole.root.read(f"{GROUP}/X/c/0/0"))
    data[len(data) // 2] ^= 1
    whole.root.local(f"{GROUP}/X/c/0/0").write_bytes(data)
    assert found(whole, deep=True) == [(Fault.TORN, f"{GROUP}/X/c/0/0")]
    assert found(whole) == []


def test_a_published_group_without_marker_is_found(whole: SmallStudy):
    whole.root.delete(layout.marker_key(GROUP))
    assert found(whole) == [(Fault.MISSING, GROUP)]
    assert Fault.OLD_SNAPSHOT in {finding.fault for finding in look(whole).findings}


def test_a_garbled_marker_is_found(whole: SmallStudy):
    for text in (b"", b"{", b"[]", b'{"files": 3}', b'{"files": {}}', b"\xff\xfe"):
        whole.root.put(layout.marker_key(GROUP), text)
        assert found(whole) == [(Fault.UNREADABLE, layout.marker_key(GROUP))], text


@pytest.mark.parametrize("change", [{"n_tiles": 19}, {"digest": "b" * 16}, {"dim": 9}, {"uri": "/etc"}])
def test_a_row_that_says_other_than_its_group_is_found(whole: SmallStudy, change: dict):
    row = whole.tables.read("embeddings", "s-1", PART)
    assert row is not None
    whole.tables.write(
        "embeddings", row.with_columns(**{k: pl.lit(v) for k, v in change.items()}), slide_id="s-1", part=PART
    )
    assert [fault for fault, _ in found(whole)] == [Fault.CONTRADICTION]


def test_tiles_that_are_not_those_that_were_embedded_are_found(whole: SmallStudy):
    frame = tile_frame().with_columns(x_px=pl.col("x_px") + 1)
    whole.tables.write("tiles", frame, slide_id="s-1", part="px224_mpp050")
    assert found(whole) == [(Fault.CONTRADICTION, layout.table_key("tiles", "s-1", "px224_mpp050"))]


def test_tiles_that_have_been_laid_anew_are_no_contradiction(whole: SmallStudy):
    frame = tile_frame(digest="72e5" * 4).with_columns(x_px=pl.col("x_px") + 1)
    whole.tables.write("tiles", frame, slide_id="s-1", part="px224_mpp050")
    assert found(whole) == []


def test_a_damaged_table_is_found(whole: SmallStudy):
    key = layout.table_key("domains", "s-1", PART)
    for data in (b"", b"PAR1 no", b"\0" * 500):
        whole.root.put(key, data)
        assert found(whole) == [(Fault.UNREADABLE, key)], data


def test_a_table_that_is_not_of_the_schema_is_found(whole: SmallStudy):
    key = layout.table_key("domains", "s-1", PART)
    pl.DataFrame({"slide_id": ["s-1"], "pigs": [1]}).write_parquet(whole.root.local(key))
    assert found(whole) == [(Fault.UNREADABLE, key)]


def test_rows_of_another_slide_are_found(whole: SmallStudy):
    key = layout.table_key("domains", "s-1", PART)
    pl.read_parquet(whole.root.local(key)).with_columns(slide_id=pl.lit("s-2")).write_parquet(whole.root.local(key))
    assert found(whole) == [(Fault.UNREADABLE, key)]


def foreign(study: SmallStudy) -> list[str]:
    """What is not of the store, when nothing else is to be said."""
    findings = [finding for finding in look(study).findings if finding.fault is not Fault.OLD_SNAPSHOT]
    assert {finding.fault for finding in findings} == {Fault.FOREIGN}
    return sorted(finding.key for finding in findings)


def test_a_foreign_file_harms_nothing_and_is_said(whole: SmallStudy):
    names = [
        "tables/pigs/slide_id=s-1/part.parquet",
        "tables/tiles/slide_id=s-1/a b.parquet",
        "tables/tiles/x.parquet",
        "tables/x",
    ]
    for name in names:
        whole.root.put(name, b"mine")
    assert foreign(whole) == names
    publish(whole.root, whole.home, full=True)
    assert whole.tables.scan("tiles").collect().height == 20


def test_a_foreign_folder_among_the_arrays_harms_nothing_and_is_said(whole: SmallStudy):
    names = ["arrays/@eaDir", "arrays/s-1/@eaDir", "arrays/s-1/abcd"]
    for name in names:
        whole.root.put(f"{name}/thumb.jpg", b"theirs")
    assert foreign(whole) == names
    publish(whole.root, whole.home, full=True)
    assert query(whole.home, "SELECT count(*) AS n FROM embeddings")["n"].to_list() == [1]


@pytest.mark.parametrize("table", ["slides", "tiles", "slide_map"])
def test_a_foreign_file_that_ends_in_parquet_is_read_by_nobody(whole: SmallStudy, table: str):
    for file in ("@eaDir/q.parquet", "slide_id=s-1/._part.parquet", "study/._part.parquet"):
        whole.root.put(f"tables/{table}/{file}", b"theirs")
    publish(whole.root, whole.home, full=True)
    for schema in ("main", "live"):
        query(whole.home, f"SELECT * FROM {schema}.{table}")
    assert query(whole.home, "SELECT slide_id FROM live.slides")["slide_id"].to_list() == ["s-1"]
    assert len(foreign(whole)) == 3


def test_a_snapshot_that_was_replaced_is_old_and_one_that_was_changed_is_damaged(whole: SmallStudy):
    path = whole.home / "results.duckdb"
    stat = path.stat()
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[4096:12288] = bytes(8192)
    with path.open("r+b") as file:  # in place, as a bad disk does it
        file.write(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert found(whole) == [(Fault.SNAPSHOT, "results.duckdb")]
    path.unlink()
    assert [finding.fault for finding in look(whole).findings] == [Fault.OLD_SNAPSHOT]


def test_rows_of_the_snapshot_that_the_store_has_not_are_found_by_a_deep_look(whole: SmallStudy):
    import duckdb

    path = whole.home / "results.duckdb"
    for statement, deep in (("UPDATE tiles SET x_px = 7 WHERE tile_id = 3", True), ("DELETE FROM tiles", False)):
        publish(whole.root, whole.home, full=True)
        path.chmod(0o644)
        with duckdb.connect(str(path)) as con:
            con.execute(statement)
        record = json.loads(layout.published_path(whole.home).read_bytes())
        stat = path.stat()
        record["snapshot"] = f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}"
        layout.published_path(whole.home).write_bytes(json.dumps(record).encode())
        assert found(whole, deep=deep) == [(Fault.SNAPSHOT, "results.duckdb")], statement


def test_what_is_left_over_harms_nothing(whole: SmallStudy):
    whole.root.put(f"{OLD_GROUP}/zarr.json", b"{}")
    whole.root.put(layout.marker_key(OLD_GROUP), b"{}")
    whole.root.put("locks/slide-s-9.lock", b"process 1 on elsewhere")
    temp = whole.root.path / "tables" / ".x.parquet.1.ab.tmp"
    temp.write_bytes(b"half")
    assert {finding.fault for finding in look(whole).findings} == {Fault.OLD_SNAPSHOT}
    age(whole.root.path)
    report = look(whole)
    expected = {
        (Fault.ORPHAN, OLD_GROUP),
        (Fault.LOCK, "locks/slide-s-9.lock"),
        (Fault.TEMPORARY, "tables/.x.parquet.1.ab.tmp"),
    }
    assert {(f.fault, f.key) for f in report.findings if f.fault is not Fault.OLD_SNAPSHOT} == expected
    assert report.ok


def test_slides_that_are_being_worked_on_are_not_judged(whole: SmallStudy):
    findings = [Finding(Fault.TORN, "x", "", "", "s-1"), Finding(Fault.TORN, "y", "", "", "s-2")]
    with whole.root.lock(layout.slide_lock("s-1")):
        assert [(f.fault, f.key) for f in hush_busy(whole.root, findings)] == [(Fault.TORN, "y"), (Fault.BUSY, "s-1")]
    whole.root.put("locks/slide-s-1.lock", b"process 1 on elsewhere")
    assert hush_busy(whole.root, findings) == findings
    assert not whole.root.exists("locks/slide-s-1.lock")


def test_a_store_that_changes_under_the_look_does_not_break_it(whole: SmallStudy):
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for number in range(5):
                whole.outcome(f"s-{number + 2}", "tiles")
                whole.tables.delete("outcomes", f"s-{number + 2}")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(5):
            look(whole)
    finally:
        stop.set()
        thread.join()
