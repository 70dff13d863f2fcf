"""A study in a bucket: the same bytes as on a disk, resumed, published, asked and checked."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import anndata
import numpy as np
import polars as pl
import pytest
from support.s3 import SECRET, S3Server

from assets_tests.store.conftest import PART, SmallStudy, start, tile_frame
from pathassets import Study
from pathassets.errors import ConfigError, Reason, StoreError, StoreUnreachableError
from pathassets.store import Root, index, layout, open_root
from pathassets.store.arrays import EmbeddingsWriter, read_embeddings
from pathassets.store.census import take_census
from pathassets.store.derived import read_derived, write_derived
from pathassets.store.garbage import find_waste, remove
from pathassets.store.groups import read_marker, tree_hashes
from pathassets.store.ingest import Ingest
from pathassets.store.leases import Claim
from pathassets.store.object_root import ObjectRoot
from pathassets.store.query import query
from pathassets.store.results import needs_publishing, publish
from pathassets.store.schema import TABLES
from pathassets.store.verify import Fault, check_group, is_locked, verify

SLIDE, DIGEST, N, DIM = "cmu-12345678", "c0ffee" * 4, 200, 64
ROWS = np.random.default_rng(5).normal(size=(N, DIM)).astype(np.float32)
ROWS[70] = np.nan


@pytest.fixture
def study(tmp_path: Path, bucket: str) -> SmallStudy:
    return SmallStudy(tmp_path / "home", bucket)


@pytest.fixture
def root(bucket: str) -> Root:
    return open_root(bucket)


def writer_of(root: Root) -> EmbeddingsWriter:
    return EmbeddingsWriter(root, SLIDE, DIGEST, n_tiles=N, dim=DIM, shard_rows=64)


def finish(writer: EmbeddingsWriter) -> dict[str, str]:
    for shard in writer.missing_shards():
        writer.write_shard(shard, ROWS[writer.rows_of(shard)])
    writer.finish(tile_frame(N), {"recipe": "x"})
    return tree_hashes(writer.root, writer.group)


@pytest.fixture
def on_disk(tmp_path: Path) -> dict[str, str]:
    """Hashes of the same group on a disk."""
    with writer_of(open_root(tmp_path / "disk")) as writer:
        return finish(writer)


def test_a_group_in_a_bucket_is_the_same_bytes_as_on_a_disk(root: Root, on_disk: dict[str, str], tmp_path: Path):
    with writer_of(root) as writer:
        assert finish(writer) == on_disk
        assert writer.missing_shards() == []
        assert writer.uri == f"{root.uri}/arrays/{SLIDE}/{DIGEST}/embeddings.zarr"
    assert read_marker(root, writer.uri) == read_marker(open_root(tmp_path / "disk"), writer.group)
    assert root.keys("locks") == []
    found = read_embeddings(root, writer.uri)
    np.testing.assert_array_equal(found.read(), ROWS.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(found.rows(60, 70), found.read()[60:70])
    assert found.obs["tile_id"].to_list() == list(range(N))
    assert (~found.ok).nonzero()[0].tolist() == [70]


def test_anndata_opens_it_with_what_the_environment_says(root: Root, tmp_path: Path, bucket: str):
    with writer_of(root) as writer:
        finish(writer)
    adata = anndata.read_zarr(Study(tmp_path, store=bucket).arrays(writer.uri))
    assert adata.shape == (N, DIM)
    assert adata.obsm["spatial"].shape == (N, 2)
    assert adata.uns["recipe"] == "x"


def test_a_resume_writes_only_the_shards_that_are_not_there(root: Root, on_disk: dict[str, str]):
    with writer_of(root) as writer:
        for shard in (0, 2):
            writer.write_shard(shard, ROWS[writer.rows_of(shard)])
    before = {entry.key: entry.mtime for entry in root.entries(writer.group) if "/X/c/" in entry.key}
    with writer_of(root) as again:
        assert again.missing_shards() == [1, 3]
        assert finish(again) == on_disk
    assert before.items() <= {entry.key: entry.mtime for entry in root.entries(writer.group)}.items()


@pytest.mark.parametrize("damage", [b"", b"half"])
def test_a_damaged_shard_is_computed_again_and_a_lost_one_of_a_finished_group_is_an_error(
    root: Root, on_disk: dict[str, str], damage: bytes
):
    with writer_of(root) as writer:
        for shard in (0, 1):
            writer.write_shard(shard, ROWS[writer.rows_of(shard)])
    root.put(f"{writer.group}/X/c/1/0", damage)
    with writer_of(root) as again:
        assert again.missing_shards() == [1, 2, 3]
        assert finish(again) == on_disk
    root.delete(f"{writer.group}/X/c/1/0")
    with pytest.raises(StoreError) as caught:
        read_embeddings(root, writer.group)
    assert caught.value.reason is Reason.STORE_CORRUPT


def test_a_group_without_its_marker_is_not_read(root: Root):
    with writer_of(root) as writer:
        for shard in writer.missing_shards():
            writer.write_shard(shard, ROWS[writer.rows_of(shard)])
    with pytest.raises(StoreError, match="not finished"):
        read_embeddings(root, writer.group)


def test_a_server_that_is_away_makes_no_shard_torn_and_no_row_nan(s3: S3Server, bucket: str, on_disk: dict[str, str]):
    root = ObjectRoot(bucket, patience_s=0)
    with writer_of(root) as writer:
        writer.write_shard(0, ROWS[writer.rows_of(0)])
        s3.down()
        for ask in (
            lambda: writer._is_whole(0), writer.missing_shards,
            lambda: writer.write_shard(1, ROWS[writer.rows_of(1)]), lambda: writer.finish(tile_frame(N)),
        ):  # fmt: skip
            with pytest.raises(StoreUnreachableError) as caught:
                ask()
            assert caught.value.reason is Reason.STORE_UNREACHABLE
        s3.up()
        assert writer.missing_shards() == [1, 2, 3]
        assert finish(writer) == on_disk
    found = read_embeddings(root, writer.group)
    s3.down()
    with pytest.raises(StoreUnreachableError) as caught:
        found.read()
    assert caught.value.reason is Reason.STORE_UNREACHABLE


EMBEDDER = """
    import sys, time
    import numpy as np
    from pathassets.store import open_root
    from pathassets.store.arrays import EmbeddingsWriter
    rows = np.random.default_rng(1).normal(size=(600, 64)).astype("float32")
    with EmbeddingsWriter(open_root(sys.argv[1]), "cmu-12345678", "c0ffee" * 4, n_tiles=600, dim=64, shard_rows=8) as writer:
        print("ready")
        for shard in writer.missing_shards():
            writer.write_shard(shard, rows[writer.rows_of(shard)])
