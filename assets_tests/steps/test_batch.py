"""A batch of slides on the machine that the study describes."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from pathassets.config import CONFIG_FILE, Study
from pathassets.slides.synthetic import synthetic_slide
from pathassets.steps import batch
from pathassets.steps.batch import run_batch
from pathassets.steps.nodes import Step, chain
from pathassets.steps.register import register
from pathassets.steps.session import Session
from pathassets.store.arrays import read_embeddings

CONFIG = """
[study]
device = "cpu"
{study}
[tilings.small]
tile_px = 160
mpp = 1.0
[embeddings]
{embeddings}
[[recipes]]
encoder = "timm/test_vit"
name = "tiny"
random_weights = true
tiling = "small"
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    for seed in (1, 2, 3):
        synthetic_slide(folder / f"s{seed}.tiff", seed=seed, width_px=1536, height_px=1280)
    return folder


@pytest.fixture
def run(tmp_path, files):
    """Runs the slides up to their embeddings in a study with these settings; gives the session and the results."""

    def run_study(name, study="", embeddings="", **overrides):
        home = tmp_path / name
        shutil.copytree(files, home / "inbox")
        (home / CONFIG_FILE).write_text(CONFIG.format(study=study, embeddings=embeddings))
        session, results = Session(Study(home, **overrides)), []
        ids = [entry.slide_id for entry in register(session, sorted((home / "inbox").iterdir()))]
        nodes = [node for node in chain(session.study) if node.step in list(Step)[:5]]
        run_batch(session, ids, nodes, results.append)
        return session, results

    return run_study


@pytest.mark.e2e
def test_two_devices_make_the_same_as_one(run):
    rows, values = {}, {}
    for name, device in {"one": "cpu", "two": "cpu,cpu"}.items():
        session, results = run(name, device=device)
        assert {result.outcome.status for result in results} == {"ok"}
        assert len(results) == 15
        rows[name] = session.tables.scan("embeddings").sort("slide_id").collect()
        values[name] = [read_embeddings(session.root, uri).read() for uri in rows[name]["uri"]]
    assert rows["one"]["digest"].to_list() == rows["two"]["digest"].to_list()
    assert all(np.array_equal(a, b) for a, b in zip(values["one"], values["two"], strict=True))
    assert set(rows["two"]["device"]) == {"cpu"}


def test_what_the_study_says_of_the_machine_reaches_the_engine(run, monkeypatch):
    told = []
    monkeypatch.setattr(batch, "embed_slides", lambda jobs, on_done, settings, **_: told.append(settings))
    run("study", "workers = 3\nmemory_share = 0.4\nstall_seconds = 9.0")
    assert (told[0].workers, told[0].memory_share, told[0].stall_seconds) == (3, 0.4, 9.0)


def test_what_cannot_be_compiled_is_embedded_as_it_is_and_flagged(run, monkeypatch):
    def no_compiler(run, **how):
        def compiled(inputs):
            raise RuntimeError("No working C++ compiler found")

        return compiled

    monkeypatch.setattr(torch, "compile", no_compiler)
    session, results = run("study", embeddings="compile = true")
    found = [result.outcome for result in results if result.node.step is Step.EMBEDDINGS]
    assert {(outcome.status, outcome.reason) for outcome in found} == {("flagged", "plan_changed")}
    assert "compile True -> False" in found[0].message
    assert session.tables.scan("embeddings").collect()["compiled"].to_list() == [False] * 3
