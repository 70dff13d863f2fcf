"""A walk over every page in a real browser: what is seen, what a click does, and not one error in the console."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from werkzeug.serving import make_server

from pathassets.config import CONFIG_FILE, Study, init_home
from pathassets.dashboard.app import make_app
from pathassets.dashboard.catalog import Catalog
from pathassets.dashboard.pages import search
from pathassets.steps.batch import run_batch
from pathassets.steps.nodes import chain
from pathassets.steps.publish import publish_results
from pathassets.steps.register import register
from pathassets.steps.session import Session
from pathassets.steps.slide_map import make_slide_map

from .conftest import VIEW, Finished

pytestmark = pytest.mark.e2e
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT_MS = 30_000
BUTTONS = {"Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"}


@pytest.fixture(scope="module")
def address(app) -> Iterator[str]:
    with serving(app) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no browser here: apt-get install chromium")
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=path, args=SWITCHES)
        yield found
        found.close()


class Walk:
    """A page of the browser, and all that it complained about."""

    def __init__(self, browser, address: str) -> None:
        self.address = address
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self.page = browser.new_page(viewport={"width": 1400, "height": 900})
        self.page.set_default_timeout(WAIT_MS)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._request)

    def _console(self, message) -> None:
        if message.type == "error":
            self.complaints.append(f"{message.text} {message.location.get('url', '')}")

    def _request(self, request) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.elsewhere.append(request.url)

    def go(self, path: str) -> None:
        self.page.goto(f"{self.address}{path}")

    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.page.url).query)

    def until_query_has(self, text: str) -> None:
        self.page.wait_for_function("text => decodeURIComponent(location.search).includes(text)", arg=text)

    def settle(self) -> None:
        """Waits for the slide's pixels."""
        self.page.wait_for_function("window.pathassetsViewer && window.pathassetsViewer.settled()")

    def buttons(self) -> set[str]:
        """What all plots' buttons say."""
        self.page.locator(".modebar-btn").first.wait_for(state="attached")
        said = "found => found.map(e => e.getAttribute('data-title'))"
        return set(self.page.locator(".modebar-btn").evaluate_all(said))


@pytest.fixture
def walk(browser, address: str, request) -> Iterator[Walk]:
    yield from walking(browser, address, request.node.name)


def walking(browser, address: str, name: str) -> Iterator[Walk]:
    """A walk without a complaint, whose last view is kept where PATHASSETS_SCREENSHOTS says."""
    found = Walk(browser, address)
    yield found
    if folder := os.environ.get("PATHASSETS_SCREENSHOTS"):
        found.page.screenshot(path=Path(folder) / f"{name}.png")
    found.page.close()
    assert found.complaints == []
    assert found.elsewhere == []


