from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from pathassets.errors import Reason, StoreError
from pathassets.store import Root, layout, open_root
from pathassets.store.derived import read_array, read_derived, write_derived
from pathassets.store.groups import is_done

SLIDE, DIGEST = "cmu-12345678", "deed" * 4


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return open_root(tmp_path / "store")


def write(root: Root, scale: float = 1.0) -> str:
    graph = sparse.random(30, 30, density=0.1, random_state=0, format="csr")
    obs = pl.DataFrame({"tile_id": range(10, 40), "leiden": [str(i % 3) for i in range(30)]})
    obsm = {"X_pca": np.full((30, 4), scale, np.float32), "X_umap": np.zeros((30, 2), np.float32)}
    return write_derived(
        root, SLIDE, DIGEST, "domains", obs=obs, obsm=obsm, obsp={"connectivities": graph}, uns={"seed": 0}
    )


def test_arrays_and_sparse_graphs_come_back(root: Root):
    adata = read_derived(root, write(root))
    assert adata.obs_names[:2].tolist() == ["10", "11"]
    assert adata.obsm["X_pca"].shape == (30, 4)
    graph = sparse.random(30, 30, density=0.1, random_state=0, format="csr")
    assert sparse.issparse(adata.obsp["connectivities"])
    assert abs(adata.obsp["connectivities"] - graph).sum() == 0
    assert adata.obs["leiden"].tolist() == [str(i % 3) for i in range(30)]
    assert adata.uns["digest"] == DIGEST


def test_a_group_with_a_digest_is_written_once(root: Root):
    uri = write(root)
    before = {e.key: e.etag for e in root.entries("arrays")}
    assert write(root, scale=2.0) == uri
    assert {e.key: e.etag for e in root.entries("arrays")} == before


def test_an_unfinished_group_is_not_read_and_is_made_anew(root: Root):
    uri = write(root)
    group = layout.group_key(SLIDE, DIGEST, "domains")
    root.delete(layout.marker_key(group))
    root.delete(f"{group}/obsm/X_umap")
    with pytest.raises(StoreError, match="not finished"):
        read_derived(root, uri)
    write(root)
    assert is_done(root, group)
    assert set(read_derived(root, uri).obsm) == {"X_pca", "X_umap"}


def test_arrays_of_another_length_are_refused_before_anything_is_written(root: Root):
    with pytest.raises(ValueError, match="X_pca has 3 rows"):
        write_derived(root, SLIDE, DIGEST, "d", obs=pl.DataFrame({"tile_id": [1]}), obsm={"X_pca": np.zeros((3, 2))})
    assert root.keys() == []


def test_one_array_is_read_without_the_rest(root: Root):
    rows = np.arange(40, dtype=np.float32).reshape(20, 2)
    uri = write_derived(
        root, "s-1", "c" * 16, "domains", obs=pl.DataFrame({"tile_id": range(20)}), obsm={"X_umap": rows}
    )
    assert np.array_equal(read_array(root, uri, "obsm/X_umap"), rows)
    assert read_array(root, uri, "obs/tile_id").tolist() == list(range(20))
    with pytest.raises(StoreError) as caught:
        read_array(root, uri, "obsm/X_none")
    assert caught.value.reason is Reason.STORE_CORRUPT
