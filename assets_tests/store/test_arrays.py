from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import polars as pl
import pytest

from pathassets.errors import Reason, StoreError
from pathassets.store import Root, layout, open_root
from pathassets.store.arrays import OK, UNREADABLE, Embeddings, EmbeddingsWriter, read_embeddings, tile_centres
from pathassets.store.groups import is_done, read_marker, tree_hashes
from pathassets.store.sharded import fits

from .conftest import fill_disk, start, tile_frame

SLIDE, DIGEST = "cmu-12345678", "c0ffee" * 4


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return open_root(tmp_path / "store")


def numbers(n: int, dim: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def write(root: Root, rows: np.ndarray, **options: object) -> EmbeddingsWriter:
    n, dim = rows.shape
    with EmbeddingsWriter(root, SLIDE, DIGEST, n_tiles=n, dim=dim, **options) as writer:
        for shard in writer.missing_shards():
            writer.write_shard(shard, rows[writer.rows_of(shard)])
        writer.finish(tile_frame(n), {"encoder": "demo-vlm", "mean": [0.1, 0.2]})
    return writer


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 100])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_embeddings_come_back_and_open_as_anndata(root: Root, n: int, dtype: str):
    rows = numbers(n)
    writer = write(root, rows, shard_rows=16, dtype=dtype)
    expected = rows.astype(dtype).astype(np.float32)
    assert np.array_equal(read_embeddings(root, writer.uri).read(), expected)
    adata = anndata.read_zarr(writer.uri)
    assert adata.shape == (n, 32)
    assert adata.X.dtype == np.dtype(dtype)
    assert np.array_equal(adata.X.astype(np.float32), expected)
    assert adata.obs_names.tolist() == [str(i) for i in range(n)]
    assert (adata.obs["status"] == OK).all()
    assert adata.uns["digest"] == DIGEST
    assert adata.uns["encoder"] == "demo-vlm"


def test_shards_are_whole_files_with_inner_chunks_and_holes_read_as_nan(root: Root):
    import zarr

    writer = write(root, numbers(1000), shard_rows=512)
    array = zarr.open_array(writer.uri, path="X", mode="r")
    assert (array.shards, array.chunks) == ((512, 32), (256, 32))
    assert np.isnan(array.fill_value)
    assert sorted(p.name for p in (Path(writer.uri) / "X" / "c").iterdir()) == ["0", "1"]


@pytest.mark.parametrize(("shard_rows", "chunk"), [(512, 256), (100, 100), (509, 509), (1000, 250), (16, 16)])
def test_inner_chunks_divide_the_shard(root: Root, shard_rows: int, chunk: int):
    import zarr

    writer = write(root, numbers(20), shard_rows=shard_rows)
    assert zarr.open_array(writer.uri, path="X", mode="r").chunks[0] == chunk


def test_spatial_is_the_centre_of_the_tile_in_level_0_pixels():
    tiles = pl.DataFrame({"x_px": [0, 100], "y_px": [10, 20], "size_px": [224, 225]})
    assert tile_centres(tiles).tolist() == [[112.0, 122.0], [212.5, 132.5]]
    oblong = tiles.with_columns(width_px=pl.lit(100), height_px=pl.lit(50))
    assert tile_centres(oblong).tolist() == [[50.0, 35.0], [150.0, 45.0]]


def test_bad_tiles_are_nan_and_say_why(root: Root):
    rows = numbers(40)
    rows[[3, 39]] = np.nan
    notes = pl.DataFrame({"status": [OK] * 40, "reason": [None] * 40, "sharpness": [0.5] * 40}, strict=False)
    notes = notes.with_columns(
        status=pl.Series([UNREADABLE if i in (3, 39) else OK for i in range(40)]),
        reason=pl.Series(["pixels_unreadable" if i in (3, 39) else None for i in range(40)]),
    )
    with EmbeddingsWriter(root, SLIDE, DIGEST, n_tiles=40, dim=32, shard_rows=16) as writer:
        for shard in (2, 0, 1):
            span = writer.rows_of(shard)
            writer.write_shard(shard, rows[span], notes[span])
        marker = writer.finish(tile_frame(40))
    assert marker["n_bad"] == 2
    embeddings = read_embeddings(root, writer.uri)
    assert np.flatnonzero(~embeddings.ok).tolist() == [3, 39]
    assert embeddings.obs["reason"].to_list().count("pixels_unreadable") == 2
    assert embeddings.obs["sharpness"].to_list() == [0.5] * 40
    assert np.isnan(embeddings.read()).all(axis=1).nonzero()[0].tolist() == [3, 39]


def test_reading_in_batches_gives_every_row_once(root: Root):
    rows = numbers(100)
    embeddings = read_embeddings(root, write(root, rows, shard_rows=16, dtype="float32").uri)
    for batch in (1, 7, 16, 1000):
        parts = list(embeddings.iter_rows(batch))
        assert max(map(len, parts)) <= batch
        assert np.array_equal(np.concatenate(parts), rows)
    assert embeddings.rows(5, 9).dtype == np.float32


