"""Adopt: Dagster told of results that the store has and its event log does not, and the two held against each other.

Belongs here: partitions and materialisations that no run reports (any more). Does not belong: making results, the log itself.

The store is the truth: an event log is lost with a disk, or left behind when a study is copied. What is reported here is what a
run reports, from what was recorded when the result was made; what nobody recorded is not guessed, but left to a run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    INPUT_DATA_VERSION_TAG_PREFIX,
    INPUT_EVENT_POINTER_TAG_PREFIX,
    NULL_EVENT_POINTER,
)
from sqlalchemy.exc import OperationalError

from pathassets.config import Study
from pathassets.defs import describe
from pathassets.defs.cohort_assets import RESULTS_KEY, recipe_scope, terms_code_version
from pathassets.defs.partitions import SLIDES, add_slides
from pathassets.defs.slide_assets import code_version, terms_key, version_tags
from pathassets.errors import EncoderError
from pathassets.recipes import Recipe, digest
from pathassets.steps.chain import StepResult, digest_of, step_module
from pathassets.steps.cohort_map import CohortMap, load_cohort_map
from pathassets.steps.nodes import Node, Step, chain
from pathassets.steps.outcomes import Outcome
from pathassets.steps.register import known_slides
from pathassets.steps.session import Session
from pathassets.steps.slide_map import load_slide_map
from pathassets.steps.terms import load_terms
from pathassets.store.local_root import read_only_database

log = logging.getLogger(__name__)

Key = tuple[str, ...]
Versions = dict[str, str]


@dataclass
class Adopted:
    """What was, or would be, reported.

    Attributes:
        partitions: Slides that had no partition.
        events: Slides of each asset that were reported, by asset key; of assets of the whole study, nobody.
        skipped: Results that could not be, and why.
        snapshot: Whether the log knows of the SQL snapshot; a run that publishes it is the only one to say what is in it.
    """

    partitions: list[str] = field(default_factory=list)
    events: dict[Key, list[str]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    snapshot: bool = True

    @property
    def n_events(self) -> int:
        """Number of materialisations."""
        return sum(max(1, len(slides)) for slides in self.events.values())


def adopt(session: Session, instance: dg.DagsterInstance | None, *, dry_run: bool = False) -> Adopted:
    """Reports what the store has and the event log lacks: partitions, results of slides, terms, slide maps.

    Args:
        session: The study.
        instance: Its Dagster instance; None = there is none yet, as if its log were empty.
        dry_run: Report nothing.
    """
    adopted = Adopted()
    instance = instance or dg.DagsterInstance.ephemeral()
    slides = known_slides(session)["slide_id"].to_list()
    there = set(instance.get_dynamic_partitions(SLIDES.name or ""))
    adopted.partitions = [slide_id for slide_id in slides if slide_id not in there]
    if not dry_run:
        add_slides(instance, adopted.partitions)
        _note_weights(session)
    recorded = recorded_outcomes(session)
    for node in chain(session.study):
        _adopt_node(session, instance, node, slides, recorded, adopted, dry_run)
    for recipe in session.study.recipes:
        _adopt_cohort(session, instance, recipe, adopted, dry_run)
    adopted.snapshot = logged_version(instance, tuple(RESULTS_KEY.path)) is not None
    return adopted


def recorded_outcomes(session: Session) -> dict[tuple[str, Key], Outcome]:
    """All recorded outcomes, by slide and asset key."""
    found = {}
    for row in session.tables.scan("outcomes").collect().iter_rows(named=True):
        outcome = Outcome(**row)
        scope = (outcome.recipe or outcome.tiling or "").split("/") if outcome.recipe or outcome.tiling else []
        found[outcome.slide_id, (*scope, outcome.step)] = outcome
    return found


def logged_versions(instance: dg.DagsterInstance, key: Key) -> Versions:
    """The data version of each slide's last materialisation of an asset; empty text where it carries none."""
    asset_key = dg.AssetKey(list(key))
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        asset_key, dg.DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG]
    )
    versions = dict.fromkeys(instance.get_materialized_partitions(asset_key), "")
    return versions | {slide_id: found[DATA_VERSION_TAG] for slide_id, found in tags.items()}


def logged_version(instance: dg.DagsterInstance, key: Key) -> str | None:
    """The data version of the last materialisation of an asset of the whole study; None when there is none."""
    event = instance.get_latest_materialization_event(dg.AssetKey(list(key)))
    if event is None or event.asset_materialization is None:
        return None
    return (event.asset_materialization.tags or {}).get(DATA_VERSION_TAG, "")


