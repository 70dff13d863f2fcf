"""Slide encoders in a study: vectors of the right tiles, lineage, refusals before a night's work, nothing for nothing."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from support import gigapath

from pathassets.config import CONFIG_FILE, Study
from pathassets.encoders.slide import get_slide_card, load_slide_encoder
from pathassets.encoders.slide.zoo import entries
from pathassets.errors import ConfigError, EncoderError, Reason
from pathassets.recipes import Recipe, Tiling, VectorOptions, digest
from pathassets.slides.synthetic import synthetic_slide
from pathassets.steps.batch import run_batch
from pathassets.steps.digests import find_digest
from pathassets.steps.nodes import Node, Step, chain
from pathassets.steps.provenance import Looking, SlideBook, State
from pathassets.steps.register import register
from pathassets.steps.session import Session, weights_keys
from pathassets.steps.slide_vector import check_embeddings, read_tiles
from pathassets.steps.sweep import garbage
from pathassets.store.arrays import read_embeddings

MPP = 0.3  # 256 px at 0.5 µm/px are 426.67 level-0 pixels: their edges are rounded


def nodes(study: Study) -> list[Node]:
    """Domains know nothing of slide encoders, and take long."""
    return [node for node in chain(study) if node.step is not Step.SPATIAL_DOMAINS]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A slide through both stages of GigaPath, untrained and narrow."""
    home = tmp_path_factory.mktemp("gigapath")
    with pytest.MonkeyPatch.context() as patch:
        gigapath.narrow(patch)
        (home / "inbox").mkdir()
        synthetic_slide(home / "inbox" / "s.tiff", seed=11, width_px=2048, height_px=2048, mpp=MPP)
        (home / CONFIG_FILE).write_text(gigapath.CONFIG)
        session = Session(Study(home))
        (entry,) = register(session, [home / "inbox" / "s.tiff"])
        results = []
        run_batch(session, [entry.slide_id], nodes(session.study), results.append)
        yield session, entry.slide_id, results


def vectors(session) -> pl.DataFrame:
    return session.tables.scan("slide_vectors").collect()


def embeddings(session):
    row = session.tables.scan("embeddings").collect().row(0, named=True)
    return read_embeddings(session.root, row["uri"])


def test_the_vector_is_the_encoders_own_of_the_stored_tiles(made):
    session, _, results = made
    assert {str(r.node.step): r.outcome.status for r in results}["slide_vector"] == "ok"
    stored = embeddings(session)
    encoder = load_slide_encoder("gigapath-slide", random_weights=True, device="cpu")
    width = 256 * 0.5 / MPP
    grid = stored.obs.select("grid_col", "grid_row").to_numpy()
    expected = encoder(stored.read(), grid * 1000, 1000)  # places told without any rounding
    row = vectors(session).filter(pl.col("tissue_id").is_null(), method="gigapath-slide").row(0, named=True)
    np.testing.assert_allclose(row["vector"], expected, rtol=1e-4, atol=1e-5)
    assert row["n_tiles"] == stored.n_tiles > 5
    assert read_tiles(stored, width).coordinates.max() > width
    assert np.abs(encoder(stored.read(), grid * 1000, 2000) - expected).max() > 1e-4, (
        "a wrong width would not be noticed"
    )


def test_pieces_of_tissue_have_vectors_of_their_own(made):
    session, _, _ = made
    found = vectors(session)
    assert set(found["method"]) == {"mean", "gigapath-slide"}
    by_method = {method: set(frame["tissue_id"]) for (method,), frame in found.group_by("method")}
    assert by_method["mean"] == by_method["gigapath-slide"] >= {None, 0}


def test_rows_say_which_weights_and_that_they_are_untrained(made):
    session, _, _ = made
    found = vectors(session)
    encoded = found.filter(method="gigapath-slide")
    assert encoded["weights_sha256"].str.starts_with("random-").all()
    assert encoded["random_weights"].all()
    assert found.filter(method="mean")["weights_sha256"].null_count() == len(found.filter(method="mean"))
    meanings = find_digest(session, encoded["weights_sha256"][0])
    assert "a slide encoder's weights" in {meaning.what for meaning in meanings}


