"""Golden vectors: recorded once, the same afterwards, and noticed when a library gives other numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from support.commands import run_command

from pathassets.encoders import load_encoder
from pathassets.errors import ConfigError
from pathassets.steps.golden import TILE, check_golden


@pytest.fixture
def encoder():
    return load_encoder("timm/test_vit", random_weights=True, device="cpu", precision="fp32")


def test_the_first_call_records_and_the_next_finds_the_same(encoder, tmp_path):
    first = check_golden(tmp_path, encoder)
    assert first.is_new
    record, before = json.loads(first.path.read_text()), first.path.read_bytes()
    assert record["weights_sha256"] == encoder.weights_sha256
    assert {"torch", "timm", "python"} <= set(record["versions"])
    again = check_golden(tmp_path, encoder.at("bf16"))
    assert (again.is_new, again.is_same, again.changes) == (False, True, {})
    assert again.max_rel_error < 1e-6, "compared in fp32, whatever the encoder computes in"
    assert first.path.read_bytes() == before


def test_another_activation_or_another_resizing_is_noticed(encoder, tmp_path, monkeypatch):
    check_golden(tmp_path, encoder)
    resize = torch.nn.functional.interpolate
    with monkeypatch.context() as other:
        other.setattr(torch.nn.GELU, "forward", lambda self, x: x.relu())
        assert not check_golden(tmp_path, encoder).is_same
    with monkeypatch.context() as other:
        other.setattr(
            "pathassets.encoders.preprocess.functional.interpolate",
            lambda *args, **kwargs: resize(*args, **{**kwargs, "antialias": False}),
        )
        assert not check_golden(tmp_path, encoder).is_same
    assert check_golden(tmp_path, encoder).is_same


def test_versions_that_are_others_are_named(encoder, tmp_path):
    path = check_golden(tmp_path, encoder).path
    record = json.loads(path.read_text())
    now = record["versions"]["timm"]
    record["versions"] |= {"timm": "0.9.16", "gone": "1"}
    path.write_text(json.dumps(record))
    assert check_golden(tmp_path, encoder).changes == {"gone": ("1", None), "timm": ("0.9.16", now)}


def test_the_tile_that_was_recorded_counts_even_if_drawing_changes(encoder, tmp_path, monkeypatch):
    check_golden(tmp_path, encoder)
    monkeypatch.setattr("pathassets.slides.synthetic.synthetic_tiles", None)
    assert check_golden(tmp_path, encoder).is_same


def test_other_weights_have_a_record_of_their_own(encoder, tmp_path):
    other = load_encoder("timm/test_vit", random_weights=True, device="cpu", precision="fp32", mean=[0.1] * 3)
    paths = {check_golden(tmp_path, each).path for each in (encoder, other)}
    assert len(paths) == 2


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"vector": [1], "tile_sha256": "x", "versions": {}}', '{"vector": 3}']
)
def test_a_damaged_record_says_what_to_do(encoder, tmp_path, text):
    path = check_golden(tmp_path, encoder).path
    path.write_text(text)
    with pytest.raises(ConfigError, match="cannot be compared with") as caught:
        check_golden(tmp_path, encoder)
    assert "Delete it" in caught.value.remedy
    (tmp_path / TILE).write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"tile\.png"):
        check_golden(tmp_path, encoder)


@pytest.mark.e2e
def test_the_command_records_and_compares(tmp_path):
    words = ["encoders", "timm/test_vit", "--golden", "--random-weights", "--home", tmp_path]
    first, again = run_command(*words), run_command(*words, "--json")
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert "recorded" in first.stdout
    assert json.loads(again.stdout)["is_same"] is True
    (path,) = (tmp_path / "golden").glob("*.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "vector": (np.array(record["vector"]) * 1.01).tolist()}))
    changed = run_command(*words)
    assert changed.returncode == 1
    assert "other numbers" in changed.stdout
