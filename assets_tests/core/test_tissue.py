"""Tissue: synthetic truth, simulated stains and artefacts, empty slides, and real slides whose overlays were looked at."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

from pathassets.core.background import contrast
from pathassets.core.tissue import find_tissue, mask_from_image, tissue_pieces
from pathassets.recipes import TissueOptions

MPP = 8.0
HAEMATOXYLIN, EOSIN, DAB = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)
INKS = {"blue": (30, 50, 170), "green": (20, 120, 60), "red": (210, 30, 45), "black": (25, 25, 28)}


def _iou(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / (found | truth).sum())


def _uint8(light: np.ndarray) -> np.ndarray:
    return np.clip(np.round(light), 0, 255).astype(np.uint8)


def _jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _blob(shape: tuple[int, int], seed: int) -> np.ndarray:
    """An irregular piece of tissue over about a third of the picture."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    reach = np.hypot((rows - shape[0] / 2) / shape[0], (columns - shape[1] / 2) / shape[1])
    return reach + 0.04 * ndimage.zoom(rng.normal(size=(9, 9)), (shape[0] / 9, shape[1] / 9), order=3) < 0.33


def _stain(
    truth: np.ndarray,
    vectors: dict[tuple[float, float, float], float],
    seed: int,
    white: float = 243.0,
    noise: float = 1.0,
) -> np.ndarray:
    """Light through tissue whose dyes vary from place to place, as tissue at 8 µm/px does."""
    rng = np.random.default_rng(seed)
    density = np.zeros((*truth.shape, 3))
    for vector, amount in vectors.items():
        fine, coarse = rng.normal(size=truth.shape), rng.normal(size=truth.shape)
        vary = 1 + 0.25 * fine + 0.35 * ndimage.gaussian_filter(coarse, 5) * 8
        density += (truth * amount * np.clip(vary, 0.3, 2.5))[..., None] * np.array(vector)
    return _uint8(white * 10**-density + rng.normal(0, noise, density.shape))


def _found(rgb: np.ndarray, method: str = "auto") -> np.ndarray:
    """The mask after small pieces and holes: what tiles are cut from."""
    options = TissueOptions(method=method)
    _, labels = tissue_pieces(find_tissue(rgb, MPP, options).mask, MPP, 1.0, 1.0, options)
    return labels >= 0


