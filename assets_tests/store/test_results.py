from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import duckdb
import polars as pl
import pytest

from pathassets.errors import Reason, StoreError
from pathassets.store import layout
from pathassets.store.groups import read_marker
from pathassets.store.ingest import VIEWS
from pathassets.store.query import query
from pathassets.store.results import needs_publishing, publish
from pathassets.store.schema import TABLES

from .conftest import PART, RECIPE, SmallStudy, fill_disk, start, tile_frame

NEW = "b" * 16


def state_of(path: Path) -> tuple[int, int, str]:
    return path.stat().st_mtime_ns, path.stat().st_ino, hashlib.sha256(path.read_bytes()).hexdigest()


def contents(home: Path) -> dict[str, list[str]]:
    """Every table of the snapshot, row by row, in no order."""
    return {name: sorted(map(str, query(home, f"FROM main.{name}").rows())) for name in TABLES}


def count(home: Path, table: str, where: str = "true") -> int:
    return query(home, f"SELECT count(*) FROM {table} WHERE {where}").item()


def test_an_empty_study_has_every_table(study: SmallStudy):
    published = publish(study.root, study.home)
    assert published.changed
    assert published.rows == dict.fromkeys(TABLES, 0)
    for name, spec in TABLES.items():
        for schema in ("main", "live"):
            assert query(study.home, f"FROM {schema}.{name}").columns == list(spec.names)


def test_rows_of_all_slides_are_there_with_their_types(study: SmallStudy):
    for slide in ("s-1", "s-2"):
        study.add(slide, grade=3)
    published = publish(study.root, study.home)
    assert (published.n_slides, published.skipped) == (2, {})
    assert published.rows["tiles"] == count(study.home, "tiles") == 40
    described = dict(query(study.home, "SELECT column_name, column_type FROM (DESCRIBE slide_vectors)").rows())
    assert described["vector"] == "FLOAT[]"
    assert query(study.home, "SELECT grade FROM slides").to_series().to_list() == [3, 3]
    joined = query(study.home, "SELECT slide_id, domain, x_px FROM tile_domains WHERE tile_id = 3")
    assert joined.sort("slide_id").rows() == [("s-1", 0, 672), ("s-2", 0, 672)]


def test_the_uri_is_found_from_the_folder_of_the_snapshot(study: SmallStudy):
    study.add("s-1")
    study.embed("s-1", digest=NEW, real=True)
    publish(study.root, study.home)
    for schema in ("main", "live"):
        uri = query(study.home, f"SELECT uri FROM {schema}.embeddings").item()
        assert not Path(uri).is_absolute()
        assert read_marker(study.root, str(study.home / uri))["digest"] == NEW
        assert anndata.read_zarr(study.home / uri).n_obs == 20


def test_a_store_outside_the_home_has_absolute_uris(study: SmallStudy, tmp_path: Path):
    study.add("s-1")
    home = tmp_path / "other"
    publish(study.root, home)
    uri = query(home, "SELECT uri FROM embeddings", root=study.root).item()
    assert Path(uri).is_dir()
    assert query(home, "SELECT count(*) FROM live.tiles", root=study.root).item() == 20


def test_a_second_publication_changes_no_byte(study: SmallStudy):
    study.add("s-1")
    publish(study.root, study.home)
    before = state_of(study.home / "results.duckdb")
    study.add("s-1")
    assert not needs_publishing(study.root, study.home)
    again = publish(study.root, study.home)
    assert not again.changed
    assert again.rows["tiles"] == 20
    assert state_of(study.home / "results.duckdb") == before


def test_every_table_view_and_column_has_a_comment_also_after_replacement(study: SmallStudy):
    study.add("s-1", grade=1)
    for _ in range(2):
        publish(study.root, study.home)
        where = "comment IS NULL AND NOT internal AND schema_name IN ('main', 'live')"
        columns = query(study.home, f"SELECT schema_name, table_name, column_name FROM duckdb_columns() WHERE {where}")
        assert columns.rows() == []
        for kind in ("table", "view"):
            bare = query(study.home, f"SELECT {kind}_name FROM duckdb_{kind}s() WHERE {where}")
            assert bare.rows() == []
        study.add("s-2", grade=2, ward="x")
    comments = query(study.home, "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'tiles'")
    assert "[px]" in dict(comments.rows())["x_px"]


