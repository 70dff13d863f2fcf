"""A classifier's probabilities from pixels to rows: from the pass that embeds, current or left out, called as the weights say."""

from __future__ import annotations

import json

import anndata
import numpy as np
import polars as pl
import pytest
import timm
import torch
from safetensors.torch import save_file

from pathassets.config import CONFIG_FILE, Study
from pathassets.encoders import load_encoder
from pathassets.slides import open_slide
from pathassets.slides.slide import Slide
from pathassets.slides.synthetic import synthetic_slide
from pathassets.steps.batch import run_batch
from pathassets.steps.checks import judge
from pathassets.steps.consistency import check_outcomes
from pathassets.steps.nodes import chain
from pathassets.steps.predictions import prediction_rows
from pathassets.steps.publish import publish_results
from pathassets.steps.register import register
from pathassets.steps.session import Session
from pathassets.store.census import take_census
from pathassets.store.query import query

NAMES = ["adipose", "mucus", "tumour"]
CONFIG = """
[study]
device = "cpu"
[tilings.small]
tile_px = {tile_px}
mpp = 1.0
[[recipes]]
encoder = "{encoder}"
name = "lab"
tiling = "small"
{more}
"""


@pytest.fixture(scope="module")
def slide_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("slides") / "slide.tiff"
    synthetic_slide(path, seed=3, width_px=1536, height_px=1280)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A lab's checkpoint of three classes, whose metadata names them."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "lab.safetensors"
    network = timm.create_model("test_vit", num_classes=3)
    torch.nn.init.normal_(network.head.weight, std=0.5)
    save_file(network.state_dict(), path, metadata={"classes": json.dumps(NAMES)})
    return path


class Lab:
    """A study of one slide, run as often as a test likes."""

    def __init__(self, home, slide_file):
        self.home, self.slide_file = home, slide_file

    def run(self, more: str, encoder: str = "timm/test_vit", tile_px: int = 160):
        (self.home / CONFIG_FILE).write_text(CONFIG.format(encoder=encoder, more=more, tile_px=tile_px))
        self.session, self.results = Session(Study(self.home)), []
        self.slide_id = register(self.session, [self.slide_file])[0].slide_id
        run_batch(self.session, [self.slide_id], chain(self.session.study), self.results.append)
        return {str(result.node.step): result for result in self.results}

    def table(self, name: str) -> pl.DataFrame:
        return Session(Study(self.home)).tables.scan(name).collect()

    def sql(self, text: str) -> list[tuple]:
        publish_results(self.session)
        return query(self.home, text).rows()


@pytest.fixture
def lab(tmp_path, slide_file):
    return Lab(tmp_path, slide_file)


def options(weights, more: str = "") -> str:
    return f'weights = "{weights}"\nembeddings = {{include_preds = true, precision = "fp32"}}\n{more}'


def count_reads(monkeypatch) -> list[int]:
    read, calls = Slide.read, []

    def counting(self, *args, **kwargs):
        calls.append(1)
        return read(self, *args, **kwargs)

    monkeypatch.setattr(Slide, "read", counting)
    return calls


