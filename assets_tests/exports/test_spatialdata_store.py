"""The SpatialData store, by the rules of spatialdata's readers; that those readers open it is in docs/exports.md."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pyarrow.parquet
import pytest
import shapely
import zarr

from pathassets.exports.spatialdata_store import export_spatialdata


@pytest.fixture
def store(made, target):
    export_spatialdata(made.session, made.features, target)
    return target.path / made.part / f"{made.slide_id}.zarr"


def test_the_root_tells_versions_tiles_and_the_slide(store, made):
    attrs = zarr.open_group(store, mode="r").attrs.asdict()
    assert attrs["spatialdata_attrs"]["version"] == "0.2"
    slide = made.table("slides", made.slide_id).row(0, named=True)
    assert attrs["slide_properties"]["shape"] == [slide["height_px"], slide["width_px"]]
    spec = attrs["tile_spec"]["tiles"]
    tiles = made.table("tiles", made.slide_id)
    assert int(spec["width"] * spec["base_downsample"]) == tiles["width_px"][0]
    assert (spec["mpp"], spec["tissue_name"]) == (0.5, "tissues")
    assert attrs["pathassets"]["embeddings_digest"] == made.features.row["digest"]


@pytest.mark.parametrize("name", ["tissues", "tiles"])
def test_shapes_are_geoparquet_in_level_0_pixels(store, made, name):
    attrs = zarr.open_group(store / "shapes" / name, mode="r").attrs.asdict()
    assert (attrs["encoding-type"], attrs["axes"], attrs["spatialdata_attrs"]["version"]) == (
        "ngff:shapes",
        ["x", "y"],
        "0.3",
    )
    assert attrs["coordinateTransformations"][0]["type"] == "identity"
    assert attrs["coordinateTransformations"][0]["output"]["name"] == "global"
    table = pyarrow.parquet.read_table(store / "shapes" / name / "shapes.parquet")
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["columns"][geo["primary_column"]]["encoding"] == "WKB"
    assert geo["columns"]["geometry"]["crs"] is None
    shapes = shapely.from_wkb(table["geometry"].to_pylist())
    if name == "tissues":
        told = [shapely.from_geojson(text) for text in made.table("tissues", made.slide_id)["geometry"]]
        assert all(one.equals(other) for one, other in zip(shapes, told, strict=True))
    else:
        assert table["tile_id"].to_pylist() == list(range(len(shapes)))
        assert [shape.bounds[:2] for shape in shapes] == [tuple(map(float, xy)) for xy in made.features.corners]


def test_the_table_names_its_tiles(store, made):
    path = store / "tables" / "demo_tiles"
    attrs = zarr.open_group(path, mode="r").attrs.asdict()
    assert attrs["spatialdata-encoding-type"] == "ngff:regions_table"
    assert (attrs["region"], attrs["region_key"], attrs["instance_key"], attrs["version"]) == (
        "tiles",
        "library_id",
        "tile_id",
        "0.2",
    )
    adata = anndata.read_zarr(path)
    np.testing.assert_array_equal(adata.X, made.features.x)
    assert adata.uns["spatialdata_attrs"] == {"region": "tiles", "region_key": "library_id", "instance_key": "tile_id"}
    assert adata.obs["library_id"].dtype == "category"
    assert set(adata.obs["library_id"]) == {"tiles"}
    assert adata.obs["tile_id"].tolist() == list(range(adata.n_obs))
