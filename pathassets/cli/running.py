"""`pathassets run` from files to a summary: check, register, find what is missing, launch, publish, tell.

Belongs here: the order of a run as the user sees it. Does not belong: steps, Dagster's side of a run.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathassets.cli.console import log_to, no_slides, print_json, print_rows, say, watching
from pathassets.cli.notes import say_notes, untrained
from pathassets.config import CONFIG_FILE, Study, check_home, init_home
from pathassets.editing import add_recipes, tiling_for
from pathassets.errors import ConfigError, Reason, StudyError
from pathassets.slides.places import has_password, is_uri
from pathassets.steps.chain import pending
from pathassets.steps.nodes import Node, chain
from pathassets.steps.register import files_to_register, known_slides, register, unmatched_rows
from pathassets.steps.session import Session

if TYPE_CHECKING:
    from pathassets.defs.launch import Launched, Launcher
    from pathassets.steps.outcomes import Outcome

_CREDENTIALS = "Correct the URI; credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...)."


@dataclass(frozen=True)
class Request:
    """The arguments of `pathassets run`."""

    home: Path
    paths: tuple[str, ...] = ()
    encoders: tuple[str, ...] = ()
    weights: Path | None = None
    random_weights: bool = False
    tokenizer: Path | None = None
    slide_encoder: str | None = None
    slide_weights: Path | None = None
    tile_px: int | None = None
    mpp: float | None = None
    device: str | None = None
    batch_size: int | None = None
    workers: int | None = None
    force: bool = False
    select: str | None = None
    as_json: bool = False

    @property
    def changes_recipes(self) -> bool:
        """Whether the settings file has to learn something first."""
        named = (self.weights, self.tokenizer, self.slide_encoder, self.slide_weights)
        return any((self.encoders, self.tile_px, self.mpp, self.random_weights, *named))


def run_study(request: Request) -> int:
    """Runs a study and prints its summary; returns the exit code.

    Raises:
        StudyError: The run cannot start: settings, store, device or weights are not there.
    """
    study, nodes = prepare(request)
    session = Session(study)
    slide_ids, unseen = _registered(session, request)
    if not slide_ids:
        return _tell(session, request, nodes, [], [], None, unseen)
    is_late = session.root.map(lambda slide_id: request.force or bool(pending(session, slide_id, nodes)), slide_ids)
    late = [slide_id for slide_id, late in zip(slide_ids, is_late, strict=True) if late]
    launched, problems = _launch(study, request, nodes, late)
    return _tell(session, request, nodes, slide_ids, late, launched, [*unseen, *problems])


def prepare(request: Request) -> tuple[Study, tuple[Node, ...]]:
    """Everything that can be refused before any work: home, settings, store, device, weights."""
    check_home(request.home)
    check_paths(request)
    from pathassets.encoders import canonical

    recipes = None
    if request.changes_recipes:
        check_asked_for(request)  # what is refused leaves no settings behind, which the next run would follow
    fresh = init_home(request.home)
    if request.changes_recipes:
        recipes = add_recipes(
            request.home,
            [canonical(name) for name in request.encoders],
            tile_px=request.tile_px,
            mpp=request.mpp,
            weights=str(request.weights) if request.weights else None,
            random_weights=request.random_weights,
            tokenizer=str(request.tokenizer) if request.tokenizer else None,
            slide_encoder=request.slide_encoder,
            slide_weights=str(request.slide_weights) if request.slide_weights else None,
            replace=request.home / CONFIG_FILE in fresh,
        )
    study = study_of(request)
    log_to(study.log_path)
    Session(study).root.check_writable()
    nodes = tuple(node for node in chain(study) if recipes is None or node.recipe is None or node.recipe.key in recipes)
    nodes = tuple(node for node in nodes if _tiling_used(node, nodes))
    check_encoders(study, nodes)
    return study, nodes


def check_asked_for(request: Request, *, download: bool = True) -> None:
    """Refuses an encoder that cannot be had before it is written into the settings.

    Raises:
        ConfigError: Files are given for no encoder, or for more than one.
        EncoderError: The encoder, its weights or its tokenizer cannot be had.
    """
    from pathassets.encoders import check_licence, check_tokenizer, get_card, load_encoder, weights_digest

    if request.weights and request.random_weights:
        raise ConfigError("--weights and --random-weights cannot both be meant", remedy="Leave out one of them.")
    for flag, file in (("--weights", request.weights), ("--tokenizer", request.tokenizer)):
        if file and len(request.encoders) != 1:
            raise ConfigError(
                f"{flag} goes with exactly one --encoder", remedy=f"Name the encoder whose {flag[2:]} it is."
            )
    for name in request.encoders:
        if not request.random_weights:
            check_licence(get_card(name), study_of(request).licences)
        weights_digest(name, weights=request.weights, random_weights=request.random_weights, download=download)
        if request.weights:
            load_encoder(name, weights=request.weights, device="cpu")  # a file that is no weights is refused here
        if request.tokenizer:
            check_tokenizer(name, request.tokenizer)
    if request.slide_encoder or request.slide_weights:
        _check_slide_encoder(request, download)


def _check_slide_encoder(request: Request, download: bool) -> None:
    """The same for a slide encoder: it must be there, allowed, and take the tiles that it would be given."""
    from pathassets.encoders import canonical, check_licence
    from pathassets.encoders.slide import get_slide_card, load_slide_encoder, slide_weights_digest

    name = request.slide_encoder
    if name is None or len(request.encoders) != 1:
        raise ConfigError(
            "--slide-encoder goes with exactly one --encoder, and --slide-weights with it",
            remedy="Name the encoder whose tiles it takes, as --encoder gigapath --slide-encoder gigapath-slide.",
        )
    study, card = study_of(request), get_slide_card(name)
    card.check_runs()
    encoder = request.encoders[0]
    card.check_tiles(canonical(encoder), tiling_for(study, encoder, request.tile_px, request.mpp))
    random = request.random_weights and request.slide_weights is None
    if not random:
        check_licence(card, study.licences)
    slide_weights_digest(name, weights=request.slide_weights, random_weights=random, download=download)
    if request.slide_weights:
        load_slide_encoder(name, weights=request.slide_weights, device="cpu")


def _tiling_used(node: Node, nodes: Sequence[Node]) -> bool:
    """A tiling that none of the wanted recipes uses is not cut."""
    if node.tiling is None or node.recipe is not None:
        return True
    return any(other.recipe is not None and other.tiling == node.tiling for other in nodes)


def study_of(request: Request) -> Study:
    """The study with what the command line overrides."""
    overrides: dict[str, Any] = {}
    if request.device is not None:
        overrides["device"] = request.device
    if request.workers is not None:
        overrides["workers"] = request.workers
    if request.batch_size is not None:
        overrides["batch_size"] = request.batch_size
    return Study(request.home, **overrides)


def check_paths(request: Request) -> None:
    """Refuses a path that is not there, unless the study knows it: then the slide has gone, which is its own outcome.

    Raises:
        ConfigError: With the first such path; or with a URI that holds a password, which would stand in every table.
    """
    for uri in filter(is_uri, request.paths):
        if has_password(uri):
            raise ConfigError(f"{uri.partition('://')[0]}://... holds a password", remedy=_CREDENTIALS)
    missing = [path for path in request.paths if not is_uri(path) and not Path(path).exists()]
    known = set(known_slides(Session(Study(request.home)))["path"]) if missing and request.home.exists() else set()
    for path in missing:
        if os.path.abspath(path) not in known:
            raise ConfigError(f"{path} does not exist", reason=Reason.FILE_MISSING, remedy="Correct the path.")


def check_encoders(study: Study, nodes: Sequence[Node]) -> None:
    """Refuses unknown encoders, absent weights, slide encoders that want other tiles, and absent devices before a night's work.

    Raises:
        EncoderError: With the reason and the remedy.
    """
    from pathassets.encoders import check_device, get_card
    from pathassets.steps.predictions import check_classes
    from pathassets.steps.slide_vector import check_trained

    session = Session(study)
    check_device(study.device)
    for recipe in {node.recipe.key: node.recipe for node in nodes if node.recipe is not None}.values():
        if recipe.encoder_kwargs:
            get_card(recipe.encoder, recipe.encoder_kwargs)  # arguments that the network does not have
        tiles = session.weights_sha256(recipe, download=True)
        session.slide_weights(recipe, download=True)
        check_trained(recipe, tiles)
        if recipe.embeddings.include_preds:  # how many classes there are, only the network says
            check_classes(recipe, session.encoder(recipe).layout.n_classes)


def _registered(session: Session, request: Request) -> tuple[list[str], list[str]]:
    """Registers what was asked for; without paths, also every slide that is known already. And what could not be looked into."""
    files = files_to_register(session, request.paths)
    gone = [uri for uri in filter(is_uri, request.paths) if not any(file.path.startswith(uri) for file in files)]
    if gone:
        raise ConfigError(f"no slide can be seen at {gone[0]}", reason=Reason.FILE_MISSING, remedy=_CREDENTIALS)
    ids = [entry.slide_id for entry in register(session, files)]
    if not request.paths:
        ids += known_slides(session)["slide_id"].to_list()
    unseen = [f"{file.path}: {file.ignored}; give this user the right to enter it" for file in files if file.ignored]
    return list(dict.fromkeys(ids)), unseen


def _launch(
    study: Study, request: Request, nodes: Sequence[Node], late: Sequence[str]
) -> tuple[Launched | None, list[str]]:
    from pathassets.definitions import build_defs
    from pathassets.defs.launch import Launcher, open_instance

    if not late and not request.select:
        return None, publish_if_stale(study)
    with open_instance(study) as instance, watching(len(late), quiet=request.as_json) as watcher:
        launcher = Launcher(study, instance, build_defs, watcher)
        wanted = launcher.asset_keys(request.select) if request.select else {node.key for node in nodes}
        chosen = [node for node in nodes if node.key in wanted]
        if late and not request.as_json:
            say(f"{len(late)} slides, {len(chosen)} assets each")
            say_notes(node.recipe for node in chosen if node.recipe is not None)
        launched = launcher.slides(late, chosen, force=request.force) if late and chosen else None
        problems = list(launched.problems) if launched else []
        problems += _cohort(launcher, wanted, {node.key for node in chain(study)})
        problems += launcher.publish().problems
    return launched, problems


def _cohort(launcher: Launcher, wanted: set[tuple[str, ...]], slide_keys: set[tuple[str, ...]]) -> list[str]:
    keys = sorted(key for key in wanted - slide_keys if key != ("results",))
    return launcher.cohort(keys).problems if keys else []


def publish_if_stale(study: Study, *, even_if_current: bool = False) -> list[str]:
    """Publishes through Dagster only when the snapshot lacks something, so that an idle run touches nothing.

    Args:
        study: The settings.
        even_if_current: Let Dagster run it all the same, because its log knows of no snapshot.
    """
    from pathassets.steps.publish import is_stale

    if not even_if_current and not is_stale(Session(study)):
        return []
    from pathassets.definitions import build_defs
    from pathassets.defs.launch import Launcher, open_instance

    with open_instance(study) as instance:
        return Launcher(study, instance, build_defs).publish().problems


def publish_study(study: Study) -> int:
    """`pathassets publish`."""
    init_home(study.home, with_inbox=False)
    problems = publish_if_stale(study)
    for problem in problems:
        say(problem)
    say(f"{study.results_path} is up to date" if not problems else "nothing was published")
    if known_slides(Session(study)).is_empty():
        say(no_slides(study.home))
    return 1 if problems else 0


def _tell(
    session: Session,
    request: Request,
    nodes: Sequence[Node],
    slide_ids: Sequence[str],
    late: Sequence[str],
    launched: Launched | None,
    problems: Sequence[str],
) -> int:
    failed = failed_outcomes(session, slide_ids, nodes, launched)
    unmade = _unmade(launched, {outcome.slide_id for outcome in failed})
    problems = [*problems, *(f"{slide_id}: {why}" for slide_id, why in unmade.items())]
    code = 1 if failed or problems else 0
    warnings = [*unmatched_rows(session), *untrained(node.recipe for node in nodes if node.recipe is not None)]
    if request.as_json:
        print_json(
            {
                "home": session.study.home, "slides": len(slide_ids), "worked_on": len(late), "exit_code": code,
                "failed": [_shown(outcome) for outcome in failed], "problems": list(problems),
                "warnings": warnings,
            }
        )  # fmt: skip
        return code
    for warning in warnings:
        say(f"warning: {warning}")
    if not slide_ids:
        for problem in problems:
            say(f"problem: {problem}")
        say("no slides: name files or folders, or put them into " + ", ".join(session.study.inbox_places))
        return code
    bad = len({outcome.slide_id for outcome in failed} | set(unmade))
    work = "nothing to do: " if not late else ""
    say(f"{work}{len(slide_ids) - bad} of {len(slide_ids)} slides are done" + (f", {bad} not" if bad else ""))
    if failed:
        print_rows([_shown(outcome) for outcome in failed], ("slide_id", "step", "reason", "message", "remedy"))
    for problem in dict.fromkeys(problems):
        say(f"problem: {problem}")
    _print_next(session.study)
    return code


def _unmade(launched: Launched | None, failed: set[str]) -> dict[str, str]:
    """Slides that are not done though nothing of them failed: the run ended too early, or what an asset needs was never made."""
    cut_short = launched.cut_short if launched else []
    found = {slide_id: "the run ended before it was done" for slide_id in cut_short if slide_id not in failed}
    for result in launched.results if launched else []:
        if result.outcome is None and result.slide_id not in failed:
            needs = ", ".join("/".join(parent.key) for parent in result.node.upstream)
            key = "/".join(result.node.key)
            found.setdefault(result.slide_id, f'{key} needs {needs}, which is not there; select it too: "+key:{key}"')
    return found


def failed_outcomes(
    session: Session, slide_ids: Sequence[str], nodes: Sequence[Node], launched: Launched | None
) -> list[Outcome]:
    """What failed: in this run as it said itself (a full disk may have kept it out of the store), else as recorded.

    Failures of recipes that are no longer asked for do not count.
    """
    from pathassets.steps.outcomes import Outcome, Status

    fresh = [r.outcome for r in (launched.results if launched else []) if r.outcome is not None and not r.usable]
    seen = {(o.slide_id, o.tiling, o.recipe, o.step) for o in fresh}
    tried = {r.slide_id for r in (launched.results if launched else [])}
    asked = {node.names for node in nodes}
    try:
        recorded = [Outcome(**row) for row in _recorded(session, slide_ids)]
    except StudyError:
        if launched is None:
            raise
        recorded = []  # the store has gone: what this run met is told all the same
    old = [
        outcome
        for outcome in recorded
        if outcome.status == Status.FAILED
        and outcome.slide_id not in tried
        and (outcome.tiling, outcome.recipe, outcome.step) in asked
    ]
    return fresh + [o for o in old if (o.slide_id, o.tiling, o.recipe, o.step) not in seen]


def _recorded(session: Session, slide_ids: Sequence[str]) -> list[dict[str, Any]]:
    from pathassets.steps.outcomes import known_outcomes

    wanted = set(slide_ids)
    return [row for row in known_outcomes(session).iter_rows(named=True) if row["slide_id"] in wanted]


def _shown(outcome: Outcome) -> dict[str, Any]:
    return {
        "slide_id": outcome.slide_id,
        "step": "/".join(filter(None, (outcome.recipe or outcome.tiling, outcome.step))),
        "reason": outcome.reason,
        "message": outcome.message,
        "remedy": outcome.remedy,
        "status": outcome.status,
    }


def _print_next(study: Study) -> None:
    if study.results_path.exists():
        say(f"results: {study.results_path}")
        say(
            f"""ask:     pathassets sql "SELECT slide_id, n_tiles FROM embeddings" --home {shlex.quote(str(study.home))}"""
        )
