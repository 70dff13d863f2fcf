"""Pictures: overlays and mosaics as PNG files: those that Dagster's UI shows, as large as is wanted.

Belongs here: which pictures there are, their names, where their pixels come from. Does not belong: drawing (`figures/`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pathassets import __version__
from pathassets.errors import Reason, SlideError
from pathassets.exports.files import Target
from pathassets.exports.gather import SlideFeatures
from pathassets.figures import images, overlays
from pathassets.figures.cohort_pictures import read_mosaic
from pathassets.figures.rulers import um_per_px, with_ruler
from pathassets.figures.slide_pictures import load_thumbnail
from pathassets.recipes import Recipe
from pathassets.steps.embedded import recipe_part
from pathassets.steps.session import Session

if TYPE_CHECKING:
    from PIL.Image import Image

PROBABILITY = (0.0, 1.0)
# A long thin slide as wide as is wanted may be too high to hold.
MAX_SIDE = 16384
# zlib's level: a quarter of the time that Pillow's smallest files take, for some 4 % more bytes of tissue.
COMPRESSION = 4


@dataclass(frozen=True)
class Pictures:
    """The export of pictures.

    Attributes:
        width: Of each picture in px; None = at most 512 px a side, from the stored thumbnail.
    """

    width: int | None = None

    def export_slide(self, session: Session, slide_id: str, target: Target) -> None:
        """Writes `<slide>.thumbnail.png` and `<slide>.tissue.png`.

        Raises:
            SlideError: `upstream_failed` when tissue has not been looked for; a picture larger than the thumbnail needs the file.
        """
        rgb = self._below(session, slide_id)
        about = {"slide_id": slide_id, "um_per_px": _um_per_px(session.slide_row(slide_id), rgb, self._side(rgb))}
        target.put_bytes(f"{slide_id}.thumbnail.png", as_png(images.shrink(rgb, self._side(rgb)), about))
        pieces = tissue_image(session, slide_id, rgb, self._side(rgb))
        if pieces is not None:
            target.put_bytes(f"{slide_id}.tissue.png", as_png(pieces, about))

    def export_features(self, session: Session, features: SlideFeatures, target: Target) -> None:
        """Writes `<recipe>/<slide>.<variant>.png` for each variant of domains, `<recipe>/<slide>.<term>.png` for each term."""
        rgb = self._below(session, features.slide_id)
        scale = {"um_per_px": _um_per_px(features.slide, rgb, self._side(rgb))}
        for name, _, picture in overlay_images(features, rgb, self._side(rgb)):
            key = f"{features.part}/{features.slide_id}.{name}.png"
            target.put_bytes(key, as_png(picture, features.provenance | scale))

    def export_cohort(self, session: Session, recipe: Recipe, target: Target) -> None:
        """Writes `<recipe>/mosaic.png`, where the cohort was laid out; its size is its own."""
        from PIL import Image

        found = read_mosaic(session, recipe.key)
        if found is not None:
            about = {"recipe": recipe.key, "cohort_map_digest": found.digest, "cells": found.cells}
            with Image.open(io.BytesIO(found.picture)) as picture:
                target.put_bytes(f"{recipe_part(recipe)}/mosaic.png", as_png(picture, about))

    def _below(self, session: Session, slide_id: str) -> np.ndarray:
        """The whole slide, uint8 (h, w, 3), at least as wide as the pictures shall be; from the slide where the thumbnail is small."""
        rgb = thumbnail_of(session, slide_id)
        if self.width is None or rgb.shape[1] >= self.width:
            return rgb
        with session.open_slide(slide_id) as slide:
            found: np.ndarray = slide.thumbnail(self._side(rgb))
            return found

    def _side(self, rgb: np.ndarray) -> int:
        """Longest side of a picture of this shape that has the wanted width."""
        height, width = rgb.shape[:2]
        return images.MAX_SIDE if self.width is None else min(MAX_SIDE, round(self.width * max(1.0, height / width)))


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


def tissue_image(session: Session, slide_id: str, rgb: np.ndarray, side: int = images.MAX_SIDE) -> Image | None:
    """The outlines of tissue on the slide, with a ruler; None where it has not been looked for."""
    from shapely import from_geojson

    frame = session.tables.read("tissues", slide_id)
    if frame is None:
        return None
    row = session.slide_row(slide_id)
    pieces = [from_geojson(text) for text in frame["geometry"]]
    outlined = overlays.tissue_image(rgb, pieces, (row["width_px"], row["height_px"]), side)
    return with_ruler(outlined, _um_per_px(row, rgb, side))


def tissue_picture(session: Session, slide_id: str, rgb: np.ndarray) -> bytes | None:
    """The same, small, as WebP."""
    found = tissue_image(session, slide_id, rgb)
    return None if found is None else images.encode(found)


def thumbnail_picture(session: Session, slide_id: str, rgb: np.ndarray) -> bytes:
    """The slide itself, small, with a ruler, as WebP."""
    scale = _um_per_px(session.slide_row(slide_id), rgb, images.MAX_SIDE)
    return images.encode(with_ruler(images.shrink(rgb), scale))


def overlay_images(
    features: SlideFeatures, rgb: np.ndarray, side: int = images.MAX_SIDE
) -> Iterator[tuple[str, str, Image]]:
    """Name, name for people, and picture with a ruler of every overlay: domains by variant, then the terms."""
    level0 = features.slide["width_px"], features.slide["height_px"]
    scale = _um_per_px(features.slide, rgb, side)
    for variant, frame in features.domains.items():
        numbers, names = frame["domain"].fill_null(-1).to_numpy(), _names(frame)
        painted = overlays.domains_image(rgb, features.tiles, numbers, level0, names, side)
        yield variant, f"domains ({variant})", with_ruler(painted, scale)
    for term, column in features.term_columns().items():
        values = features.probability[:, features.terms.index(term)]
        painted = overlays.scores_image(rgb, features.tiles, values, level0, term, PROBABILITY, side)
        yield column, f"looks like: {term} (probability among the terms, 0 to 1)", with_ruler(painted, scale)


def overlay_pictures(features: SlideFeatures, rgb: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Name for people and picture, small, as WebP."""
    return ((title, images.encode(picture)) for _, title, picture in overlay_images(features, rgb))


def _um_per_px(slide: Mapping[str, Any], rgb: np.ndarray, side: int) -> float | None:
    return um_per_px(slide["mpp"], slide["width_px"], rgb, side) if slide["width_px"] else None


def _names(frame: pl.DataFrame) -> dict[int, str | None]:
    return dict(frame.drop_nulls("domain").select("domain", "label").unique().iter_rows())


def as_png(picture: Image | np.ndarray, about: Mapping[str, Any]) -> bytes:
    """A picture as PNG that says in its text chunk `pathassets` what it shows."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    note = PngInfo()
    note.add_itxt("pathassets", json.dumps({**about, "exported_by": f"pathassets {__version__}"}, default=str))
    buffer = io.BytesIO()
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    image.save(buffer, "PNG", pnginfo=note, compress_level=COMPRESSION)
    return buffer.getvalue()