@contextmanager
def serving(app) -> Iterator[str]:
    """The dashboard, at an address."""
    server = make_server("127.0.0.1", 0, app.server, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


def test_all_slides(walk: Walk, finished: Finished):
    walk.go("/")
    walk.page.get_by_role("link", name=finished.first).wait_for()
    assert walk.page.locator("h1").inner_text() == "6 slides"
    walk.page.wait_for_function(
        "[...document.querySelectorAll('img.thumb')].filter(i => i.naturalWidth > 0).length >= 3"
    )
    walk.page.get_by_label("Find in all columns").fill("P2")
    walk.until_query_has("q=P2")
    walk.page.get_by_role("link", name=finished.first).wait_for(state="detached")
    walk.page.get_by_text("1 of 6 slides").wait_for()
    with walk.page.expect_download() as download:
        walk.page.get_by_role("button", name="CSV").click()
    text = download.value.path().read_text(encoding="utf-8-sig")
    assert finished.second in text
    assert finished.first not in text, "what is filtered out is not in the file"
    assert str(finished.study.home) not in text


def test_formulas_in_a_manifest_are_text_in_the_csv(walk: Walk, finished: Finished):
    walk.go("/")
    walk.page.get_by_role("link", name=finished.first).wait_for()
    with walk.page.expect_download() as download:
        walk.page.get_by_role("button", name="CSV").click()
    assert "\"'=cmd|" in download.value.path().read_text(encoding="utf-8-sig")


def test_an_address_of_the_grid_gives_its_order_back(walk: Walk, finished: Finished):
    walk.go("/?sort=tiles:asc&q=P")
    walk.page.get_by_role("link", name=finished.first).wait_for()
    assert walk.page.get_by_label("Find in all columns").input_value() == "P"
    assert walk.page.locator(".ag-header-cell[col-id=tiles]").get_attribute("aria-sort") == "ascending"


def test_the_grid_by_keyboard(walk: Walk, finished: Finished):
    """From the search box into the grid, down to the second slide, and to its page."""
    walk.go("/?sort=slide_id:asc")
    walk.page.get_by_role("link", name=finished.first).wait_for()
    row = f".ag-row:has(a:text-is('{finished.first}')) .ag-cell"
    walk.page.locator(".ag-header-cell[col-id=slide_id]").focus()
    for _ in range(8):
        walk.page.keyboard.press("ArrowDown")
        if walk.page.locator(f"{row}:focus").count():
            break
    assert walk.page.locator(f"{row}:focus").get_attribute("col-id") == "slide_id"
    walk.page.keyboard.press("Enter")
    walk.page.wait_for_url(f"**/slide/{finished.first}**")
    walk.settle()


def test_an_address_of_the_grid_gives_its_filter_back(walk: Walk, finished: Finished):
    asked = json.dumps({"label_patient": {"filterType": "text", "type": "equals", "filter": "P2"}})
    walk.go(f"/?filter={quote(asked)}")
    walk.page.get_by_role("link", name=finished.second).wait_for()
    walk.page.get_by_text("1 of 6 slides").wait_for()
    assert json.loads(walk.query()["filter"][0]) == json.loads(asked)


def pixel(walk: Walk) -> list[int]:
    """Colour in the middle of the slide's canvas."""
    return walk.page.evaluate(
        "() => { const c = document.getElementById('slide-canvas');"
        "return [...c.getContext('2d').getImageData(c.width / 2, c.height / 2, 1, 1).data]; }"
    )


def test_a_slide_up_close(walk: Walk, finished: Finished):
    walk.go(f"/slide/{finished.first}")
    walk.settle()
    assert pixel(walk)[3] == 255, "the slide is drawn"
    whole = walk.page.locator("#slide-bar-text").inner_text()
    walk.page.locator("#slide-viewer").focus()
    for _ in range(4):
        walk.page.keyboard.press("+")
    walk.until_query_has("&w=")
    walk.settle()
    assert walk.page.locator("#slide-bar-text").inner_text() != whole
    assert walk.buttons() == {*BUTTONS, "Lasso Select", "Box Select"}
    tiles = walk.page.evaluate(
        "performance.getEntriesByType('resource').map(e => e.name).filter(n => /\\/0\\/\\d+_\\d+.jpg$/.test(n))"
    )
    assert tiles, "the finest level was asked for"
    before = walk.query()["x"]
    walk.page.keyboard.press("ArrowRight")
    walk.page.wait_for_function("x => !location.search.includes(`x=${x}&`)", arg=before[0])
    walk.page.keyboard.press("Enter")
    walk.page.locator("#slide-card .facts").wait_for()
    assert walk.page.locator("#slide-card h2").inner_text().startswith("Tile ")
    walk.until_query_has("tile=")


def test_a_wheel_a_picture_and_nothing_over_it(walk: Walk, finished: Finished):
    walk.go(f"/slide/{finished.first}?layer=none")
    walk.settle()
    assert (
        walk.page.evaluate("pathassetsViewer.graph().data.filter(t => t.type !== 'scatter' && t.opacity).length") == 0
    )
    width = "(() => { const a = pathassetsViewer.graph()._fullLayout.xaxis.range; return a[1] - a[0]; })()"
    whole = walk.page.evaluate(width)
    box = walk.page.locator("#slide-viewer").bounding_box()
    walk.page.mouse.move(box["x"] + 200, box["y"] + 200)
    walk.page.mouse.wheel(0, -100)
    walk.page.wait_for_function(f"{width} < {whole} / 1.4")
    walk.page.mouse.wheel(0, 5000)
    walk.page.wait_for_function(f"{width} > 2.5 * {whole}")
    assert walk.page.evaluate(width) < 4 * whole, "there is an end"
    walk.page.keyboard.press("Escape")
    walk.page.get_by_text("Picture of the slide").click()
    walk.until_query_has("image=off")
    walk.settle()
    assert pixel(walk)[3] == 0


def test_a_narrow_window(walk: Walk, finished: Finished):
    walk.page.set_viewport_size({"width": 420, "height": 900})
    walk.go(f"/slide/{finished.first}")
    walk.settle()
    right = "(() => { const f = pathassetsViewer.graph()._fullLayout; return f.xaxis._offset + f.xaxis.d2p(2304 * 0.5); })()"
    legend = "document.querySelector('#slide-graph .cbbg').getBoundingClientRect().x"
    graph = "document.querySelector('#slide-graph').getBoundingClientRect().x"
    walk.page.wait_for_function(f"{right} + {graph} <= {legend} + 1")
    assert walk.page.evaluate("document.documentElement.scrollWidth") <= 420


def test_what_lies_over_a_slide(walk: Walk, finished: Finished):
    walk.go(f"/slide/{finished.first}?view={VIEW}&layer=term:adipose&opacity=80")
    walk.settle()
    walk.page.wait_for_function("pathassetsViewer.graph().data[0].opacity === 0.8")
    assert "probability" in walk.page.locator("#slide-about").inner_text()
    walk.page.locator("#slide-layer").click()
    walk.page.get_by_role("option", name="Embedding colours (PCA)").click()
    walk.page.wait_for_function("pathassetsViewer.graph().data[0].type === 'image'")
    walk.until_query_has("layer=pca")
    walk.settle()


def test_a_click_on_a_tile(walk: Walk, finished: Finished):
    walk.go(f"/slide/{finished.first}")
    walk.settle()
    box = walk.page.locator("#slide-viewer").bounding_box()
    walk.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    walk.page.locator("#slide-card .tile img").first.wait_for()
    walk.page.wait_for_function(
        "[...document.querySelectorAll('#slide-card img')].every(i => i.complete && i.naturalWidth)"
    )
    link = walk.page.get_by_role("link", name="more like this in all slides")
    link.click()
    walk.page.locator(".strip .tile").first.wait_for()
    assert "cosine" in walk.page.locator("main").inner_text()


def test_a_lasso_on_the_map(walk: Walk, finished: Finished):
    walk.go(f"/slide/{finished.first}")
    walk.settle()
    walk.page.locator("#slide-map .draglayer .drag").first.wait_for(state="attached")
    box = walk.page.locator("#slide-map .plot-container").bounding_box()
    left, right = box["x"] + 40, box["x"] + box["width"] - 20
    top, bottom = box["y"] + 20, box["y"] + box["height"] - 40
    walk.page.mouse.move(left, top)
    walk.page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top)):
        walk.page.mouse.move(x, y, steps=5)
    walk.page.mouse.up()
    walk.page.locator("#slide-selection table").wait_for()
    assert "tiles selected" in walk.page.locator("#slide-selection").inner_text()
    walk.until_query_has("lasso=")
    walk.page.reload()
    walk.page.locator("#slide-selection table").wait_for()
    walk.page.locator("#slide-map .selectionlayer path").first.wait_for(state="attached")
    assert "lasso" in walk.query(), "the line that came back took nothing away"
    walk.page.get_by_role("button", name="Clear").click()
    walk.page.locator("#slide-map .selectionlayer path").first.wait_for(state="detached")
    walk.page.locator("#slide-selection table").wait_for(state="detached")
    pale = "document.querySelector('#slide-map .js-plotly-plot').data.some(trace => trace.selectedpoints)"
    assert not walk.page.evaluate(pale), "no point is pale any more"
    walk.page.wait_for_function("!location.search.includes('lasso')")