"""


@pytest.mark.e2e
def test_killed_while_writing_and_resumed_at_once(root: Root, tmp_path: Path):
    group = layout.group_key(SLIDE, DIGEST, "embeddings")
    for n in (5, 20):
        child = start(EMBEDDER, root.uri)
        while len(root.keys(f"{group}/X/c")) < n and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.communicate()
    rows = np.random.default_rng(1).normal(size=(600, DIM)).astype(np.float32)
    hashes = []
    for place in (root, open_root(tmp_path / "undisturbed")):
        with EmbeddingsWriter(place, SLIDE, DIGEST, n_tiles=600, dim=DIM, shard_rows=8) as writer:
            missing = writer.missing_shards()
            assert len(missing) <= 55 or place is not root
            for shard in missing:
                writer.write_shard(shard, rows[writer.rows_of(shard)])
            writer.finish(tile_frame(600))
        hashes.append(tree_hashes(place, group))
    assert hashes[0] == hashes[1]


def test_derived_arrays(root: Root):
    obs, obsm = tile_frame(5).select("tile_id", "x_px"), {"X_pca": np.arange(10.0).reshape(5, 2)}
    uri = write_derived(root, SLIDE, DIGEST, "domains", obs=obs, obsm=obsm)
    assert uri.startswith("s3://")
    assert write_derived(root, SLIDE, DIGEST, "domains", obs=obs, obsm=obsm) == uri
    np.testing.assert_array_equal(read_derived(root, uri).obsm["X_pca"], obsm["X_pca"])
    assert root.keys("locks") == []


def test_tables_are_written_once_and_scanned_as_they_are_now(study: SmallStudy):
    tables = study.tables
    assert tables.scan("tiles").collect().is_empty()
    study.add("s-1", patient=7)
    study.add("s-2")
    before = study.root.entries("tables")
    study.add("s-1", patient=7)
    assert study.root.entries("tables") == before
    assert tables.scan("tiles").group_by("slide_id").len().collect()["len"].to_list() == [20, 20]
    assert tables.scan("slides").collect()["patient"].to_list() == [7, None]
    group = layout.group_key("s-1", "a" * 16, "embeddings")
    assert tables.scan("embeddings").collect()["uri"][0] == f"{study.store}/{group}"
    study.root.put(layout.table_key("tiles", "s-1", "px224_mpp050"), b"half")
    with pytest.raises(StoreError, match="is damaged"):
        tables.read("tiles", "s-1", "px224_mpp050")
    assert tables.delete("tiles", "s-1")
    assert Study(study.home, store=study.store).scan("tiles").collect()["slide_id"].unique().to_list() == ["s-2"]


def contents(home: Path) -> dict[str, list]:
    rows = {name: query(home, f"FROM main.{name}").drop("created_at", "run_id", strict=False) for name in TABLES}
    return {name: sorted(map(repr, frame.to_dicts())) for name, frame in rows.items()}


def test_the_snapshot_is_the_same_but_for_where_arrays_lie(study: SmallStudy, tmp_path: Path):
    local = SmallStudy(tmp_path / "local")
    for one in (study, local):
        one.add("s-1", patient=1)
        one.add("s-2")
        one.outcome("s-2", "tiles", "failed", "no_tissue")
        assert publish(one.root, one.home).n_slides == 2
        one.add("s-3", n=5)
        one.derive("s-1", value=2.0)
        assert needs_publishing(one.root, one.home)
        assert publish(one.root, one.home).n_slides == 2, "what did not change is not read again"
        assert not publish(one.root, one.home).changed
    here, there = contents(study.home), contents(local.home)
    moved = [row.replace(f"{study.store}/", "store/") for row in here.pop("embeddings")]
    assert moved == there.pop("embeddings")
    assert here == there
    stored = study.root.keys()
    assert not any("published" in key or key.startswith("locks") for key in stored)


def test_damaged_files_are_left_out_and_named(study: SmallStudy):
    study.add("s-1")
    study.add("s-2")
    key = layout.table_key("tiles", "s-1", "px224_mpp050")
    study.root.put(key, b"half")
    published = publish(study.root, study.home)
    assert set(published.skipped) == {key}
    assert query(study.home, "SELECT DISTINCT slide_id FROM tiles")["slide_id"].to_list() == ["s-2"]
    assert not publish(study.root, study.home).changed


def test_live_says_where_to_look_instead(study: SmallStudy):
    study.add("s-1")
    publish(study.root, study.home)
    for name in ("tiles", "slides", "slide_map"):
        with pytest.raises(ConfigError, match=r"^The schema live cannot look into an object store: ask the same table"):
            query(study.home, f"SELECT count(*) FROM live.{name}", root=study.root)
    bare = query(study.home, "SELECT * FROM duckdb_columns() WHERE schema_name = 'live' AND comment IS NULL")
    assert bare.is_empty()


def test_a_snapshot_tells_nobody_how_the_bucket_is_asked(study: SmallStudy, s3: S3Server):
    study.add("s-1")
    publish(study.root, study.home)
    with writer_of(study.root) as writer:
        finish(writer)
    written = [path.read_bytes() for path in study.home.rglob("*") if path.is_file()]
    stored = study.root.map(study.root.read, study.root.keys())
    for data in [*written, *stored]:
        assert SECRET.encode() not in data
        assert s3.endpoint.encode() not in data


def test_publishing_while_the_server_is_away_leaves_the_last_snapshot(study: SmallStudy, s3: S3Server):
    study.add("s-1")
    publish(study.root, study.home)
    study.add("s-2")
    before = (study.home / "results.duckdb").read_bytes()
    s3.down()
    with pytest.raises(StoreUnreachableError) as caught:
        publish(ObjectRoot(study.store or "", patience_s=0), study.home)
    assert caught.value.reason is Reason.STORE_UNREACHABLE
    assert (study.home / "results.duckdb").read_bytes() == before
    s3.up()
    assert publish(study.root, study.home).changed


def test_a_publisher_that_has_lost_its_lock_publishes_nothing(study: SmallStudy, monkeypatch: pytest.MonkeyPatch):
    study.add("s-1")
    run = Ingest.run

    def paused(self: Ingest, before: dict[str, str]) -> int:
        study.root.put("locks/publish.lock", Claim().data())  # another has taken over meanwhile
        time.sleep(1)
        return run(self, before)

    monkeypatch.setattr(Ingest, "run", paused)
    with pytest.raises(StoreError, match="another process works on publish"):
        publish(ObjectRoot(study.store or "", lease_s=0.5), study.home)
    assert list(study.home.iterdir()) == []


def test_two_homes_publish_from_one_bucket(study: SmallStudy, tmp_path: Path):
    study.add("s-1")
    homes = [study.home, tmp_path / "another"]
    for home in homes:
        assert publish(study.root, home).changed
    for home in homes:
        assert not publish(study.root, home).changed
        assert query(home, "SELECT slide_id FROM slides")["slide_id"].to_list() == ["s-1"]


def test_verify_finds_what_was_changed_or_lost(study: SmallStudy):
    study.add("s-1")
    study.root.delete("arrays")
    study.embed("s-1", real=True)
    publish(study.root, study.home)
    for deep in (True, False):
        assert verify(study.root, study.home, deep=deep).findings == []
    group = layout.group_key("s-1", "a" * 16, "embeddings")
    study.root.put(f"{group}/X/c/0/0", b"other")
    study.root.delete(f"{group}/X/c/1/0")
    for deep in (True, False):
        faults = {(found.fault, found.key) for found in verify(study.root, study.home, deep=deep).findings}
        assert faults == {(Fault.TORN, f"{group}/X/c/0/0"), (Fault.MISSING, f"{group}/X/c/1/0")}


def test_what_cannot_be_asked_is_not_called_damaged(study: SmallStudy, s3: S3Server):
    study.add("s-1")
    publish(study.root, study.home)
    root = ObjectRoot(study.store or "", patience_s=0)
    table = layout.table_key("tiles", "s-1", "px224_mpp050")
    census, read = take_census(root), root.read_part

    def gone(key: str, part: object) -> bytes | None:
        if key == table:  # in the middle of a look
            s3.down()
        return read(key, part)

    root.read_part = gone
    with pytest.raises(StoreUnreachableError):
        take_census(root)
    with pytest.raises(StoreUnreachableError):
        list(check_group(root, census.named[0]))
    with pytest.raises(StoreUnreachableError):
        is_locked(root, "s-1")


def test_garbage_is_found_and_removed(study: SmallStudy):
    study.add("s-1")
    orphan = layout.group_key("s-1", "b" * 16, "embeddings")
    study.root.put(f"{orphan}/zarr.json", b"{}")
    study.root.put("locks/slide-s-9.lock", b"")
    census = take_census(study.root)
    assert find_waste(study.root, census, 3600, ()) == []
    found = find_waste(study.root, census, -60, ())
    assert {waste.key for waste in found} == {orphan, "locks/slide-s-9.lock"}
    assert all(remove(study.root, waste) for waste in found)
    assert study.root.keys("locks") == []
    assert study.root.folders("arrays/s-1") == ["a" * 16]


def test_an_index_follows_its_table(study: SmallStudy):
    for n in (1, 2):
        study.add(f"s-{n}")
        rows = index.indexed(study.tables, "slides", ["slide_id", "path"], remember=True)
        assert rows["slide_id"].to_list() == [f"s-{k}" for k in range(1, n + 1)]
    assert study.root.exists(layout.index_key("slides"))


def test_two_writers_of_one_group_wait_for_each_other(bucket: str, on_disk: dict[str, str]):
    found: list[dict[str, str]] = []

    def work() -> None:
        place = open_root(bucket)
        with EmbeddingsWriter(place, SLIDE, DIGEST, n_tiles=N, dim=DIM, shard_rows=64, lock_timeout=60) as writer:
            found.append(finish(writer))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found == [on_disk, on_disk]


def test_a_marker_that_is_no_json_is_said(study: SmallStudy):
    study.add("s-1")
    group = layout.group_key("s-1", "a" * 16, "embeddings")
    study.root.put(layout.marker_key(group), json.dumps({"rows": 1}).encode())
    with pytest.raises(StoreError, match=f"the marker of {study.store}/arrays"):
        read_marker(study.root, group)


def test_a_part_of_one_slide_can_be_taken_away(study: SmallStudy):
    study.add("s-1")
    assert study.tables.delete("domains", "s-1", PART)
    assert study.tables.read("domains", "s-1", PART) is None
    assert isinstance(study.tables.read("tiles", "s-1", "px224_mpp050"), pl.DataFrame)
