"""How fast the dashboard's server answers: a slide's first view, another layer, tiles of its pixels, three users, a search.

    python -m benchmarks.dashboard [FOLDER]

Makes a study of one drawn slide with about 20,000 tiles in FOLDER (default .bench/dashboard; kept for the next time), whose
embeddings are random, and asks the server what a browser would ask. No browser: times are the server's alone.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
from werkzeug.serving import WSGIRequestHandler, make_server

from pathassets.config import CONFIG_FILE, Study
from pathassets.dashboard import search
from pathassets.dashboard.app import make_app
from pathassets.dashboard.catalog import Catalog
from pathassets.dashboard.layers import Layers
from pathassets.dashboard.pages import slide_events
from pathassets.dashboard.parts import Context
from pathassets.dashboard.pixels import SlidePool
from pathassets.slides.synthetic import synthetic_slide
from pathassets.steps.batch import run_batch
from pathassets.steps.nodes import Step, chain
from pathassets.steps.publish import publish_results
from pathassets.steps.register import register
from pathassets.steps.session import Session
from pathassets.store.arrays import EmbeddingsWriter
from pathassets.store.derived import write_derived

SIDE_PX = 9000
TILE_PX = 48  # small tiles: 20,000 of them fit a slide that is quickly drawn
DIM, DOMAINS, TERMS = 384, 8, 9
VIEW = "small/demo"
CONFIG = f"""
[tilings.small]
tile_px = {TILE_PX}
mpp = 0.5
min_tissue = 0.2
[[recipes]]
encoder = "demo-vlm"
name = "demo"
tiling = "small"
"""
TILES_ASKED, CLIENTS, USERS = 1200, 6, 3
N_MILLION = 1_000_000


def made(home: Path) -> tuple[Study, str]:
    """The study, made where it is not there yet."""
    home.mkdir(parents=True, exist_ok=True)
    (home / CONFIG_FILE).write_text(CONFIG)
    path = home / "slide.tiff"
    if not path.exists():
        synthetic_slide(path, seed=5, width_px=SIDE_PX, height_px=SIDE_PX)
    session = Session(Study(home))
    slide_id = register(session, [path])[0].slide_id
    nodes = [node for node in chain(session.study) if node.step in (Step.SLIDE, Step.TISSUE, Step.TILES)]
    run_batch(session, [slide_id], nodes, lambda result: None)
    if not session.tables.exists("text_scores", slide_id, "small__demo"):
        fill(session, slide_id)
    publish_results(session)
    return session.study, slide_id


def fill(session: Session, slide_id: str) -> None:
    """Embeddings, domains, terms and layouts of random numbers."""
    tiles = session.tables.read("tiles", slide_id, "small")
    n, rng, digest = len(tiles), np.random.default_rng(0), "ab" * 8
    with EmbeddingsWriter(session.root, slide_id, digest, n_tiles=n, dim=DIM) as writer:
        for shard in writer.missing_shards():
            rows = writer.rows_of(shard)
            writer.write_shard(shard, rng.normal(size=(rows.stop - rows.start, DIM)).astype(np.float32))
        writer.finish(tiles)
        uri = writer.uri
    made_by = {"slide_id": slide_id, "recipe": VIEW, "digest": digest}
    part, derived = "small__demo", {**made_by, "embeddings_digest": digest}
    row = {**made_by, "tiling": "small", "encoder": "random", "uri": uri, "n_tiles": n, "dim": DIM, "dtype": "float16",
           "precision": "fp32", "tiles_digest": tiles["digest"][0]}  # fmt: skip
    session.tables.write("embeddings", [row], slide_id=slide_id, part=part)
    constants = [pl.lit(value).alias(name) for name, value in derived.items()]
    domains = pl.DataFrame({"tile_id": tiles["tile_id"], "domain": rng.integers(0, DOMAINS, n)})
    domains = domains.with_columns(*constants, variant=pl.lit("leiden"), label=pl.lit("stroma"))
    session.tables.write("domains", domains, slide_id=slide_id, part=part)
    group = write_derived(session.root, slide_id, digest, "domains", obs=tiles,
                          obsm={"X_pca": rng.normal(size=(n, 50)).astype(np.float32),
                                "X_umap": rng.normal(size=(n, 2)).astype(np.float32)})  # fmt: skip
    arrays = {**derived, "step": "spatial_domains", "name": "domains", "uri": group, "n_tiles": n, "contents": ["obs"]}
    session.tables.write("derived_arrays", [arrays], slide_id=slide_id, part=part)
    scores = pl.DataFrame({
        "tile_id": np.repeat(tiles["tile_id"].to_numpy(), TERMS), "term": [f"term {i}" for i in range(TERMS)] * n,
        "cosine": rng.random(n * TERMS), "probability": rng.random(n * TERMS),
    }).with_columns(constants)  # fmt: skip
    session.tables.write("text_scores", scores, slide_id=slide_id, part=part)


def seconds(action: Callable[[], object]) -> float:
    """How long it took."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def as_sent(figure: object) -> int:
    """Bytes of a figure as the browser gets it."""
    return len(figure.to_json().encode())  # type: ignore[attr-defined]