def report_terms(session: Session, instance: dg.DagsterInstance, recipe: Recipe) -> bool:
    """Tells Dagster of a recipe's term embeddings, which text similarity makes on its way when it has to.

    Returns:
        Whether Dagster did not know of them.
    """
    key = terms_key(recipe)
    terms = load_terms(session, recipe) if recipe.text.terms else None
    if terms is None or logged_version(instance, tuple(key.path)) == terms.digest:
        return False
    tags = _tags(terms_code_version(recipe), terms.digest, {})
    instance.report_runless_asset_event(
        dg.AssetMaterialization(asset_key=key, metadata=describe.terms(terms), tags=tags)
    )
    return True


def report_used_terms(session: Session, instance: dg.DagsterInstance, results: Iterable[StepResult]) -> None:
    """The same for the recipes of which some slide has been compared with words."""
    used = {
        result.node.recipe.key: result.node.recipe
        for result in results
        if result.node.step is Step.TEXT_SIMILARITY and result.usable and result.node.recipe is not None
    }
    for recipe in used.values():
        report_terms(session, instance, recipe)


@contextmanager
def looking_at(study: Study) -> Iterator[dg.DagsterInstance | None]:
    """The study's Dagster instance, left as it is; None where there never was one.

    Raises:
        StoreError: `store_read_only`: Dagster opens no SQLite that it may not write.
    """
    if not (study.dagster_home / "dagster.yaml").is_file():
        yield None
        return
    try:
        with dg.DagsterInstance.from_config(str(study.dagster_home)) as instance:
            yield instance
    except OperationalError as error:
        raise (read_only_database(error, study.dagster_home) or error) from error


def _note_weights(session: Session) -> None:
    """A store that was copied without its cache has forgotten what definitions take for the weights' version."""
    for recipe in session.study.recipes:
        try:
            session.weights_sha256(recipe)
            session.slide_weights(recipe)
        except EncoderError as error:
            log.info("the weights of %s are not here: %s", recipe.key, error)


def _adopt_node(
    session: Session,
    instance: dg.DagsterInstance,
    node: Node,
    slides: Sequence[str],
    recorded: Mapping[tuple[str, Key], Outcome],
    adopted: Adopted,
    dry_run: bool,
) -> None:
    logged = logged_versions(instance, node.key)
    for slide_id in slides:
        outcome = recorded.get((slide_id, node.key))
        if outcome is None or not outcome.usable or logged.get(slide_id) == outcome.result_digest:
            continue
        try:
            if not step_module(node.step).is_stored(session, slide_id, node):
                continue
            events = _events(session, node, outcome, recorded, dry_run)
        except Exception as error:  # noqa: BLE001  one slide's damage, of whatever kind, must not keep the others out
            adopted.skipped.append(f"{'/'.join(node.key)} of {slide_id}: {error}")
            continue
        if not events:
            why = "was made by a version that did not record from what; run again"
            adopted.skipped.append(f"{'/'.join(node.key)} of {slide_id}: {why}")
            continue
        adopted.events.setdefault(node.key, []).append(slide_id)
        for event in () if dry_run else events:
            instance.report_runless_asset_event(event)


