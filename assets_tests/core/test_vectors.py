"""Reductions against numpy on the whole matrix, whatever the chunking."""

from __future__ import annotations

import numpy as np
import pytest

from pathassets.core.vectors import METHODS, reduce_embeddings

NUMPY = {"mean": np.mean, "max": np.max, "median": np.median, "std": np.std}


class Chunked:
    """Rows in chunks, as often as wanted; counts how often it was read."""

    def __init__(self, rows, ids, size):
        self.rows, self.ids, self.size, self.reads = rows, ids, size, 0

    def __iter__(self):
        self.reads += 1
        for start in range(0, len(self.rows), self.size):
            yield self.rows[start : start + self.size], self.ids[start : start + self.size]


def _sample(n=501, dim=7, dtype=np.float32):
    rng = np.random.default_rng(3)
    rows = (rng.normal(size=(n, dim)) * 10.0 ** rng.integers(-2, 3, dim)).astype(dtype)
    return rows, rng.integers(-1, 3, n)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("size", [1, 64, 1000])
def test_every_reduction_is_numpys_for_the_slide_and_each_piece(size, dtype):
    rows, ids = _sample(dtype=dtype)
    found = reduce_embeddings(Chunked(rows, ids, size), METHODS)
    assert set(found) == {(m, g) for m in METHODS for g in (None, 0, 1, 2)}
    for (method, group), vector in found.items():
        part = rows if group is None else rows[ids == group]
        expected = NUMPY[method](part.astype(np.float64), axis=0)
        np.testing.assert_allclose(vector, expected, rtol=3e-6, atol=1e-7)
        assert vector.dtype == np.float32


def test_median_in_column_blocks_is_the_same_and_is_bounded():
    rows, ids = _sample()
    whole, narrow = Chunked(rows, ids, 50), Chunked(rows, ids, 50)
    wide = reduce_embeddings(whole, ["median"])
    tight = reduce_embeddings(narrow, ["median"], median_bytes=4 * len(rows) * 2)
    assert (whole.reads, narrow.reads) == (2, 1 + 4)
    for key, vector in wide.items():
        np.testing.assert_array_equal(vector, tight[key])
    np.testing.assert_array_equal(wide["median", None], np.median(rows, axis=0))


def test_bad_rows_are_left_out():
    rows, ids = _sample()
    spoilt, spoilt_ids = np.vstack([rows, rows[:3]]), np.concatenate([ids, [0, 1, 9]])
    spoilt[-3, 2], spoilt[-2], spoilt[-1, 0] = np.nan, np.nan, np.inf
    clean = reduce_embeddings([(rows, ids)], METHODS)
    found = reduce_embeddings(Chunked(spoilt, spoilt_ids, 100), METHODS)
    assert set(found) == set(clean)
    for key, vector in clean.items():
        np.testing.assert_allclose(found[key], vector, rtol=1e-6, atol=1e-9)


def test_nothing_in_nothing_out():
    assert reduce_embeddings([], METHODS) == {}
    assert reduce_embeddings([(np.full((2, 3), np.nan), np.zeros(2, int))], METHODS) == {}


def test_std_keeps_its_digits_far_from_zero():
    rows = np.random.default_rng(0).normal(size=(1000, 1)) + 1e8
    found = reduce_embeddings(Chunked(rows, np.zeros(1000, int), 10), ["std"])
    np.testing.assert_allclose(found["std", None], rows.std(axis=0), rtol=1e-6)


def test_one_tile_has_no_spread():
    found = reduce_embeddings([(np.array([[1.0, 2.0]]), np.array([0]))], METHODS)
    np.testing.assert_array_equal(found["std", 0], [0, 0])
    for method in ("mean", "max", "median"):
        np.testing.assert_array_equal(found[method, None], [1, 2])


def test_what_cannot_be_done_is_refused():
    rows, ids = _sample()
    with pytest.raises(ValueError, match="more than once"):
        reduce_embeddings(iter([(rows, ids)]), ["median"])
    with pytest.raises(ValueError, match="mode"):
        reduce_embeddings([(rows, ids)], ["mode"])
    with pytest.raises(ValueError, match="width"):
        reduce_embeddings([(rows, ids), (rows[:, :3], ids)], ["mean"])