def first_view(study: Study, slide_id: str) -> None:
    """The page, its figures and its card, by a server that has just been started (libraries are loaded)."""
    catalog = Catalog(study)
    context = Context(catalog, Layers(catalog), SlidePool(catalog.session))
    slide_events.ctx = SimpleNamespace(triggered_id=None)  # what Dash says of a page that has just come
    events = slide_events.Events(context)
    facts = {"slide": slide_id, "mpp": 0.5}
    chosen: dict[str, Any] = {"view": VIEW, "scale": "cividis", "least": 0, "tile": None, "piece": "all", "method": "umap",
                              "lasso": None, "slide": facts}  # fmt: skip
    from pathassets.dashboard.pages import slide

    def layer(key: str, lasso: Any = None) -> int:
        picture = events.picture(key=key, outline=["tissue"], opacity=60, **{**chosen, "lasso": lasso})
        return as_sent(picture[0])

    def whole() -> None:
        slide.layout(context, slide_id, {})
        layer("domain:leiden")
        as_sent(events.map(key="domain:leiden", **chosen))

    print(f"first view of {len(catalog.tiles(slide_id, 'small')):,} tiles: {seconds(whole):.2f} s (target 2)")
    layers = ["term:term 1", "column:sharpness", "pca", "domain:leiden", "term:term 2"]
    told("another layer", [seconds(lambda key=key: layer(key)) for key in layers * 3])
    around = {"on": "map", "corners": [[-9e9, -9e9], [9e9, -9e9], [9e9, 0], [-9e9, 0]]}
    told("a line around half of the points", [seconds(lambda: layer("pca", around)) for _ in range(5)])
    print(f"one tile's card with its neighbours: {1000 * seconds(lambda: events.card(100, VIEW, facts)):.0f} ms")
    with ThreadPoolExecutor(USERS) as pool:
        took = seconds(lambda: list(pool.map(layer, layers * USERS)))
    print(
        f"{USERS} users at once, each another layer {len(layers)} times: {1000 * took / len(layers):.0f} ms for each of {USERS}"
    )
    context.pool.close()


def told(what: str, times: list[float]) -> None:
    """Median and longest."""
    print(f"{what}: median {1000 * statistics.median(times):.0f} ms, longest {1000 * max(times):.0f} ms (target 200)")


def million(study: Study, slide_id: str) -> None:
    """A search over a million embeddings: those of the slide again and again, decoded each time, from the page cache."""
    real = Catalog(study)
    row = real.embeddings_row(slide_id, VIEW)
    assert row is not None
    rows = [{**row, "slide_id": f"slide-{i:04d}"} for i in range(-(-N_MILLION // row["n_tiles"]))]
    vector = search.tile_vector(real, slide_id, VIEW, 100)
    catalog: Any = SimpleNamespace(embeddings_rows=lambda recipe: rows, session=real.session)
    first = seconds(lambda: search.similar_tiles(catalog, VIEW, vector, 24, seconds=0.0))
    times = [seconds(lambda: search.similar_tiles(catalog, VIEW, vector, 24)) for _ in range(3)]
    n = len(rows) * row["n_tiles"]
    print(f"search of {n:,} x {DIM}: {statistics.median(times):.1f} s, the first answer after {first:.2f} s")


class KeepsConnections(WSGIRequestHandler):
    """As `pathassets dashboard` has it."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """A line for each tile is no log."""


def tile_route(study: Study, slide_id: str) -> None:
    """Tiles of the slide's finest levels through the server, by as many clients as a browser has connections."""
    server = make_server("127.0.0.1", 0, make_app(study).server, threaded=True, request_handler=KeepsConnections)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}/picture/{slide_id}"
    side = SIDE_PX // 256
    addresses = [
        f"{base}/{level}/{c}_{r}.jpg" for level in (0, 1) for r in range(side >> level) for c in range(side >> level)
    ]
    fetch = lambda address: len(urllib.request.urlopen(address).read())  # noqa: E731
    fetch(addresses[0])
    asked = addresses[:TILES_ASKED]
    with ThreadPoolExecutor(CLIENTS) as pool:
        took = seconds(lambda: list(pool.map(fetch, asked)))
    print(f"tiles of pixels: {len(asked) / took:.0f} a second by {CLIENTS} clients (target 150)")
    server.shutdown()


def main() -> None:
    """See the module."""
    home = Path(sys.argv[1] if len(sys.argv) > 1 else ".bench/dashboard")
    study, slide_id = made(home)
    print(json.dumps({"slide": slide_id, "side_px": SIDE_PX}))
    first_view(study, slide_id)
    tile_route(study, slide_id)
    million(study, slide_id)


if __name__ == "__main__":
    main()
