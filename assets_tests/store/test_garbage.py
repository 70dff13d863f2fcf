"""What nobody refers to goes by age; what a row names, or somebody is at, never does."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pathassets.store import layout
from pathassets.store.arrays import EmbeddingsWriter
from pathassets.store.census import take_census
from pathassets.store.garbage import HOUR_S, Kind, Waste, find_waste, remove
from pathassets.store.groups import is_done
from pathassets.store.root import DAY_S

from .conftest import PART, SmallStudy

GROUP = layout.group_key("s-1", "a" * 16, "embeddings")
OLD_GROUP = layout.group_key("s-1", "0" * 16, "embeddings")


@pytest.fixture
def small(study: SmallStudy) -> SmallStudy:
    study.add("s-1")
    study.root.put(f"{OLD_GROUP}/zarr.json", b"{}")
    study.root.put(layout.marker_key(OLD_GROUP), b"{}")
    return study


def age(path: Path, days: float = 2) -> None:
    moment = time.time() - days * DAY_S
    for item in (path, *path.rglob("*")):
        os.utime(item, (moment, moment))


def waste(study: SmallStudy, days: float = 1, **options: object) -> list[Waste]:
    return find_waste(study.root, take_census(study.root), days * DAY_S, options.pop("published", ()), **options)


def gc(study: SmallStudy, days: float = 1) -> list[str]:
    return [item.key for item in waste(study, days) if remove(study.root, item)]


def test_what_no_row_names_goes_when_it_is_old_enough(small: SmallStudy):
    assert gc(small) == []
    age(small.root.path)
    assert gc(small, days=3) == []
    assert [(w.kind, w.key, w.size, w.slide_id) for w in waste(small)] == [(Kind.GROUP, OLD_GROUP, 4, "s-1")]
    assert gc(small) == [OLD_GROUP]
    assert not small.root.exists(layout.array_folder("s-1", "0" * 16))
    assert is_done(small.root, GROUP)
    assert gc(small) == []


def test_one_young_file_keeps_a_group(small: SmallStudy):
    age(small.root.path)
    small.root.put(f"{OLD_GROUP}/X/c/0/0", b"x")
    assert gc(small) == []


def test_an_unfinished_group_is_resumed_until_it_is_old(small: SmallStudy):
    with EmbeddingsWriter(small.root, "s-1", "c" * 16, n_tiles=4, dim=2):
        pass
    begun = layout.group_key("s-1", "c" * 16, "embeddings")
    age(small.root.path / "arrays" / "s-1" / ("0" * 16))
    assert gc(small) == [OLD_GROUP]
    age(small.root.path)
    assert gc(small) == [begun]
    assert small.root.folders("arrays/s-1") == ["a" * 16]


def test_a_group_that_is_being_written_stays_however_old_it_is(small: SmallStudy):
    small.root.delete(f"arrays/s-1/{'0' * 16}")
    with EmbeddingsWriter(small.root, "s-1", "0" * 16, n_tiles=4, dim=2):
        age(small.root.path / "arrays")
        assert gc(small) == []
    assert gc(small) == [OLD_GROUP]


def test_a_slide_that_is_being_worked_on_keeps_all_its_groups(small: SmallStudy):
    age(small.root.path)
    with small.root.lock(layout.slide_lock("s-1")):
        assert gc(small) == []
    assert gc(small) == [OLD_GROUP]


def test_a_group_that_a_run_has_come_back_to_stays(small: SmallStudy):
    """Between the look and the removal a run finds the old group to be the wanted one and names it again."""
    age(small.root.path)
    found = waste(small)
    small.embed("s-1", digest="0" * 16)
    assert [remove(small.root, item) for item in found] == [False]
    assert is_done(small.root, OLD_GROUP)


def test_nothing_of_a_slide_goes_while_its_naming_rows_cannot_be_read(small: SmallStudy):
    small.root.put(layout.table_key("embeddings", "s-1", PART), b"damaged")
    age(small.root.path)
    assert gc(small) == []
    assert is_done(small.root, GROUP)
    assert is_done(small.root, OLD_GROUP)


def test_what_is_left_of_a_slide_that_is_not_registered_goes_as_a_whole(small: SmallStudy):
    small.add("s-2")
    small.root.put(layout.tissue_labels_key("s-2"), b"x")
    small.root.put(layout.figure_key("s-2", "a.html"), b"x")
    small.root.put(layout.figure_key(None, "plotly.js"), b"x")
    small.root.delete(layout.table_key("slides", "s-2"))
    assert gc(small) == []
    age(small.root.path)
    assert waste(small, published=["s-2"]) == waste(small, days=1, published=["s-2"])
    assert {item.slide_id for item in waste(small, published=["s-2"])} == {"s-1"}
    gone = gc(small)
    assert {"arrays/s-2", "masks/s-2", "figures/s-2", "tables/tiles/slide_id=s-2"} <= set(gone)
    assert not [entry.key for entry in small.root.entries() if "s-2" in entry.key]
    assert small.root.exists(layout.figure_key(None, "plotly.js"))
    assert is_done(small.root, GROUP)


def test_a_slide_that_is_registered_again_meanwhile_keeps_everything(small: SmallStudy):
    small.add("s-2")
    small.root.delete(layout.table_key("slides", "s-2"))
    age(small.root.path)
    found = [item for item in waste(small) if item.kind is Kind.SLIDE]
    small.tables.write("slides", [{"slide_id": "s-2", "path": "/in/s-2.svs"}], slide_id="s-2")
    assert found
    assert not any(remove(small.root, item) for item in found)


def test_a_study_whose_table_of_slides_is_lost_is_not_emptied(small: SmallStudy):
    small.root.delete("tables/slides")
    age(small.root.path)
    assert gc(small) == []


def test_a_damaged_row_of_a_slide_still_registers_it(small: SmallStudy):
    small.root.put(layout.table_key("slides", "s-1"), b"damaged")
    age(small.root.path)
    assert [item.kind for item in waste(small)] == [Kind.GROUP]


@pytest.mark.parametrize(("hours", "goes"), [(0.5, False), (2, True)])
def test_half_written_files_are_at_least_an_hour_old(small: SmallStudy, hours: float, goes: bool):
    temp = small.root.path / "tables" / ".x.parquet.1.ab.tmp"
    temp.write_bytes(b"half")
    os.utime(temp, (time.time() - hours * HOUR_S,) * 2)
    assert [item.key for item in waste(small, days=0) if item.kind is Kind.TEMPORARY] == (
        ["tables/.x.parquet.1.ab.tmp"] if goes else []
    )
    gc(small, days=0)
    assert temp.exists() is not goes


def test_a_lock_that_somebody_holds_stays(small: SmallStudy):
    small.root.put("locks/slide-s-7.lock", b"process 1 on elsewhere")
    with small.root.lock("slide-s-8"):
        age(small.root.path / "locks")
        assert gc(small) == ["locks/slide-s-7.lock"]
        assert small.root.exists("locks/slide-s-8.lock")


def test_cache_entries_in_use_stay(small: SmallStudy):
    keys = [layout.cache_key("weights", name) for name in ("mine", "old")]
    for key in (*keys, layout.cache_key("inbox", "memory"), layout.index_key("slides")):
        small.root.put(key, b"{}")
    age(small.root.path / "cache")
    assert [item.key for item in waste(small, keep_cache={keys[0]})] == [keys[1]]


def test_foreign_folders_are_not_ours_to_remove(small: SmallStudy):
    for name in ("arrays/s-1/notes/x.txt", "arrays/s-1/zzz.zarr/y", f"arrays/s-1/{'b' * 16}/A B.zarr/z"):
        path = small.root.path / name
        path.parent.mkdir(parents=True)
        path.write_text("mine")
    age(small.root.path)
    assert gc(small) == [OLD_GROUP]
    assert (small.root.path / "arrays/s-1/notes/x.txt").exists()
