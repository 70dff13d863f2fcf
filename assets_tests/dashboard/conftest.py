"""One study with all that a dashboard meets: finished slides, one whose file is gone, one half made, odd files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pathassets.config import CONFIG_FILE, Study
from pathassets.dashboard.app import make_app
from pathassets.dashboard.catalog import Catalog
from pathassets.figures.cohort_pictures import write_mosaic
from pathassets.slides.synthetic import synthetic_slide
from pathassets.steps.batch import run_batch
from pathassets.steps.cohort_map import make_cohort_map
from pathassets.steps.nodes import chain
from pathassets.steps.publish import publish_results
from pathassets.steps.register import register
from pathassets.steps.session import Session
from pathassets.steps.slide_map import make_slide_map

CONFIG = """
[study]
name = "small <b>study</b>"
device = "cpu"
[tilings.small]
tile_px = 112
mpp = 1.0
[text]
terms = ["adipose", "muscularis", "submucosa"]
[[recipes]]
encoder = "demo-vlm"
name = "demo"
tiling = "small"
"""
VIEW = "small/demo"


@dataclass(frozen=True)
class Finished:
    """A published study and its slides' ids."""

    study: Study
    first: str
    second: str
    gone: str
    half: str
    broken: str
    unscaled: str


def write_plain_tiff(path: Path) -> None:
    """A picture in which nothing tells the resolution: its remedy names the file with its folder."""
    pixels = np.random.default_rng(0).integers(0, 255, (600, 700, 3)).astype(np.uint8)
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", compression="jpeg")


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Finished:
    home = tmp_path_factory.mktemp("dashboard study")  # a blank in the name, as users have them
    inbox = home / "inbox"
    inbox.mkdir()
    paths = {name: inbox / f"{name}.tiff" for name in ("first", "second", "gone", "half", "broken", "unscaled")}
    for seed, name in enumerate(("first", "second", "gone", "half"), 11):
        synthetic_slide(paths[name], seed=seed, width_px=2304, height_px=1900)
    write_plain_tiff(paths["unscaled"])
    paths["broken"].write_bytes(b"II*\0 this is no slide")
    (home / "slides.csv").write_text(
        f"path,patient,stain\n{paths['first']},P1,=cmd|' /C calc'!A0\n{paths['second']},P2,<i>H&E</i>\n"
    )
    (home / CONFIG_FILE).write_text(CONFIG)
    session = Session(Study(home))
    ids = {name: register(session, [path])[0].slide_id for name, path in paths.items()}
    nodes = chain(session.study)
    whole = [ids[name] for name in ("first", "second", "gone", "broken", "unscaled")]
    run_batch(session, whole, nodes, lambda result: None)
    run_batch(session, [ids["half"]], nodes[:2], lambda result: None)
    make_slide_map(session, session.study.recipes[0])
    make_cohort_map(session, session.study.recipes[0])
    write_mosaic(session, session.study.recipes[0])
    paths["gone"].unlink()
    publish_results(session)
    return Finished(session.study, **ids)


@pytest.fixture(scope="session")
def catalog(finished) -> Catalog:
    return Catalog(finished.study)


@pytest.fixture(scope="session")
def app(finished):
    return make_app(finished.study)


@pytest.fixture
def client(app):
    return app.server.test_client()
