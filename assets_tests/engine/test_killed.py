"""A process that is killed, at whatever moment, loses at most the shard it was at; the last one ends with the very same bytes."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from engine import child
from support.damage import Level
from support.embedders import GROUP, Embedder, N

from pathassets.errors import StoreError
from pathassets.store import Root, layout
from pathassets.store.arrays import read_embeddings
from pathassets.store.groups import is_done, tree_hashes

KILLS, FLUSH_SECONDS = 30, 0.03
NOTES, ARRAY = "embeddings.shards", "embeddings.zarr/X"

Moment = Callable[[], bool]


def moments(processes: Embedder, seed: int) -> list[tuple[str, Callable[[], Moment]]]:
    """When processes are killed: at every stage of a slide, in an order that is drawn, its end at the end."""
    rng = random.Random(seed)

    def after_seconds() -> Moment:
        end = time.monotonic() + rng.uniform(0, 1.5)
        return lambda: time.monotonic() > end

    def after_batches() -> Moment:
        wanted = len(processes.computed()) + rng.randint(1, 40)
        return lambda: len(processes.computed()) >= wanted

    def after_a_shard() -> Moment:
        before, later = len(processes.shards()), rng.uniform(0, 0.2)
        return lambda: len(processes.shards()) > before and not time.sleep(later)

    def while_writing(folder: str) -> Callable[[], Moment]:
        return lambda: lambda: processes.begun(folder)

    def while_finishing() -> Moment:
        later = rng.uniform(0, 1)
        return lambda: processes.is_finishing() and not time.sleep(later)

    early = [("start", after_seconds)] * 4 + [("batch", after_batches)] * 8 + [("between shards", after_a_shard)] * 5
    early += [("notes", while_writing(NOTES))] * 3 + [("shard", while_writing(ARRAY))] * 5
    rng.shuffle(early)
    return early + [("end", while_finishing)] * (KILLS - len(early))


def kill_at(processes: Embedder, moment: Moment) -> int:
    """Kills a process at its moment, and at the latest when it finishes the slide; how it ended."""
    process, end = processes.start(flush_seconds=FLUSH_SECONDS), time.monotonic() + 300
    while not moment() and not processes.is_finishing() and Path(f"/proc/{process}").exists():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)
    processes.signal(signal.SIGKILL)
    return processes.ended()


@pytest.mark.e2e
def test_killed_thirty_times_it_ends_with_the_same_bytes_and_computes_a_shard_twice_at_most_each_time(
    tmp_path, embedder, drawn
):
    undisturbed, killed = embedder(tmp_path / "undisturbed"), embedder(tmp_path / "killed")
    undisturbed.start()
    assert undisturbed.ended() == 0
    assert sum(undisturbed.computed()) == N

    hits, torn, kept = Counter(), Counter(), {}
    for stage, moment in moments(killed, seed=11):
        hits[stage] += kill_at(killed, moment()) == -signal.SIGKILL
        torn.update(folder for folder in (NOTES, ARRAY) if killed.begun(folder))
        there = killed.shards()
        assert kept.items() <= there.items(), "what was on the disk is there, and was not written again"
        kept = there
        if is_done(killed.root, GROUP):  # the machine was too slow to catch it at its end
            break
        with pytest.raises(StoreError):
            read_embeddings(killed.root, GROUP)
    assert sum(hits.values()) >= 25, hits
    assert min(hits[stage] for stage in ("start", "batch", "between shards", "notes", "shard", "end")) >= 1, hits
    assert min(torn[NOTES], torn[ARRAY]) >= 1, "some were killed in the middle of a write"

    killed.start()
    assert killed.ended() == 0
    assert kept.items() <= killed.shards().items()
    assert sum(killed.computed()) - N <= sum(hits.values()) * child.SHARD_ROWS
    assert tree_hashes(killed.root, GROUP) == tree_hashes(undisturbed.root, GROUP)
    assert killed.root.read(layout.marker_key(GROUP)) == undisturbed.root.read(layout.marker_key(GROUP))
    assert killed.root.keys() == undisturbed.root.keys(), "nothing is left over"
    assert killed.root.temp_files(older_than=-60) == []
    check_bad_tiles(killed.root, drawn)


def check_bad_tiles(root: Root, slide: Path) -> None:
    """What was noted of tiles that cannot be read came through all the kills."""
    from engine.conftest import BAD

    embeddings, level = read_embeddings(root, GROUP), Level.of(slide)
    xy = embeddings.obs.select("x_px", "y_px").to_numpy()
    bad = level.touched(BAD, xy, child.TILE_PX, child.TILE_PX)
    assert bad.sum() == 128
    assert np.array_equal(~embeddings.ok, bad)
    assert embeddings.obs["reason"].drop_nulls().to_list() == ["pixels_unreadable"] * 128
    assert np.array_equal(np.isnan(embeddings.read()).all(axis=1), bad)