def test_a_lasso_on_the_slide(walk: Walk, finished: Finished):
    walk.go(f"/slide/{finished.first}")
    walk.settle()
    walk.page.locator("#slide-map .draglayer .drag").first.wait_for(state="attached")
    box = walk.page.locator("#slide-viewer").bounding_box()
    walk.page.locator("#slide-graph").hover()
    walk.page.locator("#slide-graph .modebar-btn[data-title='Lasso Select']").click()
    x, y = box["x"] + box["width"] / 3, box["y"] + box["height"] / 3
    walk.page.mouse.move(x, y)
    walk.page.mouse.down()
    for to_x, to_y in ((x + 250, y), (x + 250, y + 250), (x, y + 250), (x, y)):
        walk.page.mouse.move(to_x, to_y, steps=5)
    walk.page.mouse.up()
    walk.page.locator("#slide-selection table").wait_for()
    said = walk.page.locator("#slide-selection").inner_text()
    walk.until_query_has("lasso=slide:")
    pointed_out = "document.querySelector('#slide-map .js-plotly-plot').data.reduce((n, t) => n + (t.selectedpoints || []).length, 0)"
    walk.page.wait_for_function(f"{pointed_out} > 0")
    assert said.startswith(f"{walk.page.evaluate(pointed_out)} tiles selected")
    walk.page.reload()
    walk.page.locator("#slide-selection table").wait_for()
    assert walk.page.locator("#slide-selection").inner_text() == said
    walk.page.locator("#slide-graph .selectionlayer path").first.wait_for(state="attached")
    walk.page.get_by_role("button", name="Clear").click()
    walk.page.locator("#slide-selection table").wait_for(state="detached")
    walk.page.locator("#slide-graph .selectionlayer path").first.wait_for(state="detached")
    walk.page.wait_for_function("!location.search.includes('lasso')")


