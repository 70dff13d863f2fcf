"""Rulers: how large what a picture shows is: a strip below it with a bar of a round length in µm.

Belongs here: that strip for pictures without a script. Does not belong: what is shown (`overlays`), interactive figures.
The strip lies below the picture, so that no tissue is covered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pathassets.figures import images

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

STRIP_PX = 18
BAR_PX = 3
PAD_PX = 5
# A bar is at most this share of the picture's width; its length is 1, 2 or 5 times a power of ten.
SHARE = 0.4


def round_length(longest_um: float) -> float:
    """The longest of 1, 2, 5, 10, 20, ... that is not longer; µm."""
    power = 10.0 ** np.floor(np.log10(longest_um))
    return float(max(step * power for step in (1, 2, 5) if step * power <= longest_um * (1 + 1e-9)))


def length_text(um: float) -> str:
    """`500 µm` or `2 mm`."""
    return f"{um / 1000:g} mm" if um >= 1000 else f"{um:g} µm"


def with_ruler(picture: Image | NDArray[np.uint8], um_per_px: float | None) -> Image:
    """The picture with a ruler below it; unchanged where nobody knows its resolution.

    Args:
        picture: RGB.
        um_per_px: Size of a pixel of the picture in µm.
    """
    from PIL import Image
    from PIL.ImageDraw import Draw

    above = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    if not um_per_px:
        return above
    room = max(1.0, above.width * SHARE)
    length = round_length(room * um_per_px)
    ruled = Image.new("RGB", (above.width, above.height + STRIP_PX), "white")
    ruled.paste(above, (0, 0))
    draw = Draw(ruled)
    middle, end = above.height + STRIP_PX // 2, PAD_PX + round(length / um_per_px)
    draw.rectangle((PAD_PX, middle - 1, end - 1, middle - 2 + BAR_PX), fill=images.INK)
    _write(draw, end + PAD_PX, above.height + 1, length_text(length))
    return ruled


def _write(draw: ImageDraw, x: int, y: int, text: str) -> None:
    """The font has no µ: it is a u with a longer stem."""
    images.write(draw, (x, y), text.replace("µ", "u"))
    if "µ" in text:
        stem = x + images.text_width(text[: text.index("µ")]) + 1
        draw.line((stem, y + images.FONT_PX // 2, stem, y + images.FONT_PX + 3), fill=images.INK)


def um_per_px(slide_mpp: float | None, slide_width_px: int, shown: NDArray[np.uint8], side: int) -> float | None:
    """µm per pixel of a picture of the whole slide that is `shown`, made at most `side` px; None where the slide's is unknown."""
    width, _ = images.shrunk(shown.shape, side)
    return slide_mpp * slide_width_px / width if slide_mpp else None