def test_rows_are_what_the_whole_network_says_of_the_tiles(lab, weights, slide_file):
    results = lab.run(options(weights))
    assert results["predictions"].outcome.status == "ok"
    rows, tiles = lab.table("predictions"), lab.table("tiles")
    assert rows["class"].unique(maintain_order=True).to_list() == NAMES
    assert len(rows) == 3 * len(tiles) > 0
    found = rows["probability"].to_numpy().reshape(-1, 3)
    with open_slide(slide_file) as slide:
        pixels = np.stack([slide.read(x, y, 320, 320, (160, 160)) for x, y in tiles.select("x_px", "y_px").iter_rows()])
    encoder = load_encoder("timm/test_vit", weights=weights, include_preds=True, device="cpu", precision="fp32")
    np.testing.assert_allclose(found, encoder.outputs(pixels).probabilities, atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.01, "the tiles differ, and so do their probabilities"
    adata = anndata.read_zarr(lab.table("embeddings")["uri"][0])
    np.testing.assert_array_equal(adata.obsm["predictions"], found)
    assert adata.obsm["spatial"].shape == (len(tiles), 2)


def test_no_tile_is_read_for_them(lab, weights, monkeypatch):
    calls = count_reads(monkeypatch)
    lab.run(f'weights = "{weights}"')
    without, calls[:] = len(calls), []
    lab.home = lab.home / "other"
    lab.home.mkdir()
    lab.run(options(weights))
    assert len(calls) == without > 0
    assert len(lab.table("predictions")) > 0


def test_lineage_leads_from_a_row_to_the_embeddings_and_stale_rows_are_left_out(lab, weights):
    lab.run(options(weights))
    digest = lab.table("embeddings")["digest"][0]
    rows = lab.table("predictions")
    assert set(rows["embeddings_digest"]) == {digest}
    outcome = lab.table("outcomes").filter(step="predictions").row(0, named=True)
    assert set(rows["digest"]) == {outcome["digest"]}
    assert json.loads(outcome["inputs"]) == {"small/lab/embeddings": digest, "class_names": NAMES}
    assert lab.sql("SELECT count(*) FROM predictions") == [(len(rows),)]
    comments = "SELECT count(*) FROM duckdb_columns() WHERE table_name = 'predictions' AND comment IS NULL"
    assert lab.sql(comments) == [(0,)]
    assert lab.sql("SELECT count(*) FROM live.predictions WHERE class = 'mucus'") == [(len(rows) // 3,)]

    stale = rows.with_columns(embeddings_digest=pl.lit("0123456789abcdef"))
    lab.session.tables.write("predictions", stale, slide_id=lab.slide_id, part="small__lab")
    assert lab.sql("SELECT count(*) FROM predictions") == [(0,)]
    assert lab.sql("SELECT count(*) FROM embeddings") == [(1,)]


def test_other_names_and_fewer_rows_cost_no_forward_pass(lab, weights, monkeypatch):
    lab.run(options(weights))
    before = lab.table("predictions")
    monkeypatch.setattr("pathassets.encoders.encoder.Encoder.encode", None)  # whoever computes now fails
    results = lab.run(options(weights, 'predictions = {top_k = 2, classes = ["a", "b", "c"]}'))
    assert results["embeddings"].unchanged
    assert results["predictions"].outcome.status == "ok"
    after = lab.table("predictions")
    assert len(after) == len(before) * 2 // 3
    best = (
        before.sort("tile_id", "probability", descending=[False, True]).group_by("tile_id", maintain_order=True).head(2)
    )
    assert after["probability"].to_list() == best["probability"].to_list()
    assert after["class"].to_list() == [{"adipose": "a", "mucus": "b", "tumour": "c"}[name] for name in best["class"]]


def test_switching_them_on_embeds_anew_and_changes_no_vector(lab, weights):
    first = lab.run(f'weights = "{weights}"\nembeddings = {{precision = "fp32"}}')
    x = anndata.read_zarr(lab.table("embeddings")["uri"][0]).X
    assert "predictions" not in first
    second = lab.run(options(weights))
    assert not second["embeddings"].unchanged
    np.testing.assert_array_equal(anndata.read_zarr(lab.table("embeddings")["uri"][0]).X, x)
    assert all(result.unchanged for result in lab.run(options(weights)).values()), "and a second run does nothing"


def test_too_few_names_are_refused_before_a_tile_is_read(lab, weights):
    results = lab.run(options(weights, 'predictions = {classes = ["a", "b"]}'))
    outcome = results["embeddings"].outcome
    assert (outcome.status, outcome.reason) == ("failed", "config_invalid")
    assert "names 2 classes, and timm/test_vit has 3" in outcome.message
    assert "Name all of them" in outcome.remedy
    assert results["predictions"].outcome is None
    assert len(lab.table("embeddings")) == 0


def test_a_thousand_classes_need_a_top_k(lab):
    untrained = "random_weights = true\nembeddings = {include_preds = true}\n"
    outcome = lab.run(untrained)["embeddings"].outcome
    assert outcome.reason == "config_invalid"
    assert "1000 classes" in outcome.message
    assert "top_k" in outcome.remedy
    results = lab.run(untrained + "predictions = {top_k = 5}")
    assert results["predictions"].outcome.status == "ok"
    rows = lab.table("predictions")
    assert len(rows) == 5 * len(lab.table("tiles"))
    assert rows["class"][0].startswith("class_")


def test_an_encoder_without_a_classifier_says_so_on_the_slide(lab):
    outcome = lab.run("embeddings = {include_preds = true}", encoder="demo-vlm")["embeddings"].outcome
    assert (outcome.status, outcome.reason) == ("failed", "config_invalid")
    assert "no classifier" in outcome.message


def test_a_slide_without_tiles_has_none(lab, weights):
    results = lab.run(options(weights), tile_px=2000)
    assert results["predictions"].outcome.status == "empty"
    assert len(lab.table("predictions")) == 0


def test_store_and_checks_know_them(lab, weights):
    results = lab.run(options(weights))
    (check, verdict), *_ = judge(lab.session, results["predictions"])
    assert (check.name, verdict.passed) == ("predictions_sum_to_one", True)
    assert list(check_outcomes(lab.session.root, take_census(lab.session.root))) == []
    lab.session.tables.delete("predictions", lab.slide_id, "small__lab")
    (finding,) = check_outcomes(lab.session.root, take_census(lab.session.root))
    assert "predictions was made, and its rows are not there" in finding.message
    assert not lab.run(options(weights))["predictions"].unchanged, "and the next run makes them again"


def test_of_equal_probabilities_the_first_class_counts():
    rows = prediction_rows(np.array([4, 9]), np.array([[0.2, 0.4, 0.4], [0.5, 0.25, 0.25]], np.float32), NAMES, 2)
    assert rows.rows() == [
        (4, "mucus", pytest.approx(0.4)), (4, "tumour", pytest.approx(0.4)),
        (9, "adipose", 0.5), (9, "mucus", 0.25),
    ]  # fmt: skip
