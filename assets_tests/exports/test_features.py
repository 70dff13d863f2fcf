"""TRIDENT's, CLAM's, Slideflow's and TIAToolbox's files, read back by those tools' own rules."""

from __future__ import annotations

import json
from dataclasses import replace

import h5py
import numpy as np
import polars as pl
import pytest
import torch
import zarr

from pathassets.errors import Reason, SlideError
from pathassets.exports.features import export_slideflow, export_tiatoolbox, export_trident
from pathassets.exports.files import Target


@pytest.fixture
def holed(made):
    """The features with two tiles that could not be read."""
    found = made.features
    status = pl.Series("status", ["unreadable" if i in (0, 3) else "ok" for i in range(len(found.tiles))])
    x = found.x.copy()
    x[[0, 3]] = np.nan
    return replace(found, tiles=found.tiles.with_columns(status), x=x)


def test_trident_finds_features_coordinates_and_sizes(made, target):
    export_trident(made.features, target)
    slide = made.table("slides", made.slide_id).row(0, named=True)
    with h5py.File(target.path / made.part / f"{made.slide_id}.h5") as file:
        features, coords, said = file["features"][:], file["coords"][:], dict(file["coords"].attrs)
        about = dict(file.attrs)
    np.testing.assert_array_equal(features, made.features.x)
    tiles = made.table("tiles", made.slide_id).sort("tile_id")
    np.testing.assert_array_equal(coords, tiles.select("x_px", "y_px").to_numpy())
    assert coords.dtype == np.int64
    # how TRIDENT finds a tile again on level 0, and how its slide encoders scale coordinates
    size = said["patch_size"] * said["level0_magnification"] / said["target_magnification"]
    assert round(size) == said["patch_size_level0"] == tiles["width_px"][0]
    assert (said["overlap"], said["name"]) == (0, made.slide_id)
    assert said["level0_magnification"] == pytest.approx(10 / slide["mpp"])
    assert about["pathassets.embeddings_digest"] == made.features.row["digest"]
    assert about["pathassets.weights_sha256"] == made.features.row["weights_sha256"]


def test_slideflow_finds_a_bag_its_index_and_its_settings(made, target):
    export_slideflow(made.features, target)
    folder = target.path / made.part
    bag = torch.load(folder / f"{made.slide_id}.pt", weights_only=True)
    assert bag.dtype == torch.float32
    np.testing.assert_array_equal(bag.numpy(), made.features.x)
    index = np.load(folder / f"{made.slide_id}.index.npz", allow_pickle=False)["arr_0"]
    assert index.dtype == np.int64
    np.testing.assert_allclose(index, made.features.centres, atol=0.5)
    config = json.loads((folder / "bags_config.json").read_text())
    assert (config["num_features"], config["tile_px"], config["tile_um"]) == (bag.shape[1], 224, 112)
    assert config["normalizer"] is None
    assert config["pathassets"]["weights_sha256"] == made.features.row["weights_sha256"]
    about = json.loads((folder / f"{made.slide_id}.provenance.json").read_text())
    assert about["embeddings_digest"] == made.features.row["digest"]


def test_bags_of_other_weights_do_not_mix(made, target):
    export_slideflow(made.features, target)
    other = replace(made.features, row={**made.features.row, "weights_sha256": "f" * 64})
    from pathassets.errors import ConfigError

    with pytest.raises(ConfigError, match=r"bags_config\.json"):
        export_slideflow(other, target)


def test_tiatoolbox_finds_boxes_at_the_resolution_of_the_tiles(made, target):
    export_tiatoolbox(made.features, target)
    group = zarr.open_group(target.path / made.part / f"{made.slide_id}.tiatoolbox.zarr", mode="r")
    np.testing.assert_array_equal(group["features"][:], made.features.x)
    boxes = group["coordinates"][:]
    assert group.attrs["resolution"] == {"units": "mpp", "resolution": 0.5}
    scale = 0.5 / made.features.slide["mpp"]
    np.testing.assert_allclose(boxes[:, :2] * scale, made.features.corners, atol=scale)
    assert (boxes[:, 2:] - boxes[:, :2] == 224).all()
    assert group.attrs["pathassets"]["embeddings_digest"] == made.features.row["digest"]