@pytest.mark.parametrize("method", ["auto", "otsu", "entropy"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_haematoxylin_and_eosin(method, seed):
    truth = _blob((400, 500), seed)
    rgb = _jpeg(_stain(truth, {HAEMATOXYLIN: 0.25, EOSIN: 0.25}, seed), 80)
    assert _iou(_found(rgb, method), truth) > (0.9 if method == "entropy" else 0.97)


@pytest.mark.parametrize(
    "dyes", [{HAEMATOXYLIN: 0.06}, {DAB: 0.05}, {EOSIN: 0.03}, {HAEMATOXYLIN: 0.03, DAB: 0.03}], ids=str
)
def test_pale_stains(dyes):
    truth = _blob((400, 500), 7)
    assert _iou(_found(_jpeg(_stain(truth, dyes, 7), 85)), truth) > 0.95


def test_pale_tissue_beside_a_strongly_stained_control():
    truth = _blob((400, 400), 3)
    pale, strong = _stain(truth, {HAEMATOXYLIN: 0.04}, 3), _stain(truth, {HAEMATOXYLIN: 0.3, DAB: 0.3}, 4)
    found = _found(np.concatenate([pale, strong], axis=1))
    assert _iou(found[:, :400], truth) > 0.95
    assert _iou(found[:, 400:], truth) > 0.95


def test_dye_that_spread_and_vignetting_are_not_tissue():
    truth = _blob((500, 500), 11)
    rgb = _stain(truth, {HAEMATOXYLIN: 0.2, EOSIN: 0.3}, 11).astype(float)
    rows, columns = np.mgrid[-1:1:500j, -1:1:500j]
    wash = np.exp(-((rows - 0.5) ** 2 + (columns - 0.7) ** 2) / 0.3)[..., None] * [4, 25, 12]
    light = rgb * (1 - 0.2 * (rows**2 + columns**2) / 2)[..., None] - wash
    assert _iou(_found(_jpeg(_uint8(light), 85)), truth) > 0.96


def test_printed_spots_are_not_tissue():
    truth = _blob((500, 500), 12)
    rgb = _stain(truth, {HAEMATOXYLIN: 0.2, EOSIN: 0.3}, 12).astype(float)
    rows, columns = np.indices(truth.shape)
    spots = np.hypot(rows % 25 - 12, columns % 25 - 12) < 6
    assert _iou(_found(_uint8(rgb - 8.0 * spots[..., None])), truth) > 0.97


@pytest.mark.parametrize("ink", sorted(INKS))
def test_strokes_beside_tissue_are_left_out(ink):
    truth = _blob((400, 500), 5)
    rgb = _stain(truth, {HAEMATOXYLIN: 0.2, EOSIN: 0.3}, 5).astype(float)
    stroke = np.zeros(truth.shape, bool)
    stroke[15:25, 40:460], stroke[30:370, 15:30] = True, True
    share = ndimage.gaussian_filter(stroke.astype(float), 0.8)[..., None]
    rgb = _jpeg(_uint8(rgb * (1 - share) + share * np.array(INKS[ink])), 80)
    result = find_tissue(rgb, MPP)
    assert _iou(_found(rgb), truth) > 0.96
    assert (result.mask & stroke).sum() < 0.005 * stroke.sum()
    assert result.metrics["ink_removed"] > 0.05
    assert result.metrics["ink_share"] == pytest.approx(stroke.mean(), rel=0.8)


def test_a_stain_of_inks_colour_is_a_stain():
    truth = _blob((400, 400), 6)
    trichrome = _stain(truth, {(1.2, 0.75, 0.25): 0.35}, 6)
    assert _iou(_found(trichrome), truth) > 0.95


def test_fat_is_tissue_and_not_holes():
    """Cells 56 µm wide with walls of one pixel, most paler than the threshold once smoothed."""
    from scipy.spatial import cKDTree

    height = width = 300
    centres = np.stack(np.meshgrid(np.arange(20, 280, 7.0), np.arange(20, 280, 7.0)), axis=-1).reshape(-1, 2)
    cells = centres + np.random.default_rng(0).uniform(-2, 2, centres.shape)
    near, _ = cKDTree(cells).query(np.stack(np.indices((height, width)), axis=-1).reshape(-1, 2), k=2)
    walls = (near[:, 1] - near[:, 0]).reshape(height, width) < 0.9
    truth = np.zeros((height, width), bool)
    truth[42:258, 42:258] = True
    rgb = _uint8(243 * 10 ** -(0.07 * (walls & truth)[..., None] * np.array([0.4, 1.0, 0.5])))
    rgb[42:258, 42:48] = rgb[42:258, 252:258] = rgb[42:48, 42:258] = rgb[252:258, 42:258] = (200, 130, 180)
    assert _iou(_found(rgb), truth) > 0.97


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_a_slide_full_of_tissue_is_not_cut_in_two(share):
    """Half the field is dark epithelium, half is paler stroma; a threshold between them would lose the stroma."""
    rng = np.random.default_rng(1)
    everywhere = np.ones((150, 150), bool)
    stroma, dark = _stain(everywhere, {EOSIN: 0.22}, 1), _stain(everywhere, {HAEMATOXYLIN: 0.5, EOSIN: 0.4}, 2)
    regions = ndimage.gaussian_filter(rng.normal(size=everywhere.shape), 12)
    rgb = np.where((regions > np.quantile(regions, 1 - share))[..., None], dark, stroma)
    assert _found(rgb).mean() > 0.98


@pytest.mark.parametrize("dyes", [{EOSIN: 0.05, HAEMATOXYLIN: 0.03}, {EOSIN: 0.04}, {HAEMATOXYLIN: 0.06}], ids=str)
def test_pale_tissue_that_fills_the_picture_is_not_taken_for_tinted_glass(dyes):
    assert _found(_stain(np.ones((150, 150), bool), dyes, 1)).mean() > 0.98


def _blank(noise: float, vignetting: float, seed: int = 0, white: float = 240.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1:1:400j, -1:1:500j]
    shade = 1 - vignetting * (rows**2 + columns**2) / 2
    return _uint8(white * shade[..., None] + rng.normal(0, noise, (400, 500, 3)))


def _washed() -> np.ndarray:
    dye = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(400, 500)), 60)
    dye = (dye - dye.min()) / np.ptp(dye)
    return _jpeg(_uint8(240 - dye[..., None] * np.array([4, 25, 12])), 80)


