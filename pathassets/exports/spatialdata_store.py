"""SpatialData: one Zarr store per slide that spatialdata reads and wsidata, under LazySlide, opens beside the slide.

Belongs here: the layout of that store. Does not belong: AnnData (`anndata_files`), from which its table comes.

Written without spatialdata, which would bring dask and a hundred packages: container format 0.2, shapes 0.3 (GeoParquet), tables
0.2 (AnnData), as spatialdata 0.7 writes them; the names and attributes on top are wsidata's (0.12): shapes `tissues` and
`tiles`, a table `<model>_tiles` whose rows are the tiles, `tile_spec` and `slide_properties` at the root.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from pathassets.exports.anndata_files import to_anndata
from pathassets.exports.files import Target
from pathassets.exports.gather import SlideFeatures
from pathassets.steps.session import Session

if TYPE_CHECKING:
    import zarr
    from anndata import AnnData

CONTAINER_VERSION, SHAPES_VERSION, TABLES_VERSION = "0.2", "0.3", "0.2"
TISSUES, TILES = "tissues", "tiles"
_AXES = ["x", "y"]
_SPATIAL = [{"name": axis, "type": "space", "unit": "unit"} for axis in _AXES]


def export_spatialdata(session: Session, features: SlideFeatures, target: Target) -> None:
    """Writes `<recipe>/<slide>.zarr`: open it with `wsidata.open_wsi(slide, store=that folder)`."""
    tissues = session.tables.read("tissues", features.slide_id)
    adata = as_table(features)

    def write(path: Path) -> None:
        import zarr

        root = zarr.create_group(path, zarr_format=3, attributes=root_attributes(features))
        shapes, tables = root.create_group("shapes"), root.create_group("tables")
        if tissues is not None and len(tissues):
            _write_shapes(shapes, path, TISSUES, _tissue_columns(tissues))
        _write_shapes(shapes, path, TILES, _tile_columns(features))
        _write_table(tables, table_name(features), adata)

    target.put(f"{features.part}/{features.slide_id}.zarr", write)


def table_name(features: SlideFeatures) -> str:
    """`<model>_<tiles key>`, by which LazySlide finds the features of a model."""
    return f"{features.recipe.name}_{TILES}"


def as_table(features: SlideFeatures) -> AnnData:
    """The tiles as an AnnData table whose rows name shapes of `tiles`."""
    import pandas as pd

    adata = to_anndata(features)
    adata.obs["library_id"] = pd.Categorical([TILES] * len(adata.obs))
    adata.uns["spatialdata_attrs"] = _region()
    return adata


def root_attributes(features: SlideFeatures) -> dict[str, Any]:
    """What stands at the root of the store: versions, how tiles were cut, the slide's sizes, what made it all."""
    return {
        "spatialdata_attrs": {"version": CONTAINER_VERSION, "spatialdata_software_version": "0.7.3"},
        "tile_spec": {TILES: tile_spec(features)},
        "slide_properties": slide_properties(features.slide),
        "pathassets": features.provenance,
    }


def tile_spec(features: SlideFeatures) -> dict[str, Any]:
    """The grid of tiles as wsidata's `TileSpec` has it; level 0 is the level that is read."""
    (height, width), (stride_height, stride_width) = features.tile_hw, features.recipe.tiling.stride_hw
    downsample = features.size_px[0] / width
    return {
        "height": height,
        "width": width,
        "stride_height": stride_height,
        "stride_width": stride_width,
        "mpp": float(features.row["mpp"]),
        "ops_level": 0,
        "ops_downsample": downsample,
        "base_level": 0,
        "base_downsample": downsample,
        "tissue_name": TISSUES,
    }


def slide_properties(slide: Mapping[str, Any]) -> dict[str, Any]:
    """The slide as wsidata's `SlideProperties` has it: sizes are height, then width."""
    sizes = slide["level_dimensions"] or [[slide["width_px"], slide["height_px"]]]
    shapes = [[int(height), int(width)] for width, height in sizes]
    return {
        "shape": shapes[0],
        "n_level": len(shapes),
        "level_shape": shapes,
        "level_downsample": [shapes[0][0] / height for height, _ in shapes],
        "mpp": slide["mpp"],
        "magnification": slide["objective_power"],
    }


def _tissue_columns(tissues: pl.DataFrame) -> dict[str, Sequence[Any]]:
    from shapely import from_geojson, to_wkb

    shapes = [to_wkb(from_geojson(text)) for text in tissues["geometry"]]
    return {"tissue_id": tissues["tissue_id"].to_list(), "geometry": shapes}


def _tile_columns(features: SlideFeatures) -> dict[str, Sequence[Any]]:
    from shapely import box, to_wkb

    corners, (width, height) = features.corners, features.size_px
    boxes = box(corners[:, 0], corners[:, 1], corners[:, 0] + width, corners[:, 1] + height)
    annotated = features.annotated_tiles().drop("x_px", "y_px", "reason", strict=False)
    columns = {name: annotated[name].to_list() for name in annotated.columns}
    return {**columns, "x": corners[:, 0].tolist(), "y": corners[:, 1].tolist(), "geometry": to_wkb(boxes).tolist()}


def _write_shapes(shapes: zarr.Group, path: Path, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
    """Shapes are a Zarr group without arrays that holds a GeoParquet file."""
    import pyarrow
    import pyarrow.parquet

    shapes.create_group(
        name,
        attributes={
            "encoding-type": "ngff:shapes",
            "axes": _AXES,
            "coordinateTransformations": [_identity()],
            "spatialdata_attrs": {"version": SHAPES_VERSION},
        },
    )
    geometry = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": None}  # no CRS, else it is degrees on Earth
    geo = {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    table = pyarrow.table(dict(columns)).replace_schema_metadata({"geo": json.dumps(geo)})
    pyarrow.parquet.write_table(table, path / "shapes" / name / "shapes.parquet", compression="zstd")


def _write_table(tables: zarr.Group, name: str, adata: AnnData) -> None:
    import anndata

    with anndata.settings.override(auto_shard_zarr_v3=False):
        anndata.io.write_elem(tables, name, adata)
    tables[name].attrs.update(
        {"spatialdata-encoding-type": "ngff:regions_table", "version": TABLES_VERSION, **_region()}
    )


def _region() -> dict[str, str]:
    return {"region": TILES, "region_key": "library_id", "instance_key": "tile_id"}


def _identity() -> dict[str, Any]:
    """Pixels of level 0 are the coordinates of the system `global`."""
    system = {"axes": _SPATIAL}
    return {"type": "identity", "input": {"name": "xy", **system}, "output": {"name": "global", **system}}
