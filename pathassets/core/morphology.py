"""Growing, shrinking, opening and closing masks with discs given in pixels.

Belongs here: morphology on boolean pictures that is exact and fast enough for ten million pixels. Does not belong: what a
mask means. `closed` treats the outside of the picture as empty, all others as more of what lies at the border.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]

# From this radius on a distance transform, whose cost does not depend on the radius, is faster.
LARGE_PX = 16


def grown(mask: Mask, radius: float) -> Mask:
    """Pixels at most `radius` (Euclidean) from a pixel of `mask`."""
    reach = int(radius)
    if reach < 1 or not mask.any() or mask.all():
        return mask
    if reach > LARGE_PX:
        return np.asarray(ndimage.distance_transform_edt(~mask) <= radius)
    out = mask.copy()
    height = mask.shape[0]
    for dy in range(min(reach, height - 1) + 1):
        # A disc is a pile of lines: as long as the circle is wide at that height.
        half = int((radius * radius - dy * dy) ** 0.5)
        wide = ndimage.maximum_filter1d(mask.view(np.uint8), 2 * half + 1, axis=1, mode="constant").view(bool)
        out[dy:] |= wide[: height - dy]
        out[: height - dy] |= wide[dy:]
    return out


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
