"""A study explained, hurt, repaired, copied, cleaned and made to forget, all through the command line."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet
import pytest
from support.commands import PATHASSETS, answer, fingerprint

from pathassets import Study

pytestmark = pytest.mark.e2e
README = Path(__file__).resolve().parents[2] / "README.md"
COMMANDS = re.findall(
    r"^(pathassets (?:explain|verify|adopt|gc|forget) .*?)\s+# ", README.read_text(encoding="utf-8"), re.M
)
PART = "px224_mpp050__demo_vlm"
HOSTILE = ["../..", "../../etc/passwd", "x" * 5000, "a\nb", "'; DROP TABLE slides; --", "", "--", "*", "\u202ename"]


@pytest.fixture
def home(tmp_path, study) -> Path:
    """A copy of the finished study, as somebody would move it to another machine."""
    shutil.copytree(study, tmp_path / "home", copy_function=shutil.copy2)
    return tmp_path / "home"


@pytest.fixture
def told(pathassets) -> Callable[..., dict]:
    """A command's JSON, with its exit code as `code`."""

    def run(*arguments: object) -> dict:
        done = pathassets(*arguments, "--json")
        assert done.stdout.startswith("{"), done.stdout + done.stderr
        return {**json.loads(done.stdout), "code": done.returncode}

    return run


def slide_ids(home: Path) -> list[str]:
    return sorted(Study(home).scan("slides").collect()["slide_id"])


def group(home: Path, slide_id: str) -> Path:
    return Path(Study(home).scan("embeddings").filter(slide_id=slide_id).collect()["uri"][0])


def rows(home: Path) -> dict[str, list]:
    """Everything that SQL shows."""
    with duckdb.connect(str(home / "results.duckdb"), read_only=True) as con:
        names = [
            name
            for (name,) in con.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main'").fetchall()
        ]
        return {name: sorted(con.execute(f"SELECT * FROM main.{name}").fetchall(), key=repr) for name in names}


def age(folder: Path, days: float) -> None:
    moment = time.time() - days * 86_400
    for item in (folder, *folder.rglob("*")):
        os.utime(item, (moment, moment))


def test_sql_is_rebuilt_from_the_store_alone(home, pathassets):
    before = rows(home)
    shutil.rmtree(home / ".dagster")
    (home / "results.duckdb").unlink()
    assert pathassets("publish", "--home", home).returncode == 0
    assert rows(home) == before
    assert (home / ".dagster" / "dagster.yaml").exists()


def test_a_copied_study_is_adopted_and_nothing_is_made_again(home, pathassets, told):
    shutil.rmtree(home / ".dagster")
    lost = told("verify", "--home", home)
    assert (lost["code"], [f["fault"] for f in lost["findings"] if not f["harmless"]]) == (1, ["event_log"])
    before = fingerprint(home / "store" / "arrays")
    planned = told("adopt", "--dry-run", "--home", home)
    assert not (home / ".dagster").exists()
    done = told("adopt", "--home", home)
    assert (done["code"], done["n_events"], done["skipped"]) == (0, planned["n_events"], [])
    assert done["n_events"] == 2 * 7 + 3
    assert told("adopt", "--home", home)["n_events"] == 0
    assert told("verify", "--home", home)["findings"] == []
    assert told("run", "--home", home)["worked_on"] == 0
    assert fingerprint(home / "store" / "arrays") == before
    assert stale(home) == {}


def stale(home: Path) -> dict[str, str]:
    """Whatever Dagster does not call fresh; reports are files for people, which no store has."""
    from dagster._core.definitions.data_version import CachingStaleStatusResolver
    from dagster._core.loader import LoadingContextForTest

    from pathassets.definitions import build_defs
    from pathassets.defs.adopt import looking_at

    study = Study(home)
    graph = build_defs(study).resolve_asset_graph()
    with looking_at(study) as instance:
        assert instance is not None
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        found = {
            f"{key.to_user_string()} of {slide_id}": resolver.get_status(key, slide_id).name
            for key in graph.get_all_asset_keys()
            if key.path != ["report"]
            for slide_id in (slide_ids(home) if graph.get(key).is_partitioned else [None])
        }
    return {name: status for name, status in found.items() if status != "FRESH"}


def test_dagster_calls_everything_fresh_after_a_plain_run(tmp_path, slides, pathassets):
    """Also the terms, which text similarity makes on its way."""
    home = tmp_path / "home"
    assert pathassets("run", slides[0], "--home", home).returncode == 0
    assert stale(home) == {f"px224_mpp050/demo_vlm/{name} of None": "MISSING" for name in ("slide_map", "cohort_map")}


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path, where: int | None = None) -> None:
    """Changes a byte, in the middle if nobody says where."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if where is None else where] ^= 0x55
    path.write_bytes(data)


def flip_page(path: Path) -> None:
    """Changes a byte of the largest column, within what its page's checksum covers: a footer has none."""
    group = pyarrow.parquet.read_metadata(path).row_group(0)
    chunk = max((group.column(i) for i in range(group.num_columns)), key=lambda column: column.total_compressed_size)
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    flip(path, begin + chunk.total_compressed_size - 2)