def test_updating_gives_the_same_as_making_anew(study: SmallStudy):
    for slide in ("s-1", "s-2", "s-3"):
        study.add(slide)
    publish(study.root, study.home)
    study.derive("s-1", value=5.0)
    study.outcome("s-2", "tissue", "failed", "no_tissue")
    study.tables.delete("domains", "s-3")
    study.add("s-4", ward="north")
    study.tables.write("slide_map", [_map_row("s-1"), _map_row("s-4")], part=PART)
    updated = publish(study.root, study.home)
    assert updated.n_slides == 4
    after_update = contents(study.home)
    publish(study.root, study.home, full=True)
    assert contents(study.home) == after_update
    assert count(study.home, "domains", "slide_id = 's-3'") == 0
    assert query(study.home, "SELECT vector[1] FROM slide_vectors WHERE slide_id = 's-1'").item() == 5.0
    assert query(study.home, "SELECT path, reason FROM problems").rows() == [("/in/s-2.svs", "no_tissue")]


def _map_row(slide_id: str, digest: str = "a" * 16) -> dict:
    return {"slide_id": slide_id, "recipe": RECIPE, "method": "pca", "x": 0.0, "y": 0.0, "embeddings_digest": digest}


@pytest.mark.e2e
def test_a_column_of_the_manifest_comes_and_goes_with_the_slides_that_have_it(study: SmallStudy):
    for slide in ("s-1", "s-2"):
        study.add(slide)
    publish(study.root, study.home)
    for extras, there in (({"grade": 3}, True), ({"grade": 2}, True), ({"grade": "high"}, True), ({}, False)):
        study.add("s-2", **extras)
        publish(study.root, study.home)
        after, columns = contents(study.home), query(study.home, "FROM live.slides").columns
        assert ("grade" in query(study.home, "FROM slides").columns) == ("grade" in columns) == there
        publish(study.root, study.home, full=True)
        assert contents(study.home) == after
        assert query(study.home, "FROM live.slides").columns == columns


def test_files_are_taken_in_a_few_at_a_time(study: SmallStudy, monkeypatch: pytest.MonkeyPatch):
    for i in range(5):
        study.add(f"s-{i}")
    publish(study.root, study.home)
    at_once = contents(study.home)
    monkeypatch.setattr("pathassets.store.ingest.FILES_AT_ONCE", 2)
    publish(study.root, study.home, full=True)
    assert contents(study.home) == at_once
    assert count(study.home, "slides") == 5


def test_only_changed_slides_are_taken_in_again(study: SmallStudy):
    for i in range(4):
        study.add(f"s-{i}")
    publish(study.root, study.home)
    study.derive("s-2", value=2.0)
    assert publish(study.root, study.home).n_slides == 1


def test_rows_from_embeddings_that_are_no_longer_current_are_left_out(study: SmallStudy):
    for slide in ("s-1", "s-2"):
        study.add(slide)
    study.tables.write("slide_map", [_map_row("s-1"), _map_row("s-2")], part=PART)
    publish(study.root, study.home)
    assert count(study.home, "slide_map") == 2
    study.embed("s-1", digest=NEW)
    publish(study.root, study.home)
    for table in ("slide_vectors", "domains", "slide_map"):
        assert count(study.home, table, "slide_id = 's-1'") == 0, table
        assert count(study.home, table, "slide_id = 's-2'") > 0, table
        assert count(study.home, f"live.{table}", "slide_id = 's-1'") > 0, table
    assert query(study.home, "SELECT digest FROM embeddings WHERE slide_id = 's-1'").item() == NEW
    assert count(study.home, "outcomes", "slide_id = 's-1'") == 1
    study.derive("s-1", embeddings_digest=NEW)
    publish(study.root, study.home)
    assert count(study.home, "domains", "slide_id = 's-1'") == 20
    # back to the numbers of before: the rows that say so count again without having been touched
    study.embed("s-1")
    study.derive("s-1")
    publish(study.root, study.home)
    assert count(study.home, "slide_map", "slide_id = 's-1'") == 1


def test_embeddings_of_tiles_that_have_changed_since_are_left_out(study: SmallStudy):
    study.add("s-1")
    study.add("s-2")
    study.tables.write("tiles", tile_frame(20, digest="0e0e" * 4), slide_id="s-1", part="px224_mpp050")
    publish(study.root, study.home)
    for table in ("embeddings", "domains"):
        assert query(study.home, f"SELECT DISTINCT slide_id FROM {table}").to_series().to_list() == ["s-2"]
    assert count(study.home, "tiles", "slide_id = 's-1'") == 20


