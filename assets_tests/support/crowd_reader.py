"""Somebody who reads `results.duckdb` until told to stop: `python crowd_reader.py PATH fresh|held`; prints what was seen."""

from __future__ import annotations

import json
import signal
import sys
import time

import duckdb

TORN = (
    "SELECT count(*) FROM embeddings e WHERE n_tiles <> "
    "(SELECT count(*) FROM tiles t WHERE t.slide_id = e.slide_id AND t.tiling = e.tiling)",
    "SELECT count(*) FROM (SELECT slide_id, recipe, variant, count(*) AS n FROM domains GROUP BY ALL) d "
    "JOIN embeddings e USING (slide_id, recipe) WHERE d.n <> e.n_tiles",
    "SELECT count(*) FROM (FROM tiles SELECT slide_id, tiling, tile_id GROUP BY ALL HAVING count(*) > 1)",
    "SELECT count(*) FROM (FROM live.tiles SELECT slide_id, tiling, tile_id GROUP BY ALL HAVING count(*) > 1)",
    "SELECT count(*) FROM (FROM live.embeddings SELECT slide_id, recipe GROUP BY ALL HAVING count(*) > 1)",
)
going = True


def end(*_: object) -> None:
    global going
    going = False


def opened(path: str) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(path, read_only=True, config={"threads": 1})


def torn(connection: duckdb.DuckDBPyConnection) -> int:
    """How many things are half there."""
    rows = [connection.execute(query).fetchone() for query in TORN]
    return sum(row[0] for row in rows if row)


def main(path: str, kind: str) -> None:
    signal.signal(signal.SIGTERM, end)
    held = opened(path) if kind == "held" else None
    saw = {"reads": 0, "torn": 0, "errors": []}
    while going:
        try:
            if held is not None:
                saw["torn"] += torn(held)
            else:
                with opened(path) as fresh:
                    saw["torn"] += torn(fresh)
            saw["reads"] += 1
        except duckdb.Error as error:
            saw["errors"].append(str(error).splitlines()[0])
        time.sleep(0.2)
    print(json.dumps(saw))


main(*sys.argv[1:])
