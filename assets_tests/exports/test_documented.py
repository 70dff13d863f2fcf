"""Every command of docs/exports.md, run as it stands there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from exports.conftest import Made
from typer.testing import CliRunner

from pathassets.cli.main import app

pytestmark = pytest.mark.e2e
TEXT = (Path(__file__).resolve().parents[2] / "docs" / "exports.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.S)
COMMANDS = [line.partition("  #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
# What needs Dagster's run takes longer.
SLOW = [line for line in COMMANDS if line.split()[1] in ("run", "publish")]


@pytest.fixture
def place(made: Made, tmp_path, monkeypatch):
    """A folder with a copy of the study and the files that the commands name; slides are all good."""
    shutil.copytree(made.home, tmp_path / "study")
    for name in ("slides", "outcomes"):
        shutil.rmtree(tmp_path / "study" / "store" / "tables" / name / f"slide_id={made.bad_id}")
    (tmp_path / "study" / "inbox" / "bad.svs").unlink()
    monkeypatch.chdir(tmp_path)
    for form in ("qupath", "trident", "slideflow"):
        assert _run(f"pathassets export {form} --to before --home study").exit_code == 0
    folder = Path("before") / made.part
    shutil.copy(Path("before") / f"{made.slide_id}.tissue.geojson", "corrected.geojson")
    for name, source in {
        "features/good.h5": f"{made.slide_id}.h5", "bags/good.pt": f"{made.slide_id}.pt",
        "bags/good.index.npz": f"{made.slide_id}.index.npz", "bags/bags_config.json": "bags_config.json",
    }.items():  # fmt: skip
        Path(name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / source, name)
    return tmp_path


def _run(line: str):
    program, *arguments = shlex.split(line)
    assert program == "pathassets"
    return CliRunner().invoke(app, arguments)


def test_there_are_commands_and_they_name_every_format():
    from pathassets.exports.run import FORMATS, TABLE_FORMATS

    exported = {line.split()[2] for line in COMMANDS if line.startswith("pathassets export")}
    assert exported == {*FORMATS, *TABLE_FORMATS}
    assert len(SLOW) == 2


@pytest.mark.e2e
def test_every_command_does_what_it_says(place):
    for line in COMMANDS:
        if line not in SLOW:
            run = _run(line)
            assert run.exit_code == 0, f"{line}: {run.stdout} {run.exception}"


@pytest.mark.e2e
def test_the_round_trip_with_runs_between(place):
    from support.commands import run_command

    first = next(number for number, line in enumerate(COMMANDS) if line.startswith("pathassets import"))
    for line in COMMANDS[first:]:
        if line in SLOW:
            run = run_command(*shlex.split(line)[1:])
            assert run.returncode == 0, f"{line}: {run.stdout} {run.stderr}"
        else:
            assert _run(line).exit_code == 0, line
