"""Where results came from, whether that still is so, and who is meant by a few letters."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import polars as pl
import pytest
from support.commands import fingerprint

from pathassets.config import CONFIG_FILE, Study
from pathassets.errors import ConfigError, Reason
from pathassets.steps.cohort_map import make_cohort_map
from pathassets.steps.cohort_provenance import cohort_accounts
from pathassets.steps.digests import find_digest
from pathassets.steps.naming import find_assets, find_slides, one_asset, one_slide, quoted
from pathassets.steps.nodes import ALGORITHM_VERSIONS, Step, chain
from pathassets.steps.outcomes import failure, record_outcome
from pathassets.steps.provenance import Account, Change, Looking, SlideBook, State
from pathassets.steps.publish import publish_results
from pathassets.steps.session import Session
from pathassets.steps.slide_map import make_slide_map
from pathassets.store import layout

RECIPE = "px224_mpp050/demo"
PART = "px224_mpp050__demo"


@pytest.fixture
def home(finished, tmp_path) -> Path:
    """A copy of the finished study whose settings may be changed."""
    home = tmp_path / "home"
    shutil.copytree(finished.study.home, home, ignore=shutil.ignore_patterns("inbox"))
    return home


def book(home: Path, slide_id: str) -> SlideBook:
    return SlideBook(Looking(Study(home)), slide_id)


def states(home: Path, slide_id: str) -> dict[str, State]:
    found = book(home, slide_id)
    return {asset: found.account(asset).state for asset in found.assets}


def change(home: Path, old: str, new: str) -> None:
    text = (home / CONFIG_FILE).read_text()
    assert old in text
    (home / CONFIG_FILE).write_text(text.replace(old, new))


def flat(account: Account) -> list[str]:
    return [account.asset, *(name for parent in account.upstream for name in flat(parent))]


def test_looking_changes_no_byte(finished, home):
    before = fingerprint(home)
    assert set(states(home, finished.slide_id).values()) == {State.CURRENT}
    assert fingerprint(home) == before


def test_an_account_tells_when_by_what_from_what_and_what_is_there(finished):
    account = book(finished.study.home, finished.slide_id).account(f"{RECIPE}/embeddings")
    row = finished.table("embeddings").row(0, named=True)
    outcome = finished.table("outcomes").filter(step="embeddings").row(0, named=True)
    assert (account.asset, account.slide_id, account.state) == (
        f"{RECIPE}/embeddings",
        finished.slide_id,
        State.CURRENT,
    )
    for name in ("digest", "result_digest", "code_version", "pathassets_version", "run_id", "seconds"):
        assert account.made[name] == outcome[name], name
    assert account.made["at"] == outcome["created_at"]
    assert account.made["algorithm_version"] == ALGORITHM_VERSIONS[Step.EMBEDDINGS]
    assert {"torch", "timm", "python", "openslide-python"} <= account.made["libraries"].keys()
    for name in ("n_tiles", "dim", "dtype", "precision", "precision_cosine", "batch_size", "device", "weights_sha256"):
        assert account.holds[name] == row[name], name
    assert account.holds["random_weights"] is False
    assert account.holds["card"]["name"] == "demo-vlm"
    assert account.options["encoder"] == "demo-vlm"
    assert account.inputs["weights_sha256"] == row["weights_sha256"]
    assert flat(account) == [f"{RECIPE}/embeddings", "px224_mpp050/tiles", "tissue", "slide"]
    assert account.upstream[0].options["tile_px"] == 224


def test_every_input_s_digest_is_the_result_of_what_is_upstream(finished):
    found = book(finished.study.home, finished.slide_id)
    for asset in found.assets:
        account = found.account(asset)
        for parent in account.upstream:
            name = parent.asset if parent.slide_id else "term_embeddings"
            assert account.inputs[name] == parent.made["result_digest"], asset


def test_a_changed_option_is_named_and_what_follows_waits(finished, home):
    change(home, 'name = "demo"', 'name = "demo"\ndomains = {resolution = 0.9}\nembeddings = {precision = "fp32"}')
    found = book(home, finished.slide_id)
    embeddings, domains = (found.account(f"{RECIPE}/{step}") for step in ("embeddings", "spatial_domains"))
    assert (embeddings.state, embeddings.changes) == (State.CHANGED, (Change("precision", "auto", "fp32"),))
    assert (domains.state, domains.changes) == (State.CHANGED, (Change("resolution", 0.2, 0.9),))
    vector = found.account(f"{RECIPE}/slide_vector")
    assert vector.state is State.UPSTREAM
    assert "embeddings" in vector.why
    assert found.account("px224_mpp050/tiles").state is State.CURRENT


def test_changed_terms_touch_text_similarity_alone(finished, home):
    change(home, '"xqzzvk"', '"blood"')
    found = book(home, finished.slide_id)
    text = found.account(f"{RECIPE}/text_similarity")
    assert text.state is State.CHANGED
    assert {c.name for c in text.changes} == {"terms", "term_embeddings"}
    assert text.upstream[-1].state is State.CHANGED
    assert {s for a, s in states(home, finished.slide_id).items() if "text" not in a} == {State.CURRENT}


def test_changed_weights_are_named(finished, home, tmp_path):
    from pathassets.encoders import demo_vlm

    other = tmp_path / "other.safetensors"
    shutil.copy(Path(demo_vlm.__file__).parent / "weights" / "demo_vlm.safetensors", other)
    with other.open("ab") as file:
        file.write(b" ")
    change(home, 'name = "demo"', f'name = "demo"\nweights = "{other}"')
    account = book(home, finished.slide_id).account(f"{RECIPE}/embeddings")
    assert account.state is State.CHANGED
    assert [c.name for c in account.changes] == ["weights_sha256"]
    other.unlink()
    account = book(home, finished.slide_id).account(f"{RECIPE}/embeddings")
    assert account.state is State.UNTOLD
    assert "weights" in account.why
    assert account.remedy


def test_a_recipe_that_is_no_longer_asked_for_still_has_its_account(finished, home):
    change(home, 'name = "demo"', 'name = "other"')
    found = states(home, finished.slide_id)
    assert found[f"{RECIPE}/embeddings"] is State.NOT_ASKED
    assert found["px224_mpp050/other/embeddings"] is State.MISSING
    account = book(home, finished.slide_id).account(f"{RECIPE}/embeddings")
    assert account.options["encoder"] == "demo-vlm"
    assert account.holds["n_tiles"] > 0
    assert flat(account) == [f"{RECIPE}/embeddings", "px224_mpp050/tiles", "tissue", "slide"]


def test_damage_is_told_with_its_remedy(finished, home):
    group = Path(Study(home).scan("embeddings").collect()["uri"][0])
    os.truncate(group / "X/c/0/0", 10)
    root = Session(Study(home)).root
    root.put(layout.table_key("domains", finished.slide_id, PART), b"no")
    root.delete(layout.tissue_labels_key(finished.slide_id))
    found = book(home, finished.slide_id)
    for asset, word in (
        (f"{RECIPE}/embeddings", "bytes"),
        (f"{RECIPE}/spatial_domains", "damaged"),
        ("tissue", "not there"),
    ):
        account = found.account(asset)
        assert account.state is State.DAMAGED, asset
        assert word in account.why
        assert "--repair" in account.remedy
    assert found.account(f"{RECIPE}/slide_vector").state is State.UPSTREAM


def test_a_failure_is_told_as_it_was_recorded(finished, home):
    tables = Session(Study(home)).tables
    rows = tables.read("outcomes", finished.slide_id, "part")
    failed = pl.col("step") == "tissue"
    tables.write("outcomes", rows.with_columns(
        status=pl.when(failed).then(pl.lit("failed")).otherwise("status"),
        reason=pl.when(failed).then(pl.lit("pixels_unreadable")).otherwise("reason"),
        message=pl.when(failed).then(pl.lit("a hole in the glass")).otherwise("message"),
        remedy=pl.when(failed).then(pl.lit("Scan again.")).otherwise("remedy"),
    ), slide_id=finished.slide_id)  # fmt: skip
    account = book(home, finished.slide_id).account("tissue")
    assert (account.state, account.why, account.remedy) == (
        State.FAILED, "a hole in the glass [pixels_unreadable]", "Scan again.",
    )  # fmt: skip


def test_a_result_of_a_version_that_recorded_less_says_so(finished, home):
    tables = Session(Study(home)).tables
    rows = tables.read("outcomes", finished.slide_id, PART)
    bare = rows.with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in ("options", "inputs", "libraries"))
    tables.write("outcomes", bare, slide_id=finished.slide_id, part=PART)
    assert set(states(home, finished.slide_id).values()) == {State.CURRENT}
    change(home, 'name = "demo"', 'name = "demo"\ndomains = {resolution = 0.9}')
    account = book(home, finished.slide_id).account(f"{RECIPE}/spatial_domains")
    assert account.state is State.CHANGED
    assert "not recorded" in account.changes[0].before


def test_assets_of_the_whole_study(finished, home):
    session = Looking(Study(home))
    accounts = cohort_accounts(session)
    assert set(accounts) == {f"{RECIPE}/{name}" for name in ("slide_map", "cohort_map", "term_embeddings")} | {
        "results"
    }
    assert accounts["results"]().state is State.MISSING
    assert accounts[f"{RECIPE}/slide_map"]().state is State.MISSING
    make_slide_map(Session(session.study), session.study.recipes[0])
    assert accounts[f"{RECIPE}/cohort_map"]().state is State.MISSING
    made = make_cohort_map(Session(session.study), session.study.recipes[0])
    publish_results(Session(session.study))
    account = accounts[f"{RECIPE}/slide_map"]()
    assert account.state is State.CURRENT
    assert account.inputs == {finished.slide_id: finished.table("embeddings")["digest"][0]}
    assert account.made["libraries"]["numpy"]
    tiles = accounts[f"{RECIPE}/cohort_map"]()
    assert (tiles.state, tiles.holds["tiles"]) == (State.CURRENT, made.n_tiles)
    assert tiles.inputs == account.inputs
    terms = accounts[f"{RECIPE}/term_embeddings"]()
    assert (terms.state, terms.options["terms"]) == (State.CURRENT, ["adipose", "muscularis", "xqzzvk"])
    assert accounts["results"]().state is State.CURRENT
    assert accounts["results"]().holds["rows"]["slides"] == 1


def test_a_map_tells_which_slides_have_changed_since(finished, home):
    session = Looking(Study(home))
    make_slide_map(Session(session.study), session.study.recipes[0])
    make_cohort_map(Session(session.study), session.study.recipes[0])
    tables, part = session.tables, PART
    for table in ("embeddings", "slide_vectors"):
        column = "digest" if table == "embeddings" else "embeddings_digest"
        frame = tables.read(table, finished.slide_id, part).with_columns(pl.lit("f" * 16).alias(column))
        tables.write(table, frame, slide_id=finished.slide_id, part=part)
    before = finished.table("embeddings")["digest"][0]
    for name in ("slide_map", "cohort_map"):
        account = cohort_accounts(session)[f"{RECIPE}/{name}"]()
        assert (account.state, account.changes) == (State.CHANGED, (Change(finished.slide_id, before, "f" * 16),))


def test_a_slide_is_found_by_id_beginning_file_and_path(finished, monkeypatch):
    session, slide_id = Looking(finished.study), finished.slide_id
    for text in (slide_id, slide_id[:4], finished.slide.name, finished.slide.stem, str(finished.slide)):
        assert find_slides(session, text) == [slide_id], text
    monkeypatch.chdir(finished.slide.parent)
    assert one_slide(session, f"./{finished.slide.name}") == slide_id
    assert find_slides(session, "") == []


def test_two_slides_with_one_beginning_have_to_be_told_apart(finished, home):
    from pathassets.steps.register import register

    other = home / "synthetic_two.tiff"
    shutil.copy(finished.slide, other)
    with other.open("ab") as file:
        file.write(b"\0")
    study = Study(home)
    second = register(Session(study), [other])[0].slide_id
    with pytest.raises(ConfigError, match="may be any of") as caught:
        one_slide(Looking(study), "synth")
    assert second in str(caught.value)
    assert one_slide(Looking(study), second) == second


@pytest.mark.parametrize(
    "text",
    ["../../etc/passwd", "a\nb", "x" * 5000, "'; DROP TABLE slides; --", "\0", "", "tables", "%s", "[a-z]*", "é\u202e"],
)
def test_hostile_names_are_refused_in_one_short_line(finished, text):
    session = Looking(finished.study)
    for refuse in (one_slide, lambda s, name: one_asset(["slide", "px/tiles"], name)):
        with pytest.raises(ConfigError) as caught:
            refuse(session, text)
        assert len(caught.value.message) < 200
        assert "\n" not in caught.value.message
        assert caught.value.message.isascii()
    assert find_digest(session, "zz") == []
    assert len(quoted(text)) < 400


def test_an_asset_is_found_by_its_last_parts_and_the_nearest_is_suggested():
    keys = ["slide", "a/tiles", "a/x/embeddings", "a/y/embeddings"]
    assert find_assets(keys, "tiles") == ["a/tiles"]
    assert one_asset(keys, "x/embeddings") == "a/x/embeddings"
    with pytest.raises(ConfigError, match="may be any of"):
        one_asset(keys, "embeddings")
    with pytest.raises(ConfigError, match="Did you mean embeddings"):
        one_asset(keys, "embedings")


def test_a_digest_says_what_it_is_wherever_it_stands(finished, home):
    session = Looking(Study(home))
    group = finished.table("embeddings")["digest"][0]
    meanings = find_digest(session, group[:8])
    assert {(m.slide_id, m.asset, m.key) for m in meanings} == {
        (finished.slide_id, f"{RECIPE}/embeddings", None),
        (finished.slide_id, None, f"arrays/{finished.slide_id}/{group}/embeddings.zarr"),
    }
    for node in chain(session.study):
        outcome = finished.table("outcomes").filter(step=str(node.step)).row(0, named=True)
        assert "/".join(node.key) in {m.asset for m in find_digest(session, outcome["digest"])}
        assert find_digest(session, outcome["code_version"])
    sha = finished.table("slides")["content_sha256"][0]
    assert [m.what for m in find_digest(session, sha[:12])] == ["content of the slide's file"]
    session.root.put(layout.table_key("outcomes", finished.slide_id, PART), b"damaged")
    assert [m.key for m in find_digest(session, group)] == [f"arrays/{finished.slide_id}/{group}/embeddings.zarr"]


def test_below_a_failed_step_the_failure_is_named_and_its_remedy(finished, home):
    session = Session(Study(home))
    node = chain(session.study)[0]
    for table in ("tissues", "tiles", "embeddings", "outcomes"):
        session.tables.delete(table, finished.slide_id)
    record_outcome(session, node, failure(finished.slide_id, node, Reason.MPP_MISSING, "no resolution", "tell it"))
    found = book(home, finished.slide_id).account(f"{RECIPE}/embeddings")
    assert found.state is State.MISSING
    assert found.why == "was never made, because slide failed: no resolution [mpp_missing]"
    assert found.remedy == "tell it"
