from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from pathassets.dashboard import routes
from pathassets.dashboard.pixels import TILE_PX, SlidePool, n_levels, tile_window
from pathassets.slides import open_slide

from .conftest import Finished


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("width", "height", "levels"),
    [(1, 1, 1), (256, 256, 1), (257, 10, 2), (512, 512, 2), (513, 1, 3), (14467, 12258, 7)],
)
def test_the_coarsest_level_is_one_tile_and_the_next_is_not(width: int, height: int, levels: int):
    assert n_levels(width, height) == levels
    top = levels - 1
    assert tile_window(width, height, top, 0, 0) == (0, 0, width, height)
    assert tile_window(width, height, top, 1, 0) is None
    assert tile_window(width, height, top, 0, 1) is None
    if top:
        assert tile_window(width, height, top - 1, 1, 0) or tile_window(width, height, top - 1, 0, 1)


def test_the_tiles_of_every_level_cover_the_slide_once():
    width, height = 1500, 700
    for level in range(n_levels(width, height)):
        side = TILE_PX << level
        covered = np.zeros((height, width), int)
        for row in range(-(-height // side)):
            for column in range(-(-width // side)):
                x, y, w, h = tile_window(width, height, level, column, row)
                covered[y : y + h, x : x + w] += 1
        assert (covered == 1).all()


def test_a_tile_shows_the_slides_own_pixels(client, finished: Finished):
    answer = client.get(f"/picture/{finished.first}/0/3_2.jpg")
    assert (answer.status_code, answer.mimetype) == (200, "image/jpeg")
    assert "max-age" in answer.headers["Cache-Control"]
    with open_slide(finished.study.home / "inbox" / "first.tiff") as slide:
        wanted = slide.read(768, 512, 256, 256, (256, 256)).astype(int)
    assert np.abs(pixels(answer.data) - wanted).mean() < 3


def test_tiles_at_the_border_are_as_large_as_what_is_left(client, finished: Finished):
    last = client.get(f"/picture/{finished.first}/0/8_7.jpg")
    assert pixels(last.data).shape == (1900 - 7 * 256, 2304 - 8 * 256, 3)
    assert pixels(client.get(f"/picture/{finished.first}/1/4_3.jpg").data).shape == (950 - 3 * 256, 1152 - 4 * 256, 3)


def test_a_study_tile_is_cut_where_its_row_says(client, catalog, finished: Finished):
    tile = catalog.tiles(finished.first, "small").row(5, named=True)
    answer = client.get(f"/picture/{finished.first}/small/tile/{tile['tile_id']}.jpg")
    with open_slide(finished.study.home / "inbox" / "first.tiff") as slide:
        wanted = slide.read(tile["x_px"], tile["y_px"], tile["width_px"], tile["height_px"], (224, 224)).astype(int)
    assert np.abs(pixels(answer.data) - wanted).mean() < 3


def test_thumbnails_come_in_two_sizes(client, finished: Finished, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(routes, "THUMBNAIL_SIDES", (0, 64))  # this study's are small already
    large = pixels(client.get(f"/picture/{finished.first}/thumbnail.jpg").data)
    small = pixels(client.get(f"/picture/{finished.first}/thumbnail.jpg?side=64").data)
    assert max(small.shape) == 64 < max(large.shape)
    odd = client.get(f"/picture/{finished.first}/thumbnail.jpg?side=99999")
    assert pixels(odd.data).shape == large.shape


@pytest.mark.parametrize(
    "path",
    [
        "{first}/0/9_0.jpg", "{first}/0/0_8.jpg", "{first}/9/0_0.jpg", "{first}/99999999999999999999/0_0.jpg",
        "{first}/0/99999999999999999999_0.jpg", "{first}/0/-1_0.jpg", "{first}/-1/0_0.jpg", "{first}/0/a_b.jpg",
        "no-such-00000000/0/0_0.jpg", "no-such-00000000/thumbnail.jpg", "../../etc/passwd/thumbnail.jpg",
        "..%2f..%2fetc%2fpasswd/thumbnail.jpg", "%2e%2e/thumbnail.jpg", "..\\..\\x/thumbnail.jpg", "a%00b/thumbnail.jpg",
        "' OR 1=1 --/thumbnail.jpg", "{first}%2f../thumbnail.jpg", "{first}/small/tile/999999.jpg",
        "{first}/no_tiling/tile/0.jpg", "{first}/..%2f../tile/0.jpg", "{half}/small/tile/0.jpg", "{first}/small/tile/-1.jpg",
        "{first}/small/tile/99999999999999999999.jpg", "{broken}/thumbnail.jpg",
    ],
)  # fmt: skip
def test_what_is_not_there_is_not_found(client, finished: Finished, path: str):
    filled = path.format(first=finished.first, half=finished.half, broken=finished.broken)
    answer = client.get(f"/picture/{filled}")
    assert answer.status_code in (404, 308), answer.data
    assert str(finished.study.home).encode() not in answer.data


@pytest.mark.parametrize("slide", ["gone", "broken"])
def test_a_slide_without_pixels_says_gone_and_names_no_path(client, finished: Finished, slide: str):
    answer = client.get(f"/picture/{getattr(finished, slide)}/0/0_0.jpg")
    assert answer.status_code == 410
    assert answer.data in (b"file_missing", b"not_a_slide", b"file_unreadable")
    assert client.get(f"/picture/{finished.gone}/thumbnail.jpg").status_code == 200


def test_other_names_of_this_machine_get_nothing(client):
    """A page elsewhere may have its own name point to 127.0.0.1; the browser then says that name."""
    assert client.get("/", headers={"Host": "127.0.0.1:8050"}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "10.0.0.1:8050"):
        for path in ("/", "/_dash-layout", "/picture/x/thumbnail.jpg"):
            assert client.get(path, headers={"Host": host}).status_code == 400, (host, path)


def test_a_file_that_dash_does_not_have_is_not_found(client):
    for name in ("nothing/x.js", "dash/none.js", "dash/%2e%2e/%2e%2e/x.js"):
        assert client.get(f"/_dash-component-suites/{name}").status_code == 404, name


def test_answers_forbid_whatever_is_elsewhere(client):
    headers = client.get("/").headers
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_names_no_address_elsewhere(client):
    text = client.get("/").get_data(as_text=True)
    assert "http://" not in text
    assert "https://" not in text


def test_open_slides_are_bounded_and_one_that_was_closed_opens_again(finished: Finished, catalog):
    pool = SlidePool(catalog.session, size=1)
    first = pool.slide(finished.first)
    assert pool.slide(finished.first) is first
    pool.slide(finished.second)
    again = pool.slide(finished.first)
    assert again is not first
    assert pool.tile(finished.first, 0, 3, 2)
    pool.close()


def test_a_slide_that_opens_slowly_holds_up_no_other(finished: Finished, catalog, monkeypatch: pytest.MonkeyPatch):
    pool, begun, go_on = SlidePool(catalog.session), threading.Event(), threading.Event()
    opened = []
    whole = pool._opened

    def slow(slide_id):
        opened.append(slide_id)
        if slide_id == finished.first:
            begun.set()
            assert go_on.wait(60)
        return whole(slide_id)

    monkeypatch.setattr(pool, "_opened", slow)
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(pool.slide, finished.first) for _ in range(2)]
        assert begun.wait(60)
        assert pool.tile(finished.second, 0, 3, 2), "while the first one is being opened"
        go_on.set()
        assert waiting[0].result() is waiting[1].result()
    assert opened.count(finished.first) == 1, "two who want it at once open it once"
    pool.close()


def test_a_long_question_holds_up_no_other(catalog):
    long, seen = "SELECT sum(a.range * b.range) AS n FROM range(30000) a, range(1000) b", []
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(catalog.frame, long)
        while not asked.done():
            seen.append(catalog.frame("SELECT count(*) AS n FROM results.slides")["n"][0])
        assert asked.result()["n"][0] > 0
    assert set(seen) == {6}


def test_a_mosaic_is_given_by_the_recipes_that_there_are(client, finished: Finished):
    answer = client.get("/picture/mosaic/small/demo.webp")
    assert (answer.status_code, answer.mimetype) == (200, "image/webp")
    assert pixels(answer.data).std() > 5
    for path in (
        "small/none.webp",
        "../small/demo.webp",
        "small__demo.webp",
        "..%2fsmall/demo.webp",
        "small/..%2fdemo.webp",
    ):
        assert client.get(f"/picture/mosaic/{path}").status_code in (404, 308), path
