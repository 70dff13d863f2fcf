"""`pathassets doctor`: is everything here that a night's run needs? Each line says what to do if not.

Belongs here: looking at the machine. Does not belong: changing it.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

from pathassets.cli.console import print_json, print_rows
from pathassets.config import CONFIG_FILE, Study
from pathassets.errors import PathassetsError
from pathassets.recipes import Recipe
from pathassets.steps.session import Session

LIBRARIES = ("dagster", "torch", "torchvision", "timm", "openslide-python", "openslide-bin", "tifffile", "imagecodecs",
             "zarr", "anndata", "scanpy", "polars", "duckdb")  # fmt: skip
MIN_FREE_GB = 5.0


@dataclass(frozen=True)
class Line:
    """One finding: `ok`, `warning` or `failed`."""

    check: str
    status: str
    finding: str
    fix: str = ""


def diagnose(study: Study) -> Iterator[Line]:
    """Looks at Python, libraries, home, disk, store, device and weights, in this order."""
    version = platform.python_version()
    good = sys.version_info >= (3, 11)
    yield Line("python", "ok" if good else "failed", version, "" if good else "Use Python 3.11 or newer.")
    for name in LIBRARIES:
        yield _library(name)
    has_config = (study.home / CONFIG_FILE).is_file()
    yield Line(
        "home",
        "ok" if has_config else "warning",
        str(study.home),
        "" if has_config else "`pathassets init` writes its settings.",
    )
    free_gb = shutil.disk_usage(_existing(study)).free / 1e9
    enough = free_gb >= MIN_FREE_GB
    yield Line("disk", "ok" if enough else "warning", f"{free_gb:.1f} GB free", "" if enough else "Free some space.")
    yield _tried("store", lambda: _writable(study))
    yield _tried("device", lambda: _device(study))
    for recipe in study.recipes:
        yield _tried(f"weights of {recipe.key}", partial(_weights, recipe))


def _weights(recipe: Recipe) -> str:
    from pathassets.encoders import weights_digest

    found = weights_digest(
        recipe.encoder,
        weights=recipe.weights,
        random_weights=recipe.random_weights,
        encoder_kwargs=recipe.encoder_kwargs,
    )
    return found[:16]


def _library(name: str) -> Line:
    try:
        return Line(name, "ok", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Line(name, "failed", "not installed", f"pip install {name}")


def _existing(study: Study) -> str:
    folder = study.home
    while not folder.exists():
        folder = folder.parent
    return str(folder)


def _writable(study: Study) -> str:
    if not study.store_path.exists():
        return "not made yet"
    Session(study).root.check_writable()
    return str(study.store_path)


def _device(study: Study) -> str:
    from pathassets.encoders import check_device

    return check_device(study.device)


def _tried(check: str, look: Callable[[], str]) -> Line:
    try:
        return Line(check, "ok", look())
    except PathassetsError as error:
        return Line(check, "failed", error.message, error.remedy)


def print_diagnosis(study: Study, *, as_json: bool) -> int:
    """Prints the findings; exit code 1 when something has failed."""
    lines = [asdict(line) for line in diagnose(study)]
    if as_json:
        print_json(lines)
    else:
        print_rows(lines, ("check", "status", "finding", "fix"))
    return 1 if any(line["status"] == "failed" for line in lines) else 0
