"""A session over a study with one synthetic slide, whose truth is known."""

from __future__ import annotations

import pytest

from pathassets.config import CONFIG_FILE, Study
from pathassets.slides.synthetic import synthetic_slide
from pathassets.steps.batch import run_batch
from pathassets.steps.nodes import chain
from pathassets.steps.register import register
from pathassets.steps.session import Session

CONFIG = """
[study]
device = "cpu"
[vectors]
methods = ["mean", "max", "median", "std"]
[text]
terms = ["adipose", "muscularis", "xqzzvk"]
[[recipes]]
encoder = "demo-vlm"
name = "demo"
"""


class Finished:
    """A finished study of one slide."""

    def __init__(self, home):
        self.slide = home / "inbox" / "synthetic.tiff"
        self.slide.parent.mkdir()
        self.truth = synthetic_slide(self.slide, seed=11, width_px=2304, height_px=2048)
        (home / CONFIG_FILE).write_text(CONFIG)
        self.study = Study(home)
        self.session = Session(self.study)
        self.slide_id = register(self.session, [self.slide])[0].slide_id
        self.results = []
        run_batch(self.session, [self.slide_id], chain(self.study), self.results.append)

    def table(self, name):
        return Session(self.study).tables.scan(name).collect()


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    return Finished(tmp_path_factory.mktemp("study"))
