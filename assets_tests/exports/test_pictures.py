"""Overlays as PNG files that say what they show."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from pathassets.errors import ConfigError, SlideError
from pathassets.exports.files import Target
from pathassets.exports.pictures import Pictures
from pathassets.exports.run import check_format, export_cohort, format_of
from pathassets.figures import images, rulers


@pytest.fixture
def written(made, target):
    Pictures().export_slide(made.session, made.slide_id, target)
    Pictures().export_features(made.session, made.features, target)
    return target


def test_there_is_a_picture_of_the_slide_its_tissue_each_variant_and_each_term(written, made):
    stem = f"{made.part}/{made.slide_id}"
    terms = ("text_adipose", "text_muscularis", "text_evil_term", "text_evil_term_2")
    assert written.written == [
        f"{made.slide_id}.thumbnail.png", f"{made.slide_id}.tissue.png", f"{stem}.leiden.png", f"{stem}.utag.png",
        *(f"{stem}.{term}.png" for term in terms),
    ]  # fmt: skip


def test_they_differ_and_say_what_made_them(written, made):
    seen = set()
    for key in written.written:
        with Image.open(written.path / key) as image:
            about = json.loads(image.text["pathassets"])
            pixels = np.asarray(image.convert("RGB"))
        assert about["slide_id"] == made.slide_id
        assert pixels.std() > 5, f"{key} is blank"
        seen.add(pixels.tobytes())
    assert len(seen) == len(written.written)
    assert about["embeddings_digest"] == made.features.row["digest"]


def test_overlays_have_a_ruler_in_um(written, made):
    """The bar has a round length and lies below the slide."""
    slide = made.features.slide
    for name in (f"{made.slide_id}.tissue.png", f"{made.part}/{made.slide_id}.leiden.png"):
        with Image.open(written.path / name) as image:
            about, pixels = json.loads(image.text["pathassets"]), np.asarray(image.convert("RGB"))
        assert about["um_per_px"] == pytest.approx(slide["mpp"] * slide["width_px"] / pixels.shape[1], rel=1e-3)
        strip = pixels[-rulers.STRIP_PX :]
        dark = (strip == images.INK).all(axis=2)[rulers.STRIP_PX // 2, rulers.PAD_PX :]
        length = rulers.round_length(rulers.SHARE * slide["mpp"] * slide["width_px"])
        assert int(np.argmin(dark)) * about["um_per_px"] == pytest.approx(length, abs=2 * about["um_per_px"])


@pytest.mark.parametrize(
    ("longest", "length"), [(461, "200 µm"), (1000, "1 mm"), (999, "500 µm"), (51234, "50 mm"), (3, "2 µm")]
)
def test_a_bar_has_a_round_length(longest, length):
    assert rulers.length_text(rulers.round_length(longest)) == length


def test_a_picture_of_unknown_resolution_has_no_ruler():
    assert rulers.with_ruler(np.zeros((8, 9, 3), np.uint8), None).size == (9, 8)


def sizes(target) -> dict[str, tuple[int, int]]:
    found = {}
    for key in target.written:
        with Image.open(target.path / key) as image:
            found[key.removeprefix("px224_mpp050__demo/")] = image.size
    return found


def test_they_are_small_unless_a_width_is_asked_for(written, made, tmp_path):
    assert all(width <= 512 for width, _ in sizes(written).values())
    large = Target(tmp_path / "large")
    pictures = Pictures(1500)
    pictures.export_slide(made.session, made.slide_id, large)
    pictures.export_features(made.session, made.features, large)
    assert {width for width, _ in sizes(large).values()} == {1500}
    assert set(sizes(large)) == set(sizes(written))
    with Image.open(large.path / f"{made.slide_id}.thumbnail.png") as image:
        shown = np.asarray(image.convert("RGB")).astype(float)
    with made.session.open_slide(made.slide_id) as slide:
        assert np.abs(slide.thumbnail(1500) - shown).mean() < 1, "the slide's own pixels, not the thumbnail's enlarged"


def test_a_width_beyond_the_slide_s_own_is_its_own(made, tmp_path):
    large = Target(tmp_path)
    Pictures(8192).export_slide(made.session, made.slide_id, large)
    assert {width for width, _ in sizes(large).values()} == {2304}


def test_a_large_picture_of_a_slide_that_is_gone_is_left_out_in_words(made, tmp_path, monkeypatch):
    monkeypatch.setattr("pathassets.exports.pictures.load_thumbnail", lambda *_: np.zeros((80, 100, 3), np.uint8))
    row = made.session.slide_row(made.slide_id) | {"path": str(tmp_path / "gone.tiff")}
    monkeypatch.setattr(type(made.session), "slide_row", lambda *_: row)
    with pytest.raises(SlideError):
        Pictures(2000).export_slide(made.session, made.slide_id, Target(tmp_path / "out"))
    Pictures(100).export_slide(made.session, made.slide_id, Target(tmp_path / "out"))


def test_the_mosaic_goes_along_where_there_is_one(made, tmp_path):
    from pathassets.figures.cohort_pictures import write_mosaic
    from pathassets.steps.cohort_map import make_cohort_map

    target = Target(tmp_path / "before")
    export_cohort(made.session, format_of("png"), [made.recipe], target)
    assert target.written == []
    made_of = make_cohort_map(made.session, made.recipe)
    write_mosaic(made.session, made.recipe)
    target = Target(tmp_path / "after")
    export_cohort(made.session, format_of("png"), [made.recipe], target)
    with Image.open(target.path / made.part / "mosaic.png") as image:
        about = json.loads(image.text["pathassets"])
    assert about["cohort_map_digest"] == made_of.digest
    assert sum(cell[4] for cell in about["cells"]) == made_of.n_tiles
    made.session.tables.delete("cohort_map", None, made.part)
    made.session.root.delete(f"figures/study/{made.part}.mosaic.json")


def test_a_width_goes_with_pictures_alone():
    check_format("png", 800)
    with pytest.raises(ConfigError, match="--width"):
        check_format("qupath", 800)