WOUNDS: dict[str, Callable[[Path, str], object]] = {
    "shard cut": lambda home, slide: cut(group(home, slide) / "X/c/0/0"),
    "obs deleted": lambda home, slide: shutil.rmtree(group(home, slide) / "obs"),
    "parquet deleted": lambda home, slide: (
        home / f"store/tables/tiles/slide_id={slide}/px224_mpp050.parquet"
    ).unlink(),
    "parquet garbled": lambda home, slide: flip_page(
        home / f"store/tables/slide_vectors/slide_id={slide}/{PART}.parquet"
    ),
    "row of the slide deleted": lambda home, slide: (
        home / f"store/tables/slides/slide_id={slide}/part.parquet"
    ).unlink(),
    "mask deleted": lambda home, slide: (home / f"store/masks/{slide}/labels.npz").unlink(),
}


@pytest.mark.parametrize("wound", WOUNDS)
def test_damage_is_found_repaired_and_made_again(home, told, wound):
    slide_id, before = slide_ids(home)[0], rows(home)
    WOUNDS[wound](home, slide_id)
    sick = told("verify", "--home", home)
    assert sick["code"] == 1
    assert all(finding["message"] and finding["remedy"] for finding in sick["findings"])
    assert told("explain", slide_id, "--home", home)["code"] == 1
    mended = told("verify", "--repair", "--home", home)
    assert mended["code"] == 0
    assert mended["repairs"]
    assert told("run", "--home", home)["code"] == 0
    assert told("verify", "--deep", "--home", home)["findings"] == []
    after = rows(home)
    same = ("slides", "tissues", "tiles", "slide_vectors", "domains", "text_scores")
    assert {name: [row[:3] for row in after[name]] for name in same} == {
        name: [row[:3] for row in before[name]] for name in same
    }


def test_a_flipped_bit_in_an_array_takes_a_deep_look(home, told):
    flip(group(home, slide_ids(home)[0]) / "X/c/0/0")
    assert told("verify", "--home", home)["code"] == 0
    deep = told("verify", "--deep", "--repair", "--home", home)
    assert [finding["fault"] for finding in deep["findings"] if not finding["harmless"]] == ["torn"]
    assert told("run", "--home", home)["code"] == 0
    assert told("verify", "--deep", "--home", home)["findings"] == []


def test_foreign_files_stop_nothing_and_stay(home, pathassets, told):
    strangers = [home / "store" / name for name in ("tables/x.parquet", "tables/tiles/.DS_Store", "arrays/notes.txt",
                                                     "tables/tiles/slide_id=strange id/part.parquet")]  # fmt: skip
    for path in strangers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
    found = told("verify", "--repair", "--home", home)
    assert found["code"] == 0
    assert {finding["fault"] for finding in found["findings"]} == {
        "foreign",
        "old_snapshot",
    }  # a copied one counts as old
    assert told("run", "--home", home)["code"] == 0
    assert pathassets("publish", "--home", home).returncode == 0
    assert all(path.exists() for path in strangers)


def test_what_was_superseded_goes_by_age(home, pathassets, told):
    old = group(home, slide_ids(home)[0])
    config = home / "pathassets.toml"
    config.write_text(config.read_text().replace("# dtype =", 'dtype = "float32" #'))
    run = pathassets("run", "--home", home, "--select", "key:*/embeddings")
    assert run.returncode == 0, run.stdout + run.stderr
    assert told("gc", "--home", home)["found"] == []
    age(home / "store" / "arrays", 8)
    plan = told("gc", "--dry-run", "--home", home)
    assert {item["key"].split("/")[1] for item in plan["found"]} == set(slide_ids(home))
    assert old.exists()
    done = told("gc", "--home", home)
    assert done["freed_bytes"] == plan["freed_bytes"] > 0
    assert not old.exists()
    assert told("gc", "--home", home)["freed_bytes"] == 0
    assert [f for f in told("verify", "--deep", "--home", home)["findings"] if not f["harmless"]] == []


def test_garbage_is_collected_beside_a_run(home, pathassets, told):
    """Everything that the run is at, or comes back to, stays."""
    config = home / "pathassets.toml"
    before = config.read_text()
    changed = before.replace("# dtype =", 'dtype = "float32" #')
    for text in (changed, before):  # the second run finds old groups again, which nobody names at that moment
        config.write_text(text)
        run = subprocess.Popen([*PATHASSETS, "run", "--home", str(home), "--select", "key:*/embeddings"],
                               stdout=subprocess.DEVNULL, env={**os.environ, "PATHASSETS_DEVICE": "cpu"})  # fmt: skip
        while run.poll() is None:
            assert pathassets("gc", "--older-than", "0s", "--home", home).returncode == 0
        assert run.returncode == 0
        assert [f for f in told("verify", "--deep", "--home", home)["findings"] if not f["harmless"]] == []
    assert answer(home, "SELECT count(*) AS n FROM embeddings") == [{"n": 2}]


