"""CPU seconds of the inbox sensor's ticks over 50,000 files.

    python -m benchmarks.inbox_50k [FOLDER]

Two inboxes: 5,000 registered slides among 45,000 files that are none, and 50,000 registered slides. For each: the first tick,
a tick in which nothing has changed, and the two ticks in which ten new files are seen and then registered. The real sensor on
a real instance (SQLite); a tick has 60 s.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from pathlib import Path

import dagster as dg
import polars as pl

from pathassets.config import Study, init_home
from pathassets.defs.sensors import inbox_sensor
from pathassets.slides import make_slide_id
from pathassets.store import layout
from pathassets.store.schema import table_spec

N_FILES = 50_000
N_FOLDERS = 100
N_NEW = 10


def main() -> None:
    """Both inboxes, one line for each tick."""
    base = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    print(f"{'inbox':42} {'tick':28} {'CPU s':>7} {'wall s':>7} {'cursor bytes':>13} {'runs':>5}")
    for n_slides in (5_000, N_FILES):
        with tempfile.TemporaryDirectory(dir=base) as folder:
            _measure(Path(folder), n_slides)


def _measure(home: Path, n_slides: int) -> None:
    init_home(home)
    study = Study(home)
    ids = _fill(study, n_slides)
    name = f"{n_slides} slides, {N_FILES - n_slides} other files"
    with dg.DagsterInstance.local_temp(str(home / ".dagster")) as instance:
        instance.add_dynamic_partitions("slides", ids)
        cursor: str | None = None
        for tick in ("first", "second", "nothing new", "nothing new, again"):
            cursor = _tick(study, instance, cursor, name, tick)
        for i in range(N_NEW):
            (study.inbox_paths[0] / f"fresh_{i}.svs").write_bytes(f"fresh {i}".encode())
        for tick in ("10 new files seen", "10 new files registered", "nothing new"):
            cursor = _tick(study, instance, cursor, name, tick)


def _fill(study: Study, n_slides: int) -> list[str]:
    """Files, and rows for the slides among them as a registration would have written them."""
    schema = table_spec("slides")
    ids = []
    for i in range(N_FILES):
        folder = study.inbox_paths[0] / f"{i % N_FOLDERS:03d}"
        folder.mkdir(exist_ok=True)
        path = folder / (f"slide_{i:05d}.svs" if i < n_slides else f"thumbnail_{i:05d}.{('jpg', 'txt', 'csv')[i % 3]}")
        content = f"file {i}".encode()
        path.write_bytes(content)
        if i < n_slides:
            digest = hashlib.sha256(content).hexdigest()
            ids.append(make_slide_id(path, digest))
            row = {"slide_id": ids[-1], "path": str(path), "size_bytes": len(content), "mtime_ns": path.stat().st_mtime_ns,
                   "content_sha256": digest}  # fmt: skip
            target = Path(study.store_uri) / layout.table_key("slides", ids[-1])
            target.parent.mkdir(parents=True)
            schema.conform(pl.DataFrame([row])).write_parquet(target)
    return ids


def _tick(study: Study, instance: dg.DagsterInstance, cursor: str | None, inbox: str, tick: str) -> str:
    cpu, wall = time.process_time(), time.perf_counter()
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    result = inbox_sensor(study)(context)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    for request in result.dynamic_partitions_requests or []:
        instance.add_dynamic_partitions("slides", list(request.partition_keys))
    runs = len(result.run_requests or [])
    print(f"{inbox:42} {tick:28} {cpu:7.2f} {wall:7.2f} {len(result.cursor or ''):13} {runs:5}")
    return result.cursor or ""


if __name__ == "__main__":
    main()