def _dusty() -> np.ndarray:
    rng, rgb = np.random.default_rng(4), _blank(1, 0.03)
    for row, column in rng.integers(5, 390, (60, 2)):
        rgb[row : row + rng.integers(1, 4), column : column + rng.integers(1, 4)] = rng.integers(60, 160)
    return rgb


EMPTY = {
    "white": np.full((300, 300, 3), 255, np.uint8),
    "grey": np.full((300, 300, 3), 128, np.uint8),
    "black": np.zeros((300, 300, 3), np.uint8),
    "noise": _blank(2, 0.0),
    "strong noise": _jpeg(_blank(6, 0.05), 80),
    "vignetting": _jpeg(_blank(1, 0.35), 80),
    "dye": _washed(),
    "dust": _dusty(),
    "dark noise": _uint8(np.abs(np.random.default_rng(5).normal(0, 3, (300, 300, 3)))),
}


@pytest.mark.parametrize("name", sorted(EMPTY))
def test_an_empty_slide_is_empty(name):
    assert _found(EMPTY[name]).sum() == 0


def test_dark_background_of_fluorescence():
    truth = _blob((400, 400), 8)
    rng = np.random.default_rng(8)
    glow = truth * 22 * (1 + 0.3 * rng.normal(size=truth.shape))
    rgb = np.zeros((400, 400, 3))
    rgb[..., 0] = 2 + glow
    result = find_tissue(_uint8(rgb + np.abs(rng.normal(0, 1, rgb.shape))), MPP)
    assert result.metrics["dark_background"] == 1
    assert _iou(result.mask, truth) > 0.97


def test_the_resolution_of_the_picture_matters_little():
    truth = _blob((480, 480), 9)
    fine = _stain(truth, {HAEMATOXYLIN: 0.25, EOSIN: 0.25}, 9)
    coarse = fine.reshape(240, 2, 240, 2, 3).mean(axis=(1, 3)).astype(np.uint8)
    at_four, at_eight = find_tissue(fine, 4.0).mask, find_tissue(coarse, 8.0).mask
    assert _iou(at_four[1::2, 1::2], at_eight) > 0.95


def _hard_slide(shape: tuple[int, int]) -> np.ndarray:
    """Strong and pale tissue, a net of fat, strokes of ink and a wash of dye."""
    strong, pale = _blob((240, 240), 21), _blob((240, 240), 22)
    rgb = np.full((*shape, 3), 243.0)
    rgb[10:250, 20:260] = _stain(strong, {HAEMATOXYLIN: 0.25, EOSIN: 0.25}, 21)
    rgb[300:540, 60:300] = _stain(pale, {HAEMATOXYLIN: 0.04}, 22)
    rows, columns = np.indices((140, 140))
    rgb[260:400, 330:470] -= 30.0 * ((rows % 9 == 0) | (columns % 9 == 0))[..., None]
    for row, ink in zip((40, 90, 555), ("blue", "red", "green"), strict=True):
        stroke = np.zeros(shape)
        stroke[row : row + 17, 200:480] = 1
        share = ndimage.gaussian_filter(stroke, 2.5)[..., None]
        rgb = rgb * (1 - share) + share * np.array(INKS[ink])
    wash = np.exp(-((np.linspace(-1, 1, shape[0])[:, None] - 0.6) ** 2 + np.linspace(-1, 1, shape[1]) ** 2) / 0.3)
    return _jpeg(_uint8(rgb - wash[..., None] * [4, 25, 12]), 85)


@pytest.mark.parametrize("method", ["otsu", "entropy"])
@pytest.mark.parametrize("mpp", [4.0, 8.0])
def test_pictures_are_cut_into_strips_without_a_seam(monkeypatch, method, mpp):
    rgb = _hard_slide((620, 500))
    monkeypatch.setattr("pathassets.core.strips.STRIP_PIXELS", 10_000_000)
    whole = find_tissue(rgb, mpp, TissueOptions(method=method))
    monkeypatch.setattr("pathassets.core.strips.STRIP_PIXELS", 1)
    cut = find_tissue(rgb, mpp, TissueOptions(method=method))
    assert whole.mask.any()
    assert whole.metrics["ink_share"] > 0.02
    assert (cut.mask == whole.mask).all()
    assert cut.metrics == whole.metrics


