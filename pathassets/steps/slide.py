"""Step `slide`: open the file, learn what it is, refuse it before any work if its resolution is unknown.

Belongs here: the probe and the full row of `slides`. Does not belong: finding files and making ids (`register`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pathassets.errors import Reason, SlideError
from pathassets.recipes import digest
from pathassets.steps.chain import Made
from pathassets.steps.nodes import Node
from pathassets.steps.outcomes import Status, load_outcome
from pathassets.steps.session import Session, made_by
from pathassets.steps.sources import is_there, slide_file
from pathassets.store.schema import table_spec

if TYPE_CHECKING:
    from pathassets.slides import SlideInfo


def inputs(session: Session, slide_id: str, node: Node) -> tuple[Any, ...]:
    """The file's content, whether it still lies there, and what the manifest says of it."""
    row = session.slide_row(slide_id)
    return (row["content_sha256"], is_there(session, row), session.manifest_entry(row["path"]))


def is_stored(session: Session, slide_id: str, node: Node) -> bool:
    """Whether the row was filled in by a probe."""
    return session.slide_row(slide_id)["reader"] is not None


def make(session: Session, slide_id: str, node: Node, result_digest: str) -> Made:
    """Opens and probes the slide and writes its row, also when it is then refused.

    A slide that was good and whose file is gone, or another one now, is flagged: what was made from it stays.

    Raises:
        SlideError: The file cannot be read, or its resolution is missing or implausible.
    """
    try:
        return _probe(session, slide_id, node)
    except SlideError as error:
        before = load_outcome(session, slide_id, node)
        if error.reason not in (Reason.FILE_MISSING, Reason.FILE_CHANGED) or before is None or not before.usable:
            raise
        message = f"{error.message}; what was made from it is kept"
        return Made(Status.FLAGGED, error.reason, message, error.remedy, before.result_digest)


def _probe(session: Session, slide_id: str, node: Node) -> Made:
    from pathassets.slides import check_mpp
    from pathassets.slides.watched import watched_slide

    row = session.slide_row(slide_id)
    manifest = session.manifest_entry(row["path"])
    limit = session.study.stall_seconds
    with slide_file(session, row) as path, watched_slide(path, limit, mpp=manifest.get("mpp")) as slide:
        info = slide.info
        pixels = digest("pixels", row["content_sha256"], info.reader, info.decoder, info.mpp)
        extras = {name: value for name, value in manifest.items() if name not in ("path", "mpp")}
        # The manifest's columns of an earlier run must not outlive the manifest.
        known = {name: row[name] for name in table_spec("slides").names}
        full = {**known, **extras, **_probed(info), **made_by(session, node, pixels)}
        session.tables.write("slides", [full], slide_id=slide_id)
        check_mpp(info)  # here, where a local copy's name becomes the slide's in what is said
    if info.mpp_origin == "power":
        return Made(
            Status.FLAGGED,
            Reason.MPP_FROM_POWER,
            f"no resolution in the file; {info.mpp:g} µm/px follows from its {info.objective_power:g}x objective",
            "Give its mpp in slides.csv if you know better.",
            pixels,
        )
    return Made(result_digest=pixels)


def _probed(info: SlideInfo) -> dict[str, Any]:
    return {
        "reader": info.reader,
        "decoder": info.decoder,
        "vendor": info.vendor,
        "width_px": info.width_px,
        "height_px": info.height_px,
        "n_levels": info.n_levels,
        "level_dimensions": [list(size) for size in info.level_dimensions],
        "objective_power": info.objective_power,
        "mpp": info.mpp,
        "mpp_origin": info.mpp_origin,
        "associated_images": list(info.associated_images),
    }
