"""`pathassets` with its store in a bucket: what a disk would hold, whatever happens to processes and to the server."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import anndata
import pytest
from support.commands import PATHASSETS, answer, run_command
from support.s3 import SECRET, S3Server

from pathassets import Study
from pathassets.store import Root, open_root
from pathassets.store.groups import read_marker

pytestmark = pytest.mark.e2e
SMALL = ("--tile-px", "32")  # some thousand tiles: several shards
SAME = "SELECT slide_id, digest, n_tiles FROM embeddings ORDER BY slide_id"


@pytest.fixture
def home(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study whose settings name the bucket."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "pathassets.toml").write_text(f'[study]\nstore = "{bucket}"\n')
    monkeypatch.setenv("PATHASSETS_DEVICE", "cpu")
    return folder


def root_of(home: Path) -> Root:
    return open_root(Study(home).store_uri)


def arrays(home: Path) -> dict[str, dict]:
    """The marker of each group of embeddings: its digest, and a hash of each of its files."""
    root = root_of(home)
    keys = [
        key.removesuffix(".done.json") + ".zarr" for key in root.keys("arrays") if key.endswith("embeddings.done.json")
    ]
    return {key: read_marker(root, key) for key in keys}


def begin(*arguments: object) -> subprocess.Popen[str]:
    command = [*PATHASSETS, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not condition():
        time.sleep(0.05)


def n_shards(home: Path) -> int:
    return sum("/X/c/" in key for key in root_of(home).keys("arrays"))


def test_a_bucket_holds_what_a_disk_holds(home: Path, study: Path, slides, s3: S3Server):
    run = run_command("run", *slides, "--home", home, "--select", "*")
    assert run.returncode == 0, run.stdout + run.stderr
    assert not (home / "store").exists()
    assert answer(home, SAME) == answer(study, SAME)
    assert arrays(home) == arrays(study)
    for query in (
        "SELECT slide_id, recipe, variant, tile_id, domain, label FROM domains ORDER BY ALL",
        "SELECT slide_id, step, status, digest, result_digest FROM outcomes ORDER BY ALL",
        "SELECT slide_id, term, round(sum(probability), 6) AS p FROM text_scores GROUP BY ALL ORDER BY ALL",
    ):
        assert answer(home, query) == answer(study, query)
    stored = root_of(home).entries()
    again = run_command("run", *slides, "--home", home)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert root_of(home).entries() == stored
    assert not [entry.key for entry in stored if entry.key.startswith("locks")]
    for command in ("status", "outcomes", "verify", "doctor", "publish"):
        assert run_command(command, "--home", home).returncode == 0, command
    row = Study(home).scan("embeddings").collect().row(0, named=True)
    assert row["uri"].startswith(root_of(home).uri)
    assert anndata.read_zarr(Study(home).arrays(row["uri"])).shape == (row["n_tiles"], row["dim"])
    live = run_command("sql", "FROM live.tiles", "--home", home)
    assert live.returncode == 2
    assert "cannot look into an object store" in live.stderr
    for path in home.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_killed_at_random_moments_a_study_still_becomes_the_same(home: Path, tmp_path: Path, slides):
    moments = random.Random(3)
    for _ in range(3):
        process = begin("run", *slides, "--home", home, *SMALL)
        before = n_shards(home)
        wait_for(lambda before=before: n_shards(home) > before, process)
        time.sleep(moments.uniform(0, 3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    begun = time.monotonic()
    run = run_command("run", *slides, "--home", home, *SMALL)
    assert run.returncode == 0, run.stdout + run.stderr
    print(f"resumed in {time.monotonic() - begun:.0f} s")
    local = tmp_path / "local"
    assert run_command("run", *slides, "--home", local, *SMALL).returncode == 0
    assert arrays(home) == arrays(local)
    assert run_command("verify", "--home", home).returncode == 0
    # a run killed after its array was published leaves a lock that no later run has a reason to take
    assert run_command("gc", "--older-than", "0s", "--home", home).returncode == 0
    assert root_of(home).keys("locks") == []


def test_two_machines_at_once_share_the_slides_of_one_bucket(home: Path, tmp_path: Path, slides):
    other = tmp_path / "other"
    shutil.copytree(home, other)
    both = [begin("run", *slides, "--home", folder) for folder in (home, other)]
    outputs = [process.communicate(timeout=900)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    for folder in (home, other):
        assert answer(folder, "SELECT count(*) AS n FROM embeddings") == [{"n": 2}]
        assert run_command("verify", "--home", folder).returncode == 0
    assert len(arrays(home)) == 2
    made = answer(home, "SELECT count(DISTINCT run_id) AS n FROM outcomes GROUP BY slide_id")
    assert made == [{"n": 1}] * 2, "each slide was made by one of them"
    assert root_of(home).keys("locks") == []


def test_a_server_that_goes_away_ends_the_run_with_its_reason_and_the_next_run_completes(
    home: Path, slides, s3: S3Server
):
    process = begin("run", *slides, "--home", home, *SMALL)
    wait_for(lambda: n_shards(home) >= 2, process)
    assert process.poll() is None, process.communicate()[0]
    s3.down()
    output = process.communicate(timeout=600)[0]
    assert process.returncode in (1, 2), output
    assert "store_unreachable" in output
    assert "Traceback" not in output
    assert "2 of 2 slides are done" not in output
    refused = run_command("status", "--home", home)
    assert refused.returncode == 2
    assert "store_unreachable" in refused.stderr
    s3.up()
    run = run_command("run", *slides, "--home", home, *SMALL)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run_command("verify", "--home", home).returncode == 0


def test_a_silence_shorter_than_the_patience_is_not_noticed(home: Path, slides, s3: S3Server):
    process = begin("run", *slides, "--home", home, *SMALL)
    wait_for(lambda: n_shards(home) >= 1, process)
    s3.down()
    time.sleep(8)
    s3.up()
    output = process.communicate(timeout=900)[0]
    assert process.returncode == 0, output


def test_a_bucket_that_cannot_be_had_is_refused_before_any_work(tmp_path: Path, slides, s3: S3Server):
    home = tmp_path / "home"
    os.environ["PATHASSETS_STORE"] = "s3://no-such-bucket/x"
    try:
        run = run_command("run", slides[0], "--home", home)
    finally:
        del os.environ["PATHASSETS_STORE"]
    assert run.returncode == 2
    assert "there is no bucket no-such-bucket" in run.stderr
