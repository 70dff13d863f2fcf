"""One vector for a slide, or for a piece of tissue, out of many tile embeddings.

Belongs here: reductions over rows that arrive in chunks. Does not belong: where the rows come from, slide encoders.
A slide's embeddings are never held whole. Mean, max and std take one pass; the median needs all values of a
column at once and therefore reads the rows several times, a bounded block of columns each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pathassets.recipes import REDUCTIONS

Chunk = tuple[NDArray[np.floating], NDArray[np.integer]]
Key = tuple[str, int | None]
METHODS = REDUCTIONS
# What the median may hold at once: 256 MiB are 670 columns of 100,000 tiles.
MEDIAN_BYTES = 256 * 2**20


def reduce_embeddings(
    chunks: Iterable[Chunk], methods: Sequence[str] = ("mean",), *, median_bytes: int = MEDIAN_BYTES
) -> dict[Key, NDArray[np.float32]]:
    """Reduces tile embeddings to one vector per method for the slide and for every piece of tissue.

    Rows with a value that is not finite (tiles that could not be read) are left out. Sums are kept in float64 and
    merged chunk by chunk (Chan, Golub and LeVeque 1979); `std` is the population's, as numpy's default.

    Args:
        chunks: (rows (k, d), tissue ids (k,)) in any chunking; a tissue id below 0 counts for the slide alone. With
            `median` it must be possible to iterate more than once (a list, or an object with `__iter__`).
        methods: Any of mean, max, median, std.
        median_bytes: Upper bound of what the median holds at once.

    Returns:
        (method, tissue id or None for the slide) -> vector (d,). A group without a good row is not there.

    Raises:
        ValueError: Unknown method, chunks of different dim, or `median` over something that can be read only once.
    """
    unknown = sorted(set(methods) - set(METHODS))
    if unknown:
        raise ValueError(f"unknown reduction {', '.join(unknown)}; there are {', '.join(METHODS)}")
    if "median" in methods and isinstance(chunks, Iterator):
        raise ValueError("the median reads the rows more than once: pass a list or a re-iterable, not an iterator")
    moments = _moments(chunks)
    found: dict[Key, NDArray[np.float32]] = {}
    for method in dict.fromkeys(methods):
        if method == "median":
            found |= {("median", group): v for group, v in _medians(chunks, moments, median_bytes).items()}
        else:
            found |= {(method, group): m.value(method) for group, m in moments.items()}
    return found


class _Moments:
    """Count, mean, sum of squared deviations and maximum of the rows seen so far."""

    def __init__(self, dim: int) -> None:
        self.n = 0
        self.mean = np.zeros(dim)
        self.squares = np.zeros(dim)
        self.max = np.full(dim, -np.inf)

    def add(self, rows: NDArray[np.float64]) -> None:
        """Merges rows (k, d), k >= 1."""
        if rows.shape[1] != self.mean.size:
            raise ValueError(f"chunks differ in width: {rows.shape[1]} columns after {self.mean.size}")
        n, mean = len(rows), rows.mean(axis=0)
        total, delta = self.n + n, mean - self.mean
        self.squares += ((rows - mean) ** 2).sum(axis=0) + delta**2 * (self.n * n / total)
        self.mean += delta * (n / total)
        self.n = total
        np.maximum(self.max, rows.max(axis=0), out=self.max)

    def value(self, method: str) -> NDArray[np.float32]:
        """The reduction `method` as float32."""
        result = {"mean": self.mean, "max": self.max, "std": np.sqrt(self.squares / self.n)}[method]
        return result.astype(np.float32)


def _groups(ids: NDArray[np.integer]) -> list[int | None]:
    return [None, *(int(i) for i in np.unique(ids) if i >= 0)]


def _good(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """The chunks without their bad rows; chunks that keep nothing are left out."""
    for rows, ids in chunks:
        rows, ids = np.asarray(rows), np.asarray(ids)
        keep = np.isfinite(rows).all(axis=1)
        if keep.any():
            yield rows[keep], ids[keep]


def _moments(chunks: Iterable[Chunk]) -> dict[int | None, _Moments]:
    found: dict[int | None, _Moments] = {}
    for rows, ids in _good(chunks):
        rows64 = rows.astype(np.float64)
        for group in _groups(ids):
            part = rows64 if group is None else rows64[ids == group]
            found.setdefault(group, _Moments(rows.shape[1])).add(part)
    return dict(sorted(found.items(), key=lambda item: -1 if item[0] is None else item[0]))


def _medians(
    chunks: Iterable[Chunk], moments: dict[int | None, _Moments], max_bytes: int
) -> dict[int | None, NDArray[np.float32]]:
    if not moments:
        return {}
    slide = moments[None]
    dim, width = slide.mean.size, max(1, max_bytes // (4 * slide.n))
    blocks = [_median_block(chunks, moments, start, min(start + width, dim)) for start in range(0, dim, width)]
    return {group: np.concatenate([block[group] for block in blocks]) for group in moments}


def _median_block(
    chunks: Iterable[Chunk], groups: Iterable[int | None], start: int, stop: int
) -> dict[int | None, NDArray[np.float32]]:
    parts = [(rows[:, start:stop].astype(np.float32), ids) for rows, ids in _good(chunks)]
    columns = np.concatenate([rows for rows, _ in parts])
    ids = np.concatenate([ids for _, ids in parts])
    return {g: np.median(columns if g is None else columns[ids == g], axis=0).astype(np.float32) for g in groups}
