"""Patch tokens from pixels to a group beside the embeddings: whose they are, and what a crash between two shards leaves."""

from __future__ import annotations

import anndata
import numpy as np
import polars as pl
import pytest

from pathassets.cli import doctor
from pathassets.cli.estimating import dry_run_study
from pathassets.cli.running import Request
from pathassets.config import CONFIG_FILE, Study
from pathassets.encoders import load_encoder
from pathassets.engine import plan as plans
from pathassets.slides import open_slide
from pathassets.slides.synthetic import synthetic_slide
from pathassets.steps.batch import run_batch
from pathassets.steps.nodes import chain
from pathassets.steps.publish import publish_results
from pathassets.steps.register import register
from pathassets.steps.session import Session
from pathassets.store.arrays import EmbeddingsWriter
from pathassets.store.groups import delete_group, tree_hashes
from pathassets.store.query import query
from pathassets.store.verify import verify

CONFIG = """
[study]
device = "cpu"
[tilings.small]
tile_px = 160
mpp = 0.5
[[recipes]]
encoder = "timm/test_vit"
random_weights = true
name = "tiny"
tiling = "small"
embeddings = {{dense = {dense}, precision = "fp32", shard_rows = 16}}
"""


@pytest.fixture(scope="module")
def slide_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("slides") / "slide.tiff"
    synthetic_slide(path, seed=3, width_px=1536, height_px=1280)
    return path


class PowerCutError(Exception):
    """The power went off."""


class Dense:
    """A study of one slide whose tokens are kept."""

    def __init__(self, home, slide_file, dense: str = "true"):
        home.mkdir(exist_ok=True)
        (home / CONFIG_FILE).write_text(CONFIG.format(dense=dense))
        self.home, self.session = home, Session(Study(home))
        self.slide_id = register(self.session, [slide_file])[0].slide_id

    def run(self):
        self.session, results = Session(Study(self.home)), []
        run_batch(self.session, [self.slide_id], chain(self.session.study), results.append)
        return {str(result.node.step): result for result in results}

    def table(self, name: str) -> pl.DataFrame:
        return self.session.tables.scan(name).collect()

    def groups(self) -> dict[str, dict[str, str]]:
        uris = {name: self.table(name)["uri"][0] for name in ("embeddings", "patch_tokens")}
        return {name: tree_hashes(self.session.root, self.session.root.key_of(uri)) for name, uri in uris.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, slide_file):
    study = Dense(tmp_path_factory.mktemp("whole"), slide_file)
    study.results = study.run()
    return study


def test_every_tile_has_its_tokens_and_the_vectors_are_those_of_without(whole, slide_file, tmp_path):
    row, tiles = whole.table("patch_tokens").row(0, named=True), whole.table("tiles")
    assert (row["n_tiles"], row["grid_rows"], row["grid_cols"], row["dim"]) == (len(tiles), 10, 10, 64)
    with open_slide(slide_file) as slide:
        pixels = np.stack([slide.read(x, y, 160, 160, (160, 160)) for x, y in tiles.select("x_px", "y_px").iter_rows()])
    expected = load_encoder("timm/test_vit", random_weights=True, dense=True, device="cpu", precision="fp32").outputs(
        pixels
    )
    tokens = whole.session.study.arrays(row["uri"])["obsm/tokens"]
    np.testing.assert_allclose(tokens[:], expected.tokens, rtol=2e-3, atol=2e-3)
    adata = anndata.read_zarr(row["uri"])
    assert adata.obs_names.to_list() == [str(tile) for tile in tiles["tile_id"]]
    assert set(adata.obs["status"]) == {"ok"}
    plain = Dense(tmp_path / "plain", slide_file, dense="false")
    plain.run()
    x = [anndata.read_zarr(study.table("embeddings")["uri"][0]).X for study in (whole, plain)]
    np.testing.assert_array_equal(*x)
    assert plain.table("patch_tokens").is_empty()


def test_they_are_known_to_the_snapshot_and_the_store_finds_nothing_wrong(whole):
    publish_results(whole.session)
    (row,) = query(
        whole.home,
        "SELECT p.embeddings_digest = e.digest, p.uri FROM patch_tokens p JOIN embeddings e USING (slide_id, recipe)",
    ).rows()
    assert row[0] is True
    assert row[1].endswith("/tokens.zarr")
    assert [
        finding for finding in verify(whole.session.root, whole.home, deep=True).findings if not finding.harmless
    ] == []
    assert all(result.unchanged for result in whole.run().values())


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("before the tokens", marks=pytest.mark.e2e),
        "between tokens and embeddings",
        pytest.param("after a shard", marks=pytest.mark.e2e),
    ],
)
def test_a_crash_loses_one_shard_and_the_end_is_the_same_to_the_byte(whole, slide_file, tmp_path, monkeypatch, moment):
    study, written = Dense(tmp_path / "crashed", slide_file), []
    write = EmbeddingsWriter.write_shard

    def failing(self, shard, rows, notes=None):
        if written and moment == "before the tokens":
            raise PowerCutError
        if written and moment == "between tokens and embeddings":
            monkeypatch.setattr(self._x, "write", lambda *_: (_ for _ in ()).throw(PowerCutError))
        write(self, shard, rows, notes)
        written.append(shard)
        if moment == "after a shard":
            raise PowerCutError

    with monkeypatch.context() as crash:
        crash.setattr(EmbeddingsWriter, "write_shard", failing)
        outcome = study.run()["embeddings"].outcome
    assert outcome.status == "failed"
    assert 1 <= len(written) <= 4
    assert study.table("embeddings").is_empty()
    assert study.table("patch_tokens").is_empty()

    computed = []
    with monkeypatch.context() as watched:

        def noting(self, shard, rows, notes=None):
            computed.append(shard)
            write(self, shard, rows, notes)

        watched.setattr(EmbeddingsWriter, "write_shard", noting)
        assert study.run()["embeddings"].outcome.status == "ok"
    assert set(computed) == set(range(4)) - set(written), "what was there is not computed again"
    assert study.groups() == whole.groups()


