"""Bad input, full disks, killed processes: the others are done, nothing is lost, nothing half-written is readable."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import PATHASSETS, answer, fingerprint, run_command

pytestmark = pytest.mark.e2e


def hostile_inbox(folder: Path, good: Path) -> dict[str, str]:
    """Files that cannot be used, with the reason that each deserves."""
    folder.mkdir()
    (folder / "empty.svs").write_bytes(b"")
    (folder / "text.svs").write_text("not a slide\n" * 100)
    (folder / "directory.svs").mkdir()
    data = good.read_bytes()
    (folder / "truncated.tiff").write_bytes(data[: len(data) // 10])
    shutil.copy(good, folder / "we ird 'na\"me; DROP TABLE é.tiff")
    return {"empty.svs": "file_empty", "text.svs": "not_a_slide", "directory.svs": "not_a_slide"}


def test_bad_files_become_outcomes_and_the_good_ones_are_done(tmp_path, slides, pathassets):
    folder, home = tmp_path / "in", tmp_path / "home"
    expected = hostile_inbox(folder, slides[0])
    run = pathassets("run", folder, slides[1], "--home", home)
    assert run.returncode == 1, run.stdout + run.stderr
    rows = answer(
        home, "SELECT s.path, o.reason, o.remedy FROM outcomes o JOIN slides s USING (slide_id) WHERE status = 'failed'"
    )
    failed = {Path(row["path"]).name: row for row in rows}
    assert len(failed) == len(rows), "one row for each bad slide"
    assert set(failed) == {*expected, "truncated.tiff"}
    assert {name: failed[name]["reason"] for name in expected} == expected
    assert all(row["remedy"] for row in rows)
    assert answer(home, "SELECT count(*) AS n FROM embeddings") == [{"n": 2}]
    before = fingerprint(home)
    again = pathassets("run", folder, slides[1], "--home", home)
    assert again.returncode == 1
    assert fingerprint(home) == before


def test_real_and_odd_slides(tmp_path, data_dir, pathassets):
    home = tmp_path / "home"
    run = pathassets("run", data_dir / "odd-slides", data_dir / "slides" / "CMU-1-Small-Region.svs",
                     data_dir / "slides" / "TCGA-CR-7395-01A-01-TS1.svs", "--home", home)  # fmt: skip
    assert run.returncode == 1, run.stdout + run.stderr
    rows = answer(
        home, "SELECT s.path, o.reason FROM outcomes o JOIN slides s USING (slide_id) WHERE status = 'failed'"
    )
    reasons = {Path(row["path"]).name: row["reason"] for row in rows}
    assert "internal" not in reasons.values()
    assert reasons["TCGA-CR-7395-01A-01-TS1.svs"] == "mpp_missing"
    assert reasons["openslide-python_boxes.tiff"] == "mpp_implausible"
    assert reasons["wsic_CMU-1-Small-Region.jpeg.tiff"] == "mpp_implausible"
    assert reasons["slaid_patch.tif"] == "mpp_missing"
    assert "CMU-1-Small-Region.svs" not in reasons
    tcga = data_dir / "slides" / "TCGA-CR-7395-01A-01-TS1.svs"
    (home / "slides.csv").write_text(f"path,mpp\n{tcga},0.5\n")
    assert pathassets("run", tcga, "--home", home).returncode == 0
    found = answer(
        home, "SELECT mpp_origin, n_tiles FROM slides JOIN embeddings USING (slide_id) WHERE path LIKE '%TCGA%'"
    )
    assert found[0]["mpp_origin"] == "manifest"
    assert found[0]["n_tiles"] > 50


def test_a_file_deleted_between_registration_and_run(tmp_path, slides, pathassets):
    home, gone = tmp_path / "home", tmp_path / "gone.tiff"
    shutil.copy(slides[0], gone)
    from pathassets.config import Study, init_home
    from pathassets.steps.register import register
    from pathassets.steps.session import Session

    init_home(home)
    register(Session(Study(home)), [gone, slides[1]])
    gone.unlink()
    run = pathassets("run", "--home", home)
    assert run.returncode == 1
    assert answer(home, "SELECT reason FROM outcomes WHERE status = 'failed'") == [{"reason": "file_missing"}]
    assert answer(home, "SELECT count(*) AS n FROM embeddings") == [{"n": 1}]


def test_a_read_only_store_is_refused_before_any_work(tmp_path, slides):
    home = tmp_path / "home"
    home.mkdir()
    if not _mount(home, "size=64m"):
        pytest.skip("tmpfs cannot be mounted here")
    try:
        assert run_command("init", home).returncode == 0
        (home / "store").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        run = run_command("run", slides[0], "--home", home)
        assert run.returncode == 2
        assert "store_read_only" in run.stderr
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)


def test_a_full_disk_is_said_and_the_next_run_with_space_completes(tmp_path, slides):
    home = tmp_path / "home"
    home.mkdir()
    if not _mount(home, "size=3m"):
        pytest.skip("tmpfs cannot be mounted here")
    try:
        run = run_command("run", *slides, "--home", home)
        assert run.returncode in (1, 2), run.stdout + run.stderr
        assert "disk_full" in run.stdout + run.stderr
        subprocess.run(["mount", "-o", "remount,size=400m", str(home)], check=True)
        run = run_command("run", *slides, "--home", home)
        assert run.returncode == 0, run.stdout + run.stderr
        assert answer(home, "SELECT count(*) AS n FROM embeddings") == [{"n": 2}]
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)


def test_killed_at_random_moments_a_study_still_becomes_the_same(tmp_path, study, slides, pathassets):
    home = tmp_path / "home"
    moments = random.Random(7)
    for _ in range(6):
        process = subprocess.Popen([*PATHASSETS, "run", *map(str, slides), "--home", str(home)], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, env={**os.environ, "PATHASSETS_DEVICE": "cpu"})  # fmt: skip
        time.sleep(moments.uniform(2.0, 14.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
    run = pathassets("run", *slides, "--home", home)
    assert run.returncode == 0, run.stdout + run.stderr
    same = "SELECT slide_id, digest, n_tiles FROM embeddings ORDER BY slide_id"
    assert answer(home, same) == answer(study, same)
    assert _shards(home) == _shards(study)
    assert pathassets("verify", "--home", home).returncode == 0


def test_two_runs_at_once_and_a_shell_that_stays_open(tmp_path, slides, pathassets):
    import duckdb

    home = tmp_path / "home"
    assert pathassets("run", slides[0], "--home", home).returncode == 0
    shell = duckdb.connect(str(home / "results.duckdb"), read_only=True)
    command = [*PATHASSETS, "run", *map(str, slides), "--home", str(home)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert shell.execute("SELECT count(*) FROM embeddings").fetchone() == (1,)
    shell.close()
    assert answer(home, "SELECT count(*) AS n FROM embeddings") == [{"n": 2}]


def _mount(folder: Path, options: str) -> bool:
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _shards(home: Path) -> dict[str, str]:
    shards = (home / "store" / "arrays").rglob("embeddings.zarr/X/c/*/0")
    return {str(path.relative_to(home)): fingerprint_of(path) for path in sorted(shards)}


def fingerprint_of(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_ctrl_c_stops_at_once_and_claims_nothing(tmp_path, slides, pathassets):
    home = tmp_path / "home"
    command = [*PATHASSETS, "run", *map(str, slides), "--home", str(home), "--tile-px", "24"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    while process.poll() is None and not list((home / "store").rglob("X/c/*/0")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 130, output
    assert "interrupted" in output
    assert "are done" not in output
    assert "Traceback" not in output
    assert pathassets("run", *slides, "--home", home, "--tile-px", "24").returncode == 0


def test_what_cannot_start_changes_nothing(tmp_path, slides, pathassets):
    home = tmp_path / "home"
    assert pathassets("run", tmp_path / "nowhere.svs", "--home", home).returncode == 2
    assert not home.exists()
    assert pathassets("run", slides[0], "--home", home).returncode == 0
    before = fingerprint(home)
    (tmp_path / "bad.safetensors").write_text("hello")
    for arguments in (
        ("--encoder", "unii"),
        ("--encoder", "demo-vlm", "--weights", tmp_path / "bad.safetensors"),
        ("--weights", tmp_path / "bad.safetensors"),
        ("--select", "key:nothing*"),
        ("--device", "cuda:7"),
    ):
        assert pathassets("run", slides[0], "--home", home, *arguments).returncode == 2, arguments
        assert fingerprint(home) == before, arguments
    assert pathassets("status", "--home", slides[0]).returncode == 2


def test_an_asset_whose_upstream_was_never_made_is_not_called_done(tmp_path, slides, pathassets):
    run = pathassets("run", slides[0], "--home", tmp_path / "home", "--select", "key:*/embeddings")
    assert run.returncode == 1
    assert "0 of 1 slides are done" in run.stdout
    assert "select it too" in run.stdout