def test_embeddings_without_a_finished_group_are_left_out_until_it_is_finished(study: SmallStudy):
    study.add("s-1")
    marker = layout.marker_key(layout.group_key("s-1", "a" * 16, "embeddings"))
    text = study.root.read(marker)
    study.root.delete(marker)
    publish(study.root, study.home)
    assert count(study.home, "embeddings") == count(study.home, "domains") == 0
    assert count(study.home, "outcomes") == 1
    study.root.put(marker, text)
    assert needs_publishing(study.root, study.home)
    publish(study.root, study.home)
    assert (count(study.home, "embeddings"), count(study.home, "domains")) == (1, 20)


def test_outcomes_of_a_slide_that_has_nothing_else_enter(study: SmallStudy):
    study.outcome("broken-1", "slide", "failed", "not_a_slide")
    publish(study.root, study.home)
    assert query(study.home, "SELECT slide_id, path, reason FROM problems").rows() == [
        ("broken-1", None, "not_a_slide")
    ]


def test_a_slide_that_is_gone_from_the_store_is_gone_from_the_snapshot(study: SmallStudy):
    for slide in ("s-1", "s-2"):
        study.add(slide)
    publish(study.root, study.home)
    for table in TABLES:
        if not TABLES[table].study:
            study.tables.delete(table, "s-1")
    publish(study.root, study.home)
    for table in ("slides", "tiles", "embeddings", "domains", "outcomes"):
        assert query(study.home, f"SELECT DISTINCT slide_id FROM {table}").to_series().to_list() == ["s-2"], table


