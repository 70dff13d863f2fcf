"""Training a slide encoder on labels of a study: which slides, whose patients, what is written.

Belongs here: gathering labels and embeddings, refusing what cannot be learned from. Does not belong: the training itself
(`encoders/slide/training`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pathassets import __version__
from pathassets.encoders import canonical
from pathassets.errors import ConfigError, Reason
from pathassets.recipes import Recipe
from pathassets.steps.embedded import open_embeddings
from pathassets.steps.made_from import library_versions
from pathassets.steps.session import Session
from pathassets.steps.slide_vector import read_tiles
from pathassets.store.local_root import put_new

if TYPE_CHECKING:
    from pathassets.encoders.slide.training import Verdict

LIBRARIES = ("numpy", "scikit-learn", "torch", "safetensors")
# Embeddings that are held at once; of more, each slide gives a part of its tiles.
MAX_BYTES = 2 * 2**30
PATIENT = "patient"


@dataclass(frozen=True)
class Cohort:
    """Slides with a label and current embeddings of one recipe.

    Attributes:
        rows: `slide_id`, `label`, `patient` and the slide's row of `embeddings`, by slide id.
        classes: The labels, sorted; the last of two is what an AUROC speaks of.
        unlabelled: How many slides have embeddings and no label.
    """

    rows: pl.DataFrame
    classes: tuple[str, ...]
    unlabelled: int


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Attributes:
        path: The file.
        verdict: How good it is on slides that it has not seen.
        cohort: From what.
        patients: How many patients have each class.
    """

    path: Path
    verdict: Verdict
    cohort: Cohort
    patients: tuple[int, ...]


def gather(session: Session, recipe: Recipe, label: str) -> Cohort:
    """The slides to learn from.

    Raises:
        ConfigError: No such column, fewer than two labels, or embeddings of different weights.
    """
    slides = session.tables.scan("slides").collect()
    if label not in slides.columns or slides[label].null_count() == len(slides):
        own = sorted(set(session.manifest.rows[0]) - {"path", "mpp"}) if session.manifest.rows else []
        raise ConfigError(
            f"no slide has a {label!r}",
            reason=Reason.MANIFEST_INVALID,
            remedy=f"Add the column to slides.csv and run `pathassets run` once; it has {', '.join(own) or 'none'}.",
        )
    patient = pl.col(PATIENT).cast(pl.String) if PATIENT in slides.columns else pl.lit(None, pl.String)
    told = slides.select("slide_id", pl.col(label).cast(pl.String).alias("label"), patient.alias("patient"))
    told = told.with_columns(pl.col("patient").fill_null(pl.col("slide_id")))
    found = session.tables.scan("embeddings").filter(pl.col("recipe") == recipe.key).collect().join(told, on="slide_id")
    readable = pl.col("n_tiles") > pl.col("n_bad_tiles").fill_null(0)
    rows = found.filter(pl.col("label").is_not_null() & readable).sort("slide_id")
    classes = tuple(sorted(rows["label"].unique()))
    if len(classes) < 2:
        raise ConfigError(
            f"{len(rows)} slides have embeddings of {recipe.key} and a {label!r}, of {len(classes)} kinds: nothing to tell apart",
            reason=Reason.TOO_FEW_SLIDES,
            remedy="Label slides of two kinds at least, and embed them with `pathassets run`.",
        )
    if rows["weights_sha256"].n_unique() > 1:
        raise ConfigError(
            f"the embeddings of {recipe.key} were made with different weights",
            reason=Reason.ENCODER_MISMATCH,
            remedy="Run `pathassets run` once: it makes the old ones anew.",
        )
    return Cohort(rows, classes, len(found) - len(rows))


