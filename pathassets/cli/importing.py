"""`pathassets import`: tissue drawn in QuPath, and features that other tools computed, as results of a slide.

Belongs here: what the user typed into what is taken in, printing, the exit code. Does not belong: files (`exports/`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathassets.cli.console import print_json, say
from pathassets.config import Study
from pathassets.errors import ConfigError, Reason
from pathassets.steps.naming import one_slide
from pathassets.steps.session import Session
from pathassets.store.cache import file_sha256

_MAX_OUTSIDE = 0.05  # a hand slips over a slide's edge; more than that was drawn on another picture
FORMATS = ("qupath", "trident", "slideflow")


@dataclass(frozen=True)
class ImportRequest:
    """The arguments of `pathassets import`."""

    form: str
    path: Path
    slide: str
    encoder: str | None = None
    name: str | None = None
    tile_px: int | None = None
    mpp: float | None = None
    force: bool = False
    as_json: bool = False


def import_file(study: Study, request: ImportRequest) -> int:
    """Takes a file in; exit code 1 when something of what follows from it failed.

    Raises:
        ConfigError: No such format, file or slide, or a file that is not what it should be.
        SlideError: The drawing cannot be used.
        StoreError: The disk is full or cannot be written.
    """
    if request.form not in FORMATS:
        raise ConfigError(f"there is no format {request.form!r}", remedy=f"There are: {', '.join(FORMATS)}.")
    if not request.path.is_file():
        raise ConfigError(f"{request.path} is no file", reason=Reason.FILE_MISSING, remedy="Correct the path.")
    session = Session(study)
    slide_id = one_slide(session, request.slide)
    done = _tissue(session, slide_id, request) if request.form == "qupath" else _features(session, slide_id, request)
    if request.as_json:
        print_json({"slide_id": slide_id, **done})
    else:
        say(f"{slide_id}: {done['message']}")
        say(done["next"])
    return 1 if done.get("failed") else 0


def _tissue(session: Session, slide_id: str, request: ImportRequest) -> dict[str, Any]:
    from pathassets.exports.adopted import adopt_tissue

    kept, outside = adopt_tissue(session, slide_id, request.path, force=request.force)
    message = f"its tissue is what is drawn in {kept}"
    if outside > _MAX_OUTSIDE:
        message += f"; {outside:.0%} of it lies outside of the slide and is left out: was it drawn on this slide, at full resolution?"
    return {"message": message, "kept": kept, "next": "now `pathassets run` makes what follows from it"}


def _features(session: Session, slide_id: str, request: ImportRequest) -> dict[str, Any]:
    from pathassets.exports.adopted import Source, adopt_features
    from pathassets.exports.foreign import read_slideflow, read_trident

    if request.encoder is None:
        raise ConfigError("nobody says what made these features", remedy="Name the encoder with --encoder.")
    read = read_trident if request.form == "trident" else read_slideflow
    found = read(request.path, session.slide_row(slide_id)["mpp"]).with_grid(request.tile_px, request.mpp)
    name = request.name or request.encoder
    source = Source(request.form, file_sha256(request.path), request.encoder, name)
    results = adopt_features(session, slide_id, found, source)
    failed = [f"{r.node.step}: {r.outcome.message}" for r in results if r.outcome is not None and not r.usable]
    recipe = results[0].node.recipe
    assert recipe is not None
    message = f"{len(found.x)} features of {request.encoder} adopted as {recipe.key}" + "".join(
        f"; {f}" for f in failed
    )
    return {
        "message": message, "recipe": recipe.key, "failed": failed,
        "next": "now `pathassets publish` brings them into results.duckdb",
    }  # fmt: skip
