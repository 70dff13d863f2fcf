"""Small pictures of one slide: thumbnail, tissue outline, domains, scores.

Belongs here: painting tiles and outlines on a thumbnail. Does not belong: reading slides or tables, interactive
figures (`interactive`), colours (`core/palette`).
Thumbnails are (h, w, 3) uint8 of the whole slide in any size; places are level-0 pixels. Each maker returns WebP bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pathassets.core import palette
from pathassets.figures import images

if TYPE_CHECKING:
    import polars as pl
    from PIL.Image import Image
    from shapely.geometry.base import BaseGeometry

Rgb = NDArray[np.uint8]
Size = tuple[int, int]

# How much of a tile's colour lies over the grey slide: structure stays visible below.
COVER = 0.6
SWATCH_PX = 12
ROW_PX = 18
PAD_PX = 6
LEGEND_ENTRIES = 24
OUTLINE_PX = 2


class Cells(NamedTuple):
    """Left, top, right and bottom edges of the tiles' cells in level-0 px, float64 (n,) each."""

    left: NDArray[np.float64]
    top: NDArray[np.float64]
    right: NDArray[np.float64]
    bottom: NDArray[np.float64]


def thumbnail(rgb: Rgb) -> bytes:
    """The slide, small."""
    return images.encode(images.shrink(rgb))


def tissue(rgb: Rgb, pieces: Iterable[BaseGeometry], level0: Size) -> bytes:
    """See `tissue_image`."""
    return images.encode(tissue_image(rgb, pieces, level0))


def tissue_image(rgb: Rgb, pieces: Iterable[BaseGeometry], level0: Size, side: int = images.MAX_SIDE) -> Image:
    """Outlines of tissue and, in another colour, of its holes on the thumbnail.

    Args:
        rgb: Thumbnail.
        pieces: Polygons in level-0 px.
        level0: Width and height of the slide in level-0 px.
        side: Longest side of the picture in px.
    """
    from PIL import Image, ImageDraw

    small = images.shrink(rgb, side)
    picture = Image.fromarray(small)
    draw = ImageDraw.Draw(picture)
    scale = np.array([small.shape[1] / level0[0], small.shape[0] / level0[1]])
    for piece in pieces:
        for polygon in getattr(piece, "geoms", [piece]):
            for hole in polygon.interiors:
                _outline(draw, hole.coords, scale, palette.HOLE_OUTLINE)
            _outline(draw, polygon.exterior.coords, scale, palette.TISSUE_OUTLINE)
    return picture


def _outline(draw: object, coords: ArrayLike, scale: NDArray[np.float64], colour: str) -> None:
    points = [tuple(point) for point in np.asarray(coords)[:, :2] * scale]
    draw.line(points, fill=colour, width=OUTLINE_PX, joint="curve")  # type: ignore[attr-defined]


def domains(
    rgb: Rgb, tiles: pl.DataFrame, labels: ArrayLike, level0: Size, names: Mapping[int, str | None] | None = None
) -> bytes:
    """See `domains_image`."""
    return images.encode(domains_image(rgb, tiles, labels, level0, names))


def domains_image(
    rgb: Rgb,
    tiles: pl.DataFrame,
    labels: ArrayLike,
    level0: Size,
    names: Mapping[int, str | None] | None = None,
    side: int = images.MAX_SIDE,
) -> Image:
    """Tiles in their domain's colour over the grey thumbnail, with a legend of domains, their names and shares.

    Args:
        rgb: Thumbnail.
        tiles: `x_px`, `y_px`, `width_px`, `height_px`, `grid_row`, `grid_col`.
        labels: (n,) domain of each tile; below 0 = none.
        level0: Width and height of the slide in level-0 px.
        names: What a domain is called, for instance its best term.
        side: Longest side of the picture, without the legend, in px.
    """
    of = np.asarray(labels, dtype=np.int64)
    painted = paint(rgb, tiles, palette.domain_rgb(of), level0, of >= 0, side)
    ids, counts = np.unique(of[of >= 0], return_counts=True)
    entries = [
        (palette.domain_colour(int(d)), domain_title(int(d), names) + f"  {100 * c / len(of):.0f} %")
        for d, c in zip(ids, counts, strict=True)
    ]
    return _with_legend(painted, entries)


