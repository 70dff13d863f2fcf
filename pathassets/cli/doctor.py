"""`pathassets doctor`: is everything here that a night's run needs? Each line says what to do if not.

Belongs here: what is looked at, and what is too little. Does not belong: measuring (`machine`), changing anything.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from pathassets.cli import machine
from pathassets.cli.console import print_json, print_rows
from pathassets.cli.notes import MEANS_NOTHING
from pathassets.config import CONFIG_FILE, Study
from pathassets.environment import alert_webhook
from pathassets.errors import ConfigError, PathassetsError, TextTowerError
from pathassets.recipes import Recipe, is_file, slide_vector_name
from pathassets.steps.register import unmatched_rows
from pathassets.steps.session import Session, check_pin

SHOWN = ("dagster", "torch", "torchvision", "timm", "openslide-python", "openslide-bin", "tifffile", "imagecodecs",
         "zarr", "anndata", "scanpy", "polars", "duckdb")  # fmt: skip
# These refuse to work together unless they are of one release; the last two are installed only where they are used.
FAMILY = ("dagster-webserver", "dagster-graphql", "dagster-postgres", "dagster-k8s")
MIN_FREE_GB = 5.0
MIN_OPEN_FILES = 1024
MIN_MEMORY_GB = 4.0
MIN_SHARED_MEMORY_GB = 0.1
MAX_SKEW_SECONDS = 2.0

OK, WARNING, FAILED = "ok", "warning", "failed"


@dataclass(frozen=True)
class Line:
    """One finding: `ok`, `warning` or `failed`; the last two with what to do."""

    check: str
    status: str
    finding: str
    fix: str = ""


def diagnose(study: Study) -> Iterator[Line]:
    """Looks at software, folders, machine, devices, weights and Dagster, in this order."""
    yield from _software()
    yield from _folders(study)
    yield from _machine(study)
    yield _tried("devices" if "," in study.device else "device", lambda: _device(study))
    for recipe in study.recipes:
        yield _tried(f"weights of {recipe.key}", partial(_weights, study, recipe))
        if recipe.embeddings.dense:
            yield _tried(f"patch tokens of {recipe.key}", partial(_tokens, recipe))
        for method in recipe.vectors.encoders:
            yield _tried(f"{slide_vector_name(method)} of {recipe.key}", partial(_slide_weights, study, recipe, method))
        yield from _tiles(recipe)
        yield from _words(recipe)
    yield from _dagster(study)
    yield _tried("alerts", _alerts)


def _judged(check: str, good: bool, finding: str, fix: str, *, otherwise: str = WARNING) -> Line:
    return Line(check, OK, finding) if good else Line(check, otherwise, finding, fix)


def _tried(check: str, look: Callable[[], str]) -> Line:
    try:
        return Line(check, OK, look())
    except PathassetsError as error:
        return Line(check, FAILED, error.message, error.remedy)


# -- software ----------------------------------------------------------------------------------------------------------


def _software() -> Iterator[Line]:
    good = sys.version_info >= (3, 11)
    yield _judged("python", good, platform.python_version(), "Use Python 3.11 or newer.", otherwise=FAILED)
    yield from _libraries(importlib.metadata.requires("pathassets") or [])
    yield from _family()


def _libraries(requirements: list[str]) -> Iterator[Line]:
    """The libraries that matter by name, and any other that is missing or of a version that was not asked for."""
    from packaging.requirements import Requirement

    for wanted in map(Requirement, requirements):
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        version = _version(wanted.name)
        good = version is not None and wanted.specifier.contains(version, prereleases=True)
        if wanted.name in SHOWN or not good:
            fix = f"pip install '{wanted.name}{wanted.specifier}'"
            yield _judged(wanted.name, good, version or "not installed", fix, otherwise=FAILED)


def _family() -> Iterator[Line]:
    core = _version("dagster") or ""
    patch = core.rpartition(".")[2]
    for name in FAMILY:
        version = _version(name)
        if version is not None and version.rpartition(".")[2] != patch:
            fix = f"Install {name} and dagster of one release: pip install -c constraints.txt {name} dagster"
            yield Line(name, FAILED, f"{version} beside dagster {core}", fix)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


# -- folders -----------------------------------------------------------------------------------------------------------


def _folders(study: Study) -> Iterator[Line]:
    has_config = (study.home / CONFIG_FILE).is_file()
    yield _judged("home", has_config, str(study.home), f"`pathassets init {study.home}` writes its settings.")
    folder = _existing(study.home)
    free_gb = shutil.disk_usage(folder).free / 1e9
    fix = "Free some space, or choose another disk with --home."
    yield _judged("disk", free_gb >= MIN_FREE_GB, f"{free_gb:.1f} GB free on {folder}", fix)
    yield _tried("store", lambda: _writable(study))
    for place in study.inbox:
        yield _inbox(study, place)
    if study.manifest_path.exists():
        yield _manifest(study)


def _existing(folder: Path) -> Path:
    """`folder`, or what there is of the folders above it."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _writable(study: Study) -> str:
    """Tries to write and to read back where a store is; a study that was never run gets none from being looked at."""
    root = Session(study).root
    if root.folder is not None and not root.is_there():
        return "not made yet"
    root.check_writable()
    root.folders("tables")
    return root.uri


