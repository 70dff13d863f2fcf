"""Routes: the addresses of pictures.

Belongs here: what an address may name, headers, status codes. Does not belong: pages (`pages/`), reading pixels (`pixels`).

    /picture/<slide>/thumbnail.jpg                          the stored thumbnail; ?side=160 makes it small
    /picture/<slide>/<level>/<column>_<row>.jpg             a tile of the slide's pyramid
    /picture/<slide>/<tiling>/tile/<tile id>.jpg            one of the study's tiles
    /picture/mosaic/<tiling>/<recipe>.webp                  the mosaic of a recipe's cohort map

A slide or recipe is named by its id, which is looked up in the snapshot; nothing of an address becomes part of a path.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from pathassets.dashboard.catalog import Catalog, UnknownNameError
from pathassets.dashboard.pixels import SlidePool
from pathassets.errors import PathassetsError
from pathassets.store import layout

if TYPE_CHECKING:
    from flask import Flask, Response

THUMBNAIL_SIDES = (0, 160)
CROP_PX = 224
HOSTS = ["127.0.0.1", "localhost", "[::1]"]
# A slide's id follows its content, so that its pixels never change; an hour, for the sake of disks.
KEEP = "private, max-age=3600"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    # Nothing is fetched from or sent to anywhere else; scripts that Dash and Plotly write themselves need the two words.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; base-uri 'self'; form-action 'self'"
    ),
}


def add_routes(server: Flask, catalog: Catalog, pool: SlidePool) -> None:
    """Adds the pictures' addresses to `server`, and headers to all its answers.

    Args:
        server: Flask's application.
        catalog: What there is.
        pool: Open slides.
    """
    pictures = _Pictures(catalog, pool)
    # A page elsewhere that has its name point here gets nothing (DNS rebinding).
    server.config["TRUSTED_HOSTS"] = HOSTS
    server.after_request(_with_headers)
    for rule, view in (
        ("/picture/<slide_id>/thumbnail.jpg", pictures.thumbnail),
        ("/picture/<slide_id>/<int:level>/<int:column>_<int:row>.jpg", pictures.tile),
        ("/picture/<slide_id>/<tiling>/tile/<int:tile_id>.jpg", pictures.crop),
        ("/picture/mosaic/<tiling>/<name>.webp", pictures.mosaic),
        ("/picture/<path:rest>", pictures.nothing),  # else Dash would answer with its page
    ):
        server.add_url_rule(rule, endpoint=rule, view_func=view)


class _Pictures:
    def __init__(self, catalog: Catalog, pool: SlidePool) -> None:
        self._catalog, self._pool = catalog, pool

    def thumbnail(self, slide_id: str) -> Response:
        from flask import request

        side = request.args.get("side", 0, type=int)
        return _answer(lambda: self._thumbnail(slide_id, side if side in THUMBNAIL_SIDES else 0))

    def tile(self, slide_id: str, level: int, column: int, row: int) -> Response:
        def make() -> bytes | None:
            self._catalog.slide(slide_id)
            return self._pool.tile(slide_id, level, column, row)

        return _answer(make)

    def crop(self, slide_id: str, tiling: str, tile_id: int) -> Response:
        def make() -> bytes | None:
            tile = self._catalog.tile(slide_id, tiling, tile_id)
            width, height = tile["width_px"] or tile["size_px"], tile["height_px"] or tile["size_px"]
            return self._pool.crop(slide_id, tile["x_px"], tile["y_px"], width, height, CROP_PX)

        return _answer(make)

    def mosaic(self, tiling: str, name: str) -> Response:
        from pathassets.figures.cohort_pictures import read_mosaic

        def make() -> bytes | None:
            recipe = f"{tiling}/{name}"
            found = read_mosaic(self._catalog.session, recipe) if recipe in self._catalog.recipes() else None
            return found.picture if found is not None else None

        return _answer(make, "image/webp")

    def nothing(self, rest: str) -> Response:
        return _answer(lambda: None)

    def _thumbnail(self, slide_id: str, side: int) -> bytes | None:
        self._catalog.slide(slide_id)
        data = self._catalog.session.root.read_if_there(layout.thumbnail_key(slide_id))
        if data is None or not side:
            return data
        from PIL import Image

        picture = Image.open(io.BytesIO(data))
        picture.draft("RGB", (side, side))
        picture.thumbnail((side, side))
        small = io.BytesIO()
        picture.convert("RGB").save(small, "JPEG", quality=80)
        return small.getvalue()


def _answer(make: Callable[[], bytes | None], kind: str = "image/jpeg") -> Response:
    """The picture; 404 where there is none, 410 where there was one, without a word of the machine's paths."""
    from flask import Response

    try:
        data = make()
    except UnknownNameError:
        data = None
    except PathassetsError as error:
        return Response(str(error.reason), 410, mimetype="text/plain")
    except (ValueError, OSError):
        data = None
    if data is None:
        return Response("there is no such picture", 404, mimetype="text/plain")
    return Response(data, mimetype=kind, headers={"Cache-Control": KEEP})


def _with_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response
