"""docs/encoders.md is what the cards say, and docs/adding-things.md adds an encoder that works."""

from __future__ import annotations

import re
import sys
import types
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from pathassets.encoders import get_card, list_cards, load_encoder, registry
from pathassets.encoders.page import render
from pathassets.testing import check_card, check_encoder

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_of_encoders_is_current():
    page = (DOCS / "encoders.md").read_text(encoding="utf-8")
    assert page == render(), "run: python -m pathassets.encoders.page docs/encoders.md"


def test_the_page_names_every_encoder():
    page = render()
    for card in list_cards():
        assert page.count(f"| `{card.name}` |") == 3 + card.vision_language, card.name


@pytest.fixture
def example(monkeypatch):
    """The module of docs/adding-things.md, installed as the page says."""
    page = (DOCS / "adding-things.md").read_text(encoding="utf-8")
    source = re.search(r"```python\n# my_lab/stainnet\.py\n(.*?)```", page, re.DOTALL).group(1)
    assert len(source.strip().splitlines()) <= 30
    value = re.search(r'stainnet = "([\w.]+)"', page).group(1)
    module = types.ModuleType(value)
    exec(compile(source, "docs/adding-things.md", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, value, module)
    monkeypatch.setitem(sys.modules, value.partition(".")[0], types.ModuleType(value.partition(".")[0]))
    point = EntryPoint("stainnet", value, registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])
    registry._families.cache_clear()
    yield module.card().name
    registry._families.cache_clear()


def test_the_example_of_the_page_is_an_encoder(example, tmp_path):
    check_card(get_card(example))
    encoder = load_encoder(example, random_weights=True, device="cpu", precision="fp32")
    check_encoder(encoder)
    tile = np.zeros((1, 224, 224, 3), np.uint8)
    assert encoder(tile).shape == (1, get_card(example).dim)


def test_its_checkpoint_is_read_in_the_layout_that_it_was_published_in(example, tmp_path):
    import torch

    network = load_encoder(example, random_weights=True, device="cpu", precision="fp32")._networks.master
    published = {f"net.{key}": value + 1 for key, value in network.state_dict().items()}
    torch.save({"state_dict": {**published, "classifier.weight": torch.zeros(2)}}, tmp_path / "w.pth")
    encoder = load_encoder(example, weights=tmp_path / "w.pth", device="cpu", precision="fp32")
    first = next(iter(network.state_dict()))
    torch.testing.assert_close(encoder._networks.master.state_dict()[first], published[f"net.{first}"])
    assert encoder.dropped == ("classifier.weight",)
