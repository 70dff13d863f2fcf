"""Pictures: the small overlays that Dagster's UI shows, as PNG files.

Belongs here: which pictures there are, and their names. Does not belong: drawing (`figures/`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl

from pathassets import __version__
from pathassets.errors import Reason, SlideError
from pathassets.exports.files import Target
from pathassets.exports.gather import SlideFeatures
from pathassets.figures import overlays
from pathassets.figures.slide_pictures import load_thumbnail
from pathassets.steps.session import Session

PROBABILITY = (0.0, 1.0)


def export_slide(session: Session, slide_id: str, target: Target) -> None:
    """Writes `<slide>.thumbnail.png` and `<slide>.tissue.png`.

    Raises:
        SlideError: `upstream_failed` when tissue has not been looked for.
    """
    rgb = thumbnail_of(session, slide_id)
    about = {"slide_id": slide_id}
    target.put_bytes(f"{slide_id}.thumbnail.png", as_png(overlays.thumbnail(rgb), about))
    pieces = tissue_picture(session, slide_id, rgb)
    if pieces is not None:
        target.put_bytes(f"{slide_id}.tissue.png", as_png(pieces, about))


def export_features(session: Session, features: SlideFeatures, target: Target) -> None:
    """Writes `<recipe>/<slide>.<variant>.png` for each variant of domains, `<recipe>/<slide>.<term>.png` for each term."""
    rgb = thumbnail_of(session, features.slide_id)
    for name, picture in overlay_pictures(features, rgb):
        key = f"{features.part}/{features.slide_id}.{name}.png"
        target.put_bytes(key, as_png(picture, features.provenance))


def thumbnail_of(session: Session, slide_id: str) -> np.ndarray:
    """The slide's thumbnail, uint8 (h, w, 3).

    Raises:
        SlideError: There is none yet.
    """
    rgb = load_thumbnail(session, slide_id)
    if rgb is None:
        remedy = "`pathassets run` makes it, with the tissue."
        raise SlideError(f"{slide_id} has no thumbnail yet", reason=Reason.UPSTREAM_FAILED, remedy=remedy)
    return rgb


def tissue_picture(session: Session, slide_id: str, rgb: np.ndarray) -> bytes | None:
    """The outlines of tissue on the thumbnail, WebP; None where it has not been looked for."""
    from shapely import from_geojson

    frame = session.tables.read("tissues", slide_id)
    if frame is None:
        return None
    row = session.slide_row(slide_id)
    pieces = [from_geojson(text) for text in frame["geometry"]]
    return overlays.tissue(rgb, pieces, (row["width_px"], row["height_px"]))


def overlay_pictures(features: SlideFeatures, rgb: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Name and WebP of every overlay: domains by variant, then the terms."""
    level0 = features.slide["width_px"], features.slide["height_px"]
    for variant, frame in features.domains.items():
        numbers, names = frame["domain"].fill_null(-1).to_numpy(), _names(frame)
        yield variant, overlays.domains(rgb, features.tiles, numbers, level0, names)
    for term, column in features.term_columns().items():
        values = features.probability[:, features.terms.index(term)]
        yield column, overlays.scores(rgb, features.tiles, values, level0, term, PROBABILITY)


def _names(frame: pl.DataFrame) -> dict[int, str | None]:
    return dict(frame.drop_nulls("domain").select("domain", "label").unique().iter_rows())


def as_png(picture: bytes, about: Mapping[str, Any]) -> bytes:
    """A picture as PNG that says in its text chunk `pathassets` what it shows."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    note = PngInfo()
    note.add_itxt("pathassets", json.dumps({**about, "exported_by": f"pathassets {__version__}"}, default=str))
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as image:
        image.save(buffer, "PNG", pnginfo=note, optimize=True)
    return buffer.getvalue()
