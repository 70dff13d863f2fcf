"""Run: an export from the names that a user gives to the files, slide by slide.

Belongs here: which formats there are, choosing slides and recipes, going on when a slide lacks something. Does not belong:
formats themselves, printing (`cli/exporting.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pathassets.errors import ConfigError, PathassetsError, Reason
from pathassets.exports import anndata_files, features, qupath, spatialdata_store, tables
from pathassets.exports.files import Target
from pathassets.exports.gather import SlideFeatures, gather
from pathassets.exports.pictures import Pictures
from pathassets.exports.places import Places
from pathassets.recipes import Recipe
from pathassets.steps.naming import one_slide, slide_ids
from pathassets.steps.session import Session

SlideExport = Callable[[Session, str, Target], None]
FeatureExport = Callable[[Session, SlideFeatures, Target], None]
CohortExport = Callable[[Session, Recipe, Target], None]
T = TypeVar("T")

# What would fail for every other slide too.
_ENDS_ALL = {Reason.DISK_FULL, Reason.STORE_READ_ONLY}


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        what: What is written, for people.
        slide: Writes what belongs to a slide as such.
        features: Writes what belongs to a slide under a recipe.
        cohort: Writes what belongs to all slides under a recipe, where all are exported.
    """

    what: str
    slide: SlideExport | None = None
    features: FeatureExport | None = None
    cohort: CohortExport | None = None


def _alone(write: Callable[[SlideFeatures, Target], None]) -> FeatureExport:
    """A format that needs nothing but the features."""
    return lambda _, found, target: write(found, target)


def _png(width: int | None) -> Format:
    """Pictures of a width."""
    made = Pictures(width)
    return Format("overlays and mosaics", made.export_slide, made.export_features, made.export_cohort)


FORMATS: dict[str, Format] = {
    "anndata": Format("tiles x features, .h5ad", features=_alone(anndata_files.export_h5ad)),
    "anndata-zarr": Format("tiles x features, Zarr", features=_alone(anndata_files.export_zarr)),
    "trident": Format("HDF5 of TRIDENT and CLAM", features=_alone(features.export_trident)),
    "slideflow": Format("bags of Slideflow", features=_alone(features.export_slideflow)),
    "tiatoolbox": Format("Zarr of TIAToolbox", features=_alone(features.export_tiatoolbox)),
    "spatialdata": Format("Zarr of SpatialData, as LazySlide opens it", features=spatialdata_store.export_spatialdata),
    "qupath": Format("GeoJSON of tissue, tiles, domains", qupath.export_tissue, qupath.export_features),
    "png": _png(None),
}
TABLE_FORMATS = {"parquet": "tables, .parquet", "csv": "tables, .csv"}


@dataclass(frozen=True)
class LeftOut:
    """Something that was asked for and could not be exported.

    Attributes:
        slide_id: Whose.
        reason: The code.
        message: What is missing.
        remedy: What to do.
    """

    slide_id: str
    reason: str
    message: str
    remedy: str


def check_format(name: str, width: int | None = None) -> None:
    """Refuses a format that there is not, and a width for what is no picture.

    Raises:
        ConfigError: With the names of those there are.
    """
    if name not in FORMATS and name not in TABLE_FORMATS:
        raise ConfigError(f"there is no format {name!r}", remedy=f"There are: {', '.join([*FORMATS, *TABLE_FORMATS])}.")
    if width is not None and name != "png":
        raise ConfigError("--width goes with png", remedy="Leave it out.")


def format_of(name: str, width: int | None = None) -> Format:
    """The format called `name`; pictures `width` px wide."""
    return FORMATS[name] if width is None else _png(width)


def chosen_slides(session: Session, names: Sequence[str]) -> list[str]:
    """The slides that are meant; all registered ones when none is named.

    Raises:
        ConfigError: A name fits no slide, or several.
    """
    return list(dict.fromkeys(one_slide(session, name) for name in names)) if names else slide_ids(session)


def chosen_recipes(recipes: Sequence[Recipe], name: str | None) -> tuple[Recipe, ...]:
    """The recipes that are meant: all, or the one with this key or, where that tells them apart, this name.

    Raises:
        ConfigError: None, or more than one.
    """
    if name is None:
        return tuple(recipes)
    found = [r for r in recipes if r.key == name] or [r for r in recipes if r.name == name]
    if len(found) == 1:
        return tuple(found)
    keys = ", ".join(recipe.key for recipe in (found or recipes))
    what = f"recipe {name!r} may be several" if found else f"there is no recipe {name!r}"
    raise ConfigError(what, remedy=f"Name one of: {keys}.")


def export_slides(
    session: Session, form: Format, slides: Sequence[str], recipes: Sequence[Recipe], target: Target
) -> list[LeftOut]:
    """Exports slide by slide; what cannot be exported is told and holds up nothing else.

    Raises:
        StoreError: The disk is full or cannot be written.
    """
    left: list[LeftOut] = []
    for slide_id in slides:
        if form.slide is not None:
            _try(form.slide, session, slide_id, target, slide_id, left)
        for recipe in recipes if form.features is not None else ():
            found = _gathered(session, slide_id, recipe, left)
            if found is not None and form.features is not None:
                _try(form.features, session, found, target, slide_id, left)
    return list(dict.fromkeys(left))


def export_cohort(session: Session, form: Format, recipes: Sequence[Recipe], target: Target) -> None:
    """Exports what belongs to all slides together, as far as it was made."""
    for recipe in recipes if form.cohort is not None else ():
        if form.cohort is not None:
            form.cohort(session, recipe, target)


def export_tables(
    session: Session,
    names: Sequence[str],
    slides: Sequence[str] | None,
    recipes: Sequence[str] | None,
    target: Target,
    *,
    csv: bool,
) -> list[LeftOut]:
    """Exports tables, each as one file; one that cannot be is told and holds up no other. Of places names are left (`places`).

    Args:
        session: The study.
        names: Which; all when none is named.
        slides: Only these slides' rows; None = all.
        recipes: Only these recipes' rows, and those that belong to none; None = all.
        target: Where to.
        csv: CSV instead of Parquet.

    Raises:
        ConfigError: There is no such table.
        StoreError: The disk is full or cannot be written.
    """
    left: list[LeftOut] = []
    chosen, places = tables.check_tables(names), Places(session)
    for name in chosen:
        try:
            rows = places.without(tables.rows_of(session, name, slides, recipes))
            tables.export_table(rows, name, target, csv=csv)
        except PathassetsError as error:
            _note(error, f"table {name}", left)
    return left


def _gathered(session: Session, slide_id: str, recipe: Recipe, left: list[LeftOut]) -> SlideFeatures | None:
    try:
        return gather(session, slide_id, recipe)
    except PathassetsError as error:
        _note(error, slide_id, left)
        return None


def _try(
    write: Callable[[Session, T, Target], None],
    session: Session,
    what: T,
    target: Target,
    slide_id: str,
    left: list[LeftOut],
) -> None:
    try:
        write(session, what, target)
    except PathassetsError as error:
        _note(error, slide_id, left)


def _note(error: PathassetsError, slide_id: str, left: list[LeftOut]) -> None:
    if error.reason in _ENDS_ALL:
        raise error
    left.append(LeftOut(slide_id, str(error.reason), error.message, error.remedy))
