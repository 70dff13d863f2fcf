"""Strips: every row once, and results as of the whole picture."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pathassets.core.strips import by_strips, strips


@pytest.mark.parametrize("pixels", [1, 40, 1000, 10**9])
@pytest.mark.parametrize("multiple", [1, 3, 7])
@pytest.mark.parametrize("shape", [(1, 1), (50, 8), (51, 8, 3), (3, 1000)])
def test_every_row_comes_once_and_strips_are_multiples(monkeypatch, pixels, multiple, shape):
    monkeypatch.setattr("pathassets.core.strips.STRIP_PIXELS", pixels)
    found = list(strips(shape, multiple))
    assert np.concatenate([np.arange(shape[0])[rows] for rows in found]).tolist() == list(range(shape[0]))
    assert all((rows.stop - rows.start) % multiple == 0 for rows in found[:-1])


def test_strips_are_about_as_large_as_wished(monkeypatch):
    monkeypatch.setattr("pathassets.core.strips.STRIP_PIXELS", 1000)
    assert {rows.stop - rows.start for rows in strips((400, 50))} == {20}


@pytest.mark.parametrize("reach", [0, 1, 4, 30])
def test_what_reaches_into_other_strips_is_as_of_the_whole(monkeypatch, reach):
    monkeypatch.setattr("pathassets.core.strips.STRIP_PIXELS", 1)
    monkeypatch.setattr("pathassets.core.strips.LEAST_REACHES", 1)
    values = np.random.default_rng(0).integers(0, 10_000, (97, 20))

    def greatest(part: np.ndarray) -> np.ndarray:
        return ndimage.maximum_filter(part, 2 * reach + 1)

    assert (by_strips(greatest, reach, np.int64, values) == greatest(values)).all()


def test_pictures_of_several_kinds_make_one(monkeypatch):
    monkeypatch.setattr("pathassets.core.strips.STRIP_PIXELS", 64)
    rgb = np.random.default_rng(0).integers(0, 255, (40, 16, 3), dtype=np.uint8)
    mask = rgb[..., 0] > 99
    found = by_strips(lambda rgb, mask: (rgb.max(axis=2) > 200) & mask, 0, np.bool_, rgb, mask)
    assert found.dtype == bool
    assert (found == ((rgb.max(axis=2) > 200) & mask)).all()
