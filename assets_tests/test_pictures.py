"""The README's pictures: they are there, small, and made by a command of this project from slides that it drew itself."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.pictures import MAX_BYTES, WIDTH, main
from pathassets.config import CONFIG_FILE, Study
from pathassets.errors import ConfigError
from pathassets.figures.cohort_pictures import write_mosaic
from pathassets.slides.synthetic import synthetic_slide
from pathassets.steps.batch import run_batch
from pathassets.steps.cohort_map import make_cohort_map
from pathassets.steps.nodes import chain
from pathassets.steps.register import register
from pathassets.steps.session import Session

ROOT = Path(__file__).resolve().parents[1]
LINKS = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))


def test_every_picture_of_the_readme_is_there_and_all_are_small():
    assert LINKS
    assert all(re.fullmatch(r"docs/images/[a-z]+\.png", link) for link in LINKS), "nothing is loaded from elsewhere"
    assert sorted(Path(link).name for link in LINKS) == sorted(
        path.name for path in (ROOT / "docs" / "images").iterdir()
    )
    assert sum((ROOT / link).stat().st_size for link in LINKS) < MAX_BYTES


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("study")
    terms = 'terms = ["adipose", "muscularis", "submucosa"]'
    (home / CONFIG_FILE).write_text(f'[study]\ndevice = "cpu"\n[text]\n{terms}\n[[recipes]]\nencoder = "demo-vlm"\n')
    synthetic_slide(home / "synthetic_07.tiff", seed=7, width_px=2304, height_px=2048)
    session = Session(Study(home))
    [entry] = register(session, [home / "synthetic_07.tiff"])
    run_batch(session, [entry.slide_id], chain(session.study), lambda _: None)
    return home


def test_they_are_made_from_a_finished_study_of_drawn_slides(home: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="not finished"):
        main(home, tmp_path)
    session = Session(Study(home))
    make_cohort_map(session, session.study.recipes[0])
    write_mosaic(session, session.study.recipes[0])
    written = main(home, tmp_path)
    assert {path.name for path in written} == {Path(link).name for link in LINKS}
    for path in written:
        with Image.open(path) as image:
            assert image.width <= WIDTH + 80, "a legend may be wider"
            assert np.asarray(image.convert("RGB")).std() > 5, f"{path} is blank"


def test_slides_of_others_are_refused(home: Path, tmp_path: Path):
    session = Session(Study(home))
    synthetic_slide(tmp_path / "patient.tiff", seed=8, width_px=600, height_px=600)
    [entry] = register(session, [tmp_path / "patient.tiff"])
    with pytest.raises(ConfigError, match="not the demo's study"):
        main(home, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    session.tables.delete("slides", entry.slide_id)
