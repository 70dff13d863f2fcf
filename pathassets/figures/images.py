"""Small pictures as bytes: size limits, text on pictures, Markdown.

Belongs here: encoding and lettering that all PNG-like figures share. Does not belong: what is drawn (`overlays`, `maps`).
Dagster keeps every picture in its event log for ever, so that each has an upper bound in bytes.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

MAX_SIDE = 512
MAX_BYTES = 60_000
"""With base64's third on top below the 100 kB that Dagster's metadata should not exceed."""

FONT_PX = 12
INK = (40, 40, 40)
QUALITIES = (85, 70, 55, 40)
SHRINK = 0.8


def shrink(rgb: NDArray[np.uint8], max_side: int = MAX_SIDE) -> NDArray[np.uint8]:
    """`rgb` (h, w, 3) with its longer side at most `max_side` px."""
    from PIL import Image

    size = shrunk(rgb.shape, max_side)
    if size == rgb.shape[1::-1]:
        return rgb
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))


def shrunk(shape: Sequence[int], max_side: int = MAX_SIDE) -> tuple[int, int]:
    """Width and height that a picture of `shape` (h, w, ...) has once it is shrunk."""
    height, width = shape[:2]
    factor = min(1.0, max_side / max(height, width))
    return max(1, round(width * factor)), max(1, round(height * factor))


def encode(image: Image | NDArray[np.uint8], max_bytes: int = MAX_BYTES) -> bytes:
    """WebP of at most `max_bytes`: first the quality gives way, then the size."""
    from PIL import Image

    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    while True:
        for quality in QUALITIES:
            buffer = io.BytesIO()
            picture.save(buffer, "WEBP", quality=quality, method=4)
            if buffer.tell() <= max_bytes or max(picture.size) <= 16:
                return buffer.getvalue()
        picture = picture.resize([max(1, round(side * SHRINK)) for side in picture.size])


def data_uri(image: bytes) -> str:
    """`image` (WebP) as a `data:` address."""
    return "data:image/webp;base64," + base64.b64encode(image).decode()


def as_markdown_image(image: bytes, alt: str = "") -> str:
    """Markdown that shows `image` (WebP) inline; `alt` is stripped of what would end it early."""
    safe = re.sub(r"[^\w .,:·%-]", " ", plain(alt))
    return f"![{safe}]({data_uri(image)})"


def plain(text: str, longest: int = 48) -> str:
    """`text` on one line, without control characters, shortened with an ellipsis."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def font() -> FreeTypeFont | ImageFont:
    """The one font of small pictures; it comes with Pillow."""
    from PIL import ImageFont

    return ImageFont.load_default(FONT_PX)


def write(draw: ImageDraw, xy: tuple[float, float], text: str) -> None:
    """Puts dark text with its upper left corner at `xy`."""
    draw.text(xy, text, fill=INK, font=font())


def text_width(text: str) -> int:
    """Width of `text` in px."""
    return int(np.ceil(font().getlength(text)))
