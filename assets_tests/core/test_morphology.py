"""Morphology with discs, against the distance transform and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pathassets.core.morphology import closed, grown, highest, lowest, opened, shrunk


def _mask(seed: int, share: float = 0.5) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(61, 83)), 1.5)
    return noise > np.quantile(noise, 1 - share)


@pytest.mark.parametrize("radius", [0.5, 1, 1.5, 2, 2.5, 3.9, 6, 12.5, 17, 30.5, 70, 100])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_growing_and_shrinking_are_euclidean(radius, share):
    mask = _mask(3, share)
    assert (grown(mask, radius) == (ndimage.distance_transform_edt(~mask) <= radius)).all()
    assert (shrunk(mask, radius) == (ndimage.distance_transform_edt(mask) > radius)).all()


def test_opening_and_closing_agree_with_scikit_image():
    from skimage import morphology

    mask = np.pad(_mask(5), 12)
    disc = morphology.disk(3)
    inner = np.s_[8:-8, 8:-8]
    assert (opened(mask, 3)[inner] == morphology.opening(mask, disc)[inner]).all()
    assert (closed(mask, 3)[inner] == morphology.closing(mask, disc)[inner]).all()


@pytest.mark.parametrize("operation", [grown, shrunk, opened, closed])
@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (1, 9), (9, 1), (5, 5)])
@pytest.mark.parametrize("value", [False, True])
def test_full_and_empty_pictures_stay_as_they_are(operation, shape, value):
    assert (operation(np.full(shape, value), 3.0) == value).all()


def test_the_border_takes_nothing_from_a_shrunk_mask():
    mask = np.zeros((20, 20), bool)
    mask[:, :10] = True
    assert shrunk(mask, 3)[:, :7].all()
    assert not shrunk(mask, 3)[:, 7:].any()


def test_the_input_is_left_alone():
    mask = _mask(7)
    before = mask.copy()
    grown(mask, 4)
    closed(mask, 4)
    assert (mask == before).all()


@pytest.mark.parametrize("size", [1, 3, 5, 11, 23, 99])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_least_and_greatest_values_in_a_square_are_scipys(size, dtype):
    values = (1000 * np.random.default_rng(1).normal(size=(40, 61))).astype(dtype)
    assert (lowest(values, size) == ndimage.minimum_filter(values, size)).all()
    assert (highest(values, size) == ndimage.maximum_filter(values, size)).all()
    assert lowest(values, size).dtype == dtype