def test_lineage_names_the_weights(made):
    session, slide_id, _ = made
    account = SlideBook(Looking(session.study), slide_id).account("gp/gigapath/slide_vector")
    assert account.state is State.CURRENT
    assert account.inputs["slide_weights"] == session.slide_weights(session.study.recipes[0])
    assert account.options["methods"] == ["mean", "gigapath-slide"]


def test_other_weights_make_the_vectors_alone_anew(made, monkeypatch):
    session, slide_id, _ = made
    monkeypatch.setattr("pathassets.encoders.slide.loading.random_digest", lambda name, kwargs: "random-other")
    book = SlideBook(Looking(session.study), slide_id)
    assert book.account("gp/gigapath/embeddings").state is State.CURRENT
    account = book.account("gp/gigapath/slide_vector")
    assert account.state is State.CHANGED
    assert [change.name for change in account.changes] == ["slide_weights"]


def test_a_second_run_makes_nothing(made):
    session, slide_id, _ = made
    again = []
    run_batch(Session(session.study), [slide_id], nodes(session.study), again.append)
    assert all(result.unchanged for result in again)


def test_what_is_noted_of_weights_is_no_garbage(made):
    session, _, _ = made
    recipe = session.study.recipes[0]
    assert session.remembered_slide_weights(recipe) == session.slide_weights(recipe)
    noted = [key for key in weights_keys(session.study) if session.root.exists(key)]
    assert len(noted) == 2
    assert not {waste.key for waste in garbage(session, older_than=0)} & set(noted)


def test_tiles_that_cannot_be_read_are_left_out(made):
    session, _, _ = made
    stored = embeddings(session)
    bad = stored.obs.with_columns(status=pl.Series(["unreadable", *["ok"] * (stored.n_tiles - 1)]))
    stored.__dict__["obs"] = bad
    tiles = read_tiles(stored, 1.0)
    assert len(tiles.features) == len(tiles.coordinates) == len(tiles.tissue_ids) == stored.n_tiles - 1
    np.testing.assert_array_equal(tiles.features, stored.read()[1:].astype(stored.dtype))


# -- Refusals ----------------------------------------------------------------------------------------------------------


def settings(tmp_path, recipe: str, tiling: str = "tile_px = 256\nmpp = 0.5") -> None:
    (tmp_path / CONFIG_FILE).write_text(f"[tilings.t]\n{tiling}\n[[recipes]]\ntiling = 't'\n{recipe}")


@pytest.mark.parametrize(
    ("encoder", "method", "tiling", "reason", "says"),
    [
        ("uni", "gigapath-slide", "mpp = 0.5", Reason.ENCODER_MISMATCH, "tiles of gigapath"),
        ("gigapath", "gigapath-slide", "mpp = 0.5", Reason.TILING_MISMATCH, "224 x 224"),
        ("gigapath", "gigapath-slide", "tile_px = 256\nmpp = 1.0", Reason.TILING_MISMATCH, "1 µm/px"),
        ("conch-v1.5", "titan", "mpp = 0.5", Reason.ENCODER_UNKNOWN, "cannot run here"),
        ("uni", "meen", "mpp = 0.5", Reason.ENCODER_UNKNOWN, "meen"),
    ],
)
def test_settings_that_cannot_work_are_refused_when_they_are_read(tmp_path, encoder, method, tiling, reason, says):
    settings(tmp_path, f"encoder = '{encoder}'\nvectors = {{methods = ['{method}']}}", tiling)
    with pytest.raises(EncoderError, match=says) as caught:
        Study(tmp_path)
    assert caught.value.reason is reason
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("vectors", "says"),
    [("{methods = []}", "one method at least"), ("{methods = ['mean', 'mean']}", "each once"),
     ("{methods = ['mean'], weights = {chief = 'a.pth'}}", "chief"),
     ("{methods = ['a/x.safetensors', 'b/x.safetensors']}", "each once"),
     ("{method = ['mean']}", "did you mean methods")],
)  # fmt: skip
def test_options_that_contradict_themselves_are_refused(tmp_path, vectors, says):
    settings(tmp_path, f"vectors = {vectors}")
    with pytest.raises(ConfigError, match=says):
        Study(tmp_path)


