"""Annotations: tissue that a person drew or corrected in QuPath, as GeoJSON.

Belongs here: where a study keeps such a file, reading it, which part of a slide QuPath shows. Does not belong: making a mask
of it (`core/pieces.py`), writing GeoJSON (`exports/qupath.py`).

A file is kept as QuPath wrote it, byte for byte: its hash is what the tissue was made from. Coordinates are pixels of
level 0, counted from the upper left corner of the picture that QuPath shows; for slides whose file says which part was
scanned, QuPath shows that part alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathassets.errors import Reason, SlideError
from pathassets.store import layout

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from pathassets.slides.info import SlideInfo

TISSUE_CLASS = "Tissue"
SUFFIXES = (".geojson", ".json")
FOLDER = "annotations"
# Drawings of tissue are kilobytes; what is beyond this is no drawing.
MAX_BYTES = 256_000_000
_AREAS = {"Polygon", "MultiPolygon"}
_REMEDY = "Export annotations from QuPath: File, Export objects as GeoJSON, as FeatureCollection."


def annotation_path(home: Path, slide_id: str) -> Path:
    """Where a study keeps the tissue drawn for a slide; `pathassets import qupath` puts it there."""
    return home / FOLDER / f"{layout.checked_slide_id(slide_id)}.geojson"


def is_annotation(path: Path) -> bool:
    """Whether a tissue mask is GeoJSON and not a picture."""
    return path.suffix.lower() in SUFFIXES


def picture_origin(info: SlideInfo) -> tuple[int, int]:
    """Where the picture that QuPath shows of a slide begins, in level-0 pixels of the slide."""
    return info.bounds[:2] if info.bounds else (0, 0)


def read_tissue(path: Path, origin: tuple[int, int]) -> BaseGeometry:
    """The tissue that was drawn, as one shape in level-0 pixels of the slide.

    Annotations of the class `Tissue` count; where there is none of that class, all annotations do. Tiles, detections and
    cells never do. Outlines that cross themselves are mended.

    Args:
        path: A FeatureCollection, a list of features, or one feature.
        origin: See `picture_origin`.

    Raises:
        SlideError: `mask_unreadable`: no such file, no GeoJSON, or no area in it.
    """
    from shapely import union_all
    from shapely.affinity import translate

    features = [feature for feature in _features(path) if _is_drawn(feature)]
    named = [feature for feature in features if _class_of(feature) == TISSUE_CLASS]
    shapes = [_shape(feature, path) for feature in (named or features)]
    areas = [part for shape in shapes for part in getattr(shape, "geoms", [shape]) if part.geom_type in _AREAS]
    if not areas:
        raise _unreadable(path, "holds no area that was drawn")
    return translate(union_all(areas), *origin)


def _features(path: Path) -> Iterator[Mapping[str, Any]]:
    data = _parsed(path)
    found = data.get("features") if isinstance(data, dict) and data.get("type") == "FeatureCollection" else data
    items = found if isinstance(found, list) else [found]
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("geometry"), dict):
            raise _unreadable(path, "is no GeoJSON with features")
        yield item


def _parsed(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _unreadable(path, f"has more than {MAX_BYTES // 10**6} MB, which is no drawing of tissue")
        return json.loads(path.read_bytes(), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, SlideError):
            raise
        raise _unreadable(path, f"cannot be read: {error}") from error


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no coordinate")


def _is_drawn(feature: Mapping[str, Any]) -> bool:
    properties = feature.get("properties")
    kind = properties.get("objectType", "annotation") if isinstance(properties, dict) else "annotation"
    return kind == "annotation" and feature["geometry"].get("type") in _AREAS


def _class_of(feature: Mapping[str, Any]) -> str | None:
    properties = feature.get("properties")
    named = properties.get("classification") if isinstance(properties, dict) else None
    return str(named.get("name")) if isinstance(named, dict) else None


def _shape(feature: Mapping[str, Any], path: Path) -> BaseGeometry:
    import numpy as np
    from shapely import force_2d, get_coordinates, make_valid
    from shapely.errors import ShapelyError
    from shapely.geometry import shape

    try:
        drawn = force_2d(shape(feature["geometry"]))
        if not np.isfinite(get_coordinates(drawn)).all():
            raise ValueError("a coordinate is no number")
        return make_valid(drawn)
    except (ShapelyError, KeyError, ValueError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise _unreadable(path, f"holds an outline that is none: {error}") from error


def _unreadable(path: Path, what: str) -> SlideError:
    return SlideError(f"the tissue drawn in {path} {what}", reason=Reason.MASK_UNREADABLE, remedy=_REMEDY)
