"""Event log: what Dagster says of the study's results held against what the store has.

Belongs here: finding differences, forgetting a partition. Does not belong: ending them (`adopt`, or a run).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC

import dagster as dg

from pathassets.config import Study
from pathassets.defs.adopt import Key, Versions, logged_version, logged_versions, looking_at, recorded_outcomes
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
CLAIMED = "materialised in Dagster, and not in the store"
FORGOTTEN = "Dagster no longer calls it materialised"


@dataclass(frozen=True)
class Claims:
    """What Dagster says. To be read before the store: results are told to Dagster after they are written.

    Attributes:
        partitions: Slides that have one.
        versions: Of each asset, the data version by slide.
        cohort: Assets of the whole study that are materialised, and the key of their table.
    """

    partitions: set[str]
    versions: dict[Key, Versions]
    cohort: dict[Key, str]


def check_event_log(study: Study, census: Census) -> Iterator[Finding]:
    """Differences between Dagster's event log and the store, one finding for each asset and kind of difference."""
    try:
        with looking_at(study) as instance:
            if instance is not None:
                session, claims = Session(study), read_claims(study, instance)
                found = list(differences(session, instance, claims, census))
                if not all(finding.harmless for finding in found):  # made since the census was taken, perhaps
                    found = list(differences(session, instance, claims, take_census(session.root)))
                yield from found
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


def read_claims(study: Study, instance: dg.DagsterInstance) -> Claims:
    """What Dagster says now."""
    cohort = {}
    for recipe in study.recipes:
        for key in (tuple(terms_key(recipe).path), *((*recipe_scope(recipe), name) for name in MAPS)):
            if logged_version(instance, key) is not None:
                cohort[key] = layout.table_key(key[-1], None, recipe_part(recipe))
    versions = {node.key: logged_versions(instance, node.key) for node in chain(study)}
    return Claims(partitions_of(instance), versions, cohort)


def differences(session: Session, instance: dg.DagsterInstance, claims: Claims, census: Census) -> Iterator[Finding]:
    """See `check_event_log`."""
    slides, recorded = census.slides(), recorded_outcomes(session)
    # A slide of which there are outcomes has lost its row alone.
    for slide_id in sorted(claims.partitions - slides - {slide_id for slide_id, _ in recorded}):
        message = "has a partition in Dagster, and is not registered"
        yield Finding(
            Fault.EVENT_LOG, slide_id, message, f"`pathassets forget {slide_id} --yes`, or register its file."
        )
    known = claims.partitions & slides
    for key, versions in claims.versions.items():
        stored = _stored(census, recorded, key)
        logged = {slide_id: version for slide_id, version in versions.items() if slide_id in known}
        yield from _node_differences(instance, key, stored, logged)
    for key, file in claims.cohort.items():
        if file not in census.files:
            remedy = '`pathassets run --select "*"` makes it again.'
            yield Finding(Fault.EVENT_LOG, "/".join(key), CLAIMED, remedy)


def _stored(census: Census, recorded: Mapping[tuple[str, Key], Outcome], asset: Key) -> dict[str, Outcome]:
    """What the store says of an asset, by slide: results that are there, and failures."""
    slides = census.slides()
    return {
        slide_id: outcome
        for (slide_id, key), outcome in recorded.items()
        if key == asset and slide_id in slides and (not outcome.usable or has_results(census, outcome))
    }


def _node_differences(
    instance: dg.DagsterInstance, asset: Key, stored: Mapping[str, Outcome], logged: Mapping[str, str]
) -> Iterator[Finding]:
    """A step that failed since leaves the last success in the log, as Dagster does itself."""
    usable = {slide_id: outcome for slide_id, outcome in stored.items() if outcome.usable}
    absent = [slide_id for slide_id in logged if slide_id not in stored]
    unknown = [slide_id for slide_id in usable if slide_id not in logged]
    other = [s for s, outcome in usable.items() if s in logged and logged[s] != outcome.result_digest]
    newer = [slide_id for slide_id in other if _is_newer(instance, asset, usable[slide_id])]
    older = sorted(set(other) - set(newer))
    for fault, slides, what, remedy in (
        (Fault.EVENT_LOG, absent, CLAIMED, RUN),
        (Fault.UNTOLD, unknown, "in the store, and unknown to Dagster", ADOPT_OR_RUN),
        (Fault.UNTOLD, newer, "a newer version in the store than in Dagster", ADOPT_OR_RUN),
        (Fault.EVENT_LOG, older, "another version in Dagster than in the store", ADOPT),
    ):
        if slides:
            yield Finding(fault, "/".join(asset), f"{what}: {_listed(slides)}", remedy)


def _is_newer(instance: dg.DagsterInstance, asset: Key, outcome: Outcome) -> bool:
    """Whether a result was made after Dagster last heard of that asset and slide."""
    which = dg.AssetRecordsFilter(dg.AssetKey(list(asset)), asset_partitions=[outcome.slide_id])
    told = instance.fetch_materializations(which, limit=1).records
    made = outcome.created_at
    return not told or (made is not None and made.replace(tzinfo=UTC).timestamp() > told[0].timestamp)


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
    claims = read_claims(session.study, instance)
    tables = {key for name in ("term_embeddings", *MAPS) for key in session.tables.keys(name)}
    for key in [key for key, file in claims.cohort.items() if file not in tables]:
        instance.wipe_assets([dg.AssetKey(list(key))])
        yield "/".join(key), FORGOTTEN
    yield from _mend_slides(session, instance, claims)
    traces = set(slide_ids(session)) | set(session.root.folders("arrays"))
    for slide_id in claims.partitions - traces:
        forget_partition(instance, slide_id)
        yield slide_id, "its partition is removed: the store has nothing of it"


def _mend_slides(session: Session, instance: dg.DagsterInstance, claims: Claims) -> Iterator[tuple[str, str]]:
    """Results of slides that the log claims and the store lacks; not of slides that a run is making them for."""
    at_work = slides_at_work(instance, instance.get_dynamic_partitions(SLIDES.name or "")).keys()
    census, recorded = take_census(session.root), recorded_outcomes(session)
    free = census.slides() & claims.partitions - at_work
    for key, versions in claims.versions.items():
        lost = free & versions.keys() - _stored(census, recorded, key).keys()
        if lost:
            withdraw(instance, [dg.AssetKey(list(key))], lost)
            yield "/".join(key), f"{FORGOTTEN}: {_listed(sorted(lost))}"