def _manifest(study: Study) -> Line:
    session = Session(study)
    try:
        n_rows, unmatched = len(session.manifest.rows), unmatched_rows(session)
    except PathassetsError as error:
        return Line("slides.csv", FAILED, error.message, error.remedy)
    fix = "Correct their `path`: absolute, relative to slides.csv, or the file's bare name."
    return _judged("slides.csv", not unmatched, "".join(unmatched) or f"{n_rows} rows", fix)


def _inbox(study: Study, place: str) -> Line:
    if "://" in place:
        return _tried(f"inbox {place}", lambda: _remote_inbox(place))
    folder = (study.home / place).resolve()
    fix = f"mkdir -p {folder}, or correct `inbox` in {CONFIG_FILE}."
    try:
        next(folder.iterdir(), None)
    except OSError as error:
        return Line("inbox", WARNING, f"{folder}: {error.strerror}", fix)
    return Line("inbox", OK, str(folder))


def _remote_inbox(place: str) -> str:
    from pathassets.slides.remote import list_place

    listing = list_place(place)
    if listing.blind:
        raise ConfigError(f"it cannot be listed: {listing.blind[place]}", remedy="Check its name and your credentials.")
    return f"{len(listing.entries)} objects"


# -- machine -----------------------------------------------------------------------------------------------------------


def _machine(study: Study) -> Iterator[Line]:
    free, total = machine.memory_gb()
    fix = "Close other programs, or give the container or the batch job more."
    yield _judged("memory", free >= MIN_MEMORY_GB, f"{free:.1f} GB free for us of {total:.1f} GB", fix)
    ours, all_cores = machine.cores()
    yield Line("cores", OK, f"{ours:g} for us of {all_cores}")
    limits = machine.open_files()
    if limits is not None:
        fix = f"ulimit -n {max(MIN_OPEN_FILES, min(limits[1], 65536))}, or LimitNOFILE= of the service."
        yield _judged("open files", limits[0] >= MIN_OPEN_FILES, f"{limits[0]}, can be raised to {limits[1]}", fix)
    shared = machine.shared_memory_gb()
    if shared is not None:
        fix = "Only Ray needs it: docker run --shm-size=4g, or a memory-backed emptyDir at /dev/shm."
        yield _judged("shared memory", shared >= MIN_SHARED_MEMORY_GB, f"{shared:.2f} GB", fix)
    yield _clock(study)


def _clock(study: Study) -> Line:
    folder = _existing(study.home)
    try:
        skew = machine.clock_skew_s(folder)
    except OSError as error:
        return Line("write access", FAILED, f"{folder}: {error.strerror}", "Give this user the right to write there.")
    fix = "Let both set their clocks by NTP: what is unfinished is removed by its age."
    return _judged("clock", abs(skew) <= MAX_SKEW_SECONDS, f"the disk's differs by {skew:.1f} s", fix)


def _device(study: Study) -> str:
    from pathassets.encoders import check_device

    return check_device(study.device)


def _weights(study: Study, recipe: Recipe) -> str:
    from pathassets.encoders import check_access, check_licence, get_card, weights_are_here, weights_digest

    if not recipe.random_weights:
        check_licence(get_card(recipe.encoder, recipe.encoder_kwargs), study.licences)
    found = check_access(
        recipe.encoder,
        weights=recipe.weights,
        random_weights=recipe.random_weights,
        encoder_kwargs=recipe.encoder_kwargs,
    )
    if recipe.weights_sha256 and weights_are_here(
        recipe.encoder, weights=recipe.weights, encoder_kwargs=recipe.encoder_kwargs
    ):
        check_pin(recipe, weights_digest(recipe.encoder, weights=recipe.weights, encoder_kwargs=recipe.encoder_kwargs))
    return f"{MEANS_NOTHING} ({found})" if recipe.random_weights else found