def test_an_unfinished_group_is_not_read(root: Root):
    rows = numbers(40)
    with EmbeddingsWriter(root, SLIDE, DIGEST, n_tiles=40, dim=32, shard_rows=16) as writer:
        writer.write_shard(0, rows[:16])
        with pytest.raises(StoreError, match="cannot finish"):
            writer.finish(tile_frame(40))
    with pytest.raises(StoreError) as caught:
        read_embeddings(root, writer.uri)
    assert caught.value.reason is Reason.STORE_CORRUPT
    assert not is_done(root, writer.group)


def test_a_lost_shard_is_said_and_never_read_as_nan(root: Root):
    writer = write(root, numbers(40), shard_rows=16)
    (Path(writer.uri) / "X" / "c" / "1" / "0").unlink()
    with pytest.raises(StoreError, match="X/c/1/0") as caught:
        read_embeddings(root, writer.uri)
    assert caught.value.remedy


def test_a_damaged_marker_is_said(root: Root):
    writer = write(root, numbers(4))
    for damage in (b"", b"{", b"[]", b"{}"):
        root.put(layout.marker_key(writer.group), damage)
        with pytest.raises(StoreError, match="damaged"):
            read_marker(root, writer.uri)


def test_a_uri_outside_the_store_is_refused(root: Root, tmp_path: Path):
    with pytest.raises(StoreError, match="does not lie in the store"):
        Embeddings(root, tmp_path / "elsewhere" / "embeddings.zarr")


def test_a_finished_group_is_never_written_again(root: Root):
    writer = write(root, numbers(40), shard_rows=16)
    before = {e.key: e.etag for e in root.entries("arrays")}
    again = write(root, numbers(40, seed=1), shard_rows=32)
    assert again.done
    assert again.missing_shards() == []
    assert {e.key: e.etag for e in root.entries("arrays")} == before
    assert not root.exists(layout.sidecar_prefix(writer.group))


def test_another_shard_size_starts_an_unfinished_group_anew(root: Root):
    rows = numbers(64)
    with EmbeddingsWriter(root, SLIDE, DIGEST, n_tiles=64, dim=32, shard_rows=16) as writer:
        writer.write_shard(0, rows[:16])
        assert writer.missing_shards() == [1, 2, 3]
    with EmbeddingsWriter(root, SLIDE, DIGEST, n_tiles=64, dim=32, shard_rows=32) as writer:
        assert writer.missing_shards() == [0, 1]
    assert np.array_equal(read_embeddings(root, write(root, rows, shard_rows=32, dtype="float32").uri).read(), rows)


def test_a_shard_of_the_wrong_shape_is_refused(root: Root):
    with EmbeddingsWriter(root, SLIDE, DIGEST, n_tiles=40, dim=32, shard_rows=16) as writer:
        for shard, shape in ((0, (15, 32)), (0, (16, 31)), (2, (16, 32))):
            with pytest.raises(ValueError, match="takes"):
                writer.write_shard(shard, np.zeros(shape, np.float32))
        with pytest.raises(ValueError, match="status"):
            writer.write_shard(0, np.zeros((16, 32), np.float32), pl.DataFrame({"reason": [None] * 16}))
        assert writer.missing_shards() == [0, 1, 2]


def test_what_float16_cannot_hold_is_found_and_never_stored(root: Root):
    rows = numbers(16)
    assert fits(rows, "float16")
    rows[4, 5] = -70_000
    assert not fits(rows, "float16")
    assert fits(rows, "float32")
    rows[7] = np.nan
    assert fits(np.full((2, 2), np.nan), "float16")
    with EmbeddingsWriter(root, SLIDE, DIGEST, n_tiles=16, dim=32) as writer:
        with pytest.raises(StoreError, match="1 tiles") as caught:
            writer.write_shard(0, rows)
        assert caught.value.reason is Reason.NON_FINITE
        assert writer.missing_shards() == [0]


def test_a_second_writer_of_the_group_is_told_who_works_on_it(root: Root):
    with EmbeddingsWriter(root, SLIDE, DIGEST, n_tiles=16, dim=4):
        second = EmbeddingsWriter(root, SLIDE, DIGEST, n_tiles=16, dim=4)
        with pytest.raises(StoreError, match="process") as caught, second:
            pass
        assert caught.value.reason is Reason.LOCKED
        with EmbeddingsWriter(root, SLIDE, "ab" * 8, n_tiles=16, dim=4):
            pass
    with EmbeddingsWriter(root, SLIDE, DIGEST, n_tiles=16, dim=4) as third:
        assert third.missing_shards() == [0]


