"""A study of thousands of slides to measure on: sixteen are really made, the others are copies of their rows and events.

Belongs here: making it. Does not belong: what is measured (`scale.py`, `cost_model.py`).

A copy has all rows, the markers of its arrays and all that Dagster's event log says of it, under an id of its own; it has no
arrays, masks or pictures. Its file lies in the inbox and holds a line of text.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sqlite3
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "assets_tests"))

from support.studies import TINY
from support.weekend import write_slide

from pathassets.config import Study, init_home
from pathassets.definitions import build_defs
from pathassets.defs.launch import Launcher, open_instance
from pathassets.slides import make_slide_id
from pathassets.steps.nodes import chain
from pathassets.steps.register import register
from pathassets.steps.session import Session
from pathassets.store import Root, layout

N_REAL = 16
CONFIG = f'[study]\ndevice = "cpu"\nautomation = true\n[tissue]\nmethod = "none"\n{TINY}'
STRETCHED = ("tiles", "domains")


@dataclass(frozen=True)
class Template:
    """A slide that was really made.

    Attributes:
        files: Rows of its table files, by table and part.
        markers: Keys of its arrays' markers.
    """

    slide_id: str
    files: dict[tuple[str, str], pl.DataFrame] = field(default_factory=dict)
    markers: list[str] = field(default_factory=list)


def make_real(home: Path, n_slides: int = N_REAL) -> tuple[Study, list[str]]:
    """A study of small slides of noise, registered and not yet worked on."""
    init_home(home)
    (home / "pathassets.toml").write_text(CONFIG)
    paths = [write_slide(home / "inbox" / f"real_{i:02d}.tiff", i) for i in range(n_slides)]
    study = Study(home)
    return study, [entry.slide_id for entry in register(Session(study), paths)]


def launch(study: Study, slide_ids: Sequence[str]) -> None:
    """One run through Dagster, in this process."""
    with open_instance(study) as instance:
        launched = Launcher(study, instance, build_defs).slides(slide_ids, chain(study))
    bad = [result for result in launched.results if not result.usable]
    assert not bad, bad
    assert not launched.problems, launched.problems


def multiply(study: Study, real: Sequence[str], n_slides: int, n_tiles: int) -> list[str]:
    """Copies of `real` until there are `n_slides`, each with `n_tiles` tiles; gives the ids of all.

    Args:
        study: With `real` made, and Dagster's state in SQLite.
        real: Slides that were made in one run.
        n_slides: How many slides there will be.
        n_tiles: How many tiles each copy pretends to have.
    """
    root = Session(study).root
    templates = [_template(root, slide_id, n_tiles) for slide_id in real]
    copies = list(_files(study, n_slides - len(real)))
    for i, (path, digest) in enumerate(copies):
        _copy(root, templates[i % len(templates)], path, digest)
    ids = [make_slide_id(path, digest) for path, digest in copies]
    with open_instance(study) as instance:
        instance.add_dynamic_partitions("slides", ids)
    for first in range(0, len(ids), len(real)):
        group = ids[first : first + len(real)]
        copy_events(study.dagster_home / "history", dict(zip(real, group, strict=False)))
    _refresh(study, ids[-1])
    return [*real, *ids]


def _files(study: Study, n: int) -> Iterator[tuple[Path, str]]:
    for i in range(n):
        path = study.inbox_paths[0] / f"{i % 100:03d}" / f"slide_{i:06d}.svs"
        path.parent.mkdir(exist_ok=True)
        content = f"file {i}".encode()
        path.write_bytes(content)
        yield path, hashlib.sha256(content).hexdigest()


def _template(root: Root, slide_id: str, n_tiles: int) -> Template:
    found = Template(slide_id)
    for key in root.keys("tables"):
        place = layout.table_slide(key)
        if place is not None and place[1] == slide_id:
            frame = pl.read_parquet(root.local(key), hive_partitioning=False)
            found.files[place[0], layout.table_part(key)] = _stretched(frame, place[0], n_tiles)
    found.markers.extend(key for key in root.keys(f"arrays/{slide_id}") if key.endswith(".done.json"))
    return found


def _stretched(frame: pl.DataFrame, table: str, n_tiles: int) -> pl.DataFrame:
    """The rows of a slide's tiles, repeated under further numbers."""
    if table not in STRETCHED or frame.is_empty():
        return frame
    there = frame["tile_id"].n_unique()
    parts = [frame.with_columns(pl.col("tile_id") + (k * there)) for k in range(-(-n_tiles // there))]
    dtype = frame["tile_id"].dtype
    return pl.concat(parts).with_columns(pl.col("tile_id").cast(dtype)).filter(pl.col("tile_id") < n_tiles)


def _copy(root: Root, template: Template, path: Path, digest: str) -> None:
    slide_id, stat = make_slide_id(path, digest), path.stat()
    renamed = pl.col(pl.String).str.replace_all(template.slide_id, slide_id, literal=True)
    for (table, part), frame in template.files.items():
        copy = frame.with_columns(renamed)
        if table == "slides":
            copy = copy.with_columns(
                path=pl.lit(str(path)), size_bytes=pl.lit(stat.st_size, dtype=copy["size_bytes"].dtype),
                mtime_ns=pl.lit(stat.st_mtime_ns, dtype=copy["mtime_ns"].dtype), content_sha256=pl.lit(digest),
            )  # fmt: skip
        target = root.local(layout.table_key(table, slide_id, part))
        target.parent.mkdir(parents=True, exist_ok=True)
        copy.write_parquet(target)
    for key in template.markers:
        target = root.local(key.replace(template.slide_id, slide_id))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root.local(key), target)


def copy_events(history: Path, names: dict[str, str]) -> None:
    """What Dagster knows of the run of the slides `names`, once more under their other names, as another run.

    Args:
        history: Folder of Dagster's SQLite databases.
        names: Ids of the copies, by id of the slide that was made.
    """
    with sqlite3.connect(history / "runs.db") as db:
        run_id = db.execute("SELECT run_id FROM runs WHERE pipeline_name = 'slides' ORDER BY id LIMIT 1").fetchone()[0]
        rename = _Renaming({**names, run_id: str(uuid.uuid4())}, set(names))
        _copy_rows(db, "runs", "run_id = ?", run_id, rename)
        _copy_rows(db, "run_tags", "run_id = ?", run_id, rename)
    with sqlite3.connect(history / "runs" / "index.db") as db:
        events = _copy_rows(db, "event_logs", "run_id = ?", run_id, rename)
        rename.numbers.update(events)
        among = "event_id IN (SELECT id FROM event_logs WHERE run_id = ?)"
        _copy_rows(db, "asset_event_tags", among, run_id, rename)
        _copy_rows(db, "asset_check_executions", "run_id = ?", run_id, rename)


class _Renaming:
    """Ids in a row's texts, and numbers of events in its columns."""

    def __init__(self, words: dict[str, str], slides: set[str]) -> None:
        self.words, self.slides = words, slides
        self.numbers: dict[int, int] = {}
        self._pattern = re.compile("|".join(map(re.escape, words)))

    def __call__(self, column: str, value: object) -> object:
        if isinstance(value, str):
            return self._pattern.sub(lambda found: self.words[found[0]], value)
        if column == "event_id" or column.endswith("_event_storage_id"):
            return self.numbers.get(value) if isinstance(value, int) else value
        return value


def _copy_rows(db: sqlite3.Connection, table: str, where: str, run_id: str, rename: _Renaming) -> dict[int, int]:
    """Copies rows; gives their new numbers by their old ones."""
    cursor = db.execute(f"SELECT * FROM {table} WHERE {where}", [run_id])
    columns = [item[0] for item in cursor.description]
    rows = cursor.fetchall()
    first = db.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()[0] + 1
    wanted = [row for row in rows if _is_of(dict(zip(columns, row, strict=True)), rename)]
    copies = [
        [first + i, *(rename(c, v) for c, v in zip(columns[1:], row[1:], strict=True))] for i, row in enumerate(wanted)
    ]
    marks = ", ".join("?" * len(columns))
    db.executemany(f"INSERT INTO {table} VALUES ({marks})", copies)
    return {row[0]: first + i for i, row in enumerate(wanted)}


def _is_of(row: dict[str, object], rename: _Renaming) -> bool:
    """Rows of slides that have no copy in this group are left out, and so are tags of events that were."""
    if "event_id" in row:
        return row["event_id"] in rename.numbers
    partition = row.get("partition")
    return partition is None or partition in rename.slides


def _refresh(study: Study, slide_id: str) -> None:
    """One more event of each asset through Dagster's own door, which brings its summary of the asset up to date."""
    with open_instance(study) as instance:
        for node in chain(study):
            key = dg.AssetKey(list(node.key))
            latest = instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=key, asset_partitions=[slide_id]), limit=1
            ).records[0]
            event = latest.asset_materialization
            assert event is not None
            instance.report_runless_asset_event(event)
    with sqlite3.connect(study.dagster_home / "history" / "runs" / "index.db") as db:
        db.execute("UPDATE asset_keys SET cached_status_data = NULL")
