"""`pathassets export`: results as files for other tools.

Belongs here: what the user typed into what is exported, printing, the exit code. Does not belong: formats (`exports/`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pathassets.cli.console import print_json, say
from pathassets.cli.notes import MEANS_NOTHING
from pathassets.config import Study
from pathassets.errors import ConfigError
from pathassets.exports.adopted import adopted_recipes
from pathassets.exports.files import Target
from pathassets.exports.run import (
    TABLE_FORMATS,
    LeftOut,
    check_format,
    chosen_recipes,
    chosen_slides,
    export_cohort,
    export_slides,
    export_tables,
    format_of,
)
from pathassets.steps.naming import one_slide
from pathassets.steps.session import Session
from pathassets.store import open_root


@dataclass(frozen=True)
class ExportRequest:
    """The arguments of `pathassets export`."""

    form: str
    folder: Path
    slides: tuple[str, ...] = ()
    recipe: str | None = None
    tables: tuple[str, ...] = ()
    width: int | None = None
    force: bool = False
    as_json: bool = False


def export_study(study: Study, request: ExportRequest) -> int:
    """Exports and tells what was written; exit code 1 when something was left out.

    Raises:
        ConfigError: A format, slide, recipe or table that there is not, or a folder that exports must not go to.
        StoreError: The disk is full or cannot be written.
    """
    check_format(request.form, request.width)
    session, target = Session(study), Target(_checked_folder(study, request.folder), force=request.force)
    recipes = chosen_recipes(
        [*study.recipes, *adopted_recipes(session)] if request.recipe else study.recipes, request.recipe
    )
    slides = chosen_slides(session, request.slides)
    if request.form in TABLE_FORMATS:
        only = slides if request.slides else None
        keys = [recipe.key for recipe in recipes] if request.recipe else None
        left = export_tables(session, request.tables, only, keys, target, csv=request.form == "csv")
    elif request.tables:
        raise ConfigError(f"--table goes with {' and '.join(TABLE_FORMATS)}", remedy="Leave it out.")
    else:
        form = format_of(request.form, request.width)
        left = export_slides(session, form, slides, recipes, target)
        if not request.slides:
            export_cohort(session, form, recipes, target)
    _tell(target, left, as_json=request.as_json)
    return 1 if left else 0


def _checked_folder(study: Study, folder: Path) -> Path:
    """Refuses the store and Dagster's state: what lies there is not to be mixed with anything."""
    path = folder.expanduser().resolve()
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is not a folder", remedy="Name a folder with --to.")
    store = open_root(study.store_uri).folder
    if any(path.is_relative_to(kept) for kept in (store, study.dagster_home) if kept is not None):
        raise ConfigError(f"{path} belongs to the study itself", remedy="Name another folder with --to.")
    return path


def _tell(target: Target, left: Sequence[LeftOut], *, as_json: bool) -> None:
    if as_json:
        print_json({"folder": target.path, "written": target.written, "unchanged": target.unchanged,
                    "left_out": [asdict(item) for item in left]})  # fmt: skip
        return
    for item in left:
        say(f"left out: {item.slide_id}: {item.message}. {item.remedy}".rstrip())
    same = f", {len(target.unchanged)} were there already" if target.unchanged else ""
    missing = f", {len(left)} left out" if left else ""
    say(f"{len(target.written)} files written to {target.path}{same}{missing}")


def report_study(study: Study, slide: str | None, path: Path, *, cohort: bool, force: bool) -> int:
    """Writes a slide's report, or the study's.

    Raises:
        ConfigError: No slide, or both a slide and the study, are asked for; the file is there and holds something else.
        SlideError: Nothing was made of the slide yet.
        StoreError: The disk is full or cannot be written.
    """
    from pathassets.report.cohort import cohort_report
    from pathassets.report.slide import slide_report

    if cohort == (slide is not None):
        raise ConfigError("a report is about one slide or the study", remedy="Name a slide, or say --cohort.")
    session = Session(study)
    file = path.expanduser().resolve()
    target = Target(_checked_folder(study, file.parent), force=force)
    text = cohort_report(session) if slide is None else slide_report(session, one_slide(session, slide))
    target.put_bytes(file.name, text.encode())
    say(f"{file} ({len(text) / 1e6:.1f} MB)" + (", unchanged" if target.unchanged else ""))
    return 0


def embed_patches_to(
    folder: Path,
    out: Path,
    encoder: str,
    weights: Path | None,
    *,
    random_weights: bool,
    device: str,
    force: bool,
    as_json: bool,
) -> int:
    """Embeds a folder of patches into a file; exit code 1 when pictures were left out.

    Raises:
        ConfigError: The folder is none or holds no picture that can be read; the file is there already, or of another kind.
        EncoderError: The encoder cannot be had.
    """
    from pathassets.encoders import load_encoder
    from pathassets.encoders.licences import asks_something
    from pathassets.exports.patches import check_target, embed_patches, write_patches

    file = out.expanduser().resolve()
    check_target(file, force=force)
    loaded = load_encoder(encoder, weights=weights, random_weights=random_weights, device=device)
    note = f"{encoder} has {MEANS_NOTHING}" if loaded.is_random else asks_something(loaded.card)
    if note and not as_json:
        say(f"note: {note}")
    patches = embed_patches(folder.expanduser(), loaded)
    for path, why in patches.failed.items():
        if not as_json:
            say(f"left out: {path}: {why}")
    write_patches(patches, file, force=force)
    if as_json:
        print_json(
            {
                "file": file,
                "random_weights": loaded.is_random,
                "embedded": len(patches.table),
                "left_out": patches.failed,
            }
        )
    else:
        missing = f", {len(patches.failed)} left out" if patches.failed else ""
        say(f"{len(patches.table)} pictures, {loaded.dim} numbers each: {file}{missing}")
    return 1 if patches.failed else 0
