"""AnnData files hold what the store holds, in AnnData's own terms."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
import zarr
from exports.conftest import TERMS

from pathassets.exports.anndata_files import export_h5ad, export_zarr
from pathassets.exports.files import Target


@pytest.fixture(params=["h5ad", "anndata.zarr"])
def adata(request, made, tmp_path):
    target = Target(tmp_path)
    {"h5ad": export_h5ad, "anndata.zarr": export_zarr}[request.param](made.features, target)
    assert target.written == [f"{made.part}/{made.slide_id}.{request.param}"]
    read = {"h5ad": anndata.read_h5ad, "anndata.zarr": anndata.read_zarr}[request.param]
    return read(tmp_path / target.written[0])


def test_it_is_tiles_by_features_with_everything_said_of_a_tile(made, adata):
    tiles = made.table("tiles", made.slide_id).sort("tile_id")
    row = made.table("embeddings").row(0, named=True)
    assert adata.shape == (len(tiles), row["dim"])
    assert adata.X.dtype == np.float32
    stored = zarr.open_group(row["uri"], mode="r")["X"][:]
    np.testing.assert_array_equal(adata.X, stored.astype(np.float32))
    centres = np.column_stack([tiles["x_px"] + tiles["width_px"] / 2, tiles["y_px"] + tiles["height_px"] / 2])
    np.testing.assert_array_equal(adata.obsm["spatial"], centres)
    np.testing.assert_allclose(adata.obs["sharpness"], tiles["sharpness"])
    assert (adata.obs["status"] == "ok").all()


def test_domains_and_text_scores_are_columns(made, adata):
    for variant in ("leiden", "utag"):
        domains = made.table("domains")
        of = domains.filter(domains["variant"] == variant).sort("tile_id")
        assert adata.obs[variant].astype(int).tolist() == of["domain"].to_list()
        assert adata.obs[f"{variant}_label"].tolist() == of["label"].to_list()
    assert list(adata.uns["terms"]["term"]) == list(TERMS)
    columns = dict(zip(adata.uns["terms"]["term"], adata.uns["terms"]["column"], strict=True))
    assert columns["../evil/term"] != columns["evil term"]
    scores = made.table("text_scores")
    for number, (term, column) in enumerate(columns.items()):
        of = scores.filter(scores["term"] == term).sort("tile_id")
        np.testing.assert_array_equal(adata.obs[column], of["probability"].to_numpy())
        np.testing.assert_array_equal(adata.obsm["text_cosine"][:, number], of["cosine"].to_numpy())


def test_it_says_what_made_it(made, adata):
    row, found = made.table("embeddings").row(0, named=True), adata.uns["pathassets"]
    assert found["embeddings_digest"] == row["digest"]
    assert found["weights_sha256"] == row["weights_sha256"]
    assert found["code_version"] == row["code_version"]
    assert found["content_sha256"] == made.table("slides", made.slide_id)["content_sha256"][0]
    assert str(made.home) not in repr(dict(found)), "a path may tell names"


def test_scanpy_takes_it(adata):
    import scanpy

    scanpy.pp.pca(adata, n_comps=5)
    assert adata.obsm["X_pca"].shape == (adata.n_obs, 5)


def test_the_same_results_are_the_same_bytes(made, tmp_path):
    for export in (export_h5ad, export_zarr):
        export(made.features, Target(tmp_path))
        again = Target(tmp_path)
        export(made.features, again)
        assert (len(again.written), len(again.unchanged)) == (0, 1)
