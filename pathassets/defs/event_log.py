"""Event log: what Dagster says of the study's results held against what the store has.

Belongs here: finding differences, forgetting a partition. Does not belong: ending them (`adopt`, or a run).
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

import dagster as dg

from pathassets.config import Study
from pathassets.defs.adopt import Key, logged_version, logged_versions, looking_at, recorded_outcomes
from pathassets.defs.cohort_assets import MAPS, recipe_scope
from pathassets.defs.partitions import SLIDES, slides_at_work
from pathassets.defs.slide_assets import terms_key
from pathassets.defs.withdrawal import withdraw
from pathassets.errors import Reason, StoreError
from pathassets.steps.consistency import has_results
from pathassets.steps.embedded import recipe_part
from pathassets.steps.naming import slide_ids
from pathassets.steps.nodes import chain
from pathassets.steps.outcomes import Outcome
from pathassets.steps.session import Session
from pathassets.store import layout
from pathassets.store.census import Census, take_census
from pathassets.store.verify import Fault, Finding

SHOWN = 3
ADOPT = "`pathassets adopt`."
ADOPT_OR_RUN = "`pathassets adopt`, or the next `pathassets run`, tells it."
RUN = "`pathassets run` makes it again."
FORGOTTEN = "Dagster no longer calls it materialised"


def check_event_log(study: Study, census: Census) -> Iterator[Finding]:
    """Differences between Dagster's event log and the store, one finding for each asset and kind of difference."""
    try:
        with looking_at(study) as instance:
            if instance is not None:
                yield from differences(Session(study), instance, census)
            elif census.outcomes:
                message = "is not there: Dagster knows of none of the results"
                yield Finding(Fault.EVENT_LOG, ".dagster", message, ADOPT)
    except Exception as error:  # noqa: BLE001  whatever a database says, the store's own findings count more
        if isinstance(error, StoreError) and error.reason is Reason.STORE_READ_ONLY:
            yield Finding(Fault.NOT_COMPARED, ".dagster", error.message, error.remedy)
            return
        first = (str(error).splitlines() or [""])[0]
        remedy = "Check the storage that .dagster/dagster.yaml names."
        yield Finding(Fault.EVENT_LOG, ".dagster", f"cannot be read: {type(error).__name__}: {first}", remedy)


def differences(session: Session, instance: dg.DagsterInstance, census: Census) -> Iterator[Finding]:
    """See `check_event_log`."""
    partitions, slides = partitions_of(instance), census.slides()
    recorded = recorded_outcomes(session)
    for slide_id in sorted(partitions - slides - {slide_id for slide_id, _ in recorded}):  # else its row alone is lost
        message = "has a partition in Dagster, and is not registered"
        yield Finding(
            Fault.EVENT_LOG, slide_id, message, f"`pathassets forget {slide_id} --yes`, or register its file."
        )
    for node in chain(session.study):
        stored = _stored(census, recorded, node.key)
        logged = {s: v for s, v in logged_versions(instance, node.key).items() if s in partitions & slides}
        yield from _node_differences("/".join(node.key), stored, logged)
    yield from _cohort_differences(session, instance, census)


def _stored(census: Census, recorded: Mapping[tuple[str, Key], Outcome], asset: Key) -> dict[str, Outcome]:
    """What the store says of an asset, by slide: results that are there, and failures."""
    slides = census.slides()
    return {
        slide_id: outcome
        for (slide_id, key), outcome in recorded.items()
        if key == asset and slide_id in slides and (not outcome.usable or has_results(census, outcome))
    }


