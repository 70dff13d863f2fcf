"""OME-XML and Aperio's description: what the second reader learns from the text inside a TIFF.

Belongs here: resolution and objective from text. Does not belong: pixels, judging the numbers (`info`).
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from pathassets.slides.info import positive

# OME's length units that scanners use, in µm
_UM_PER_UNIT = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "pm": 1e-6, "in": 25.4e3}
_MAX_XML = 2**24

Mpp = tuple[float, float]


def parse_ome(text: str | None, image: int = 0) -> tuple[Mpp | None, float | None]:
    """Resolution (x, y) in µm/px and objective power of image number `image` of an OME-XML text; None where unknown."""
    if not text or "<OME" not in text or len(text) > _MAX_XML:
        return None, None
    try:
        root = ElementTree.fromstring(text)  # noqa: S314  # expat bounds what entities may grow to, no others are loaded
    except (ElementTree.ParseError, ValueError):
        return None, None
    images = root.findall("{*}Image")
    if image >= len(images):
        return None, None
    return _mpp(images[image].find("{*}Pixels")), _power(root, images[image])


def _mpp(pixels: ElementTree.Element | None) -> Mpp | None:
    if pixels is None:
        return None
    sizes = [_um(pixels, axis) for axis in "XY"]
    if sizes[0] is None and sizes[1] is None:
        return None
    return sizes[0] or sizes[1] or 0.0, sizes[1] or sizes[0] or 0.0


def _um(pixels: ElementTree.Element, axis: str) -> float | None:
    size = positive(pixels.get(f"PhysicalSize{axis}"))
    factor = _UM_PER_UNIT.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    return None if size is None or factor is None else size * factor


def _power(root: ElementTree.Element, image: ElementTree.Element) -> float | None:
    settings = image.find("{*}ObjectiveSettings")
    objectives = root.findall("{*}Instrument/{*}Objective")
    if settings is not None:
        objectives = [o for o in objectives if o.get("ID") == settings.get("ID")]
    return positive(objectives[0].get("NominalMagnification")) if len(objectives) == 1 else None


def parse_aperio(text: str | None) -> tuple[Mpp | None, float | None]:
    """The same from the `key = value | key = value` text that Aperio scanners write."""
    values = dict(re.findall(r"\|\s*(\w+)\s*=\s*([^|\r\n]*)", text or ""))
    mpp = positive(values.get("MPP"))
    return (None if mpp is None else (mpp, mpp)), positive(values.get("AppMag"))
