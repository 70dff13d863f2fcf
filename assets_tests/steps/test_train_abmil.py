"""Training on a study's labels: whose tiles, whose patients; a file that a recipe names; too few said to be too few."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from support.studies import TINY_ON_CPU
from typer.testing import CliRunner

from pathassets.cli.main import app
from pathassets.cli.training import _as_json
from pathassets.config import CONFIG_FILE, Study
from pathassets.encoders.slide import load_slide_encoder, training_record
from pathassets.errors import ConfigError, EncoderError, PathassetsError, Reason
from pathassets.steps.nodes import Step, chain
from pathassets.steps.provenance import Looking
from pathassets.steps.session import Session
from pathassets.steps.slide_vector import check_trained, make
from pathassets.steps.train_abmil import gather, train_abmil
from pathassets.store.arrays import EmbeddingsWriter

DIM, TILES = 24, 40
pytestmark = pytest.mark.e2e
KEY = "small/tiny"
PART = "small__tiny"
MPP = 0.5


def write_slide(session: Session, number: int, columns: dict, rng, weights: str) -> None:
    """A slide with embeddings; in those of grade high some tiles are shifted."""
    slide_id, tables = f"slide{number:03d}-00000000", session.tables
    slide = {
        "slide_id": slide_id, "path": f"/{slide_id}.tiff", "width_px": 9000, "height_px": 9000, "mpp": MPP,
        "objective_power": 20.0, "level_dimensions": [[9000, 9000]],
    }  # fmt: skip
    tables.write("slides", pl.DataFrame([slide | columns]), slide_id=slide_id)
    tiles = rng.standard_normal((TILES, DIM)).astype(np.float32)
    if columns["grade"] == "high":
        tiles[:5] += 1.5
    tiles[-1] = np.nan
    grid = np.arange(TILES)
    obs = pl.DataFrame({"tile_id": grid, "x_px": grid % 8 * 320, "y_px": grid // 8 * 320, "size_px": np.full(TILES, 320),
                        "tissue_id": grid % 2})  # fmt: skip
    with EmbeddingsWriter(session.root, slide_id, "0" * 16, n_tiles=TILES, dim=DIM) as writer:
        writer.write_shard(0, tiles)
        writer.finish(obs)
    row = {"slide_id": slide_id, "recipe": KEY, "uri": writer.uri, "n_tiles": TILES, "n_bad_tiles": 1, "dim": DIM, "dtype": "float16",
           "precision": "fp32", "digest": f"{number:016d}", "mpp": 1.0, "weights_sha256": weights}  # fmt: skip
    tables.write("embeddings", [row], slide_id=slide_id, part=PART)


def study_of(home, grades: list[str | None], patients: list[str] | None = None, other: bool = False) -> Session:
    home.mkdir(parents=True, exist_ok=True)
    (home / CONFIG_FILE).write_text(TINY_ON_CPU)
    session, rng = Session(Study(home)), np.random.default_rng(0)
    weights = session.weights_sha256(session.study.recipes[0])
    for i, grade in enumerate(grades):
        columns = {"grade": grade, **({"patient": patients[i]} if patients else {})}
        write_slide(session, i, columns, rng, "b" * 64 if other and i == 0 else weights)
    return session


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    home = tmp_path_factory.mktemp("labelled")
    return study_of(home, ["high", "low"] * 12 + [None])


@pytest.fixture(scope="module")
def trained(labelled):
    recipe = labelled.study.recipes[0]
    return train_abmil(labelled, recipe, "grade", labelled.study.home / "models" / "grade.safetensors", folds=3, seed=0)


def test_the_planted_grade_is_learned_and_the_file_says_from_what(labelled, trained):
    assert trained.verdict.auroc > 0.85
    assert (trained.cohort.classes, trained.patients, trained.cohort.unlabelled) == (("high", "low"), (12, 12), 1)
    record = training_record(trained.path)
    assert record["slide_ids"] == [f"slide{i:03d}-00000000" for i in range(24)]
    assert (record["label"], record["encoder"], record["recipe"]) == ("grade", "timm/test_vit", KEY)
    assert record["weights_sha256"] == labelled.weights_sha256(labelled.study.recipes[0])
    assert record["auroc"] == trained.verdict.auroc
    assert {"torch", "scikit-learn"} <= json.loads(record["libraries"]).keys()
    assert len(record["embeddings_sha256"]) == 64


def test_a_recipe_names_the_file_and_its_vectors_follow(labelled, trained):
    home = labelled.study.home
    (home / CONFIG_FILE).write_text(TINY_ON_CPU + 'vectors = {methods = ["mean", "models/grade.safetensors"]}\n')
    session = Session(Study(home))
    recipe = session.study.recipes[0]
    check_trained(recipe, session.weights_sha256(recipe))
    node = next(node for node in chain(session.study) if node.step is Step.SLIDE_VECTOR)
    make(session, "slide000-00000000", node, "d" * 16)
    found = session.tables.scan("slide_vectors").filter(method="grade").sort("tissue_id").collect()
    assert found["tissue_id"].to_list() == [None, 0, 1]
    assert found["n_tiles"].to_list() == [39, 20, 19]
    assert set(found["weights_sha256"]) == set(session.slide_weights(recipe).values())
    assert Looking(session.study).slide_weights(recipe) == session.slide_weights(recipe)
    encoder = load_slide_encoder(trained.path, device="cpu")
    assert len(found["vector"][0]) == encoder.card.dim


def test_tiles_of_another_recipe_are_refused_before_any_are_made(labelled, trained):
    recipe = labelled.study.recipes[0]
    vectors = recipe.vectors.model_copy(update={"methods": (str(trained.path),)})
    tiling = recipe.tiling.model_copy(update={"tile_px": 128})
    for change, weights, reason in (
        ({}, "b" * 64, Reason.ENCODER_MISMATCH),
        ({"encoder": "demo-vlm"}, "a" * 64, Reason.ENCODER_MISMATCH),
        ({"tiling": tiling}, "a" * 64, Reason.TILING_MISMATCH),
    ):
        with pytest.raises(EncoderError) as caught:
            check_trained(recipe.model_copy(update={"vectors": vectors, **change}), weights)
        assert caught.value.reason is reason


def refused(session, label="grade", path=None, folds=5) -> PathassetsError:
    path = path or session.study.home / "x.safetensors"
    with pytest.raises(ConfigError) as caught:
        train_abmil(session, session.study.recipes[0], label, path, folds=folds, seed=0)
    assert caught.value.remedy
    return caught.value


def test_too_few_are_said_to_be_too_few(tmp_path):
    session = study_of(tmp_path, ["high", "low"] * 2)
    error = refused(session)
    assert error.reason is Reason.TOO_FEW_SLIDES
    assert "high: 2, low: 2" in error.message
    assert not (session.study.home / "x.safetensors").exists()


def test_many_slides_of_few_patients_are_few(tmp_path):
    session = study_of(tmp_path, ["high", "low"] * 5, patients=[f"p{i % 4}" for i in range(10)])
    assert "high: 2, low: 2" in refused(session).message


def test_one_label_teaches_nothing(tmp_path):
    assert refused(study_of(tmp_path, ["high"] * 3)).reason is Reason.TOO_FEW_SLIDES


def test_embeddings_of_different_weights_are_not_mixed(tmp_path):
    error = refused(study_of(tmp_path, ["high", "low"] * 2, other=True))
    assert error.reason is Reason.ENCODER_MISMATCH


def test_a_column_that_is_not_there_and_a_file_that_is(labelled, trained, tmp_path):
    assert "no slide has a 'stage'" in refused(labelled, label="stage").message
    before = trained.path.read_bytes()
    assert "is there already" in refused(labelled, path=trained.path).message
    assert trained.path.read_bytes() == before
    assert "safetensors" in refused(labelled, path=tmp_path / "x.pth").message


def test_slides_without_a_label_are_left_out(labelled):
    cohort = gather(labelled, labelled.study.recipes[0], "grade")
    assert len(cohort.rows) == 24
    assert cohort.rows["patient"].to_list() == cohort.rows["slide_id"].to_list()


@pytest.mark.e2e
def test_the_command_says_how_good_and_what_to_write(labelled, tmp_path):
    home = labelled.study.home
    told = ["train-abmil", "grade", "--home", str(home), "--folds", "2", "--out"]
    run = CliRunner().invoke(app, [*told, str(tmp_path / "a.safetensors")])
    assert run.exit_code == 0, run.output
    assert "held-out AUROC of low against high" in run.output
    assert "fewer than 20 patients" in run.output
    assert "their own vectors are not held out" in run.output
    assert "untrained" in run.output
    assert (tmp_path / "a.safetensors").is_file()


def test_for_programs_every_slide_has_its_held_out_probabilities(trained):
    found = _as_json(trained)
    assert len(found["held_out"]) == 24
    assert all(row["high"] + row["low"] == pytest.approx(1, abs=1e-5) for row in found["held_out"])
    assert found["low"] <= found["auroc"] <= found["high"]