def domain_title(domain: int, names: Mapping[int, str | None] | None) -> str:
    """`3` or `3 · muscularis`."""
    name = (names or {}).get(domain)
    return f"{domain} · {images.plain(name, 28)}" if name else str(domain)


def scores(
    rgb: Rgb,
    tiles: pl.DataFrame,
    values: ArrayLike,
    level0: Size,
    title: str,
    limits: tuple[float, float] | None = None,
) -> bytes:
    """See `scores_image`."""
    return images.encode(scores_image(rgb, tiles, values, level0, title, limits))


def scores_image(
    rgb: Rgb,
    tiles: pl.DataFrame,
    values: ArrayLike,
    level0: Size,
    title: str,
    limits: tuple[float, float] | None = None,
    side: int = images.MAX_SIDE,
) -> Image:
    """Tiles coloured by a number over the grey thumbnail, with a scale below.

    Args:
        rgb: Thumbnail.
        tiles: As for `domains`.
        values: (n,); tiles without a finite value stay grey.
        level0: Width and height of the slide in level-0 px.
        title: Name of the number, for instance the term.
        limits: Ends of the colour scale; None = the 1st and 99th percentile, so that one odd tile does not rule it.
        side: Longest side of the picture, without the scale, in px.
    """
    of = np.asarray(values, dtype=np.float64)
    low, high = limits or robust_limits(of)
    share = np.clip((of - low) / max(high - low, 1e-12), 0, 1)
    known = np.isfinite(of)
    painted = paint(rgb, tiles, _ramp()[np.rint(np.where(known, share, 0) * 255).astype(int)], level0, known, side)
    return _with_scale(painted, images.plain(title), low, high)


def robust_limits(values: NDArray[np.floating]) -> tuple[float, float]:
    """1st and 99th percentile of the finite values; 0 and 1 without any."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, [1, 99])
    return float(low), float(high)


def paint(
    rgb: Rgb, tiles: pl.DataFrame, colours: Rgb, level0: Size, shown: NDArray[np.bool_], side: int = images.MAX_SIDE
) -> Rgb:
    """Colours (n, 3) of the tiles that are `shown` (n,) over the grey thumbnail, at most `side` px."""
    small = images.shrink(rgb, side)
    grey = np.repeat(small.mean(axis=2, keepdims=True), 3, axis=2)
    tile = tile_at(tiles, level0, (small.shape[1], small.shape[0]))
    covered = (tile >= 0) & np.append(shown, False)[tile]
    grey[covered] = (1 - COVER) * grey[covered] + COVER * colours[tile[covered]]
    return np.rint(grey).astype(np.uint8)


def tile_at(tiles: pl.DataFrame, level0: Size, picture: Size) -> NDArray[np.int32]:
    """Which tile (row of the frame) the centre of each pixel lies in: int32 (h, w), -1 = none.

    Args:
        tiles: As for `domains`.
        level0: Width and height of the slide in level-0 px.
        picture: Width and height of the picture, which shows the whole slide.
    """
    found = np.full((picture[1], picture[0]), -1, dtype=np.int32)
    cells = tile_cells(tiles)
    x0, x1 = (_first_pixel(edge, level0[0], picture[0]) for edge in (cells.left, cells.right))
    y0, y1 = (_first_pixel(edge, level0[1], picture[1]) for edge in (cells.top, cells.bottom))
    for i in range(len(tiles)):
        found[y0[i] : y1[i], x0[i] : x1[i]] = i
    return found


def _first_pixel(edge: NDArray[np.float64], level0: int, picture: int) -> NDArray[np.intp]:
    """First pixel whose centre lies at or beyond `edge`."""
    return np.clip(np.ceil(edge * (picture / level0) - 0.5), 0, picture).astype(np.intp)


def tile_cells(tiles: pl.DataFrame) -> Cells:
    """The part of the slide each tile speaks for: the grid's step around its centre, so that cells neither overlap nor gape.

    Only where the grid leaves more room between tiles than rounding does, a cell is the tile itself.
    """
    left, right = _intervals(tiles, "grid_col", "x_px", "width_px")
    top, bottom = _intervals(tiles, "grid_row", "y_px", "height_px")
    return Cells(left, top, right, bottom)


def _intervals(
    tiles: pl.DataFrame, index: str, start: str, size: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both ends of the cells along one axis."""
    px, extent = tiles[start].to_numpy().astype(np.float64), tiles[size].to_numpy().astype(np.float64)
    step = grid_step(tiles, index, start, size)
    if not len(px) or step > extent[0] + 1:
        return px, px + extent
    steps = tiles[index].to_numpy().astype(np.int64)
    centres = px.min() + extent[0] / 2 + (steps - steps.min()) * step
    return centres - step / 2, centres + step / 2


