"""Pictures of whole slides a few rows at a time, so that what is computed on the way stays in the processor's cache.

Belongs here: cutting pictures into strips and putting results together. Does not belong: what is computed.
Numpy is ten times faster on arrays that fit into the cache than on a slide's, and no intermediate array is a slide's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

STRIP_PIXELS = 1 << 16
# Rows that two strips share are computed twice: strips are at least this many times as high.
LEAST_REACHES = 8


def strips(shape: tuple[int, ...], multiple: int = 1) -> Iterator[slice]:
    """The rows of a picture of `shape` (h, w), in slices of a multiple of `multiple` rows (the last may be shorter)."""
    height, width = shape[:2]
    rows = max(1, STRIP_PIXELS // max(width, 1) // multiple) * multiple
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def by_strips(
    function: Callable[..., NDArray[Any]], reach: int, dtype: DTypeLike, *pictures: NDArray[Any]
) -> NDArray[Any]:
    """What `function` makes of whole pictures, computed strip by strip.

    Args:
        function: Takes as many pictures as given, returns one of the same height and width. A pixel of its result depends
            on pixels at most `reach` rows away; what lies beyond a picture's border it may choose itself.
        reach: In pixels.
        dtype: Of the result.
        pictures: (h, w, ...) each, of the same height and width.
    """
    height, width = pictures[0].shape[:2]
    out = np.empty((height, width), dtype)
    for rows in strips((height, width), max(1, LEAST_REACHES * reach)):
        top, bottom = max(0, rows.start - reach), min(height, rows.stop + reach)
        part = function(*(picture[top:bottom] for picture in pictures))
        out[rows] = part[rows.start - top : rows.stop - top]
    return out