def test_slides_that_lack_something(walk: Walk, finished: Finished):
    walk.go(f"/slide/{finished.half}")
    walk.settle()
    assert "No tiles" in walk.page.locator("#side").inner_text()
    walk.go(f"/slide/{finished.broken}")
    walk.page.get_by_text("No picture").wait_for()
    walk.go(f"/slide/{finished.gone}")
    walk.settle()
    assert "file missing" in walk.page.locator("main").inner_text()
    assert pixel(walk)[3] == 255, "the stored thumbnail is drawn"


def click_mosaic(walk: Walk) -> None:
    """A click on the first tile of the mosaic leads to its slide, and to that tile."""
    plot = "document.querySelector('#atlas-mosaic .js-plotly-plot')"
    walk.page.wait_for_function(f"{plot} && {plot}._fullLayout && {plot}._fullLayout.xaxis")
    walk.page.locator("#atlas-mosaic").scroll_into_view_if_needed()
    x, y, slide, tile = walk.page.evaluate(
        f"() => {{ const g = {plot}, full = g._fullLayout, first = g.data[0], box = g.getBoundingClientRect();"
        "const at = (values, i) => values._inputArray ? values._inputArray[i] : values[i];"
        "return [box.x + full.xaxis._offset + full.xaxis.d2p(at(first.x, 0)),"
        "box.y + full.yaxis._offset + full.yaxis.d2p(at(first.y, 0)), ...at(first.customdata, 0)]; }"
    )
    walk.page.mouse.move(x, y)
    walk.page.mouse.click(x, y)
    walk.page.wait_for_url(f"**/slide/{slide}?*tile={tile}*")
    walk.settle()


def test_search_atlas_and_sql(walk: Walk, finished: Finished):
    walk.go("/search?text=adipose")
    walk.page.locator(".strip .tile").first.wait_for()
    walk.go("/atlas?colour=patient")
    walk.page.locator("#atlas-map .scatterlayer .point").first.wait_for(state="attached")
    walk.page.locator("#atlas-shares .bars path").first.wait_for(state="attached")
    click_mosaic(walk)
    walk.go(f"/atlas?slide={finished.first}")
    walk.page.get_by_role("link", name=finished.second).wait_for()
    assert walk.buttons() == BUTTONS


