"""GigaPath made small: one narrow layer of each of its two networks, and two files of untrained weights for them.

Belongs here: what tests of both stages share. Does not belong: tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pathassets.encoders import get_card, zoo
from pathassets.encoders.registry import get_spec
from pathassets.encoders.slide import get_slide_card
from pathassets.encoders.slide.networks import build
from pathassets.encoders.slide.zoo import entries

TILES = {"depth": 1, "mlp_ratio": 0.5}
SLIDE = {"depth": 1}
CONFIG = """
[study]
device = "cpu"
[tilings.gp]
tile_px = 256
mpp = 0.5
[[recipes]]
name = "gigapath"
encoder = "gigapath"
random_weights = true
tiling = "gp"
[recipes.vectors]
methods = ["mean", "gigapath-slide"]
"""


def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on both networks of GigaPath have one layer; their cards, which are remembered, say what is published."""
    get_card("gigapath"), get_slide_card("gigapath-slide")
    for entry, kwargs in ((zoo.encoders()["gigapath"].entry, TILES), (entries()["gigapath-slide"], SLIDE)):
        monkeypatch.setitem(entry, "kwargs", {**entry["kwargs"], **kwargs})


def weight_files(folder: Path) -> tuple[Path, Path]:
    """A file of the tiles' network, as timm saves it, and one of the slide's, as its authors do; both narrow, neither trained."""
    torch.manual_seed(4)
    tiles, slide = get_spec("gigapath").build(), build(get_slide_card("gigapath-slide"), {})
    with torch.no_grad():
        slide.cls_token.normal_()
    torch.save({key.removeprefix("trunk."): value for key, value in tiles.state_dict().items()}, folder / "tiles.pth")
    torch.save({"model": slide.state_dict()}, folder / "slide_encoder.pth")
    return folder / "tiles.pth", folder / "slide_encoder.pth"
