"""Cohorts: slides unlike all others, and groups of slides that differ as a whole.

Belongs here: the two statistics, on vectors. Does not belong: which slides and groups there are, thresholds (`checks`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Of fewer slides nobody knows what is usual.
MIN_SLIDES = 10
MIN_GROUP_SLIDES = 5
NEIGHBOURS = 3
PERMUTATIONS = 999
# Consistency factors of median and mean absolute deviations with the standard deviation of a normal distribution.
_MAD, _MEAN_AD = 0.6745, 0.7979
# Below float32's rounding slides are the same.
_MIN_DISTANCE = 1e-7


@dataclass(frozen=True)
class GroupEffect:
    """How much of the differences between slides goes with a grouping.

    Attributes:
        groups: Group -> its number of slides.
        share: Of the variance, between groups: R², 0 to 1.
        p: How often as large a share comes about by chance, from permutations.
    """

    groups: dict[str, int]
    share: float
    p: float


def outlier_scores(vectors: NDArray[np.floating]) -> NDArray[np.float64] | None:
    """How far each slide is from those most like it, against how far slides usually are: a modified z-score.

    The mean cosine distance to the three nearest slides, as a logarithm, less its median over slides, divided by its median
    absolute deviation (Iglewicz and Hoaglin 1993, who call values above 3.5 outliers). Neighbours instead of the cohort's
    centre, so that a cohort of several organs has no outliers for being one.

    Args:
        vectors: (n, d), finite.

    Returns:
        (n,), higher is stranger; None for fewer than ten slides.
    """
    if len(vectors) < MIN_SLIDES:
        return None
    from sklearn.neighbors import NearestNeighbors

    finder = NearestNeighbors(n_neighbors=NEIGHBOURS, metric="cosine").fit(vectors)
    distances = np.log(np.maximum(finder.kneighbors()[0].mean(axis=1), _MIN_DISTANCE))
    deviations = distances - np.median(distances)
    sizes = np.abs(deviations)
    median, mean = float(np.median(sizes)), float(sizes.mean())
    # more than half of the slides alike: the median says nothing, the mean still does
    unit = median / _MAD if median > 0 else mean / _MEAN_AD
    scores: NDArray[np.float64] = deviations / unit if unit > 0 else np.zeros(len(vectors))
    return scores


def group_effect(vectors: NDArray[np.floating], groups: Sequence[str | None], *, seed: int = 0) -> GroupEffect | None:
    """Whether slides of one group are more like each other than like the others: PERMANOVA (Anderson 2001).

    On unit vectors, whose squared distances are twice the cosine distances. Groups of fewer than five slides, and slides of
    no group, are left out.

    Args:
        vectors: (n, d), finite.
        groups: Group of each slide.
        seed: For the 999 permutations.

    Returns:
        The effect; None where there are not two groups to compare, or all slides are the same.
    """
    sizes = Counter(group for group in groups if group is not None)
    counts = {group: size for group, size in sorted(sizes.items()) if size >= MIN_GROUP_SLIDES}
    if len(counts) < 2:
        return None
    kept = np.asarray([group in counts for group in groups])
    code = {group: number for number, group in enumerate(counts)}
    codes = np.asarray([code[group] for group in groups if group in counts])
    rows = np.asarray(vectors, dtype=np.float64)[kept]
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny)
    rows -= rows.mean(axis=0)
    total = float((rows**2).sum())
    if total <= len(rows) * _MIN_DISTANCE**2:
        return None
    between = _between(rows, codes)
    rng = np.random.default_rng(seed)
    as_large = sum(_between(rows, rng.permutation(codes)) >= between * (1 - 1e-12) for _ in range(PERMUTATIONS))
    return GroupEffect(counts, between / total, (1 + as_large) / (1 + PERMUTATIONS))


def _between(centred: NDArray[np.float64], codes: NDArray[np.intp]) -> float:
    """Sum of squares between groups; for given groups, F rises with it."""
    member = np.zeros((int(codes.max()) + 1, len(codes)))
    member[codes, np.arange(len(codes))] = 1
    return float(((member @ centred) ** 2).sum(axis=1) @ (1 / member.sum(axis=1)))
