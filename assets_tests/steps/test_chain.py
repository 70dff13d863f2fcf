"""A slide through its chain, held against what was drawn."""

from __future__ import annotations

import anndata
import numpy as np
import polars as pl
import pytest
from shapely import from_geojson

from pathassets.steps.batch import passes, run_batch
from pathassets.steps.chain import pending
from pathassets.steps.nodes import Step, chain
from pathassets.steps.session import Session


def test_every_step_ends_well(finished):
    assert {str(result.node.step): result.outcome.status for result in finished.results} == {
        "slide": "ok", "tissue": "ok", "tiles": "ok", "embeddings": "ok", "slide_vector": "ok", "spatial_domains": "ok",
        "text_similarity": "flagged",
    }  # fmt: skip


def test_tissue_has_the_area_and_the_place_that_was_drawn(finished):
    truth, tissues = finished.truth, finished.table("tissues")
    drawn_mm2 = truth.tissue.sum() * (truth.downsample * 0.5 / 1000) ** 2
    assert tissues["area_mm2"].sum() == pytest.approx(drawn_mm2, rel=0.05)
    shapes = [from_geojson(text) for text in tissues["geometry"]]
    assert sum(shape.area for shape in shapes) * 0.25e-6 == pytest.approx(tissues["area_mm2"].sum(), rel=1e-6)
    rows, cols = np.nonzero(truth.tissue)
    centre = np.array([cols.mean(), rows.mean()]) * truth.downsample
    whole = np.array([sum(s.centroid.x * s.area for s in shapes), sum(s.centroid.y * s.area for s in shapes)])
    assert np.abs(whole / sum(s.area for s in shapes) - centre).max() < 40


def test_tiles_lie_on_tissue_on_one_grid(finished):
    tiles, truth = finished.table("tiles"), finished.truth
    assert (tiles["x_px"] % 224 == 0).all()
    assert (tiles["y_px"] % 224 == 0).all()
    step = truth.downsample
    for row in tiles.iter_rows(named=True):
        box = truth.tissue[
            row["y_px"] // step : (row["y_px"] + 224) // step, row["x_px"] // step : (row["x_px"] + 224) // step
        ]
        assert box.mean() > 0.3
        assert abs(box.mean() - row["tissue_share"]) < 0.25
    assert tiles["sharpness"].is_finite().all()


def test_slide_vectors_are_reductions_of_the_stored_embeddings(finished):
    row = finished.table("embeddings").row(0, named=True)
    x = anndata.read_zarr(row["uri"]).X.astype(np.float64)
    vectors = finished.table("slide_vectors").filter(pl.col("tissue_id").is_null())
    found = {method: np.array(vector) for method, vector in vectors.select("method", "vector").iter_rows()}
    for method, wanted in {"mean": x.mean(0), "max": x.max(0), "median": np.median(x, 0), "std": x.std(0)}.items():
        np.testing.assert_allclose(found[method], wanted, atol=1e-4)


def test_the_probability_rows_sum_to_one_and_unknown_words_are_flagged(finished):
    scores = finished.table("text_scores")
    sums = scores.group_by("tile_id").agg(pl.col("probability").sum())["probability"]
    assert (sums - 1).abs().max() < 1e-5
    outcome = finished.table("outcomes").filter(step="text_similarity").row(0, named=True)
    assert outcome["reason"] == "unknown_words"
    assert "xqzzvk" in outcome["message"]


def test_domains_keep_what_led_to_them(finished):
    row = finished.table("derived_arrays").row(0, named=True)
    adata = anndata.read_zarr(row["uri"])
    assert {"X_pca", "X_pca_utag", "X_umap", "X_utag", "spatial"} <= set(adata.obsm)
    graph = adata.obsp["spatial_connectivities"]
    np.testing.assert_allclose(np.asarray(graph.sum(axis=1)).ravel(), 1, atol=1e-9)
    domains = finished.table("domains")
    assert set(domains["variant"]) == {"leiden", "utag"}
    assert finished.table("domain_summary").filter(variant="leiden")["n_tiles"].sum() == adata.n_obs


def test_every_row_says_what_made_it(finished):
    for table in ("slides", "tissues", "tiles", "embeddings", "slide_vectors", "domains", "text_scores"):
        frame = finished.table(table)
        assert frame["digest"].null_count() == frame["code_version"].null_count() == 0, table


def test_what_is_current_is_not_made_again(finished):
    session = Session(finished.study)
    assert pending(session, finished.slide_id, chain(finished.study)) == []
    results = []
    run_batch(session, [finished.slide_id], chain(finished.study), results.append)
    assert all(result.unchanged for result in results)
    assert len(results) == 7


def test_a_changed_option_makes_exactly_what_depends_on_it_pending(finished):
    recipe = finished.study.recipes[0]
    other = recipe.model_copy(update={"domains": recipe.domains.model_copy(update={"resolution": 0.9})})
    nodes = chain(finished.study.model_copy(update={"recipes": (other,)}))
    assert [node.step for node in pending(Session(finished.study), finished.slide_id, nodes)] == [Step.SPATIAL_DOMAINS]
    tissue = finished.study.tissue.model_copy(update={"mpp": 6.0})
    nodes = chain(finished.study.model_copy(update={"tissue": tissue}))
    late = [node.step for node in pending(Session(finished.study), finished.slide_id, nodes)]
    assert late == [
        Step.TISSUE,
        Step.TILES,
        Step.EMBEDDINGS,
        Step.SLIDE_VECTOR,
        Step.TEXT_SIMILARITY,
        Step.SPATIAL_DOMAINS,
    ]


def test_batches_take_one_encoder_after_the_other(finished):
    recipe = finished.study.recipes[0]
    two = finished.study.model_copy(update={"recipes": (recipe, recipe.model_copy(update={"name": "second"}))})
    first, second = passes(chain(two))
    assert {node.recipe.name for node in second} == {"second"}
    assert {node.recipe.name for node in first if node.recipe} == {"demo"}
