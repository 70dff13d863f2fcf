"""QuPath: tissue, tiles and domains as GeoJSON that QuPath opens, with classes and colours.

Belongs here: objects as QuPath has them, written. Does not belong: reading what was drawn in QuPath (`steps/annotations.py`).

QuPath counts pixels of level 0 from the upper left corner of the picture that it shows. For slides whose file says which part
was scanned that is the part's corner, not the slide's: `origin` is the difference.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pathassets import __version__
from pathassets.core import palette
from pathassets.errors import Reason, SlideError
from pathassets.exports.files import Target
from pathassets.exports.gather import SlideFeatures
from pathassets.figures import images, overlays
from pathassets.steps.annotations import TISSUE_CLASS, picture_origin
from pathassets.steps.session import Session

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

Origin = tuple[int, int]
Feature = dict[str, Any]

DECIMALS = 2
# Files of these never say that only a part was scanned.
_WHOLE_PICTURE = {"aperio", "generic-tiff", "hamamatsu", "ome", "philips", "trestle"}
_NAMESPACE = uuid.UUID("6d3c1a52-7b7f-4c59-9f5e-0f6f2b6f8c11")
_MEASURED = ("tissue_share", "brightness", "saturation", "sharpness", "haematoxylin", "eosin", "pen_share")


def origin(session: Session, slide_id: str) -> Origin:
    """Where QuPath's picture of a slide begins, in level-0 pixels of the slide.

    Raises:
        SlideError: The slide's file would have to tell, and is not there.
    """
    vendor = session.slide_row(slide_id)["vendor"]
    if vendor in _WHOLE_PICTURE:
        return 0, 0
    with session.open_slide(slide_id) as slide:
        return picture_origin(slide.info)


def export_tissue(session: Session, slide_id: str, target: Target) -> None:
    """Writes `<slide>.tissue.geojson`: an annotation for each piece; what `pathassets import qupath` takes back.

    Raises:
        SlideError: `upstream_failed` when tissue has not been looked for, `no_tissue` when there is none.
    """
    from shapely import from_geojson

    frame = session.tables.read("tissues", slide_id)
    if frame is None:
        remedy = "`pathassets run` finds it."
        raise SlideError(f"{slide_id} has no tissue yet", reason=Reason.UPSTREAM_FAILED, remedy=remedy)
    if frame.is_empty():
        raise SlideError(f"{slide_id} has no tissue", reason=Reason.NO_TISSUE, remedy="See `pathassets outcomes`.")
    corner = origin(session, slide_id)
    made = [
        _feature(
            (slide_id, "tissue", row["tissue_id"]), from_geojson(row["geometry"]), corner, "annotation",
            TISSUE_CLASS, palette.TISSUE_OUTLINE, f"piece {row['tissue_id']}", {"area mm^2": row["area_mm2"]},
        )
        for row in frame.iter_rows(named=True)
    ]  # fmt: skip
    about = {"slide_id": slide_id, "digest": frame["digest"][0], "code_version": frame["code_version"][0]}
    _put(target, f"{slide_id}.tissue.geojson", made, about, corner)


def export_features(session: Session, features: SlideFeatures, target: Target) -> None:
    """Writes `<recipe>/<slide>.tiles.geojson`, a tile object each, and `<recipe>/<slide>.<variant>.geojson`, an annotation
    for each domain: its tiles merged, because tens of thousands of squares are slow to open.
    """
    corner, slide_id = origin(session, features.slide_id), features.slide_id
    about = features.provenance
    stem = f"{features.part}/{slide_id}"
    _put(target, f"{stem}.tiles.geojson", list(_tiles(features, corner)), about, corner)
    for variant, frame in features.domains.items():
        _put(target, f"{stem}.{variant}.geojson", list(_domains(features, variant, frame, corner)), about, corner)


def _tiles(features: SlideFeatures, corner: Origin) -> Iterator[Feature]:
    from shapely import box

    width, height = features.size_px
    frame = features.annotated_tiles()
    measured = [name for name in (*_MEASURED, *features.term_columns().values()) if name in frame.columns]
    names = {column: f"text: {images.plain(term)}" for term, column in features.term_columns().items()}
    variant = next(iter(features.domains), None)
    of = features.domains[variant].to_dicts() if variant else [{"domain": None, "label": None}] * len(frame)
    for tile, domain in zip(frame.iter_rows(named=True), of, strict=True):
        x, y = tile["x_px"], tile["y_px"]
        number = domain["domain"]
        yield _feature(
            (features.slide_id, features.part, tile["tile_id"]), box(x, y, x + width, y + height), corner, "tile",
            None if number is None else _class_name(number, domain["label"]),
            palette.domain_colour(-1 if number is None else number), f"tile {tile['tile_id']}",
            {names.get(name, name): tile[name] for name in measured},
        )  # fmt: skip


def _domains(features: SlideFeatures, variant: str, frame: pl.DataFrame, corner: Origin) -> Iterator[Feature]:
    """Tiles of a domain as one shape: the cells that they speak for, so that overlapping tiles do not."""
    from shapely import box, union_all

    cells = np.round(np.stack(_cells(features.tiles), axis=1), DECIMALS)
    for number in sorted(frame["domain"].drop_nulls().unique().to_list()):
        inside = (frame["domain"] == number).fill_null(value=False).to_numpy()
        shape = union_all(box(*cells[inside].T))
        label = frame["label"].to_list()[int(np.flatnonzero(inside)[0])]
        yield _feature(
            (features.slide_id, features.part, variant, number), shape, corner, "annotation",
            _class_name(number, label), palette.domain_colour(number), f"{variant} {number}",
            {"tiles": int(inside.sum()), "share": float(inside.mean())},
        )  # fmt: skip


def _cells(tiles: pl.DataFrame) -> Sequence[np.ndarray]:
    """Left, top, right, bottom of the cells; where no grid is known, of the tiles."""
    if {"grid_row", "grid_col", "width_px", "height_px"} <= set(tiles.columns):
        return overlays.tile_cells(tiles)
    x, y, size = (tiles[name].to_numpy() for name in ("x_px", "y_px", "size_px"))
    return x, y, x + size, y + size


def _class_name(number: int, label: str | None) -> str:
    return f"Domain {number} ({images.plain(label, 28)})" if label else f"Domain {number}"


def _feature(
    key: Sequence[object],
    shape: BaseGeometry,
    corner: Origin,
    kind: str,
    class_name: str | None,
    colour: str,
    name: str,
    measurements: Mapping[str, float | None],
) -> Feature:
    from shapely import to_geojson, transform

    placed = transform(shape, lambda xy: np.round(xy - np.asarray(corner, float), DECIMALS))
    known = {key: float(value) for key, value in measurements.items() if value is not None and np.isfinite(value)}
    properties: dict[str, Any] = {"objectType": kind, "name": name, "isLocked": False, "measurements": known}
    if class_name is not None:
        properties["classification"] = {"name": class_name, "color": list(palette.rgb(colour))}
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, json.dumps([str(part) for part in key]))),
        "geometry": json.loads(to_geojson(placed)),
        "properties": properties,
    }


def _put(target: Target, key: str, features: list[Feature], about: Mapping[str, Any], corner: Origin) -> None:
    note = {**about, "exported_by": f"pathassets {__version__}", "origin_px": list(corner)}
    note["coordinates"] = "level-0 pixels from `origin_px`, x then y, as QuPath counts them"
    collection = {"type": "FeatureCollection", "features": features, "pathassets": note}
    target.put_bytes(key, (json.dumps(collection, allow_nan=False, default=str) + "\n").encode())
