"""`pathassets export` as a user sees it: what is left out is named, nothing else is held up, ids stay in the folder."""

from __future__ import annotations

import json
import shutil

import pytest
from exports.conftest import Made
from typer.testing import CliRunner

from pathassets.cli.main import app
from pathassets.config import Study
from pathassets.errors import ConfigError, Reason, StoreError
from pathassets.exports.run import FORMATS, export_slides
from pathassets.store import layout


def _run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_slide_without_results_is_named_and_the_others_are_exported(made: Made, tmp_path):
    run = _run("export", "trident", "--to", tmp_path / "out", "--home", made.home)
    assert run.exit_code == 1
    assert made.bad_id in run.stdout
    assert _files(tmp_path / "out") == [f"{made.part}/{made.slide_id}.h5"]


def test_a_program_reads_what_was_written_and_left_out(made: Made, tmp_path):
    told = json.loads(_run("export", "qupath", "--to", tmp_path / "out", "--home", made.home, "--json").stdout)
    assert _files(tmp_path / "out") == sorted(told["written"])
    assert {item["slide_id"] for item in told["left_out"]} == {made.bad_id}
    assert all(item["message"] and item["reason"] for item in told["left_out"])


@pytest.mark.parametrize("form", [*FORMATS, "parquet", "csv"])
def test_every_format_can_be_taken_twice(made: Made, tmp_path, form):
    command = ("export", form, "--slide", "good", "--to", tmp_path / "out", "--home", made.home, "--json")
    first, again = _run(*command), _run(*command)
    assert (first.exit_code, again.exit_code) == (0, 0), first.stdout
    first, again = json.loads(first.stdout), json.loads(again.stdout)
    assert first["written"] == again["unchanged"] != []
    assert (again["written"], again["left_out"]) == ([], [])


def test_what_is_there_and_says_something_else_is_kept(made: Made, tmp_path):
    path = tmp_path / made.part / f"{made.slide_id}.h5"
    path.parent.mkdir()
    path.write_text("mine")
    command = ("export", "trident", "--slide", made.slide_id, "--to", tmp_path, "--home", made.home)
    run = _run(*command)
    assert run.exit_code == 1
    assert "--force" in run.stdout
    assert path.read_text() == "mine"
    assert _run(*command, "--force").exit_code == 0
    assert path.read_bytes().startswith(b"\x89HDF")


def _refusal(*arguments: object) -> ConfigError:
    error = _run(*arguments).exception
    assert isinstance(error, ConfigError), error
    return error


def test_what_cannot_be_meant_is_refused_before_anything_is_written(made: Made, tmp_path):
    home, out = made.home, tmp_path / "out"
    refused = _refusal("export", "xlsx", "--to", out, "--home", home)
    assert "anndata" in refused.remedy
    assert "there is no recipe" in str(_refusal("export", "trident", "--recipe", "x", "--to", out, "--home", home))
    assert "no slide" in str(_refusal("export", "trident", "--slide", "x", "--to", out, "--home", home))
    assert "--table" in str(_refusal("export", "trident", "--table", "tiles", "--to", out, "--home", home))
    assert "belongs to the study" in str(_refusal("export", "trident", "--to", home / "store" / "x", "--home", home))
    (tmp_path / "file").touch()
    assert "not a folder" in str(_refusal("export", "trident", "--to", tmp_path / "file", "--home", home))
    assert not out.exists()


def test_a_recipe_is_named_in_full_or_by_its_name(made: Made, tmp_path):
    for number, name in enumerate((made.recipe.key, made.recipe.name)):
        out = tmp_path / str(number)
        run = _run("export", "trident", "--recipe", name, "--slide", "good", "--to", out, "--home", made.home)
        assert run.exit_code == 0
        assert len(_files(out)) == 1


@pytest.mark.parametrize("slide_id", ["../../evil", "/etc/evil", "a/../../evil", "..", "evil\\..\\x"])
def test_no_id_leads_out_of_the_folder(made: Made, target, tmp_path, slide_id):
    from dataclasses import replace

    hostile = replace(made.features, slide={**made.features.slide, "slide_id": slide_id})
    before = _files(tmp_path)
    for form in FORMATS.values():
        if form.features is not None:
            with pytest.raises(ValueError):
                form.features(made.session, hostile, target)
    assert _files(tmp_path) == before


def test_a_full_disk_ends_the_export(made: Made, target):
    def full(session, slide_id, target):
        raise StoreError("full", reason=Reason.DISK_FULL)

    from pathassets.exports.run import Format

    with pytest.raises(StoreError):
        export_slides(made.session, Format("x", slide=full), [made.slide_id], [], target)


def test_results_of_older_embeddings_are_left_out(made: Made, tmp_path):
    home = tmp_path / "copy"
    shutil.copytree(made.home, home)
    from pathassets.exports.gather import gather
    from pathassets.steps.session import Session

    session = Session(Study(home))
    for table in ("domains", "text_scores"):
        rows = session.tables.read(table, made.slide_id, made.part)
        import polars as pl

        session.tables.write(
            table, rows.with_columns(embeddings_digest=pl.lit("0" * 16)), slide_id=made.slide_id, part=made.part
        )
    found = gather(session, made.slide_id, made.recipe)
    assert (dict(found.domains), found.terms) == ({}, ())
    assert len(found.x) == len(made.features.x)


def test_a_damaged_group_is_told_and_leaves_no_file(made: Made, tmp_path):
    home = tmp_path / "copy"
    shutil.copytree(made.home, home)
    group = home / "store" / layout.group_key(made.slide_id, made.features.row["digest"], "embeddings")
    for shard in (group / "X" / "c").rglob("0"):
        if shard.is_file():
            shard.write_bytes(b"torn")
    run = _run("export", "anndata", "--slide", "good", "--to", tmp_path / "out", "--home", home)
    assert run.exit_code == 1
    assert "left out" in run.stdout
    assert not (tmp_path / "out").exists() or _files(tmp_path / "out") == []
