"""Pixels: find slide files, name them, open them, read them at any resolution.

Belongs here: discovery (`discover`), ids (`identity`), the manifest (`manifest`), what a file says of itself (`probe`,
`info`), the readers (`openslide_reader`, `tiff_reader`), reading at a resolution (`slide`, `resample`, `overview`),
procedural slides (`synthetic`). Does not belong: tissue, tiles, encoders, the store, dagster.

Nothing here imports OpenSlide, tifffile or Pillow before it is used.

What holds for every reader:

- Pixels are uint8 RGB, shape (height, width, 3). Transparency is laid over white; outside the slide is white.
- Colours are those of the file. An ICC profile is neither applied nor removed: encoders were trained without.
- The TIFF tag Orientation is ignored, as OpenSlide, QuPath and ASAP do, so that coordinates agree with theirs.
- Label and macro images may show names of patients: their names are listed, their pixels are never read.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathassets.slides.discover import SLIDE_EXTENSIONS, find_slides
    from pathassets.slides.identity import content_digest, make_slide_id, same_content, slide_id
    from pathassets.slides.info import SlideInfo, check_mpp, manifest_line
    from pathassets.slides.manifest import Manifest, read_manifest
    from pathassets.slides.probe import open_slide
    from pathassets.slides.slide import Slide

__all__ = [
    "SLIDE_EXTENSIONS",
    "Manifest",
    "Slide",
    "SlideInfo",
    "check_mpp",
    "content_digest",
    "find_slides",
    "make_slide_id",
    "manifest_line",
    "open_slide",
    "read_manifest",
    "same_content",
    "slide_id",
]

_HOMES = {
    "SLIDE_EXTENSIONS": "discover",
    "find_slides": "discover",
    "content_digest": "identity",
    "make_slide_id": "identity",
    "same_content": "identity",
    "slide_id": "identity",
    "SlideInfo": "info",
    "check_mpp": "info",
    "manifest_line": "info",
    "Manifest": "manifest",
    "read_manifest": "manifest",
    "open_slide": "probe",
    "Slide": "slide",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