@pytest.mark.parametrize("kind", ["tissue", "empty"])
def test_memory_is_a_few_times_the_pictures(monkeypatch, kind):
    import tracemalloc

    monkeypatch.setattr("pathassets.core.strips.STRIP_PIXELS", 1 << 12)
    rgb = np.tile(_hard_slide((620, 500)) if kind == "tissue" else _dusty(), (2, 3, 1))
    find_tissue(rgb, MPP)  # what is imported on the way is not the picture's
    tracemalloc.start()
    find_tissue(rgb, MPP)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * rgb.nbytes


def test_method_none_takes_everything_and_says_so():
    result = find_tissue(EMPTY["white"], MPP, TissueOptions(method="none"))
    assert result.mask.all()
    assert result.method == "none"


def test_what_was_used_and_measured_is_recorded():
    truth = _blob((300, 300), 2)
    result = find_tissue(_stain(truth, {HAEMATOXYLIN: 0.25, EOSIN: 0.25}, 2), MPP)
    assert result.method == "otsu"
    assert result.metrics["tissue_share"] == pytest.approx(result.mask.mean())
    assert result.metrics["white_level"] == pytest.approx(243, abs=2)
    assert 0.008 <= result.metrics["threshold"] <= 0.06
    only = find_tissue(_stain(truth, {EOSIN: 0.3}, 2), MPP, TissueOptions(method="entropy"))
    assert only.method == "entropy"


def test_entropy_speaks_up_where_density_finds_nothing():
    """Unstained tissue seen in phase: bright and dark grains about the level of the glass."""
    truth = _blob((400, 400), 10)
    rng = np.random.default_rng(10)
    rgb = _uint8(
        225 + rng.normal(0, 0.5, (400, 400, 1)) + truth[..., None] * rng.normal(0, 14, (400, 400, 1)) + np.zeros(3)
    )
    assert _iou(_found(rgb), truth) > 0.85


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 40), (40, 1), (0, 0), (0, 5)])
@pytest.mark.parametrize("method", ["auto", "otsu", "entropy", "none"])
def test_tiny_pictures_do_not_crash(shape, method):
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert find_tissue(rgb, MPP, TissueOptions(method=method)).mask.shape == shape


@pytest.mark.parametrize("seed", range(6))
def test_any_pixels_give_some_mask_and_finite_metrics(seed):
    rng = np.random.default_rng(seed)
    rgb = rng.integers(*sorted(rng.choice(256, 2, replace=False)), (60, 80, 3), dtype=np.uint8)
    result = find_tissue(rgb, float(rng.uniform(1, 64)))
    assert result.mask.shape == (60, 80)
    assert np.isfinite(list(result.metrics.values())).all()


@pytest.mark.parametrize(
    ("rgb", "mpp"),
    [
        (np.zeros((4, 4), np.uint8), 8),
        (np.zeros((4, 4, 3)), 8),
        (np.zeros((4, 4, 3), np.uint8), 0),
        (np.zeros((4, 4, 3), np.uint8), float("nan")),
    ],
)
def test_other_input_is_refused(rgb, mpp):
    with pytest.raises(ValueError, match="picture"):
        find_tissue(rgb, mpp)


def test_padding_that_was_not_scanned_is_not_the_white_point():
    truth = _blob((300, 300), 13)
    rgb = _stain(truth, {EOSIN: 0.3}, 13, white=236)
    rgb[:90] = 255
    truth = truth.copy()
    truth[:90] = False
    assert contrast(rgb, MPP).level == pytest.approx(236, abs=2)
    assert _iou(_found(rgb), truth) > 0.96


@dataclass(frozen=True)
class Looked:
    """A slide whose overlay was judged by eye, and what then must hold."""

    mpp: float
    share: tuple[float, float]
    pieces: tuple[int, int]
    tissue: tuple[tuple[float, float], ...]
    empty: tuple[tuple[float, float], ...]