def _node_differences(asset: str, stored: Mapping[str, Outcome], logged: Mapping[str, str]) -> Iterator[Finding]:
    """A step that failed since leaves the last success in the log, as Dagster does itself."""
    absent = [slide_id for slide_id in logged if slide_id not in stored]
    unknown = [slide_id for slide_id, outcome in stored.items() if outcome.usable and slide_id not in logged]
    other = [
        slide_id
        for slide_id, outcome in stored.items()
        if outcome.usable and slide_id in logged and logged[slide_id] != outcome.result_digest
    ]
    for fault, slides, what, remedy in (
        (Fault.EVENT_LOG, absent, "materialised in Dagster, and not in the store", RUN),
        (Fault.UNTOLD, unknown, "in the store, and unknown to Dagster", ADOPT_OR_RUN),
        (Fault.EVENT_LOG, other, "another version in Dagster than in the store", ADOPT),
    ):
        if slides:
            yield Finding(fault, asset, f"{what}: {_listed(slides)}", remedy)


def _cohort_differences(session: Session, instance: dg.DagsterInstance, census: Census) -> Iterator[Finding]:
    for key in _claimed_cohort(session, instance, set(census.files)):
        message, remedy = (
            "materialised in Dagster, and not in the store",
            '`pathassets run --select "*"` makes it again.',
        )
        yield Finding(Fault.EVENT_LOG, "/".join(key), message, remedy)


def _claimed_cohort(session: Session, instance: dg.DagsterInstance, files: Container[str]) -> Iterator[Key]:
    """Assets of the whole study that Dagster calls materialised, and whose table is not there."""
    for recipe in session.study.recipes:
        for key in (tuple(terms_key(recipe).path), *((*recipe_scope(recipe), name) for name in MAPS)):
            file = layout.table_key(key[-1], None, recipe_part(recipe))
            if file not in files and logged_version(instance, key) is not None:
                yield key


def _listed(slides: list[str]) -> str:
    shown = ", ".join(sorted(slides)[:SHOWN])
    return f"{len(slides)} slides ({shown}{', ...' if len(slides) > SHOWN else ''})"


def partitions_of(instance: dg.DagsterInstance | None) -> set[str]:
    """Slides that have a partition."""
    return set() if instance is None else set(instance.get_dynamic_partitions(SLIDES.name or ""))


def forget_partition(instance: dg.DagsterInstance | None, slide_id: str) -> bool:
    """Removes a slide's partition and what it had materialised; whether there was one. The logs of its runs stay."""
    if instance is None or slide_id not in partitions_of(instance):
        return False
    withdraw(instance, instance.all_asset_keys(), [slide_id])  # first: what is killed here can be forgotten again
    instance.delete_dynamic_partition(SLIDES.name or "", slide_id)
    return True


def mend(session: Session, instance: dg.DagsterInstance) -> Iterator[tuple[str, str]]:
    """Takes back from the log what no run would correct by itself; what was taken back, and how."""
    tables = (key for name in ("term_embeddings", *MAPS) for key in session.tables.keys(name))
    for key in list(_claimed_cohort(session, instance, set(tables))):
        instance.wipe_assets([dg.AssetKey(list(key))])
        yield "/".join(key), FORGOTTEN
    yield from _mend_slides(session, instance)
    traces = set(slide_ids(session)) | set(session.root.folders("arrays"))
    for slide_id in partitions_of(instance) - traces:
        forget_partition(instance, slide_id)
        yield slide_id, "its partition is removed: the store has nothing of it"


def _mend_slides(session: Session, instance: dg.DagsterInstance) -> Iterator[tuple[str, str]]:
    """Results of slides that the log claims and the store lacks; not of slides that a run is making them for."""
    census, recorded = take_census(session.root), recorded_outcomes(session)
    partitions = instance.get_dynamic_partitions(SLIDES.name or "")
    free = census.slides() & set(partitions) - slides_at_work(instance, partitions).keys()
    for node in chain(session.study):
        lost = free & logged_versions(instance, node.key).keys() - _stored(census, recorded, node.key).keys()
        if lost:
            withdraw(instance, [dg.AssetKey(list(node.key))], lost)
            yield "/".join(node.key), f"{FORGOTTEN}: {_listed(sorted(lost))}"