def train_abmil(
    session: Session,
    recipe: Recipe,
    label: str,
    path: Path,
    *,
    folds: int,
    seed: int,
    told: Callable[[int], None] | None = None,
) -> Trained:
    """Trains an ABMIL on a column of `slides.csv`, tells how good it is on patients it has not seen, and writes it.

    Args:
        session: The study.
        recipe: Whose embeddings.
        label: The column.
        path: The safetensors file to write, which must not be there yet.
        folds: Parts of the cross-validation.
        seed: For everything that is drawn.
        told: Is called with each fold's number when it is done.

    Raises:
        ConfigError: `too_few_slides` and what `gather` refuses; the file is there, or has another ending.
    """
    from pathassets.encoders.slide import training

    _check_target(path)
    cohort = gather(session, recipe, label)
    bags = _bags(session, cohort, seed)
    patients = training.patients_per_class(bags, len(cohort.classes))
    _check_enough(cohort, patients, folds, label)
    verdict = training.cross_validate(bags, len(cohort.classes), folds=folds, seed=seed, told=told)
    network = training.train(bags, len(cohort.classes), seed=seed)
    record = _record(recipe, cohort, label) | _result(verdict, patients, folds, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not put_new(path, training.as_file(network, record)):
        _check_target(path)
    return Trained(path, verdict, cohort, tuple(patients))


def _check_target(path: Path) -> None:
    if path.suffix != ".safetensors" or path.exists():
        why = "is there already" if path.exists() else "does not end in .safetensors"
        raise ConfigError(f"{path} {why}", remedy="Name another file with --out.")


def _check_enough(cohort: Cohort, patients: Sequence[int], folds: int, label: str) -> None:
    if min(patients) < folds:
        counts = ", ".join(f"{name}: {count}" for name, count in zip(cohort.classes, patients, strict=True))
        raise ConfigError(
            f"too few patients of each {label!r} to hold some out {folds} times: {counts}",
            reason=Reason.TOO_FEW_SLIDES,
            remedy=f"Label {folds} patients of each kind at least; below 20 of each an AUROC says little.",
        )


def _bags(session: Session, cohort: Cohort, seed: int) -> list[Any]:
    """The slides with their tiles that could be read; of many tiles, each slide gives an even part."""
    from pathassets.encoders.slide.training import Bag

    rows, rng = cohort.rows, np.random.default_rng(seed)
    share = min(1.0, MAX_BYTES / max(1, int((rows["n_tiles"] * rows["dim"]).sum()) * 4))
    bags = []
    for row in rows.iter_rows(named=True):
        tiles = read_tiles(open_embeddings(session, row), 1.0).features
        kept = (
            np.sort(rng.choice(len(tiles), max(1, int(len(tiles) * share)), replace=False))
            if share < 1
            else slice(None)
        )
        bags.append(Bag(tiles[kept], cohort.classes.index(row["label"]), row["patient"]))
    return bags


def _record(recipe: Recipe, cohort: Cohort, label: str) -> dict[str, Any]:
    """What a training was of; without a time, so that the same training gives the same file."""
    rows = cohort.rows
    digests = "\n".join(f"{slide} {digest}" for slide, digest in rows.select("slide_id", "digest").iter_rows())
    return {
        "recipe": recipe.key,
        "encoder": canonical(recipe.encoder),
        "weights_sha256": rows["weights_sha256"][0],
        "tiling": recipe.tiling.model_dump(mode="json"),
        "label": label,
        "classes": list(cohort.classes),
        "slide_ids": rows["slide_id"].to_list(),
        "embeddings_sha256": hashlib.sha256(digests.encode()).hexdigest(),
        "libraries": library_versions(LIBRARIES),
        "pathassets_version": __version__,
    }


def _result(verdict: Verdict, patients: Sequence[int], folds: int, seed: int) -> dict[str, Any]:
    return {
        "auroc": verdict.auroc, "auroc_low": verdict.low, "auroc_high": verdict.high, "auroc_folds": verdict.folds,
        "patients": list(patients), "folds": folds, "seed": seed,
    }  # fmt: skip
