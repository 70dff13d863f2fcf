"""A study of one good slide, one that cannot be opened, and terms that would like to be paths."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest

from pathassets.config import CONFIG_FILE, Study
from pathassets.exports.files import Target
from pathassets.exports.gather import SlideFeatures, gather
from pathassets.slides.synthetic import synthetic_slide
from pathassets.steps.batch import run_batch
from pathassets.steps.nodes import chain
from pathassets.steps.register import register
from pathassets.steps.session import Session

TERMS = ("adipose", "muscularis", "../evil/term", "evil term")
CONFIG = f"""
[study]
device = "cpu"
[text]
terms = {list(TERMS)}
[[recipes]]
encoder = "demo-vlm"
name = "demo"
"""


class Made:
    """The finished study."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / CONFIG_FILE).write_text(CONFIG)
        files = [home / "inbox" / "good.tiff", home / "inbox" / "bad.svs"]
        files[0].parent.mkdir()
        synthetic_slide(files[0], seed=11, width_px=2304, height_px=2048)
        files[1].write_bytes(b"no slide at all")
        self.study = Study(home)
        self.session = Session(self.study)
        self.slide_id, self.bad_id = (entry.slide_id for entry in register(self.session, files))
        run_batch(self.session, [self.slide_id, self.bad_id], chain(self.study), lambda _: None)
        self.recipe = self.study.recipes[0]
        self.part = "px224_mpp050__demo"

    def copied(self, home: Path) -> Made:
        """The same in another folder, to be changed."""
        shutil.copytree(self.home, home)
        other = copy.copy(self)
        other.home, other.study = home, Study(home)
        other.session = Session(other.study)
        return other

    @property
    def features(self) -> SlideFeatures:
        return gather(self.session, self.slide_id, self.recipe)

    def table(self, name: str, slide_id: str | None = None):
        frame = self.session.tables.scan(name).collect()
        return frame if slide_id is None else frame.filter(frame["slide_id"] == slide_id)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Made:
    """Tests must not change it."""
    return Made(tmp_path_factory.mktemp("study"))


@pytest.fixture
def target(tmp_path) -> Target:
    return Target(tmp_path / "out")
