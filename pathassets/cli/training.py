"""`pathassets train-abmil`: a slide encoder from labels of `slides.csv`, and how good it is on patients it has not seen.

Belongs here: the command, what it prints. Does not belong: gathering (`steps/train_abmil`), training (`encoders/slide/training`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathassets.cli.arguments import AsJson, Home, study_at
from pathassets.cli.console import print_json, say
from pathassets.config import Study
from pathassets.errors import ConfigError
from pathassets.recipes import Recipe, slug

if TYPE_CHECKING:
    from pathassets.steps.train_abmil import Trained


def train_abmil(
    label: Annotated[str, typer.Argument(help="The column of slides.csv to learn.")],
    home: Home = None,
    recipe: Annotated[str | None, typer.Option(help="Whose embeddings, `<tiling>/<name>` or its name.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file to write; models/<label>.safetensors in the study by default."),
    ] = None,
    folds: Annotated[int, typer.Option(help="Parts of patients, each held out once.", min=2, max=20)] = 5,
    seed: Annotated[int, typer.Option(help="For everything that is drawn.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Train a slide encoder (ABMIL) on slides' labels; a recipe can then name its file."""
    from pathassets.exports.run import chosen_recipes
    from pathassets.steps.session import Session
    from pathassets.steps.train_abmil import train_abmil as train

    study = study_at(home)
    found = chosen_recipes(study.recipes, recipe)
    if len(found) != 1:
        keys = ", ".join(one.key for one in found)
        raise ConfigError(f"there are several recipes: {keys}", remedy="Name one with --recipe.")
    path = (out or study.home / "models" / f"{slug(label)}.safetensors").expanduser().absolute()

    def told(number: int) -> None:
        if not as_json:
            say(f"fold {number + 1} of {folds} is done")

    trained = train(Session(study), found[0], label, path, folds=folds, seed=seed, told=told)
    if as_json:
        print_json(_as_json(trained))
    else:
        _tell(study, found[0], label, trained)


def _as_json(trained: Trained) -> dict[str, Any]:
    verdict, cohort = trained.verdict, trained.cohort
    held_out = [
        {"slide_id": slide_id, "label": name, **dict(zip(cohort.classes, map(float, row), strict=True))}
        for slide_id, name, row in zip(
            cohort.rows["slide_id"], cohort.rows["label"], verdict.probabilities, strict=True
        )
    ]
    return {
        "file": trained.path, "auroc": verdict.auroc, "low": verdict.low, "high": verdict.high, "folds": verdict.folds,
        "classes": cohort.classes, "patients": trained.patients, "unlabelled": cohort.unlabelled, "held_out": held_out,
    }  # fmt: skip


def _tell(study: Study, recipe: Recipe, label: str, trained: Trained) -> None:
    from pathassets.encoders.slide.training import FEW

    verdict, cohort = trained.verdict, trained.cohort
    counts = ", ".join(f"{name}: {n}" for name, n in zip(cohort.classes, trained.patients, strict=True))
    left = f"; {cohort.unlabelled} without a label were left out" if cohort.unlabelled else ""
    say(f"{len(cohort.rows)} slides, patients of each {label}: {counts}{left}")
    of = f" of {cohort.classes[1]} against {cohort.classes[0]}" if len(cohort.classes) == 2 else ", mean over classes"
    folds = ", ".join("-" if score is None else f"{score:.2f}" for score in verdict.folds)
    say(f"held-out AUROC{of}: {verdict.auroc:.2f}; folds: {folds}")
    say(f"95 % interval, patients drawn anew: {verdict.low:.2f} to {verdict.high:.2f}")
    if min(trained.patients) < FEW:
        say(f"fewer than {FEW} patients of a kind: take that number as a hint, not as a result")
    if recipe.random_weights:
        say("the tiles' encoder is untrained: such a number means nothing")
    shown = trained.path.relative_to(study.home) if trained.path.is_relative_to(study.home) else trained.path
    say(f"wrote {trained.path}, trained on all {len(cohort.rows)} slides: their own vectors are not held out")
    say(f"to use it, in the recipe {recipe.name} of pathassets.toml:")
    say(f'[recipes.vectors]\nmethods = ["mean", "{shown}"]')
