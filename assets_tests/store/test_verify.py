from __future__ import annotations

import os
import time
from pathlib import Path

import polars as pl
import pytest

from pathassets.store import layout
from pathassets.store.arrays import EmbeddingsWriter
from pathassets.store.derived import write_derived
from pathassets.store.groups import is_done
from pathassets.store.results import publish
from pathassets.store.root import DAY_S
from pathassets.store.verify import sweep, verify

from .conftest import PART, RECIPE, SmallStudy

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


def test_a_whole_study_has_no_problems(whole: SmallStudy):
    report = verify(whole.root, whole.home)
    assert report.ok
    assert (report.problems, report.orphans, report.temp_files) == ([], [], [])
    assert (report.n_groups, report.snapshot_current) == (2, True)
    assert report.n_files == 7


@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize("name", ["X/c/0/0", "obs/_index/c/0", "zarr.json"])
def test_a_lost_file_is_found(whole: SmallStudy, name: str, deep: bool):
    whole.root.delete(f"{GROUP}/{name}")
    report = verify(whole.root, whole.home, deep=deep)
    assert [p.key for p in report.problems] == [f"{GROUP}/{name}"]
    assert report.problems[0].remedy


def test_one_flipped_bit_is_found(whole: SmallStudy):
    data = bytearray(whole.root.read(f"{GROUP}/X/c/0/0"))
    data[len(data) // 2] ^= 1
    whole.root.local(f"{GROUP}/X/c/0/0").write_bytes(data)
    assert [p.message for p in verify(whole.root, whole.home).problems] == ["is not what was written"]
    assert verify(whole.root, whole.home, deep=False).ok


def test_a_published_group_without_marker_is_found(whole: SmallStudy):
    whole.root.delete(layout.marker_key(GROUP))
    report = verify(whole.root, whole.home)
    assert [p.key for p in report.problems] == [GROUP]
    assert not report.snapshot_current


def test_a_table_that_says_other_than_its_group_is_found(whole: SmallStudy):
    row = whole.tables.read("embeddings", "s-1", PART).with_columns(n_tiles=pl.lit(19))
    whole.tables.write("embeddings", row, slide_id="s-1", part=PART)
    assert "20 rows" in verify(whole.root, whole.home).problems[0].message


def test_a_damaged_table_is_found(whole: SmallStudy):
    key = layout.table_key("tiles", "s-1", "px224_mpp050")
    whole.root.put(key, b"PAR1 no")
    report = verify(whole.root, whole.home)
    assert [p.key for p in report.problems] == [key]


def test_what_nobody_names_goes_when_it_is_a_day_old(whole: SmallStudy):
    whole.root.put(f"{OLD_GROUP}/zarr.json", b"{}")
    whole.root.put(layout.marker_key(OLD_GROUP), b"{}")
    assert verify(whole.root, whole.home).orphans == []
    assert sweep(whole.root) == []
    age(whole.root.path / "arrays")
    assert verify(whole.root, whole.home).orphans == [OLD_GROUP]
    assert sweep(whole.root) == [OLD_GROUP]
    assert not whole.root.exists(layout.array_folder("s-1", "0" * 16))
    report = verify(whole.root, whole.home)
    assert (report.ok, report.orphans, report.n_groups) == (True, [], 2)


def test_a_group_that_is_being_written_stays(whole: SmallStudy):
    with EmbeddingsWriter(whole.root, "s-1", "0" * 16, n_tiles=4, dim=2):
        age(whole.root.path / "arrays")
        assert sweep(whole.root) == []
    assert sweep(whole.root) == [OLD_GROUP]


def test_nothing_is_deleted_while_a_table_cannot_be_read(whole: SmallStudy):
    age(whole.root.path / "arrays")
    whole.root.put(layout.table_key("embeddings", "s-1", PART), b"damaged")
    assert sweep(whole.root) == []
    assert is_done(whole.root, GROUP)


def test_half_written_files_are_swept(whole: SmallStudy):
    temp = whole.root.path / "tables" / ".x.parquet.1.ab.tmp"
    temp.write_bytes(b"half")
    age(temp)
    assert verify(whole.root, whole.home).temp_files == [temp]
    sweep(whole.root)
    assert not temp.exists()
