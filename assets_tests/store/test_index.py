"""The index of a table says what the table says, and opens only what has changed."""

from __future__ import annotations

import pytest

from pathassets.store import Tables, index, layout, open_root
from pathassets.store.index import indexed

COLUMNS = ("slide_id", "path", "other_paths", "missing_since")


def row(i: int, **more):
    return {"slide_id": f"s{i}", "path": f"/in/s{i}.svs", "other_paths": [f"/copy/{i}"], **more}


@pytest.fixture
def tables(tmp_path):
    tables = Tables(open_root(tmp_path / "store"))
    for i in range(3):
        tables.write("slides", [row(i, patient=f"P{i}" if i else 7)], slide_id=f"s{i}")  # extras of different types
    return tables


@pytest.fixture
def opened(monkeypatch):
    """The keys that were opened, in order."""
    keys = []
    rows = index._rows
    monkeypatch.setattr(index, "_rows", lambda tables, some, schema: keys.extend(some) or rows(tables, some, schema))
    return keys


def same_as_the_table(tables):
    found = indexed(tables, "slides", COLUMNS, remember=True)
    columns = [tables.read("slides", slide_id).select(COLUMNS).to_dicts()[0] for slide_id in found["slide_id"]]
    return found.to_dicts() == columns


def test_it_follows_the_table(tables, opened):
    assert same_as_the_table(tables)
    assert len(opened) == 3
    tables.write("slides", [row(1, path="/moved/s1.svs")], slide_id="s1")
    tables.write("slides", [row(7)], slide_id="s7")
    tables.delete("slides", "s0")
    del opened[:]
    assert same_as_the_table(tables)
    assert opened == [layout.table_key("slides", "s1"), layout.table_key("slides", "s7")]
    assert indexed(tables, "slides", COLUMNS, remember=True)["slide_id"].to_list() == ["s1", "s2", "s7"]
    assert len(opened) == 2


def test_without_remembering_nothing_is_written(tables):
    before = tables.root.keys()
    assert indexed(tables, "slides", COLUMNS, remember=False).height == 3
    assert tables.root.keys() == before


def test_an_empty_store_is_no_error_and_stays_empty(tmp_path):
    tables = Tables(open_root(tmp_path / "store"))
    assert indexed(tables, "slides", COLUMNS, remember=True).height == 0
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("lot", [1, 2, 256])
def test_a_damaged_file_is_left_out_and_taken_when_it_is_whole(tables, caplog, monkeypatch, lot):
    monkeypatch.setattr("pathassets.store.tables._FILES_OF_A_SCAN", lot)
    path = tables.root.local(layout.table_key("slides", "s1"))
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    assert indexed(tables, "slides", COLUMNS, remember=True)["slide_id"].to_list() == ["s0", "s2"]
    assert str(path) in caplog.text
    path.write_bytes(whole)
    assert indexed(tables, "slides", COLUMNS, remember=True)["slide_id"].to_list() == ["s0", "s1", "s2"]


@pytest.mark.parametrize("damage", [b"", b"no parquet", b"PAR1"])
def test_a_damaged_index_is_made_anew(tables, damage):
    indexed(tables, "slides", COLUMNS, remember=True)
    tables.root.put(layout.index_key("slides"), damage)
    assert same_as_the_table(tables)


def test_other_columns_make_it_anew(tables):
    indexed(tables, "slides", ("slide_id", "path"), remember=True)
    assert same_as_the_table(tables)


def test_rows_of_an_older_version_lack_columns(tables):
    path = tables.root.local(layout.table_key("slides", "s1"))
    tables.read("slides", "s1").drop("missing_since", "file_version").write_parquet(path)
    assert indexed(tables, "slides", COLUMNS, remember=True)["missing_since"].to_list() == [None, None, None]
