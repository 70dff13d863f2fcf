"""Quality columns: against slow references, known pictures, and real labelled tiles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pathassets.core.ink import FRINGE_DENSITY, ink_pixels
from pathassets.core.qc import QC_COLUMNS, tile_qc


def _tiles(data_dir, kind: str) -> np.ndarray:
    from PIL import Image

    paths = sorted((data_dir / "tiles").glob(f"{kind}_*.png"))
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


def _stained(haematoxylin: float, eosin: float) -> np.ndarray:
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    light = 256 * 10 ** -(haematoxylin * stains[0] + eosin * stains[1]) - 1
    return np.tile(np.round(light).astype(np.uint8), (1, 32, 32, 1))


def test_columns_are_as_promised():
    columns = tile_qc(np.full((5, 20, 30, 3), 200, np.uint8))
    assert set(columns) == set(QC_COLUMNS)
    assert {column.shape for column in columns.values()} == {(5,)}
    assert {column.dtype for column in columns.values()} == {np.dtype(np.float32)}


def test_ranges_hold_for_any_pixels():
    tiles = np.random.default_rng(0).integers(0, 256, (9, 31, 17, 3), dtype=np.uint8)
    tiles[0], tiles[1] = 0, 255
    columns = tile_qc(tiles)
    for name in ("brightness", "saturation", "pen_share", "tissue_like"):
        assert columns[name].min() >= 0
        assert columns[name].max() <= 1
    for name, column in columns.items():
        assert np.isfinite(column).all(), name
        assert (column >= 0).all(), name


def test_black_and_white():
    columns = tile_qc(np.stack([np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)]))
    assert columns["brightness"] == pytest.approx([0, 1])
    assert columns["saturation"] == pytest.approx([0, 0])
    assert columns["pen_share"] == pytest.approx([1, 0])
    assert columns["tissue_like"] == pytest.approx([1, 0])
    assert columns["haematoxylin"][1] == 0
    assert columns["eosin"][1] == 0


def test_colour_columns_are_those_of_a_plain_loop():
    tiles = np.random.default_rng(1).integers(0, 256, (7, 40, 52, 3), dtype=np.uint8)
    columns = tile_qc(tiles)
    for i, tile in enumerate(tiles[:, ::2, ::2].astype(float)):
        assert columns["red"][i] == pytest.approx(tile[..., 0].mean(), rel=1e-5)
        assert columns["green"][i] == pytest.approx(tile[..., 1].mean(), rel=1e-5)
        assert columns["blue"][i] == pytest.approx(tile[..., 2].mean(), rel=1e-5)
        grey = tile @ [0.299, 0.587, 0.114]
        assert columns["brightness"][i] == pytest.approx(grey.mean() / 255, rel=1e-4)
        highest, lowest = tile.max(axis=2), tile.min(axis=2)
        assert columns["saturation"][i] == pytest.approx(((highest - lowest) / np.maximum(highest, 1)).mean(), rel=1e-4)


def test_sharpness_is_the_variance_of_the_laplacian():
    tiles = np.random.default_rng(2).integers(0, 256, (3, 25, 33, 3), dtype=np.uint8)
    grey = tiles.astype(float) @ [0.299, 0.587, 0.114]
    expected = [ndimage.laplace(g)[1:-1, 1:-1].var() for g in grey]
    assert tile_qc(tiles)["sharpness"] == pytest.approx(expected, rel=1e-3)


def test_sharpness_falls_with_blur_and_is_zero_where_nothing_is():
    rng = np.random.default_rng(3)
    sharp = rng.integers(60, 220, (64, 64, 3)).astype(float)
    series = [ndimage.gaussian_filter(sharp, (s, s, 0)) for s in (0, 1, 2, 4)]
    values = tile_qc(np.stack([s.astype(np.uint8) for s in series]))["sharpness"]
    assert (np.diff(values) < 0).all()
    assert tile_qc(np.full((1, 64, 64, 3), 137, np.uint8))["sharpness"][0] == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize(("haematoxylin", "eosin"), [(0.4, 0.0), (0.0, 0.5), (0.3, 0.6)])
def test_stains_that_were_mixed_are_unmixed(haematoxylin, eosin):
    columns = tile_qc(_stained(haematoxylin, eosin))
    assert columns["haematoxylin"][0] == pytest.approx(haematoxylin, abs=0.01)
    assert columns["eosin"][0] == pytest.approx(eosin, abs=0.01)


def test_stains_agree_with_scikit_image():
    from skimage.color import rgb2hed

    tiles = np.random.default_rng(4).integers(90, 250, (4, 32, 32, 3), dtype=np.uint8)
    ours = tile_qc(np.repeat(np.repeat(tiles, 2, axis=1), 2, axis=2))
    for i, tile in enumerate(tiles):
        # scikit-image clips each pixel, divides by log(1e-6) and adds no 1; its mean without the clipping is linear
        density = -np.log10(np.maximum(tile / 255.0, 1e-6)).mean(axis=(0, 1))
        flat = np.round(255 * 10**-density).astype(np.uint8)[None, None]
        hed = rgb2hed(flat)[0, 0] * 6
        assert ours["haematoxylin"][i] == pytest.approx(max(hed[0], 0), abs=0.02)
        assert ours["eosin"][i] == pytest.approx(max(hed[1], 0), abs=0.02)


@pytest.mark.parametrize(
    "ink", [(30, 50, 170), (60, 90, 200), (20, 120, 60), (60, 170, 110), (210, 30, 45), (25, 25, 28), (70, 66, 68)]
)
def test_ink_is_ink(ink):
    tile = np.full((1, 20, 20, 3), 243, np.uint8)
    tile[:, :, :10] = ink
    assert tile_qc(tile)["pen_share"][0] == pytest.approx(0.5)


def test_stains_are_not_ink():
    amounts = np.linspace(0.1, 1.2, 12)
    dyes = {
        "haematoxylin": (0.65, 0.70, 0.29),
        "eosin": (0.07, 0.99, 0.11),
        "dab": (0.27, 0.57, 0.78),
        "blood": (0.16, 1.0, 0.72),
    }
    for name, vector in dyes.items():
        colours = np.round(255 * 10 ** -np.outer(amounts, vector)).astype(np.uint8)
        assert not ink_pixels(colours).any(), name


@pytest.mark.parametrize(
    "colour",
    [(60, 80, 140), (52, 53, 105), (40, 20, 70), (200, 60, 75), (131, 61, 94), (70, 40, 25), (170, 30, 90)],
    ids=["blue counterstain", "dense nuclei", "pyknotic", "red cells", "keratin", "strong DAB", "strong eosin"],
)
def test_colours_seen_in_tissue_are_not_ink(colour):
    assert not ink_pixels(np.array(colour, np.uint8))


def test_the_fringe_rule_finds_more_than_the_rule_for_strokes():
    thin = np.array([[140, 172, 235], [30, 50, 170]], np.uint8)
    assert ink_pixels(thin).tolist() == [False, True]
    assert ink_pixels(thin, FRINGE_DENSITY).tolist() == [True, True]


def test_no_tiles_and_tiny_tiles():
    assert tile_qc(np.zeros((0, 224, 224, 3), np.uint8))["sharpness"].shape == (0,)
    assert tile_qc(np.full((2, 1, 1, 3), 90, np.uint8))["sharpness"].tolist() == [0, 0]


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4, 4), np.uint8), np.zeros((1, 4, 4, 3))]
)
def test_other_arrays_are_refused(bad):
    with pytest.raises(ValueError, match="uint8"):
        tile_qc(bad)


def test_batches_do_not_matter():
    tiles = np.random.default_rng(5).integers(0, 256, (11, 24, 24, 3), dtype=np.uint8)
    together = tile_qc(tiles)
    for i in range(len(tiles)):
        alone = tile_qc(tiles[i : i + 1])
        assert {name: float(alone[name][0]) for name in alone} == {name: float(together[name][i]) for name in together}


def test_real_tiles_are_ordered_as_a_pathologist_would(data_dir):
    means = {
        kind: {k: float(v.mean()) for k, v in tile_qc(_tiles(data_dir, kind)).items()}
        for kind in ("BACK", "ADI", "LYM", "TUM", "MUS", "STR")
    }
    assert means["LYM"]["haematoxylin"] > 2 * means["MUS"]["haematoxylin"]
    assert means["MUS"]["eosin"] > 2 * means["ADI"]["eosin"]
    # the background tiles were stain-normalised with the others and are purple, but flat
    assert means["ADI"]["brightness"] > 1.3 * means["TUM"]["brightness"]
    assert means["BACK"]["sharpness"] < 0.2 * means["TUM"]["sharpness"]
    assert means["LYM"]["tissue_like"] > 0.9
    assert max(m["pen_share"] for m in means.values()) < 0.002