@pytest.mark.parametrize("from_last", [True, False])
@pytest.mark.parametrize("table", ["tiles", "slides", "outcomes", "domains"])
def test_a_damaged_file_is_left_out_and_reported_until_it_is_whole(study: SmallStudy, table: str, from_last: bool):
    for slide in ("s-1", "s-2"):
        study.add(slide)
    if from_last:
        publish(study.root, study.home)
    parts = {"tiles": "px224_mpp050", "slides": "part", "outcomes": "tiles", "domains": PART}
    key = layout.table_key(table, "s-1", parts[table])
    whole = study.root.read(key)
    study.root.put(key, whole[: len(whole) // 3])
    published = publish(study.root, study.home)
    assert list(published.skipped) == [key]
    assert query(study.home, f"SELECT DISTINCT slide_id FROM {table}").to_series().to_list() == ["s-2"]
    assert count(study.home, "slide_vectors", "slide_id = 's-1'") == 1
    unchanged = publish(study.root, study.home)
    assert not unchanged.changed
    assert list(unchanged.skipped) == [key]
    study.root.put(key, whole)
    assert publish(study.root, study.home).skipped == {}
    assert count(study.home, table, "slide_id = 's-1'") > 0


def test_the_live_views_see_new_rows_before_they_are_published(study: SmallStudy):
    study.add("s-1", grade=1)
    publish(study.root, study.home)
    study.add("s-2", grade=2, ward="new column")
    for table in ("slides", "tiles", "domains", "outcomes"):
        assert query(study.home, f"SELECT DISTINCT slide_id FROM live.{table}").height == 2, table
        assert query(study.home, f"SELECT DISTINCT slide_id FROM {table}").height == 1, table


def test_an_open_reader_keeps_its_snapshot_and_a_new_one_sees_the_next(study: SmallStudy):
    study.add("s-1")
    publish(study.root, study.home)
    old = duckdb.connect(str(study.home / "results.duckdb"), read_only=True)
    child = start(READER, study.home / "results.duckdb")
    study.add("s-2")
    assert publish(study.root, study.home).changed
    assert old.execute("SELECT count(*) FROM slides").fetchall() == [(1,)]
    assert old.execute("SELECT count(*) FROM tiles t JOIN domains d USING (slide_id, tile_id)").fetchall() == [(20,)]
    assert child.communicate("go\n", timeout=60)[0].split() == ["1", "2"]
    assert count(study.home, "slides") == 2
    old.close()


READER = """
    import sys, duckdb
    con = duckdb.connect(sys.argv[1], read_only=True)
    print("ready")
    sys.stdin.readline()
    print(con.execute("SELECT count(*) FROM slides").fetchone()[0])
    con.close()
    print(duckdb.connect(sys.argv[1], read_only=True).execute("SELECT count(*) FROM slides").fetchone()[0])
"""

VANDAL = """
    import os, sys, duckdb
    con = duckdb.connect(sys.argv[1])
    con.execute("SET checkpoint_threshold = '1TB'")
    con.execute("DELETE FROM slides; CREATE TABLE mine AS SELECT 1")
    print("ready")
    os.kill(os.getpid(), 9)
"""


def test_a_log_that_a_killed_writer_left_is_not_replayed_into_the_next_snapshot(study: SmallStudy):
    study.add("s-1")
    publish(study.root, study.home)
    path = study.home / "results.duckdb"
    path.chmod(0o644)
    start(VANDAL, path).communicate()
    wal = path.with_name("results.duckdb.wal")
    assert wal.exists()
    assert count(study.home, "slides") == 0  # the trap: whoever opens the file replays the log
    assert needs_publishing(study.root, study.home)
    publish(study.root, study.home)
    assert not wal.exists()
    assert count(study.home, "slides") == 1
    assert query(study.home, "SHOW TABLES").to_series().to_list().count("mine") == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


@pytest.mark.e2e
def test_a_snapshot_that_somebody_changed_is_made_anew(study: SmallStudy):
    study.add("s-1")
    publish(study.root, study.home)
    path = study.home / "results.duckdb"
    expected = contents(study.home)
    for damage in (b"", b"not a database" * 1000):
        path.unlink()
        path.write_bytes(damage)
        assert publish(study.root, study.home).changed
        assert contents(study.home) == expected
    path.unlink()
    assert publish(study.root, study.home).changed
    assert contents(study.home) == expected


def test_a_last_snapshot_that_cannot_be_copied_from_is_made_anew(study: SmallStudy):
    study.add("s-1")
    publish(study.root, study.home)
    path = study.home / "results.duckdb"
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:  # damage that neither size nor time show
        file.write(b"\xff" * 20_000)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    study.add("s-2")
    publish(study.root, study.home)
    assert count(study.home, "slides") == 2


def test_another_shape_of_the_tables_is_made_anew(study: SmallStudy, monkeypatch: pytest.MonkeyPatch):
    study.add("s-1")
    publish(study.root, study.home)
    monkeypatch.setattr("pathassets.store.results.SNAPSHOT_FORMAT", 99)
    study.add("s-2")
    published = publish(study.root, study.home)
    assert published.n_slides == 2
    assert count(study.home, "slides") == 2


def test_a_moved_study_publishes_its_live_views_anew(study: SmallStudy):
    study.add("s-1")
    publish(study.root, study.home)
    moved = SmallStudy(study.home.parent / "moved [1] it's *new*")
    shutil.move(study.home, moved.home)
    assert count(moved.home, "tiles") == 20
    assert needs_publishing(moved.root, moved.home)
    publish(moved.root, moved.home)
    assert count(moved.home, "live.tiles") == 20
    assert (moved.home / query(moved.home, "SELECT uri FROM embeddings").item()).is_dir()


PUBLISHER = """
    import sys
    from pathassets.store import open_root
    from pathassets.store.results import publish
    import duckdb, polars, pyarrow
    print("ready")
    for _ in range(int(sys.argv[2])):
        publish(open_root(sys.argv[1] + "/store"), sys.argv[1], full=True, timeout=120)
"""


@pytest.mark.e2e
def test_killed_while_publishing_the_last_snapshot_stays_whole(study: SmallStudy):
    for i in range(5):
        study.add(f"s-{i}")
    publish(study.root, study.home)
    moments, expected = random.Random(3), contents(study.home)
    for _ in range(5):
        child = start(PUBLISHER, study.home, 100)
        time.sleep(moments.uniform(0, 0.5))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert contents(study.home) == expected
    study.add("s-9")
    publish(study.root, study.home)
    assert count(study.home, "slides") == 6
    assert sorted(os.listdir(study.home)) == [layout.PUBLISHED, "results.duckdb", "store"]


@pytest.mark.e2e
def test_two_publishers_wait_for_each_other(study: SmallStudy):
    study.add("s-1")
    publish(study.root, study.home)
    children = [start(PUBLISHER, study.home, 2) for _ in range(2)]
    for child in children:
        assert child.communicate(timeout=120)[1] == ""
    assert count(study.home, "slides") == 1
    with study.root.lock("publish"), pytest.raises(StoreError) as caught:
        publish(study.root, study.home, full=True, timeout=0)
    assert caught.value.reason is Reason.LOCKED


def test_a_full_disk_leaves_the_last_snapshot(tmpfs: Callable[[str], Path]):
    disk = tmpfs("24m")
    study = SmallStudy(disk / "home")
    study.add("s-1")
    publish(study.root, study.home)
    study.add("s-2")
    before = state_of(study.home / "results.duckdb")
    size = (study.home / "results.duckdb").stat().st_size
    for leave in (0, size // 4, size // 2):
        filler = fill_disk(disk, leave=leave)
        for full in (False, True):
            with pytest.raises(StoreError) as caught:
                publish(study.root, study.home, full=full)
            assert caught.value.reason is Reason.DISK_FULL
            assert caught.value.remedy
        assert state_of(study.home / "results.duckdb") == before
        assert sorted(os.listdir(study.home)) == [layout.PUBLISHED, "results.duckdb", "store"]
        filler.unlink()
    assert publish(study.root, study.home).changed
    assert count(study.home, "slides") == 2


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="pathassets-test-"))
    yield folder
    shutil.rmtree(folder)


ORDINARY = """
    import os, sys, tempfile
    from pathlib import Path
    from pathassets.store import open_root
    from pathassets.store.query import query
    from pathassets.store.results import publish
    from assets_tests.store.conftest import SmallStudy
    import duckdb
    with tempfile.TemporaryDirectory() as warm:  # as root, so that nothing has to be imported from root's folders later
        study = SmallStudy(Path(warm) / "home")
        study.add("s-1")
        publish(study.root, study.home)
        query(study.home, "FROM slides")
    if os.getuid() == 0:
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
    print("ready")
    assert os.getuid() != 0
    study = SmallStudy(Path(sys.argv[1]) / "home")
    path = study.home / "results.duckdb"
    for i in range(3):
        study.add(f"s-{i}")
        assert publish(study.root, study.home).n_slides == 1  # more: the last snapshot could not be copied from
        assert oct(path.stat().st_mode & 0o777) == "0o444"
        assert query(study.home, "SELECT count(*) FROM slides").item() == i + 1
        try:
            duckdb.connect(str(path))
        except duckdb.IOException as error:
            assert "ermission" in str(error), error
        else:
            raise AssertionError("the snapshot could be opened for writing")
    publish(study.root, study.home, full=True)
    print("published")
"""


def test_an_ordinary_user_publishes_over_the_read_only_snapshot_and_cannot_write_it(open_folder: Path):
    open_folder.chmod(0o777)
    out, err = start(ORDINARY, open_folder).communicate(timeout=120)
    assert out.strip() == "published", err


def test_a_read_only_home_is_said(study: SmallStudy, tmpfs: Callable[[str], Path]):
    study.add("s-1")
    home = tmpfs("8m")
    subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
    with pytest.raises(StoreError) as caught:
        publish(study.root, home)
    assert caught.value.reason is Reason.STORE_READ_ONLY


@pytest.mark.parametrize("record", [b"", b"[]", b"{", json.dumps({"what": 1}).encode()])
def test_a_damaged_note_of_the_last_publication_costs_only_time(study: SmallStudy, record: bytes):
    study.add("s-1")
    publish(study.root, study.home)
    (study.home / layout.PUBLISHED).write_bytes(record)
    assert publish(study.root, study.home).changed
    assert count(study.home, "slides") == 1


def test_the_views_of_main_do_not_look_outside(study: SmallStudy, tmp_path: Path):
    study.add("s-1")
    publish(study.root, study.home)
    alone = tmp_path / "given away"
    alone.mkdir()
    shutil.copy(study.home / "results.duckdb", alone / "results.duckdb")
    shutil.rmtree(study.home)
    for name in (*TABLES, *VIEWS):
        assert isinstance(query(alone, f"FROM {name}"), pl.DataFrame)
    assert count(alone, "tile_domains") == 20


def test_publishing_what_lies_in_the_store_of_a_name_with_quotes(tmp_path: Path):
    study = SmallStudy(tmp_path / 'it\'s a "home"')
    study.add("s-1", **{'patient\'s "id"': 7})
    publish(study.root, study.home)
    assert query(study.home, "FROM slides")['patient\'s "id"'].to_list() == [7]
    assert (study.home / layout.PUBLISHED).exists()
