"""The README's pictures: drawn slides, seen through the figures of dashboard, exports and Dagster's UI.

`python -m benchmarks.pictures HOME FOLDER` reads a study of the project's own synthetic slides (`pathassets demo` makes one) and writes
a few small PNG files. Slides of others are refused: their pixels are not ours to publish.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from pathassets.config import Study
from pathassets.errors import ConfigError
from pathassets.exports.gather import gather
from pathassets.exports.pictures import overlay_images, thumbnail_of, tissue_image
from pathassets.figures import images
from pathassets.figures.cohort_pictures import read_mosaic
from pathassets.steps.naming import slide_ids
from pathassets.steps.session import Session

WIDTH = 380
COLOURS = 96
MAX_BYTES = 300_000
OWN = "synthetic_"


def main(home: Path, folder: Path) -> list[Path]:
    """Writes the pictures of a study's first slide and of its cohort; their paths.

    Raises:
        ConfigError: The study has slides that this project did not draw, or is not finished.
    """
    session = Session(Study(home))
    slides = slide_ids(session)
    if not slides or not all(slide_id.startswith(OWN) for slide_id in slides):
        raise ConfigError(f"{home} is not the demo's study", remedy="Make one with `pathassets demo --home demo`.")
    folder.mkdir(parents=True, exist_ok=True)
    written = [_write(folder / f"{name}.png", image) for name, image in _pictures(session, slides[0])]
    size = sum(path.stat().st_size for path in written)
    assert size < MAX_BYTES, f"{size} bytes are too many for a repository"
    return written


def _pictures(session: Session, slide_id: str) -> list[tuple[str, Image.Image]]:
    recipe = session.study.recipes[0]
    features, rgb = gather(session, slide_id, recipe), thumbnail_of(session, slide_id)
    layers = {name: picture for name, _, picture in overlay_images(features, rgb, WIDTH)}
    term = max(features.terms, key=lambda term: float(np.nanmean(features.probability[:, features.terms.index(term)])))
    tissue = tissue_image(session, slide_id, rgb, WIDTH)
    mosaic = read_mosaic(session, recipe.key)
    if tissue is None or mosaic is None:
        raise ConfigError("the study is not finished", remedy='Run `pathassets run --select "*"`.')
    return [
        ("tissue", tissue),
        ("domains", layers["utag"]),
        ("term", layers[features.term_columns()[term]]),
        ("mosaic", _small(Image.open(io.BytesIO(mosaic.picture)))),
    ]


def _small(image: Image.Image) -> Image.Image:
    return Image.fromarray(images.shrink(np.asarray(image.convert("RGB")), WIDTH))


def _write(path: Path, image: Image.Image) -> Path:
    """With few colours: a picture in a repository is kept for ever."""
    image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, "PNG", optimize=True)
    return path


if __name__ == "__main__":
    for written in main(Path(sys.argv[1]), Path(sys.argv[2])):
        print(written, written.stat().st_size)