def test_scanpy_works_on_the_rows_that_are_ok(root: Root):
    import scanpy

    rows = np.concatenate([numbers(60) + 3, numbers(60, seed=1) - 3])
    rows[[5, 70]] = np.nan
    adata = anndata.read_zarr(write(root, rows, shard_rows=64).uri)
    adata = adata[adata.obs["status"] == OK].copy()
    scanpy.pp.scale(adata.copy())
    scanpy.pp.pca(adata, n_comps=10)
    scanpy.pp.neighbors(adata, n_neighbors=10)
    scanpy.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False, resolution=0.2)
    truth = adata.obs["tile_id"] < 60
    assert adata.obs["leiden"].nunique() == 2
    assert adata.obs.groupby("leiden", observed=True)["tile_id"].max().min() < 60
    assert len(set(zip(adata.obs["leiden"], truth, strict=True))) == 2


def test_a_full_disk_stops_the_slide_and_the_next_run_completes_it(root: Root, tmpfs: Callable[[str], Path]):
    disk = tmpfs("2m")
    small, rows = open_root(disk / "store"), numbers(160, dim=256)
    written = []
    with EmbeddingsWriter(small, SLIDE, DIGEST, n_tiles=160, dim=256, shard_rows=16) as writer:
        writer.write_shard(0, rows[:16])
        filler = fill_disk(disk, leave=64 << 10)

        def go_on() -> None:
            for shard in writer.missing_shards():
                writer.write_shard(shard, rows[writer.rows_of(shard)])
                written.append(shard)

        with pytest.raises(StoreError) as caught:
            go_on()
        assert caught.value.reason is Reason.DISK_FULL
    assert len(written) < 9
    filler.unlink()
    with EmbeddingsWriter(small, SLIDE, DIGEST, n_tiles=160, dim=256, shard_rows=16) as writer:
        assert len(writer.missing_shards()) == 9 - len(written)
        for shard in writer.missing_shards():
            writer.write_shard(shard, rows[writer.rows_of(shard)])
        fill_disk(disk)
        with pytest.raises(StoreError) as caught:
            writer.finish(tile_frame(160))
        assert caught.value.reason is Reason.DISK_FULL
        assert not writer.done
        (disk / "filler").unlink()
        writer.finish(tile_frame(160))
    with EmbeddingsWriter(root, SLIDE, DIGEST, n_tiles=160, dim=256, shard_rows=16) as undisturbed:
        for shard in undisturbed.missing_shards():
            undisturbed.write_shard(shard, rows[undisturbed.rows_of(shard)])
        undisturbed.finish(tile_frame(160))
    assert tree_hashes(small, writer.group) == tree_hashes(root, writer.group)


EMBEDDER = """
    import sys, time
    import numpy as np, polars as pl
    from pathassets.store import open_root
    from pathassets.store.arrays import EmbeddingsWriter
    from assets_tests.store.conftest import tile_frame
    import anndata, zarr
    with EmbeddingsWriter(open_root(sys.argv[1]), "cmu-12345678", "c0ffee" * 4, n_tiles=2000, dim=64, shard_rows=64) as writer:
        print("ready")
        for shard in writer.missing_shards():
            span = writer.rows_of(shard)
            rows = np.random.default_rng(shard).normal(size=(span.stop - span.start, 64)).astype(np.float32)
            notes = pl.DataFrame({"status": ["ok"] * len(rows), "sharpness": rows[:, 0]})
            writer.write_shard(shard, rows, notes)
            print(shard)
        writer.finish(tile_frame(2000))
        print("finished")
"""


def _embed_until(root: Root, seconds: float | None) -> list[str]:
    """Runs the embedder, killed after `seconds` (None: never); the shards that it said it had written."""
    child = start(EMBEDDER, root.path)
    if seconds is not None:
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
    out, err = child.communicate(timeout=120)
    assert seconds is not None or child.returncode == 0, err
    return out.split()


@pytest.mark.e2e
def test_killed_at_any_moment_it_resumes_and_the_result_is_bit_identical(root: Root, tmp_path: Path):
    undisturbed = open_root(tmp_path / "undisturbed")
    assert _embed_until(undisturbed, None)[-1] == "finished"
    moments = random.Random(7)
    written: list[str] = []
    kills = 0
    while not is_done(root, layout.group_key(SLIDE, DIGEST, "embeddings")):
        # short lives at first, so that many fall into the shards; then longer ones, that fall into the end
        said = _embed_until(root, moments.uniform(0, 0.06) * (1 + kills) if kills < 9 else None)
        written += [word for word in said if word.isdigit()]
        kills += 1
    assert kills > 2
    group = layout.group_key(SLIDE, DIGEST, "embeddings")
    assert tree_hashes(root, group) == tree_hashes(undisturbed, group)
    assert root.read(layout.marker_key(group)) == undisturbed.read(layout.marker_key(group))
    # what was said to be written was never written again
    assert len(written) == len(set(written))
    leftovers = [p.name for p in root.local(layout.array_folder(SLIDE, DIGEST)).rglob("*") if p.name.startswith(".")]
    assert leftovers == []