def test_a_search_that_takes_long_goes_on_by_itself(walk: Walk, finished: Finished, monkeypatch):
    monkeypatch.setattr(search, "LOT_SECONDS", -1.0)  # a lot of each slide
    walk.go(f"/search?recipe={VIEW}&slide={finished.first}&tile=0")
    walk.page.get_by_text("of 3 slides compared").wait_for()
    assert walk.page.locator("progress").count() == 0
    assert walk.page.locator(".strip .tile").count() == search.SHOWN


def test_questions(walk: Walk):
    walk.go("/sql")
    walk.page.evaluate("() => { window.before = true; }")
    walk.page.locator("#sql-text").fill("SELECT 41 + 1 AS answer")
    walk.page.keyboard.press("Control+Enter")
    walk.page.get_by_role("gridcell", name="42").wait_for()
    walk.until_query_has("q=SELECT+41+++1")
    assert walk.page.evaluate("window.before"), "the page itself stayed"
    walk.page.get_by_role("button", name="Save").click()
    walk.page.locator("#sql-saved a").wait_for()
    walk.page.locator("#sql-tables summary").nth(2).click()
    walk.page.get_by_role("cell", name="x_px").wait_for()
    walk.go("/sql")
    walk.page.locator("#sql-saved a").click()
    walk.page.get_by_role("gridcell", name="42").wait_for()
    walk.page.get_by_role("button", name="Forget").click()
    walk.page.locator("#sql-saved a").wait_for(state="detached")
    walk.go("/sql?q=DROP TABLE slides")
    assert "not one SELECT" in walk.page.locator("[role=alert].warning").inner_text()


@pytest.fixture
def real(data_dir: Path, tmp_path: Path) -> Study:
    """A published study of two real slides."""
    (tmp_path / CONFIG_FILE).write_text('[study]\ndevice = "cpu"\n[tilings.small]\ntile_px = 224\nmpp = 1.0\n'
                                        '[[recipes]]\nencoder = "demo-vlm"\nname = "demo"\ntiling = "small"\n')  # fmt: skip
    session = Session(Study(tmp_path))
    files = [data_dir / "slides" / name for name in ("CMU-1-Small-Region.svs", "her2st_C2_HE_pyr.tif")]
    ids = [entry.slide_id for entry in register(session, files)]
    run_batch(session, ids, chain(session.study), lambda result: None)
    make_slide_map(session, session.study.recipes[0])
    publish_results(session)
    return session.study


def test_real_slides_on_every_page(real: Study, browser, request):
    """Each page is opened, and is about what is there; a screenshot of each is kept."""
    ids = sorted(Catalog(real).slides()["slide_id"])
    pages = {
        "slides": ("/", f"text={ids[0]}"),
        "cmu": (f"/slide/{ids[0]}", "text=too few to be laid out"),
        "her2": (f"/slide/{ids[1]}?layer=term:stroma", "#slide-map .plot-container"),
        "search": ("/search?text=stroma", ".strip .tile"),
        "atlas": (f"/atlas?slide={ids[0]}&method=pca", f"text={ids[1]}"),
        "sql": ("/sql?q=SELECT slide_id, n_tiles FROM embeddings", f"text={ids[1]}"),
    }
    with serving(make_app(real)) as address:
        for name, (path, seen) in pages.items():
            for walk in walking(browser, address, f"real_{name}"):
                walk.go(path)
                walk.page.locator(seen).first.wait_for()
                if name in ("cmu", "her2"):
                    walk.settle()


def test_a_study_without_slides_on_every_page(tmp_path: Path, browser):
    init_home(tmp_path)
    with serving(make_app(Study(tmp_path))) as address:
        for path in ("/", "/search", "/atlas", "/sql", "/slide/none-00000000"):
            for walk in walking(browser, address, f"empty_{path.strip('/').replace('/', '_') or 'slides'}"):
                walk.go(path)
                walk.page.locator("main h1, main h2").first.wait_for()
                walk.page.wait_for_load_state("networkidle")