@pytest.mark.e2e
def test_tokens_that_are_torn_cost_their_shard(whole, slide_file, tmp_path, monkeypatch, caplog):
    study = Dense(tmp_path / "torn", slide_file)
    finish = EmbeddingsWriter.finish
    with monkeypatch.context() as crash:
        crash.setattr(EmbeddingsWriter, "finish", lambda *_: (_ for _ in ()).throw(PowerCutError))
        assert study.run()["embeddings"].outcome.status == "failed"
    assert EmbeddingsWriter.finish is finish
    (shard,) = (study.home / "store" / "arrays").glob("*/*/tokens.zarr/obsm/tokens/c/0/0/0/0")
    shard.write_bytes(shard.read_bytes()[:-100])
    assert study.run()["embeddings"].outcome.status == "ok"
    assert "shard 0 is torn" in caplog.text
    assert study.groups() == whole.groups()


def test_tokens_that_somebody_deleted_are_made_again_with_the_same_bytes(whole, slide_file, tmp_path):
    study = Dense(tmp_path / "lost", slide_file)
    study.run()
    delete_group(study.session.root, study.session.root.key_of(study.table("patch_tokens")["uri"][0]))
    results = study.run()
    assert not results["embeddings"].unchanged
    assert results["spatial_domains"].unchanged, "the vectors are the same"
    assert study.groups() == whole.groups()


def test_shards_are_small_enough_to_be_held(monkeypatch):
    encoder = load_encoder("timm/test_vit", random_weights=True, dense=True, device="cpu", precision="fp32")
    from pathassets.recipes import EmbeddingOptions

    options = EmbeddingOptions(dense=True, batch_size=16)
    each = 4 * encoder.layout.n_token_values
    assert plans.EmbedPlan.of(options, encoder).shard_rows == 512, "25 kB a tile"
    monkeypatch.setattr(plans, "MAX_TOKEN_SHARD_BYTES", 100 * each)
    assert plans.EmbedPlan.of(options, encoder).shard_rows == 96, "whole batches"
    monkeypatch.setattr(plans, "MAX_TOKEN_SHARD_BYTES", each)
    assert plans.EmbedPlan.of(options, encoder).shard_rows == 16, "one at least"
    plain = load_encoder("timm/test_vit", random_weights=True, device="cpu", precision="fp32")
    assert plans.EmbedPlan.of(EmbeddingOptions(batch_size=16), plain).shard_rows == 512


def test_dry_run_and_doctor_say_how_much_it_is(whole, slide_file, capsys):
    each = 2 * (64 + 10 * 10 * 64)
    assert dry_run_study(Request(home=whole.home, paths=(str(slide_file),), as_json=True)) == 0
    import json

    (told,) = json.loads(capsys.readouterr().out)["recipes"]
    assert told["GB"] == pytest.approx(told["tiles"] * each / 1e9, abs=1e-4)
    assert told["GB"] > 0
    lines = {line.check: line for line in doctor.diagnose(whole.session.study)}
    assert lines["patch tokens of small/tiny"].finding.startswith("10 x 10 x 64 numbers, 13 kB for each tile, 1 GB")


@pytest.mark.e2e
def test_in_a_bucket_they_are_the_same(slide_file, tmp_path, bucket):
    studies = []
    for number, store in enumerate(("store", bucket)):
        study = Dense(tmp_path / str(number), slide_file)
        asked = 'include_preds = true, precision = "fp32"}\npredictions = {top_k = 2}'
        text = CONFIG.format(dense="true").replace('precision = "fp32", shard_rows = 16}', asked)
        (study.home / CONFIG_FILE).write_text(text.replace("[study]", f'[study]\nstore = "{store}"'))
        study.session = Session(Study(study.home))
        register(study.session, [slide_file])
        assert study.run()["predictions"].outcome.status == "ok"
        studies.append(study)
    local, remote = studies
    assert remote.groups() == local.groups(), "to the byte"
    row = remote.table("patch_tokens").row(0, named=True)
    assert row["uri"].startswith("s3://")
    adata = anndata.read_zarr(remote.session.study.arrays(remote.table("embeddings")["uri"][0]))
    assert adata.obsm["predictions"].shape == (row["n_tiles"], 1000)
    assert remote.table("predictions")["probability"].to_list() == local.table("predictions")["probability"].to_list()