def grid_step(tiles: pl.DataFrame, index: str, start: str, size: str) -> float:
    """Level-0 px between neighbouring columns (or rows), from the first and the last; the tile's size if there is one."""
    if tiles.is_empty():
        return 1.0
    steps, px = tiles[index].to_numpy().astype(np.int64), tiles[start].to_numpy().astype(np.int64)
    first, last = int(steps.argmin()), int(steps.argmax())
    if steps[first] == steps[last]:
        return float(tiles[size][0])
    return float((px[last] - px[first]) / (steps[last] - steps[first]))


def _ramp() -> Rgb:
    """256 colours of the scale for scores."""
    from plotly.colors import get_colorscale, sample_colorscale

    colours = sample_colorscale(
        get_colorscale(palette.SEQUENTIAL_SCALE), np.linspace(0, 1, 256).tolist(), colortype="tuple"
    )
    return np.rint(np.asarray(colours) * 255).astype(np.uint8)


def _with_legend(painted: Rgb, entries: list[tuple[str, str]]) -> Image:
    from PIL import ImageDraw

    shown = entries[:LEGEND_ENTRIES]
    if len(entries) > len(shown):
        shown.append((palette.NO_DOMAIN_COLOUR, f"and {len(entries) - len(shown)} more"))
    widest = max((images.text_width(text) for _, text in shown), default=0) + SWATCH_PX + 3 * PAD_PX
    columns = max(1, painted.shape[1] // max(widest, 1))
    rows = -(-len(shown) // columns)
    picture = _canvas(painted, rows * ROW_PX + PAD_PX, widest)
    draw = ImageDraw.Draw(picture)
    for i, (colour, text) in enumerate(shown):
        x, y = PAD_PX + (i % columns) * widest, painted.shape[0] + PAD_PX + (i // columns) * ROW_PX
        draw.rectangle((x, y, x + SWATCH_PX, y + SWATCH_PX), fill=_covered(colour))
        images.write(draw, (x + SWATCH_PX + PAD_PX, y - 1), text)
    return picture


def _covered(colour: str) -> tuple[int, int, int]:
    """The colour as tiles show it, over a light grey."""
    red, green, blue = (round((1 - COVER) * 215 + COVER * part) for part in palette.rgb(colour))
    return red, green, blue


def _with_scale(painted: Rgb, title: str, low: float, high: float) -> Image:
    from PIL import Image, ImageDraw

    ends = (f"{low:.3g}", f"{high:.3g}")
    least = images.text_width(title) + 2 * PAD_PX
    picture = _canvas(painted, 2 * ROW_PX + PAD_PX, max(least, 160))
    draw = ImageDraw.Draw(picture)
    top = painted.shape[0] + PAD_PX
    images.write(draw, (PAD_PX, top - 2), title)
    left = PAD_PX + images.text_width(ends[0]) + PAD_PX
    bar = max(16, min(200, picture.width - left - images.text_width(ends[1]) - 2 * PAD_PX))
    ramp = Image.fromarray(np.ascontiguousarray(_ramp()[None])).resize((bar, SWATCH_PX))
    picture.paste(ramp, (left, top + ROW_PX))
    images.write(draw, (PAD_PX, top + ROW_PX - 1), ends[0])
    images.write(draw, (left + bar + PAD_PX, top + ROW_PX - 1), ends[1])
    return picture


def _canvas(painted: Rgb, below: int, least_width: int) -> Image:
    """The picture with white room below, at least `least_width` wide."""
    from PIL import Image

    height, width = painted.shape[:2]
    picture = Image.new("RGB", (max(width, least_width), height + below), "white")
    picture.paste(Image.fromarray(painted), (0, 0))
    return picture