# Places are shares of width and height.
LOOKED_AT = {
    "slides/CMU-1-Small-Region.svs": Looked(
        0.499, (0.36, 0.42), (1, 3),
        tissue=((0.33, 0.80), (0.25, 0.36), (0.45, 0.30)),
        empty=((0.1, 0.1), (0.9, 0.8), (0.1, 0.9), (0.95, 0.2)),
    ),
    "slides/TCGA-CR-7395-01A-01-TS1.svs": Looked(
        0.5, (0.60, 0.66), (1, 4),
        tissue=((0.3, 0.5), (0.9, 0.9), (0.72, 0.08)),
        empty=((0.05, 0.1), (0.1, 0.9), (0.63, 0.56), (0.95, 0.2)),
    ),
    "slides/her2st_C2_HE_pyr.tif": Looked(
        0.69, (0.155, 0.18), (1, 2),
        tissue=((0.45, 0.65), (0.74, 0.37), (0.65, 0.8), (0.5, 0.55)),
        empty=((0.9, 0.45), (0.92, 0.3), (0.2, 0.2), (0.87, 0.55), (0.3, 0.9)),
    ),
    "slides/molluscum_HE_skin.tif": Looked(
        0.504, (0.55, 0.66), (1, 12),
        tissue=((0.2, 0.35), (0.9, 0.62), (0.5, 0.88), (0.06, 0.5), (0.55, 0.115)),
        # the last two are black ink
        empty=((0.05, 0.05), (0.95, 0.1), (0.95, 0.95), (0.05, 0.9), (0.717, 0.043), (0.864, 0.278)),
    ),
    "odd-slides/slideio_test3-TRITC-2-560.ndpi": Looked(
        0.228, (0.78, 0.88), (1, 3),
        tissue=((0.5, 0.5), (0.2, 0.2), (0.9, 0.8)),
        empty=((0.02, 0.05), (0.02, 0.95), (0.5, 0.99)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(LOOKED_AT))
def test_real_slides_are_as_they_were_when_looked_at(data_dir, name):
    from pathassets.slides import open_slide

    looked = LOOKED_AT[name]
    with open_slide(data_dir / name, mpp=looked.mpp) as slide:
        rgb, info = slide.read_mpp(MPP), slide.info
    mpp = info.width_px * looked.mpp / rgb.shape[1]
    found = find_tissue(rgb, mpp)
    scale_x, scale_y = info.width_px / rgb.shape[1], info.height_px / rgb.shape[0]
    pieces, labels = tissue_pieces(found.mask, looked.mpp, scale_x, scale_y)
    assert looked.share[0] < (labels >= 0).mean() < looked.share[1]
    assert looked.pieces[0] <= len(pieces) <= looked.pieces[1]
    for x, y in looked.tissue:
        assert labels[int(y * labels.shape[0]), int(x * labels.shape[1])] >= 0, (x, y)
    for x, y in looked.empty:
        assert labels[int(y * labels.shape[0]), int(x * labels.shape[1])] < 0, (x, y)


@pytest.mark.parametrize("tint", [(1, 1, 1), (1.0, 0.97, 0.93)])
def test_a_real_slide_faded_to_a_quarter_keeps_its_tissue(data_dir, tint):
    from pathassets.slides import open_slide

    with open_slide(data_dir / "slides/CMU-1-Small-Region.svs") as slide:
        rgb = slide.read_mpp(MPP)
    full = _found(rgb)
    faded = _uint8((rgb * 0.25 + 255 * 0.75) * np.array(tint))
    assert _iou(_found(faded), full) > 0.93


@pytest.mark.parametrize(
    ("seed", "artefacts"), [(1, ("pen",)), (2, ("blur", "folds")), (5, ("blur", "folds", "pen", "jpeg"))]
)
def test_drawn_slides_with_artefacts_reach_the_promised_overlap(tmp_path, seed, artefacts):
    """Ink on the glass must be left out; what lies under ink on tissue may count either way."""
    from pathassets.slides import open_slide
    from pathassets.slides.synthetic import synthetic_slide

    truth = synthetic_slide(tmp_path / "slide.tif", seed=seed, width_px=3000, height_px=3000, artefacts=artefacts)
    with open_slide(tmp_path / "slide.tif") as slide:
        rgb = slide.read_mpp(MPP)
    scale = 3000 / rgb.shape[1], 3000 / rgb.shape[0]
    _, labels = tissue_pieces(find_tissue(rgb, truth.mpp * scale[0]).mask, truth.mpp, *scale)
    found = mask_from_image(labels >= 0, truth.tissue.shape).mask
    either = truth.tissue & truth.pen
    assert _iou(found[~either], truth.tissue[~either]) > 0.95
