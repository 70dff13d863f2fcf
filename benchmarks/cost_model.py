"""What 1, 100, 10,000 and 1,000,000 slides cost, from measured pieces; prints the tables of docs/scaling.md.

    python -m benchmarks.cost_model                                       # the tables, from benchmarks/measured.json
    python -m benchmarks.scale numbers --keep benchmarks/measured.json    # measures what grows with the number of slides
    python -m benchmarks.cost_model --measure                             # measures one slide: bytes, files, events

Pieces are multiplied, as if everything grew in proportion; what does not hold at a size is said in the column "breaks at".
What was not measured is assumed, and listed as such.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pathassets.config import Study, init_home
from pathassets.slides.synthetic import synthetic_slide

KEPT = Path(__file__).with_name("measured.json")
SCALES = (1, 100, 10_000, 1_000_000)
ASSUMED = {
    "tiles of a slide": 15_000.0,
    "dimensions of an embedding": 1_536.0,
    "tiles/s of one device, with a large encoder": 1_000.0,
    "slides of a run": 16.0,
    "recipes": 1.0,
}
CONFIG = """
[study]
device = "cpu"
[tilings.fine]
tile_px = 56
mpp = 0.5
[[recipes]]
encoder = "demo-vlm"
tiling = "fine"
"""
ONE_SLIDE = "one drawn slide of {tiles} tiles, demo-vlm, nine terms: python -m benchmarks.cost_model --measure"
PER_TILE = ("tiles", "domains", "text_scores")

Pieces = dict[str, float]


def keep(pieces: Pieces, source: str, path: Path = KEPT) -> None:
    """Notes measured pieces with where they are from."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept.update({name: {"value": float(f"{value:.4g}"), "source": source} for name, value in pieces.items()})
    path.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")