def test_a_slide_is_forgotten_and_its_file_stays(home, slides, pathassets, told):
    first, second = slide_ids(home)
    before = fingerprint(home)
    plan = told("forget", first, "--home", home)
    assert (plan["code"], plan["forgotten"]) == (0, False)
    assert fingerprint(home) == before
    assert told("forget", first, "--yes", "--home", home)["removed"] == plan["removed"]
    assert slides[0].exists()
    assert slide_ids(home) == [second]
    assert answer(home, "SELECT DISTINCT slide_id FROM tiles") == [{"slide_id": second}]
    assert not list((home / "store").rglob(f"*{first}*"))
    assert [f for f in told("verify", "--home", home)["findings"] if not f["harmless"]] == []
    assert told("run", "--home", home)["slides"] == 1
    assert pathassets("forget", first, "--yes", "--home", home).returncode == 2


@pytest.mark.parametrize("command", [("explain",), ("explain", "synthetic_1"), ("forget",), ("gc", "--older-than")])
def test_hostile_arguments_are_refused_and_change_nothing(home, pathassets, command):
    before = fingerprint(home)
    for text in HOSTILE:
        refused = pathassets(*command, "--home", home, "--", text) if command[0] != "gc" else pathassets(
            "gc", f"--older-than={text}", "--home", home)  # fmt: skip
        assert refused.returncode == 2, (command, text, refused.stdout)
        assert len(refused.stderr) < 3000
        assert "internal" not in refused.stderr
    assert fingerprint(home) == before


def test_explain_says_what_the_readme_promises(study, pathassets, told):
    slide_id = slide_ids(study)[0]
    file = Study(study).scan("slides").filter(slide_id=slide_id).collect()["path"][0]
    account = told("explain", file, "embeddings", "--home", study)
    assert account["code"] == 0
    assert account["state"] == "current"
    assert account["file"]["path"] == file
    assert account["holds"]["card"]["name"] == "demo-vlm"
    assert account["upstream"][0]["upstream"][0]["upstream"][0]["asset"] == "slide"
    assert account["holds"]["device"] == "cpu"
    for below in ("slide_vector", "text_similarity"):
        text = pathassets("explain", slide_id, below, "--home", study).stdout
        assert f"weights_sha256 = {account['holds']['weights_sha256']}" in text
        assert "device = cpu" in text
    text = pathassets("explain", slide_id, "spatial_domains", "--home", study).stdout
    for word in (
        account["holds"]["weights_sha256"],
        "precision = ",
        slide_id,
        "resolution = 0.2",
        "scanpy",
        "by run",
        "pathassets_version",
        "made from",
        "└─ px224_mpp050/tiles",
        file,
    ):
        assert word in text
    digest = account["made"]["result_digest"]
    assert "embeddings" in pathassets("explain", digest[:10], "--home", study).stdout
    assert told("explain", digest[:10], "--home", study)["asset"] == "px224_mpp050/demo_vlm/embeddings"
    for name in ("slide_map", "cohort_map", "term_embeddings", "results"):
        assert told("explain", name, "--home", study)["state"] == "current"
    assert "Did you mean results" in pathassets("explain", "reslts", "--home", study).stderr
    assert "may be any of" in pathassets("explain", "synthetic", "--home", study).stderr
    assert "each slide" in pathassets("explain", "tissue", "--home", study).stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_s_commands_work(home, pathassets, command):
    words = shlex.split(command)[1:]
    assert words[-2:] == ["--home", "study"]
    done = pathassets(*words[:-1], home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout


def test_the_readme_names_the_commands():
    assert {shlex.split(command)[1] for command in COMMANDS} == {"explain", "verify", "adopt", "gc", "forget"}


def test_an_old_study_is_told_to_be_older(home, told):
    """Outcomes as version 0.1 wrote them: current, but nobody recorded from which options."""
    slide_id = slide_ids(home)[0]
    path = home / f"store/tables/outcomes/slide_id={slide_id}/{PART}.parquet"
    new = ("options", "inputs", "libraries", "seconds", "code_version", "pathassets_version")
    pl.read_parquet(path).drop(new).write_parquet(path)
    account = told("explain", slide_id, "embeddings", "--home", home)
    assert (account["code"], account["state"], account["options"]) == (0, "current", {})
    assert told("run", "--home", home)["worked_on"] == 0
    shutil.rmtree(home / ".dagster")
    assert told("adopt", "--home", home)["skipped"] == []