@pytest.mark.parametrize("export", [export_trident, export_slideflow, export_tiatoolbox])
def test_tiles_that_could_not_be_read_are_left_out(holed, made, target, export):
    export(holed, target)
    folder = target.path / made.part
    kept = np.delete(np.arange(len(holed.tiles)), [0, 3])
    if export is export_slideflow:
        x = torch.load(folder / f"{made.slide_id}.pt", weights_only=True).numpy()
    elif export is export_trident:
        with h5py.File(folder / f"{made.slide_id}.h5") as file:
            x = file["features"][:]
            np.testing.assert_array_equal(file["coords"][:], holed.corners[kept])
    else:
        x = zarr.open_group(folder / f"{made.slide_id}.tiatoolbox.zarr", mode="r")["features"][:]
    np.testing.assert_array_equal(x, holed.x[kept])


def test_a_slide_without_a_readable_tile_is_refused(made, target):
    found = made.features
    none = replace(found, tiles=found.tiles.with_columns(pl.lit("unreadable").alias("status")))
    with pytest.raises(SlideError) as refused:
        export_trident(none, target)
    assert refused.value.reason is Reason.TOO_MANY_BAD_TILES
    assert target.written == []


@pytest.mark.parametrize("export", [export_trident, export_slideflow, export_tiatoolbox])
def test_the_same_results_are_the_same_bytes(made, tmp_path, export):
    first, again = Target(tmp_path), Target(tmp_path)
    export(made.features, first)
    export(made.features, again)
    assert first.written == again.unchanged
    assert again.written == []


@pytest.fixture
def halved(made):
    """The same tiles as on a slide of twice the resolution: 448 px of level 0 that the encoder saw as 224."""
    found = made.features
    places = [pl.col(name) * 2 for name in ("x_px", "y_px", "size_px", "width_px", "height_px")]
    slide = {**found.slide, "mpp": 0.25, "objective_power": 40.0}
    return replace(found, slide=slide, tiles=found.tiles.with_columns(places))


def test_sizes_and_places_follow_the_slide_s_resolution(made, halved, target):
    from pathassets.exports.spatialdata_store import tile_spec

    for export in (export_trident, export_slideflow, export_tiatoolbox):
        export(halved, target)
    folder = target.path / made.part
    with h5py.File(folder / f"{made.slide_id}.h5") as file:
        said, coords = dict(file["coords"].attrs), file["coords"][:]
    assert (said["patch_size"], said["patch_size_level0"]) == (224, 448)
    assert (said["level0_magnification"], said["target_magnification"]) == (40, 20)
    np.testing.assert_array_equal(coords, made.features.corners * 2)
    index = np.load(folder / f"{made.slide_id}.index.npz")["arr_0"]
    np.testing.assert_array_equal(index, made.features.corners * 2 + 224)
    assert json.loads((folder / "bags_config.json").read_text())["tile_um"] == 112
    group = zarr.open_group(folder / f"{made.slide_id}.tiatoolbox.zarr", mode="r")
    np.testing.assert_array_equal(group["coordinates"][:, :2], made.features.corners)
    spec = tile_spec(halved)
    assert (spec["width"], spec["base_downsample"], spec["mpp"]) == (224, 2.0, 0.5)


@pytest.mark.parametrize(
    ("mpp", "power", "level0", "said"),
    [(0.499, 20.0, 224, 20), (0.252, 40.0, 444, 40 * 224 / 444), (0.69, None, 162, 20)],
)
def test_trident_s_magnifications_give_its_patches_back(made, target, mpp, power, level0, said):
    found = made.features
    sizes = [pl.lit(level0).alias(name) for name in ("size_px", "width_px", "height_px")]
    slide = {**found.slide, "mpp": mpp, "objective_power": power}
    export_trident(replace(found, slide=slide, tiles=found.tiles.with_columns(sizes)), target)
    with h5py.File(target.path / made.part / f"{made.slide_id}.h5") as file:
        attributes = dict(file["coords"].attrs)
    assert attributes["target_magnification"] == pytest.approx(said)
    size = attributes["patch_size"] * attributes["level0_magnification"] / attributes["target_magnification"]
    assert round(size) == attributes["patch_size_level0"] == level0


def test_what_bags_share_is_one_file(made, target):
    for number in (1, 2, 3):
        export_slideflow(replace(made.features, slide={**made.features.slide, "slide_id": f"slide-{number}"}), target)
    assert (len(target.written), target.unchanged) == (1 + 3 * 3, [])