def _tokens(recipe: Recipe) -> str:
    """Found by shapes alone: no weights are read."""
    from pathassets.encoders.outputs import Asked
    from pathassets.encoders.registry import get_spec

    rows = Asked(get_spec(recipe.encoder, recipe.encoder_kwargs), dense=True).layout
    size = rows.tile_bytes(recipe.embeddings.dtype)
    shape = " x ".join(map(str, rows.grid or ()))
    return (
        f"{shape} numbers, {size / 1e3:.0f} kB for each tile, {size / 1e4:.0f} GB for 100,000 tiles before compression"
    )


def _slide_weights(study: Study, recipe: Recipe, method: str) -> str:
    from pathassets.encoders import check_licence
    from pathassets.encoders.slide import check_slide_access, get_slide_card
    from pathassets.steps.slide_vector import check_trained

    weights = recipe.vectors.weights.get(method)
    random = recipe.random_weights and weights is None
    found = check_slide_access(method, weights=weights, random_weights=random)
    if is_file(method):
        check_trained(recipe, Session(study).weights_sha256(recipe))
    elif not random:
        check_licence(get_slide_card(method), study.licences)
    return found


def _tiles(recipe: Recipe) -> Iterator[Line]:
    """Whether the network sees what its authors showed it."""
    from pathassets.encoders import recommended_tiles, unlike_authors

    unlike, authors = unlike_authors(recipe.encoder, recipe.tiling), recommended_tiles(recipe.encoder)
    if unlike and authors:
        fix = f"If that is not meant, give the recipe a tiling with tile_px = {authors[0]}, mpp = {authors[1]:g}."
        yield Line(f"tiles of {recipe.key}", WARNING, unlike, fix)


def _words(recipe: Recipe) -> Iterator[Line]:
    """Whether the recipe's terms can be read; tiles are embedded without."""
    from pathassets.encoders import knows_words, words_digest

    if not (knows_words(recipe.encoder) and recipe.text.terms):
        return
    check = f"words of {recipe.key}"
    try:
        found = words_digest(
            recipe.encoder, weights=recipe.weights, tokenizer=recipe.tokenizer, encoder_kwargs=recipe.encoder_kwargs
        )
    except TextTowerError as error:
        yield Line(check, WARNING, error.message, error.remedy)
    else:
        yield Line(check, OK, f"tokenizer {found[:16]}" if found else "read by the network itself")


# -- Dagster -----------------------------------------------------------------------------------------------------------


def _dagster(study: Study) -> Iterator[Line]:
    from pathassets.defs.health import missing_settings, storage_state

    storage = _tried("Dagster's storage", lambda: storage_state(study))
    yield storage
    if storage.status == OK:
        yield _daemon(study)
    if (study.dagster_home / "dagster.yaml").exists() and storage.status == OK:
        missing = missing_settings(study)
        fix = f"Copy them from dagster.yaml of the repository to {study.dagster_home / 'dagster.yaml'}."
        yield _judged("Dagster's settings", not missing, ", ".join(missing) or "as in the template", fix)


def _daemon(study: Study) -> Line:
    from pathassets.defs.health import daemon_state

    alive, finding = daemon_state(study)
    fix = f"`pathassets dev --home {study.home}` starts it; only the inbox and schedules need it, `pathassets run` does not."
    return _judged("Dagster's daemon", alive, finding, fix)


def _alerts() -> str:
    from pathassets.steps.alert import check_webhook

    url = alert_webhook()
    return f"failed runs are reported to {check_webhook(url)}" if url else "off (PATHASSETS_ALERT_WEBHOOK is not set)"


def print_diagnosis(study: Study, *, as_json: bool) -> int:
    """Prints the findings; exit code 1 when something has failed."""
    lines = [asdict(line) for line in diagnose(study)]
    if as_json:
        print_json(lines)
    else:
        print_rows(lines, ("check", "status", "finding", "fix"))
    return 1 if any(line["status"] == FAILED for line in lines) else 0