def _events(
    session: Session, node: Node, outcome: Outcome, recorded: Mapping[tuple[str, Key], Outcome], dry_run: bool
) -> list[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    """What a run would have logged for a result, its checks too; nothing where nobody recorded what it was made from."""
    inputs = _inputs(session, node, outcome, recorded)
    if inputs is None:
        return []
    upstream = {parent.key: str(inputs["/".join(parent.key)]) for parent in node.upstream}
    if node.step is Step.TEXT_SIMILARITY and node.recipe is not None and "term_embeddings" in inputs:
        upstream[tuple(terms_key(node.recipe).path)] = str(inputs["term_embeddings"])
    result = StepResult(outcome.slide_id, node, outcome, unchanged=True, input_digests=upstream)
    # the version of then: options may have changed since, and Dagster must see that
    tags = version_tags(session, result) | {CODE_VERSION_TAG: _code_version(session, node, outcome, inputs)}
    from pathassets.defs.checks import evaluations

    told = {"adopted": True, "made_by_run": outcome.run_id, "made_at": str(outcome.created_at)}
    metadata = {} if dry_run else describe.materialised(session, result) | told
    event = dg.AssetMaterialization(
        asset_key=list(node.key),
        partition=outcome.slide_id,
        metadata={name: value for name, value in metadata.items() if value is not None},
        tags=tags,
    )
    return [event, *(() if dry_run else evaluations(session, result))]


def _inputs(
    session: Session, node: Node, outcome: Outcome, recorded: Mapping[tuple[str, Key], Outcome]
) -> dict[str, object] | None:
    """What a result was made from, as it was recorded; else as it is now, where that gives the same digest."""
    if outcome.inputs is not None:
        found: dict[str, object] = json.loads(outcome.inputs)
        if all("/".join(parent.key) in found for parent in node.upstream):
            return found
    upstream = {}
    for parent in node.upstream:
        above = recorded.get((outcome.slide_id, parent.key))
        if above is None or above.result_digest is None:
            return None
        upstream[parent.key] = above.result_digest
    own = step_module(node.step).inputs(session, outcome.slide_id, node)
    if digest_of(outcome.slide_id, node, upstream, own) != outcome.digest:
        return None
    return {"/".join(key): version for key, version in upstream.items()}


def _code_version(session: Session, node: Node, outcome: Outcome, inputs: Mapping[str, object]) -> str:
    if outcome.code_version is None:
        return code_version(session, node)
    if node.step is Step.EMBEDDINGS and "weights_sha256" in inputs:
        return digest(outcome.code_version, inputs["weights_sha256"])
    if node.step is Step.SLIDE_VECTOR and "slide_weights" in inputs:
        return digest(outcome.code_version, inputs["slide_weights"])
    return outcome.code_version


def _adopt_cohort(
    session: Session, instance: dg.DagsterInstance, recipe: Recipe, adopted: Adopted, dry_run: bool
) -> None:
    """A map that is not of just the slides there are now is left to a run."""
    key = tuple(terms_key(recipe).path)
    try:
        if dry_run:
            terms = load_terms(session, recipe) if recipe.text.terms else None
            told = terms is not None and logged_version(instance, key) != terms.digest
        else:
            told = report_terms(session, instance, recipe)
    except EncoderError as error:
        adopted.skipped.append(f"{'/'.join(key)}: {error}")
        told = False
    if told:
        adopted.events[key] = []
    slide_map, cohort_map = load_slide_map(session, recipe), load_cohort_map(session, recipe)
    if slide_map is not None:
        shown = partial(describe.slide_map, session, recipe, slide_map)
        _adopt_map("slide_map", Step.SLIDE_VECTOR, slide_map.digest, shown, instance, recipe, adopted, dry_run)
    if cohort_map is not None:
        shown = partial(_describe_cohort_map, session, recipe, cohort_map)
        _adopt_map("cohort_map", Step.EMBEDDINGS, cohort_map.digest, shown, instance, recipe, adopted, dry_run)


def _adopt_map(
    name: str,
    made_of: Step,
    version: str,
    shown: Callable[[], describe.Metadata],
    instance: dg.DagsterInstance,
    recipe: Recipe,
    adopted: Adopted,
    dry_run: bool,
) -> None:
    key = (*recipe_scope(recipe), name)
    if logged_version(instance, key) == version:
        return
    adopted.events[key] = []
    if not dry_run:
        tags = _tags("adopted", version, {(*recipe_scope(recipe), str(made_of)): version})
        instance.report_runless_asset_event(dg.AssetMaterialization(asset_key=list(key), metadata=shown(), tags=tags))


def _describe_cohort_map(session: Session, recipe: Recipe, found: CohortMap) -> describe.Metadata:
    from pathassets.figures.cohort_pictures import read_mosaic

    return describe.cohort_map(session, recipe, found, read_mosaic(session, recipe.key))


def _tags(code: str, version: str, inputs: Mapping[Key, str]) -> dict[str, str]:
    tags = {CODE_VERSION_TAG: code, DATA_VERSION_TAG: version, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"}
    for key, above in inputs.items():
        name = dg.AssetKey(list(key)).to_user_string()
        tags[f"{INPUT_DATA_VERSION_TAG_PREFIX}/{name}"] = above
        tags[f"{INPUT_EVENT_POINTER_TAG_PREFIX}/{name}"] = NULL_EVENT_POINTER
    return tags
