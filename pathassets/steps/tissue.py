"""Step `tissue`: where on the slide there is tissue, as a label image and as polygons.

Belongs here: reading the overview, choosing between detection and the user's mask, writing pieces and thumbnail.
Does not belong: how tissue is told from background (`core/tissue.py`).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathassets.errors import Reason, SlideError
from pathassets.steps.annotations import is_annotation, picture_origin, read_tissue
from pathassets.steps.chain import Made
from pathassets.steps.nodes import Node
from pathassets.steps.outcomes import Status
from pathassets.steps.session import Session, made_by
from pathassets.store import layout

if TYPE_CHECKING:
    from pathassets.core.pieces import TissuePiece
    from pathassets.core.tissue import TissueMask

THUMBNAIL_PX = 1024
MAX_MASK_PIXELS = 400_000_000


def inputs(session: Session, slide_id: str, node: Node) -> tuple[Any, ...]:
    """The content of the mask file that the manifest names, if it names one."""
    mask = session.mask_path(slide_id)
    return (session.file_sha256(mask) if mask is not None else None,)


def is_stored(session: Session, slide_id: str, node: Node) -> bool:
    """Whether the pieces and the label image are there."""
    return session.tables.exists("tissues", slide_id) and session.root.exists(layout.tissue_labels_key(slide_id))


def make(session: Session, slide_id: str, node: Node, result_digest: str) -> Made:
    """Finds tissue and writes the table `tissues`, the label image and the slide's thumbnail.

    Raises:
        SlideError: The overview cannot be read, or the mask file cannot (`mask_unreadable`).
    """
    from pathassets.core.pieces import tissue_pieces
    from pathassets.core.tissue import find_tissue

    options = node.tissue
    assert options is not None
    row = session.slide_row(slide_id)
    with session.open_slide(slide_id, watched=True) as slide:
        rgb, origin = slide.read_mpp(max(options.mpp, row["mpp"])), picture_origin(slide.info)
    mpp = row["width_px"] * row["mpp"] / rgb.shape[1]
    session.root.put(layout.thumbnail_key(slide_id), thumbnail_jpeg(rgb))
    mask = session.mask_path(slide_id)
    size = row["width_px"], row["height_px"]
    found = find_tissue(rgb, mpp, options) if mask is None else _marked(mask, rgb.shape[:2], size, origin)
    scale_x, scale_y = row["width_px"] / rgb.shape[1], row["height_px"] / rgb.shape[0]
    pieces, labels = tissue_pieces(found.mask, mpp=row["mpp"], scale_x=scale_x, scale_y=scale_y, options=options)
    session.root.put(layout.tissue_labels_key(slide_id), pack_labels(labels))
    rows = [_piece_row(slide_id, piece, found) | made_by(session, node, result_digest) for piece in pieces]
    session.tables.write("tissues", rows, slide_id=slide_id)
    if not pieces:
        return Made(
            Status.EMPTY,
            Reason.NO_TISSUE,
            "no tissue was found on the slide",
            "If there is tissue, set [tissue] method, or name a mask in the column tissue_mask of slides.csv.",
        )
    return Made()


def _piece_row(slide_id: str, piece: TissuePiece, found: TissueMask) -> dict[str, Any]:
    from shapely import to_geojson

    return {
        "slide_id": slide_id,
        "tissue_id": piece.tissue_id,
        "area_mm2": piece.area_mm2,
        "n_holes": len(piece.geometry.interiors),
        "geometry": to_geojson(piece.geometry),
        "method": found.method,
    }


def thumbnail_jpeg(rgb: np.ndarray) -> bytes:
    """`rgb` (h, w, 3, uint8) as a JPEG of at most `THUMBNAIL_PX` a side."""
    from PIL import Image

    image = Image.fromarray(rgb)
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX, reducing_gap=None)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _marked(path: Path, hw: tuple[int, int], size: tuple[int, int], origin: tuple[int, int]) -> TissueMask:
    """The user's own tissue: drawn as GeoJSON, or a picture."""
    from pathassets.core.pieces import mask_from_shape

    return mask_from_shape(read_tissue(path, origin), size, hw) if is_annotation(path) else read_mask(path, hw)


def read_mask(path: Path, shape: tuple[int, int]) -> TissueMask:
    """The user's mask, an image of any size whose pixels are tissue where they are not zero, as a mask of `shape` (h, w).

    Raises:
        SlideError: `mask_unreadable`.
    """
    from PIL import Image, UnidentifiedImageError

    from pathassets.core.pieces import mask_from_image

    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_MASK_PIXELS:
                raise ValueError(f"{image.width} x {image.height} px is too large for a mask")
            return mask_from_image(np.asarray(image), shape)
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise SlideError(
            f"the tissue mask {path} cannot be read: {error}",
            reason=Reason.MASK_UNREADABLE,
            remedy="Name a PNG or TIFF whose non-zero pixels are tissue, or GeoJSON, in the column tissue_mask of slides.csv.",
        ) from error


def pack_labels(labels: np.ndarray) -> bytes:
    """A label image (h, w, int32; -1 = none) as compressed bytes; two bytes a pixel are enough for most."""
    small = labels.size == 0 or labels.max() <= np.iinfo(np.int16).max
    buffer = io.BytesIO()
    np.savez_compressed(buffer, labels=labels.astype(np.int16 if small else np.int32))
    return buffer.getvalue()


def load_labels(session: Session, slide_id: str) -> np.ndarray:
    """The slide's tissue label image (h, w, int32; -1 = none)."""
    with np.load(io.BytesIO(session.root.read(layout.tissue_labels_key(slide_id))), allow_pickle=False) as data:
        labels: np.ndarray = data["labels"].astype(np.int32, copy=False)
    return labels
