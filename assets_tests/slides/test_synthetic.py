"""The procedural slides: readable, reproducible, seamless, and true to their truth map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
from scipy import ndimage

from pathassets.slides.synthetic import CLASSES, SyntheticTruth, sample_stain, synthetic_slide, synthetic_tile
from pathassets.slides.synthetic.layout import slide_scene
from pathassets.slides.synthetic.scene import CELL_PX
from pathassets.slides.synthetic.tissue import render

SIZE = 1600


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, SyntheticTruth]:
    path = tmp_path_factory.mktemp("synthetic") / "one.tiff"
    return path, synthetic_slide(path, seed=21, width_px=SIZE, height_px=SIZE - 130, save_truth=True)


def _pixels(path: Path) -> np.ndarray:
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


def _cell_means(pixels: np.ndarray) -> np.ndarray:
    rows, columns = pixels.shape[0] // CELL_PX, pixels.shape[1] // CELL_PX
    boxes = pixels[: rows * CELL_PX, : columns * CELL_PX].astype(float)
    return boxes.reshape(rows, CELL_PX, columns, CELL_PX, 3).mean(axis=(1, 3))


def test_openslide_reads_the_pyramid_and_its_resolution(drawn):
    with openslide.OpenSlide(drawn[0]) as slide:
        assert slide.dimensions == (SIZE, SIZE - 130)
        assert slide.level_dimensions[1] == (SIZE // 4, (SIZE - 130) // 4)
        assert slide.level_count >= 3
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5, rel=1e-3)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.5, rel=1e-3)


def test_the_smaller_level_shows_the_same_picture(drawn):
    pixels = _pixels(drawn[0]).astype(float)
    with openslide.OpenSlide(drawn[0]) as slide:
        small = np.asarray(slide.read_region((0, 0), 1, slide.level_dimensions[1]).convert("RGB")).astype(float)
    rows, columns = small.shape[:2]
    boxes = pixels[: rows * 4, : columns * 4].reshape(rows, 4, columns, 4, 3).mean(axis=(1, 3))
    error = np.abs(boxes - small).mean()
    assert error < 6
    assert all(error < 0.6 * np.abs(np.roll(boxes, shift, axis) - small).mean() for axis in (0, 1) for shift in (-1, 1))


def test_the_same_seed_gives_the_same_file_and_another_does_not(tmp_path):
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        synthetic_slide(tmp_path / name, seed=seed, width_px=700, height_px=600)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_nothing_is_left_of_a_slide_that_failed(tmp_path, monkeypatch):
    from pathassets.slides.synthetic import writer

    def broken(*_args):
        raise OSError("disk full")

    monkeypatch.setattr(writer, "render", broken)
    with pytest.raises(OSError, match="disk full"):
        synthetic_slide(tmp_path / "slide.tiff", seed=1, width_px=600, height_px=600)
    assert list(tmp_path.iterdir()) == []


def test_tissue_is_where_the_truth_says(drawn):
    path, truth = drawn
    means = _cell_means(_pixels(path))
    labels = truth.labels[: means.shape[0], : means.shape[1]]
    white = np.median(means[labels == 0], axis=0)
    darkness = (white - means).max(axis=2)
    empty = ndimage.binary_erosion(labels == 0, iterations=2)
    solid = np.isin(labels, [CLASSES.index(name) for name in ("muscularis", "mucosa", "tumor", "lymphocytes")])
    assert np.quantile(darkness[empty], 0.99) < 6
    assert np.quantile(darkness[solid], 0.01) > 12


def test_lymphocytes_are_the_bluest_and_blood_the_reddest(drawn):
    path, truth = drawn
    means = _cell_means(_pixels(path))
    labels = truth.labels[: means.shape[0], : means.shape[1]]
    blueness = means[..., 2] - means[..., 0]
    by_class = {name: blueness[labels == k].mean() for k, name in enumerate(CLASSES) if (labels == k).any()}
    assert max(by_class, key=by_class.__getitem__) == "lymphocytes"
    assert min(by_class, key=by_class.__getitem__) == "blood"


def test_every_class_occurs_on_a_slide():
    labels = slide_scene(4000, 4000, seed=33, mpp=0.5).labels
    shares = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
    assert shares.min() > 0.005
    assert 0.2 < shares[0] < 0.6


@pytest.mark.parametrize("mpp", [0.5, 0.4])
def test_windows_agree_where_they_overlap(mpp):
    scene = slide_scene(2000, 2000, seed=8, mpp=mpp)
    whole = render(scene, (512, 512, 768, 768))
    for y, x in ((512, 768), (768, 512), (760, 760)):
        part = render(scene, (y, x, 256, 256))
        np.testing.assert_allclose(part, whole[:, y - 512 : y - 256, x - 512 : x - 256], atol=1e-5)


def test_blocks_leave_no_seams():
    """Steps across the borders of the writer's blocks are no larger than elsewhere."""
    from pathassets.slides.synthetic.artefacts import place_artefacts
    from pathassets.slides.synthetic.writer import _BLOCK_PX, _Picture

    scene = slide_scene(2048, 2048, seed=12, mpp=0.5)
    stain = sample_stain(np.random.default_rng(1))
    picture = _Picture(scene, stain, place_artefacts(scene, ("blur", "folds")), 2048, 2048)
    pair = np.concatenate([picture.block(512, 512), picture.block(512, 1024)], axis=1).astype(float)
    steps = np.abs(np.diff(pair, axis=1)).mean(axis=(0, 2))
    assert steps[_BLOCK_PX - 1] < np.quantile(steps, 0.99)


