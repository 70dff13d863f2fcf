"""Morphology with discs, against the distance transform and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pathassets.core.morphology import LARGE_PX, closed, grown, opened, shrunk


def _mask(seed: int, share: float = 0.5) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(61, 83)), 1.5)
    return noise > np.quantile(noise, 1 - share)


@pytest.mark.parametrize("radius", [0.5, 1, 1.5, 2, 2.5, 3.9, 6, 12.5, LARGE_PX, LARGE_PX + 1, LARGE_PX + 5.5])
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
