"""What comes in: tissue corrected in QuPath, features of TRIDENT, CLAM and Slideflow; with lineage, and refused when hostile."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest
import torch
from exports.conftest import Made
from typer.testing import CliRunner

from pathassets.cli.main import app
from pathassets.config import Study
from pathassets.errors import ConfigError, PathassetsError, SlideError
from pathassets.exports.gather import gather
from pathassets.steps.annotations import annotation_path
from pathassets.steps.batch import run_batch
from pathassets.steps.nodes import Step, chain
from pathassets.steps.outcomes import load_outcome
from pathassets.steps.provenance import Looking, SlideBook, State
from pathassets.steps.repair import slide_findings
from pathassets.steps.session import Session
from pathassets.store.cache import file_sha256
from pathassets.store.census import take_census


@pytest.fixture
def home(made: Made, tmp_path):
    """A copy of the study that a test may change."""
    shutil.copytree(made.home, tmp_path / "study")
    return tmp_path / "study"


def _run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _made_again(home, slide_id):
    session = Session(Study(home))
    results = []
    run_batch(session, [slide_id], chain(session.study), results.append)
    return session, results


@pytest.fixture
def tissue(made: Made, home, tmp_path):
    assert _run("export", "qupath", "--slide", "good", "--to", tmp_path / "out", "--home", home).exit_code == 0
    return tmp_path / "out" / f"{made.slide_id}.tissue.geojson"


def test_tissue_comes_back_as_it_left(made: Made, home, tissue):
    assert _run("import", "qupath", tissue, "--slide", "good", "--home", home).exit_code == 0
    session, _ = _made_again(home, made.slide_id)
    before, after = made.table("tissues", made.slide_id), session.tables.read("tissues", made.slide_id)
    assert after["method"].unique().to_list() == ["file"]
    assert after["area_mm2"].to_list() == pytest.approx(before["area_mm2"].to_list(), rel=0.005)
    tiles = [set(made.features.tiles.select("x_px", "y_px").iter_rows())]
    tiles.append(set(gather(session, made.slide_id, made.recipe).tiles.select("x_px", "y_px").iter_rows()))
    assert len(tiles[0] ^ tiles[1]) <= 0.02 * len(tiles[0])


def test_tissue_cut_in_half_is_half_and_everything_downstream_says_why(made: Made, home, tissue):
    import shapely
    from shapely.geometry import mapping, shape

    collection = json.loads(tissue.read_text())
    width = made.table("slides", made.slide_id)["width_px"][0]
    keep = shapely.box(0, 0, width / 2, 1e9)
    for feature in collection["features"]:
        feature["geometry"] = mapping(shape(feature["geometry"]).intersection(keep))
    tissue.write_text(json.dumps(collection))
    told = _run("import", "qupath", tissue, "--slide", "good", "--home", home)
    assert "pathassets run" in told.stdout
    changed = SlideBook(Looking(Study(home)), made.slide_id).account("tissue")
    assert (changed.state, [change.name for change in changed.changes]) == (State.CHANGED, ["mask_sha256"])

    session, _ = _made_again(home, made.slide_id)
    tiles = gather(session, made.slide_id, made.recipe).tiles
    assert 0 < len(tiles) < len(made.features.tiles)
    assert (tiles["x_px"] + tiles["width_px"] / 2).max() <= width / 2 + tiles["width_px"][0]
    account = SlideBook(Looking(Study(home)), made.slide_id).account("tissue")
    assert account.state is State.CURRENT
    assert account.inputs["mask_sha256"] == file_sha256(tissue)
    kept = annotation_path(home, made.slide_id)
    assert kept.read_bytes() == tissue.read_bytes()

    kept.unlink()  # back to found tissue
    session, _ = _made_again(home, made.slide_id)
    assert len(gather(session, made.slide_id, made.recipe).tiles) == len(made.features.tiles)


def test_another_drawing_needs_force_and_one_of_the_manifest_wins(made: Made, home, tissue):
    command = ("import", "qupath", tissue, "--slide", "good", "--home", home)
    assert _run(*command).exit_code == 0
    assert _run(*command).exit_code == 0, "the same again is no change"
    tissue.write_text(tissue.read_text() + " ")
    assert isinstance(_run(*command).exception, ConfigError)
    assert _run(*command, "--force").exit_code == 0
    path = made.table("slides", made.slide_id)["path"][0]
    (home / "slides.csv").write_text(f'path,tissue_mask\n"{path}",{tissue}\n')
    assert "tissue_mask" in str(_run(*command).exception)
    assert Session(Study(home)).mask_path(made.slide_id) == tissue


def test_a_drawing_of_another_slide_is_refused_and_not_kept(made: Made, home, tissue):
    collection = json.loads(tissue.read_text())
    collection["features"] = collection["features"][:1]
    collection["features"][0]["geometry"] = {
        "type": "Polygon",
        "coordinates": [[[1e6, 1e6], [2e6, 1e6], [2e6, 2e6], [1e6, 1e6]]],
    }
    tissue.write_text(json.dumps(collection))
    assert isinstance(_run("import", "qupath", tissue, "--slide", "good", "--home", home).exception, SlideError)
    assert not annotation_path(home, made.slide_id).exists()


def _draw(path, *boxes):
    from shapely.geometry import box, mapping

    features = [{"type": "Feature", "properties": {}, "geometry": mapping(box(*corners))} for corners in boxes]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def test_a_drawing_of_which_much_lies_outside_is_taken_with_a_word(made: Made, home, tmp_path):
    drawing, size = tmp_path / "drawn.geojson", made.table("slides", made.slide_id).row(0, named=True)
    width, height = size["width_px"], size["height_px"]
    command = ("import", "qupath", drawing, "--slide", "good", "--home", home, "--force")
    _draw(drawing, (0, 0, width, height), (-2, -2, 100, height))  # a hand's slip
    told = _run(*command)
    assert (told.exit_code, "outside" in told.stdout) == (0, False)
    _draw(drawing, (-width, -height, 2 * width, 2 * height))
    told = _run(*command, "--json")
    assert told.exit_code == 0
    assert "89% of it lies outside of the slide" in json.loads(told.stdout)["message"]


def test_a_drawing_beside_the_slide_on_all_sides_is_refused(made: Made, home, tmp_path):
    drawing = tmp_path / "drawn.geojson"
    _draw(drawing, (-300, -300, -100, -100), (1e6, 1e6, 2e6, 2e6))  # together they surround the slide
    assert isinstance(_run("import", "qupath", drawing, "--slide", "good", "--home", home).exception, SlideError)
    assert not annotation_path(home, made.slide_id).exists()


def _files(made: Made, home, tmp_path, form):
    out = tmp_path / form
    assert _run("export", form, "--slide", "good", "--to", out, "--home", home).exit_code == 0
    return out / made.part / f"{made.slide_id}.{'h5' if form == 'trident' else 'pt'}"


@pytest.mark.parametrize("form", ["trident", "slideflow"])
def test_features_come_back_as_they_left_with_vectors_and_domains(made: Made, home, tmp_path, form):
    path = _files(made, home, tmp_path, form)
    command = ("import", form, path, "--slide", "good", "--encoder", "uni_v1", "--home", home, "--json")
    told = json.loads(_run(*command).stdout)
    assert (told["recipe"], told["failed"]) == ("adopted_uni_v1/uni_v1", [])

    session = Session(Study(home))
    from pathassets.exports.adopted import adopted_recipes

    (recipe,) = adopted_recipes(session)
    found, before = gather(session, made.slide_id, recipe), made.features
    np.testing.assert_array_equal(found.x, before.x)
    np.testing.assert_allclose(found.corners, before.corners, atol=1)
    assert found.size_px == before.size_px
    assert set(found.domains) == {"leiden", "utag"}
    for column in ("grid_row", "grid_col"):
        shift = found.tiles[column] - before.tiles[column]
        assert shift.n_unique() == 1
    rows = session.tables.read("slide_vectors", made.slide_id, "adopted_uni_v1__uni_v1")
    own = made.table("slide_vectors")
    whole = rows.filter(rows["tissue_id"].is_null())["vector"][0]
    np.testing.assert_allclose(whole, own.filter(own["tissue_id"].is_null())["vector"][0], atol=1e-3)

    row = found.row
    assert (row["code_version"], row["encoder"], row["weights_sha256"]) == ("adopted", "uni_v1", None)
    book = SlideBook(Looking(Study(home)), made.slide_id)
    account = book.account("adopted_uni_v1/uni_v1/embeddings")
    assert account.options["adopted_from"] == form
    assert account.inputs["file_sha256"] == file_sha256(path)
    assert "said_by_the_file" in account.options
    assert account.state is State.ADOPTED
    for word in (form, "uni_v1", file_sha256(path)):
        assert word in account.why
    made_here = book.account("adopted_uni_v1/uni_v1/spatial_domains")
    assert made_here.state is State.ADOPTED
    assert file_sha256(path) in made_here.why
    assert "pathassets.toml" not in account.why + made_here.why


def test_the_same_features_again_change_nothing(made: Made, home, tmp_path):
    from support.commands import fingerprint

    path = _files(made, home, tmp_path, "trident")
    command = ("import", "trident", path, "--slide", "good", "--encoder", "uni_v1", "--home", home)
    assert _run(*command).exit_code == 0
    before = fingerprint(home)
    assert _run(*command).exit_code == 0
    assert fingerprint(home) == before


def test_a_run_leaves_adopted_features_alone_and_they_can_be_exported(made: Made, home, tmp_path):
    path = _files(made, home, tmp_path, "trident")
    _run("import", "trident", path, "--slide", "good", "--encoder", "uni_v1", "--home", home)
    _, results = _made_again(home, made.slide_id)
    assert all(result.unchanged for result in results)
    run = _run("export", "anndata", "--recipe", "uni_v1", "--slide", "good", "--to", tmp_path / "out", "--home", home)
    assert run.exit_code == 0
    assert (tmp_path / "out" / "adopted_uni_v1__uni_v1" / f"{made.slide_id}.h5ad").is_file()
    session = Session(Study(home))
    assert list(slide_findings(session, take_census(session.root, made.slide_id), deep=True)) == []


def test_clam_does_not_say_how_tiles_were_cut(made: Made, home, tmp_path):
    path = tmp_path / "clam.h5"
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = made.features.x, made.features.corners
    command = ("import", "trident", path, "--slide", "good", "--encoder", "resnet50", "--home", home)
    refused = _run(*command).exception
    assert isinstance(refused, ConfigError)
    assert "--tile-px" in refused.remedy
    assert _run(*command, "--tile-px", 224, "--mpp", 0.5).exit_code == 0


def _h5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
        if "coords" in file:
            file["coords"].attrs.update({"patch_size": 224, "patch_size_level0": 448})
    return path


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"features": np.zeros((3, 4), np.float32)}, "coords"),
        ({"features": np.zeros((3, 4), np.float32), "coords": np.zeros((2, 2), int)}, "belong together"),
        ({"features": np.zeros((1, 3, 4), np.float32), "coords": np.zeros((3, 2), int)}, "belong together"),
        ({"features": np.zeros((0, 4), np.float32), "coords": np.zeros((0, 2), int)}, "belong together"),
        ({"features": np.array([["a"] * 4] * 3, dtype="S1"), "coords": np.zeros((3, 2), int)}, "no numbers"),
        ({"features": np.zeros((3, 4), np.float32), "coords": np.full((3, 2), np.nan)}, "no numbers"),
        ({"features": np.zeros((3, 4), np.float32), "coords": np.full((3, 2), 10**7)}, "outside"),
        ({"features": np.zeros((3, 4), np.float32), "coords": np.full((3, 2), -500)}, "outside"),
    ],
)
def test_odd_features_are_refused_and_nothing_is_written(made: Made, home, tmp_path, arrays, what):
    from support.commands import fingerprint

    before = fingerprint(home)
    path = _h5(tmp_path / "odd.h5", **arrays)
    error = _run("import", "trident", path, "--slide", "good", "--encoder", "x", "--home", home).exception
    assert isinstance(error, PathassetsError), error
    assert what in str(error)
    assert fingerprint(home) == before


def test_a_bag_that_would_run_code_is_refused(made: Made, home, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "bag.pt"
    torch.save({"x": Evil()}, path)
    error = _run("import", "slideflow", path, "--slide", "good", "--encoder", "x", "--home", home).exception
    assert isinstance(error, ConfigError)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("data", [b"", b"no file of features", b"\x89HDF\r\n\x1a\n torn"])
@pytest.mark.parametrize("form", ["trident", "slideflow"])
def test_files_of_another_kind_are_refused(home, tmp_path, form, data):
    path = tmp_path / "file.pt"
    path.write_bytes(data)
    error = _run("import", form, path, "--slide", "good", "--encoder", "x", "--home", home).exception
    assert isinstance(error, ConfigError)


def test_what_cannot_be_meant_is_refused(made: Made, home, tmp_path):
    path = _files(made, home, tmp_path, "trident")
    cases = {
        "there is no format": ("import", "xlsx", path, "--slide", "good"),
        "is no file": ("import", "trident", tmp_path / "nothing", "--slide", "good"),
        "no slide": ("import", "trident", path, "--slide", "nobody", "--encoder", "x"),
        "what made": ("import", "trident", path, "--slide", "good"),
    }
    for what, command in cases.items():
        error = _run(*command, "--home", home).exception
        assert isinstance(error, ConfigError)
        assert what in str(error)


def test_unreadable_rows_of_a_foreign_file_stay_marked(made: Made, home, tmp_path):
    x = made.features.x.copy()
    x[2] = np.nan
    path = _h5(tmp_path / "holed.h5", features=x, coords=made.features.corners)
    assert _run("import", "trident", path, "--slide", "good", "--encoder", "x", "--home", home).exit_code == 0
    from pathassets.exports.adopted import adopted_recipes

    session = Session(Study(home))
    found = gather(session, made.slide_id, adopted_recipes(session)[0])
    assert found.tiles["status"].to_list().count("unreadable") == 1
    assert found.row["n_bad_tiles"] == 1
    assert (found.row["mpp"], found.size_px) == (2 * made.features.slide["mpp"], (448, 448)), "as the file says"
    assert load_outcome(session, made.slide_id, next(n for n in chain(session.study) if n.step is Step.EMBEDDINGS))


def _claims(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("features", shape=(10**9, 1024), dtype=np.float32, chunks=(1, 1024))
        file["coords"] = np.zeros((3, 2), int)


def _links(path):
    with h5py.File(path.with_name("other.h5"), "w") as file:
        file["features"] = np.zeros((3, 4), np.float32)
    with h5py.File(path, "w") as file:
        file["features"] = h5py.ExternalLink("other.h5", "/features")
        file["coords"] = np.zeros((3, 2), int)


def _expands(path):
    torch.save(torch.zeros(1).expand(10**9, 1024), path)
    np.savez(path.with_suffix(".index.npz"), np.zeros((3, 2), int))


def _inflates(path):
    torch.save(torch.zeros(3, 4), path)
    np.savez_compressed(path.with_suffix(".index.npz"), np.zeros((10**7, 2), int))


@pytest.mark.parametrize(
    ("form", "make", "what"),
    [
        ("trident", _claims, "more than it can"),
        ("trident", _links, "not in the file itself"),
        ("slideflow", _expands, "more than it can"),
        ("slideflow", _inflates, "more than it can"),
    ],
)
def test_files_that_claim_more_than_they_hold_are_refused(home, tmp_path, form, make, what):
    path = tmp_path / "file.pt"
    make(path)
    error = _run("import", form, path, "--slide", "good", "--encoder", "x", "--home", home).exception
    assert isinstance(error, ConfigError), error
    assert what in str(error)
