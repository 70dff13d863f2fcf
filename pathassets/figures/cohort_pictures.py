"""The stored mosaic of a recipe's cohort map: made once, from the slides' own pixels, and shown wherever it is wanted.

Belongs here: reading the tiles, the file that keeps picture and cells together. Does not belong: drawing (`mosaic`), the map
itself (`steps/cohort_map`).

One file holds both, so that no reader ever sees the picture of one map with the cells of another.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pathassets.core.mosaic import Mosaic, mosaic
from pathassets.errors import PathassetsError
from pathassets.figures import images
from pathassets.figures.mosaic import cell_px, mosaic_image
from pathassets.recipes import Recipe
from pathassets.steps.embedded import recipe_part
from pathassets.steps.session import Session
from pathassets.store import layout

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredMosaic:
    """A mosaic as it is kept.

    Attributes:
        digest: Of the cohort map that it shows.
        shape: Rows and columns.
        cells: Row, column, slide, tile, number of tiles of each cell that has any.
        unread: Cells whose tile could not be read.
        picture: WebP.
    """

    digest: str
    shape: tuple[int, int]
    cells: tuple[tuple[int, int, str, int, int], ...]
    unread: int
    picture: bytes

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The picture as uint8 (h, w, 3)."""
        return _pixels(self.picture)


def read_mosaic(session: Session, recipe: str) -> StoredMosaic | None:
    """The mosaic of the recipe `<tiling>/<name>`; None where there is none that can be read."""
    data = session.root.read_if_there(layout.mosaic_key(recipe))
    if data is None:
        return None
    try:
        found = json.loads(data)
        cells = tuple((int(r), int(c), str(slide), int(tile), int(n)) for r, c, slide, tile, n in found["cells"])
        rows, columns = found["shape"]
        picture = base64.b64decode(found["picture"])
        return StoredMosaic(str(found["digest"]), (int(rows), int(columns)), cells, int(found["unread"]), picture)
    except (ValueError, KeyError, TypeError):
        log.warning("the mosaic of %s is damaged", recipe)
        return None


def write_mosaic(session: Session, recipe: Recipe) -> StoredMosaic | None:
    """Makes the mosaic of the stored cohort map, unless it is there already with every tile; None where there is no map."""
    points = session.tables.read("cohort_map", None, recipe_part(recipe))
    if points is None or points.is_empty():
        return None
    there = read_mosaic(session, recipe.key)
    if there is not None and there.digest == points["digest"][0] and not there.unread:
        return there
    cells = mosaic(points.select("x", "y").to_numpy())
    shown = points[cells.tile.tolist()].select("slide_id", "tile_id").with_columns(number=pl.Series(cells.tile))
    pictures = dict(_pictures(session, recipe, shown, cell_px(cells.shape)))
    made = _stored(points["digest"][0], cells, shown, len(cells.tile) - len(pictures), mosaic_image(cells, pictures))
    text = {**made.__dict__, "picture": base64.b64encode(made.picture).decode()}
    session.root.put_if_changed(layout.mosaic_key(recipe.key), json.dumps(text).encode())
    return made


def mosaic_preview(found: StoredMosaic) -> str:
    """The mosaic, small, as Markdown."""
    return images.as_markdown_image(
        images.encode(images.shrink(_pixels(found.picture))), "mosaic of the cohort's tiles"
    )


def _stored(digest: str, cells: Mosaic, shown: pl.DataFrame, unread: int, picture: bytes) -> StoredMosaic:
    rows = zip(cells.row, cells.column, shown["slide_id"], shown["tile_id"], cells.count, strict=True)
    plain = tuple((int(row), int(column), slide, int(tile), int(n)) for row, column, slide, tile, n in rows)
    return StoredMosaic(digest, cells.shape, plain, unread, picture)


def _pictures(
    session: Session, recipe: Recipe, shown: pl.DataFrame, side: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Pixels of tiles by their number; each slide is opened once, and what cannot be read is left out."""
    for (slide_id,), wanted in shown.group_by("slide_id", maintain_order=True):
        try:
            tiles = session.tables.read("tiles", str(slide_id), recipe.tiling.name)
            with session.open_slide(str(slide_id)) as slide:
                for row in _placed(wanted, tiles):
                    x, y, edge = _square(row)
                    with suppress(PathassetsError):  # this tile alone is damaged
                        yield row["number"], slide.read(x, y, edge, edge, (side, side))
        except (PathassetsError, OSError) as error:
            log.info("tiles of %s are missing in the mosaic: %s", slide_id, error)


def _placed(wanted: pl.DataFrame, tiles: pl.DataFrame | None) -> list[dict[str, Any]]:
    return [] if tiles is None else wanted.join(tiles, on="tile_id", maintain_order="left").to_dicts()


def _square(tile: dict[str, Any]) -> tuple[int, int, int]:
    """The middle square of a tile: left, top, edge, level-0 px."""
    width, height = tile["width_px"] or tile["size_px"], tile["height_px"] or tile["size_px"]
    edge = min(width, height)
    return tile["x_px"] + (width - edge) // 2, tile["y_px"] + (height - edge) // 2, edge


def _pixels(picture: bytes) -> NDArray[np.uint8]:
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