def test_truth_is_saved_and_read_back(drawn):
    path, truth = drawn
    loaded = SyntheticTruth.load(path.with_suffix(".truth.npz"))
    assert loaded.downsample == truth.downsample == CELL_PX
    assert loaded.mpp == truth.mpp
    np.testing.assert_array_equal(loaded.labels, truth.labels)
    np.testing.assert_array_equal(loaded.tissue, truth.labels > 0)


def test_shares_count_the_cells_of_a_rectangle(drawn):
    truth = drawn[1]
    cells = truth.labels[50:60, 80:100]
    shares = truth.shares(x=640, y=400, width=160, height=80)
    assert shares.sum() == pytest.approx(1)
    assert shares[cells[0, 0]] == pytest.approx((cells == cells[0, 0]).mean())


def test_artefacts_change_pixels_where_they_are_said_to_be(tmp_path, drawn):
    clean = _pixels(drawn[0]).astype(float)
    names = ("blur", "folds", "pen")
    truth = synthetic_slide(tmp_path / "art.tiff", seed=21, width_px=SIZE, height_px=SIZE - 130, artefacts=names)
    change = _cell_means(np.abs(_pixels(tmp_path / "art.tiff") - clean)).mean(axis=2)
    shape = np.s_[: change.shape[0], : change.shape[1]]
    tissue = truth.tissue[shape]
    untouched = ~(truth.pen | truth.fold | truth.blur)[shape]
    assert truth.pen.any()
    assert truth.fold.any()
    assert truth.blur.any()
    assert change[truth.pen[shape]].mean() > 40
    assert change[truth.fold[shape]].mean() > 25
    assert change[truth.blur[shape] & tissue].mean() > 3 * np.median(change[untouched])


def test_a_low_jpeg_quality_makes_a_smaller_file(tmp_path, drawn):
    synthetic_slide(tmp_path / "j.tiff", seed=21, width_px=SIZE, height_px=SIZE - 130, artefacts=("jpeg",))
    assert (tmp_path / "j.tiff").stat().st_size < 0.6 * drawn[0].stat().st_size


def test_an_unknown_artefact_is_refused(tmp_path):
    with pytest.raises(ValueError, match="scratch"):
        synthetic_slide(tmp_path / "x.tiff", seed=1, width_px=600, height_px=600, artefacts=("scratch",))


def test_objects_keep_their_true_size_at_another_resolution():
    """Twice the pixels per µm gives a quarter of the nuclei per tile area."""

    def nuclei(mpp: float) -> float:
        counts = []
        for seed in range(6):
            image, _ = synthetic_tile("muscularis", seed=seed, mpp=mpp, stain_jitter=0.0)
            counts.append(ndimage.label(image[..., 0] < 140)[1])
        return float(np.median(counts))

    assert nuclei(0.25) < 0.55 * nuclei(0.5)


def test_tiles_repeat_by_seed_and_mixed_tiles_hold_both_classes():
    first, shares = synthetic_tile(("tumor", "adipose"), seed=5)
    again, _ = synthetic_tile(("tumor", "adipose"), seed=5)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (224, 224, 3)
    assert shares.sum() == pytest.approx(1)
    assert set(np.flatnonzero(shares)) == {CLASSES.index("tumor"), CLASSES.index("adipose")}


def test_stain_jitter_moves_colours():
    def spread(jitter: float) -> float:
        means = [synthetic_tile("tumor", seed=k, stain_jitter=jitter)[0].mean(axis=(0, 1)) for k in range(12)]
        return float(np.std(means, axis=0).mean())

    assert spread(0.0) < spread(1.0) < spread(2.0)