def test_files_are_found_from_the_home_folder(tmp_path):
    settings(
        tmp_path,
        "encoder = 'gigapath'\nvectors = {methods = ['gigapath-slide', 'm/x.safetensors'], weights = {gigapath-slide = 'w.pth'}}",
    )
    options = Study(tmp_path).recipes[0].vectors
    assert options.weights == {"gigapath-slide": str(tmp_path.resolve() / "w.pth")}
    assert options.encoders == ("gigapath-slide", str(tmp_path.resolve() / "m" / "x.safetensors"))
    assert options.asked == {"methods": ["gigapath-slide", "x"]}
    assert options.first == "gigapath-slide"


def test_results_without_slide_encoders_are_what_they_were():
    """A study that was made before there were any must not be made again."""
    options = VectorOptions(methods=("mean", "std"))
    assert digest(options.asked) == digest({"methods": ["mean", "std"]})
    node = next(n for n in chain(Study("/nowhere-at-all")) if n.step is Step.SLIDE_VECTOR)
    assert node.options_digest == digest("slide_vector", 1, {"methods": ["mean"]})


def test_a_slide_of_another_resolution_fails_alone_and_says_why(made):
    """The tiling says nothing of the resolution; the slide does."""
    session, _, _ = made
    row = session.tables.scan("embeddings").collect().row(0, named=True)
    recipe = Recipe(tiling=Tiling(tile_px=256), encoder="gigapath")
    check_embeddings(get_slide_card("gigapath-slide"), recipe, row)
    with pytest.raises(EncoderError) as caught:
        check_embeddings(get_slide_card("gigapath-slide"), recipe, row | {"mpp": 0.25})
    assert caught.value.reason is Reason.TILING_MISMATCH


def test_a_licence_that_is_not_allowed_is_refused(tmp_path):
    settings(
        tmp_path,
        "encoder = 'chief-ctranspath'\nvectors = {methods = ['chief']}\n[study]\nlicences = ['MIT']",
        "tile_px = 256\nmpp = 1.0",
    )
    session = Session(Study(tmp_path))
    recipe = session.study.recipes[0]
    for use in (session.slide_weights, lambda recipe: session.slide_encoder(recipe, "chief")):
        with pytest.raises(EncoderError, match="chief is under AGPL"):
            use(recipe)
    assert session.slide_weights(recipe.model_copy(update={"random_weights": True}))["chief"].startswith("random-")


def test_missing_weights_are_an_outcome_with_a_remedy(made, tmp_path):
    session, slide_id, _ = made
    recipe = session.study.recipes[0]
    vectors = recipe.vectors.model_copy(update={"weights": {"gigapath-slide": str(tmp_path / "gone.pth")}})
    study = session.study.model_copy(update={"recipes": (recipe.model_copy(update={"vectors": vectors}),)})
    results = []
    run_batch(Session(study), [slide_id], nodes(study), results.append)
    (failed,) = (result.outcome for result in results if not result.usable)
    assert (failed.step, failed.reason) == ("slide_vector", "weights_missing")
    assert "gone.pth" in failed.message
    results.clear()
    run_batch(Session(session.study), [slide_id], nodes(session.study), results.append)
    assert all(result.usable for result in results)
    assert json.loads(results[-1].outcome.options)
    assert entries()["gigapath-slide"]["kwargs"]["depth"] == 1
