"""Growing, shrinking, opening and closing masks with discs given in pixels, and least and greatest values in squares.

Belongs here: morphology that is exact and fast enough for ten million pixels. Does not belong: what a mask means.
`closed` treats the outside of the picture as empty, all others as more of what lies at the border.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def grown(mask: Mask, radius: float) -> Mask:
    """Pixels at most `radius` (Euclidean) from a pixel of `mask`."""
    reach = int(radius)
    if reach < 1 or not mask.any():
        return mask
    height = mask.shape[0]
    out = np.zeros_like(mask)
    line, half = mask, 0
    for dy in range(reach, -1, -1):
        # A disc is a pile of lines: as long as the circle is wide at that height, and longer towards its middle.
        wider = int((radius * radius - dy * dy) ** 0.5)
        line, half = _wider(line, half, wider), wider
        if dy < height:
            out[dy:] |= line[: height - dy]
            out[: height - dy] |= line[dy:]
    return out


def _wider(line: Mask, half: int, wanted: int) -> Mask:
    """Lines of `half` pixels to each side of every pixel of a mask made `wanted` long."""
    while half < wanted:
        # Lines that are moved by more than their length would leave gaps.
        by = min(wanted - half, 2 * half + 1)
        longer = line.copy()
        longer[:, by:] |= line[:, :-by]
        longer[:, :-by] |= line[:, by:]
        line, half = longer, half + by
    return line


def shrunk(mask: Mask, radius: float) -> Mask:
    """Pixels of `mask` farther than `radius` from every pixel outside of it; the picture's border takes nothing away."""
    return ~grown(~mask, radius)


def opened(mask: Mask, radius: float) -> Mask:
    """What of `mask` a disc of `radius` covers that fits inside it."""
    return mask & grown(shrunk(mask, radius), radius)


def closed(mask: Mask, radius: float) -> Mask:
    """`mask` and the gaps that no disc of `radius` fits into."""
    if radius < 1 or not mask.any():
        return mask
    margin = int(radius) + 2
    return mask | shrunk(grown(np.pad(mask, margin), radius), radius)[margin:-margin, margin:-margin]


def lowest(values: NDArray[Any], size: int) -> NDArray[Any]:
    """The least value in a square of `size` (odd) pixels around each."""
    return _over_square(np.minimum, values, size)


def highest(values: NDArray[Any], size: int) -> NDArray[Any]:
    """The greatest value in a square of `size` (odd) pixels around each."""
    return _over_square(np.maximum, values, size)


def _over_square(choose: np.ufunc, values: NDArray[Any], size: int) -> NDArray[Any]:
    padded = np.pad(values, size // 2, mode="edge")
    width = 1
    while width < size:
        # What is known of `width` pixels in a row gives what there is to know of up to twice as many.
        by = min(width, size - width)
        padded = choose(padded[:-by], padded[by:])
        padded = choose(padded[:, :-by], padded[:, by:])
        width += by
    return padded