def measure() -> tuple[Pieces, int]:
    """Bytes, files and events of one slide that is really made; and its number of tiles."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        init_home(home)
        (home / "pathassets.toml").write_text(CONFIG)
        synthetic_slide(home / "inbox" / "slide.tiff", seed=1, width_px=2048, height_px=1792)
        study = Study(home)
        command = [sys.executable, "-W", "ignore", "-m", "pathassets", "run", "--home", str(home)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        row = study.scan("embeddings").collect().row(0, named=True)
        return dict(_sizes(study, row["n_tiles"], row["dim"])), row["n_tiles"]


def _sizes(study: Study, n_tiles: int, dim: int) -> Iterator[tuple[str, float]]:
    store = study.home / "store"
    size = {path.relative_to(store): path.stat().st_size for path in store.rglob("*") if path.is_file()}
    embeddings = sum(n for path, n in size.items() if "embeddings.zarr/X/c" in path.as_posix())
    arrays = sum(n for path, n in size.items() if path.parts[0] == "arrays") - embeddings
    rows = {name: study.scan(name).collect().height for name in PER_TILE}
    tables = sum(n for path, n in size.items() if path.parts[0] == "tables" and path.parts[1] in PER_TILE)
    yield "bytes of a value of an embedding", embeddings / (n_tiles * dim)
    yield "bytes of derived arrays, for a tile", arrays / n_tiles
    yield "bytes of Parquet, for a tile", tables / n_tiles
    yield "bytes of pictures, for a slide", float(sum(n for path, n in size.items() if path.parts[0] == "figures"))
    yield "rows of SQL, for a tile", sum(rows.values()) / n_tiles
    yield "files of Parquet, for a slide", float(len([path for path in size if "slide_id=" in path.as_posix()]))
    yield "files of the store, for a slide", float(len([path for path in size if path.parts[0] != "cache"]))
    history = study.dagster_home / "history"
    with sqlite3.connect(history / "runs" / "index.db") as db:
        about_slides = "SELECT count(*), sum(length(event)) FROM event_logs WHERE partition IS NOT NULL"
        n_events, n_bytes = db.execute(about_slides).fetchone()
    yield "events of a slide", float(n_events)
    yield "bytes of a slide's events", float(n_bytes)


def lines(p: Pieces, a: Pieces) -> list[tuple[str, Callable[[float], str], str]]:
    """What, how much for a number of slides, and where it breaks and what to do then."""
    tiles, runs = a["tiles of a slide"] * a["recipes"], 1 / a["slides of a run"]
    rows = tiles * p["rows of SQL, for a tile"]
    snapshot = p["results.duckdb from nothing, CPU s for a slide"]
    snapshot_rows = rows * p["results.duckdb, CPU s for a row"]
    embedding = tiles * a["dimensions of an embedding"] * p["bytes of a value of an embedding"]
    return [
        ("device time, one device", lambda n: duration(n * tiles / a["tiles/s of one device, with a large encoder"]),
         "more devices: `device = \"cuda:all\"`, Ray, Slurm"),
        ("reading and feeding, CPU time", lambda n: duration(n * tiles * p["s of one core to feed a tile, 20x"]),
         "more cores beside the device"),
        ("orchestration, CPU time", lambda n: duration(n * p["orchestration, CPU s for a slide of 16"]),
         "never the first; `slides_per_run` for tiny slides"),
        ("runs", lambda n: count(max(1, n * runs)), "SQLite: a few at once; PostgreSQL: dozens"),
        ("event log, rows", lambda n: count(n * p["events of a slide"]), "PostgreSQL above some thousand slides"),
        ("event log", lambda n: size(n * p["bytes of a slide's events"]), "runs are kept for ever: drop old ones by hand"),
        ("embeddings", lambda n: size(n * embedding), "the disk; an object store mounted as a file system"),
        ("other arrays, tables and pictures", lambda n: size(n * (
            tiles * (p["bytes of derived arrays, for a tile"] + p["bytes of Parquet, for a tile"])
            + p["bytes of pictures, for a slide"])), ""),
        ("files in the store", lambda n: count(n * p["files of the store, for a slide"]),
         "inodes, and listings at about 10 million: one study for each cohort"),
        ("results.duckdb", lambda n: size(n * rows * p["bytes of results.duckdb, for a row"]),
         "100 GB: one study for each cohort, or SQL over `live`"),
        ("snapshot from nothing, CPU time", lambda n: duration(n * (snapshot + snapshot_rows)), "rare: only after a change of schema"),
        ("snapshot, 100 slides changed, CPU time",
         lambda n: duration(n * p["results.duckdb, 100 slides have changed, CPU s for a slide"]),
         "10,000 large ones: the whole file is copied each time; a longer schedule"),
        ("tick of the inbox sensor, CPU time", lambda n: duration(n * p["tick of the inbox sensor, CPU s for a slide"]),
         "100,000 in one inbox: 60 s of a tick are over; move finished folders out"),
        ("tick of automation, CPU time", lambda n: duration(n * p["tick of automation, CPU s for a slide of 6 assets"]),
         "100,000: `automation = false`, the inbox sensor and the night run ask for the same"),
        ("`pathassets status`, CPU time", lambda n: duration(n * p["pathassets status, CPU s for a slide"]), "SQL over `outcomes`"),
        ("partitions", lambda n: count(n), "100,000, Dagster's advice: one study for each cohort"),
    ]  # fmt: skip


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    for unit, length in (("y", 365 * 86400.0), ("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.2g} s"


def size(n_bytes: float) -> str:
    """Bytes in the unit that reads best."""
    for unit, length in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= length:
            return f"{n_bytes / length:.3g} {unit}"
    return f"{n_bytes / 1e3:.3g} kB"


def count(n: float) -> str:
    """A number of things."""
    return f"{n:,.0f}" if n < 1e6 else f"{n / 1e6:,.3g} million"


def main() -> None:
    """Measures, or prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    if parser.parse_args().measure:
        pieces, n_tiles = measure()
        keep(pieces, ONE_SLIDE.format(tiles=f"{n_tiles:,}"))
    kept = json.loads(KEPT.read_text())
    print("| slides | " + " | ".join(f"{n:,}" for n in SCALES) + " | breaks at; what then |")
    print("| --- |" + " ---: |" * len(SCALES) + " --- |")
    for name, amount, then in lines({name: piece["value"] for name, piece in kept.items()}, ASSUMED):
        print("| " + " | ".join([name, *(amount(n) for n in SCALES), then]) + " |")
    print("\n| piece | value | from |\n| --- | ---: | --- |")
    for name, value in ASSUMED.items():
        print(f"| {name} | {value:g} | assumed |")
    for name, piece in kept.items():
        print(f"| {name} | {piece['value']:g} | {piece['source']} |")


if __name__ == "__main__":
    main()
