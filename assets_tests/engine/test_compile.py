"""`compile = true`: really compiled where there is a compiler, the network as it is where there is none, never a mixture."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.streams import SIZE, FakeSlide, Mean, Memory, encoder_of, grid, plan_of, truth

from pathassets.engine import EmbedPlan, Job, embed_slides
from pathassets.recipes import EmbeddingOptions

TESTS = Path(__file__).resolve().parents[1]
PLAN = plan_of(compile=True)


def embed(encoder, plans, n=37):
    """Slides of `n` tiles, one for each plan; gives how each ended, and its values."""
    ended, writers = [], {}

    def job(k, plan):
        def open_writer(held):
            writers[k] = Memory(n, encoder.dim, held.shard_rows)
            return writers[k]

        return Job(f"s{k}", FakeSlide(), grid(n), SIZE, encoder, plan, open_writer)

    embed_slides([job(k, plan) for k, plan in enumerate(plans)], ended.append)
    return {f.job.name: f for f in ended}, [writers[k].values for k in range(len(plans))]


def test_the_option_is_part_of_the_plan_and_of_the_groups_name():
    encoder = encoder_of(Mean())
    assert EmbedPlan.of(EmbeddingOptions(compile=True), encoder).compile
    assert not EmbedPlan.of(EmbeddingOptions(), encoder).compile
    assert PLAN.digest_parts() != plan_of().digest_parts()


def test_where_it_cannot_be_compiled_each_slide_starts_anew_as_it_is(monkeypatch):
    tried = []

    def fails(run, **how):
        def compiled(inputs):
            tried.append(len(inputs))
            raise RuntimeError("No working C++ compiler found")

        return compiled

    monkeypatch.setattr(torch, "compile", fails)
    ended, values = embed(encoder_of(Mean()), [PLAN, PLAN, PLAN])
    assert [f.result.plan.compile for f in ended.values()] == [False] * 3
    assert len(tried) == 1, "it takes long to find out: once is enough"
    for found in values:
        np.testing.assert_allclose(found, truth(37), rtol=1e-5)


def test_rows_that_are_there_stay_though_the_compiler_is_gone(monkeypatch):
    """All shards are there; only the comparison with fp32 would compile."""
    ended, encoder = [], encoder_of(Mean())
    writer = Memory(8, encoder.dim, PLAN.shard_rows)
    writer.shards[0] = truth(8)
    monkeypatch.setattr(torch, "compile", lambda run, **how: lambda inputs: 1 / 0)
    embed_slides([Job("s", FakeSlide(), grid(8), SIZE, encoder, PLAN, lambda _: writer)], ended.append)
    assert ended[0].error is None
    assert ended[0].result.agreement is None


@pytest.mark.e2e
@pytest.mark.parametrize("hidden", [False, True], ids=["the machine's own compiler", "none"])
def test_the_real_compiler_or_the_network_as_it_is(hidden, tmp_path):
    """A process of its own: torch looks for a compiler once."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
    }
    if hidden:
        environment["PATH"] = str(tmp_path)
    command = [sys.executable, str(Path(__file__).with_name("child_compiles.py"))]
    told = json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    expected = shutil.which("g++", path=environment["PATH"]) is not None
    assert told["compiled"] == [expected, expected, False]
    assert told["programs"] == int(expected), "one for whole and for partial batches, in all threads"
    assert told["equal"], "whichever thread computes it"
    assert told["largest_difference"] < 1e-4
    assert told["cosine"] > 0.9999
