"""The per-slide assets: one skippable multi-asset that takes a batch of slides through their chain.

Belongs here: specs and events. Does not belong: computing anything, or more than a line about how a result looks.
Why one op and events for each partition instead of one asset function each: a run over several slides that returns a
result marks all its slides as done, and one that raises marks none. Here each slide's assets are logged when they are
really there, so that three bad slides of sixteen neither hide nor undo the other thirteen
(docs/decisions/0002-one-op-for-a-chain.md).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from pathassets.config import Study
from pathassets.defs import describe
from pathassets.defs.automation import slide_chain_condition
from pathassets.defs.checks import check_specs, log_checks
from pathassets.defs.demands import demand_tags
from pathassets.defs.partitions import SLIDES
from pathassets.defs.resources import LogWatcher, Workshop
from pathassets.recipes import Recipe, digest
from pathassets.steps.chain import StepResult
from pathassets.steps.nodes import Node, Step, chain
from pathassets.steps.session import Session

DESCRIPTIONS = {
    Step.SLIDE: "A slide file as it was found: format, size, levels, resolution and where that is known from.",
    Step.TISSUE: "Where there is tissue: pieces with their area in mm² and outlines in level-0 pixels.",
    Step.TILES: "A global grid of tiles over the tissue, with coordinates in level-0 pixels and quality measures.",
    Step.EMBEDDINGS: "One vector for each tile, streamed into Zarr shard by shard; opens with anndata.read_zarr.",
    Step.SLIDE_VECTOR: "The tiles' embeddings reduced to one vector for the slide and one for each piece of tissue.",
    Step.SPATIAL_DOMAINS: "Tiles grouped by Leiden, on their own features and on features smoothed over neighbours (UTAG).",
    Step.TEXT_SIMILARITY: "How much each tile looks like each term: cosine, and a softmax over the terms.",
    Step.PREDICTIONS: "What the encoder's own classifier says of each tile, from the pass that gave its embedding.",
}
KINDS = {
    Step.SLIDE: {"openslide"},
    Step.TISSUE: {"scikitimage", "parquet"},
    Step.TILES: {"polars", "parquet"},
    Step.EMBEDDINGS: {"pytorch", "zarr"},
    Step.SLIDE_VECTOR: {"numpy", "parquet"},
    Step.SPATIAL_DOMAINS: {"scanpy", "zarr"},
    Step.TEXT_SIMILARITY: {"numpy", "parquet"},
    Step.PREDICTIONS: {"numpy", "parquet"},
}
OWNERS = ["team:pathology"]


def group_of(scope: Sequence[str]) -> str:
    """Dagster group of an asset: `slides`, `<tiling>`, or `<tiling>__<recipe>`."""
    return "__".join(scope) or "slides"


def terms_key(recipe: Recipe) -> dg.AssetKey:
    """Asset key of a recipe's term embeddings."""
    return dg.AssetKey([recipe.tiling.name, recipe.name, "term_embeddings"])


def code_version(session: Session, node: Node) -> str:
    """What the numbers of an asset depend on besides its inputs: algorithm, options, weights."""
    if node.step is Step.EMBEDDINGS and node.recipe is not None:
        return digest(node.options_digest, session.remembered_weights(node.recipe))
    if node.step is Step.SLIDE_VECTOR and node.recipe is not None and node.recipe.vectors.encoders:
        return digest(node.options_digest, session.remembered_slide_weights(node.recipe))
    return node.options_digest


def asset_spec(session: Session, node: Node) -> dg.AssetSpec:
    """What Dagster is told about a node before it has run."""
    deps = [dg.AssetKey(list(parent.key)) for parent in node.upstream]
    if node.step is Step.TEXT_SIMILARITY and node.recipe is not None:
        deps.append(terms_key(node.recipe))
    tags = {"encoder": node.recipe.name} if node.recipe else {}
    return dg.AssetSpec(
        key=list(node.key),
        deps=deps,
        description=describe.with_dashboard(DESCRIPTIONS[node.step], session.study.dashboard_url),
        group_name=group_of(node.scope),
        kinds=KINDS[node.step],
        owners=OWNERS,
        tags=tags,
        code_version=code_version(session, node),
        automation_condition=slide_chain_condition(session.study),
        skippable=True,
        partitions_def=SLIDES,
        metadata=describe.static(node.step),
    )


def slide_chain(study: Study) -> dg.AssetsDefinition:
    """All per-slide assets of a study as one op."""
    nodes = chain(study)

    @dg.multi_asset(
        name="slide_chain",
        specs=[asset_spec(Session(study), node) for node in nodes],
        check_specs=check_specs(nodes),
        can_subset=True,
        partitions_def=SLIDES,
        backfill_policy=dg.BackfillPolicy.multi_run(study.slides_per_run),
        required_resource_keys={"study"},
        config_schema={
            "force": dg.Field(bool, default_value=False, description="Make results that are current again.")
        },
        pool="gpu",
        op_tags=demand_tags(study.resources),
    )
    def _slide_chain(context: dg.AssetExecutionContext) -> Iterator[dg.AssetMaterialization]:
        run_batch(context, context.resources.study, _selected(context, nodes))
        yield from ()

    return _slide_chain


def _selected(context: dg.AssetExecutionContext, nodes: Sequence[Node]) -> list[Node]:
    keys = context.selected_asset_keys
    return [node for node in nodes if dg.AssetKey(list(node.key)) in keys]


def run_batch(context: dg.AssetExecutionContext, workshop: Workshop, nodes: Sequence[Node]) -> None:
    """Takes the run's slides through `nodes`, logs what is there, and fails at the end if a slide failed.

    Raises:
        dagster.Failure: Some slides failed; the others are done and marked so.
    """
    from pathassets.defs.adopt import report_used_terms
    from pathassets.steps.batch import run_batch as run_slides

    session = workshop.session(context.run_id, LogWatcher(context.log))
    failed: dict[str, StepResult] = {}

    def emit(result: StepResult) -> None:
        workshop.results.append(result)
        if result.usable:
            log_result(context, session, result)
            log_checks(context, session, result)
        elif result.slide_id not in failed:
            failed[result.slide_id] = result
            context.log.error(_complaint(result))

    run_slides(session, context.partition_keys, nodes, emit, force=context.op_execution_context.op_config["force"])
    report_used_terms(session, context.instance, workshop.results)
    if failed:
        raise dg.Failure(
            f"{len(failed)} of {len(context.partition_keys)} slides failed; the others are done.",
            metadata={slide_id: _complaint(result) for slide_id, result in list(failed.items())[:50]},
            allow_retries=False,
        )


def log_result(context: dg.AssetExecutionContext, session: Session, result: StepResult) -> None:
    """Tells Dagster that an asset of a slide is there, with the versions it was made from."""
    context.log_event(
        dg.AssetMaterialization(
            asset_key=list(result.node.key),
            partition=result.slide_id,
            metadata=describe.materialised(session, result),
            tags=version_tags(session, result),
        )
    )


def version_tags(session: Session, result: StepResult) -> dict[str, str]:
    """Tags from which Dagster knows what is stale; events that are logged by hand carry none by themselves."""
    assert result.outcome is not None
    tags = {
        "dagster/code_version": code_version(session, result.node),
        "dagster/data_version": str(result.outcome.result_digest),
        "dagster/data_version_is_user_provided": "true",
    }
    inputs: dict[tuple[str, ...], Any] = dict(result.input_digests)
    if result.node.step is Step.TEXT_SIMILARITY and result.node.recipe is not None:
        from pathassets.steps.terms import terms_digest

        key = tuple(terms_key(result.node.recipe).path)
        inputs[key] = inputs.get(key) or terms_digest(session, result.node.recipe)
    for key, version in inputs.items():
        name = dg.AssetKey(list(key)).to_user_string()
        tags[f"dagster/input_data_version/{name}"] = version
        # Without a pointer Dagster calls the dependency new, and everything downstream stale.
        tags[f"dagster/input_event_pointer/{name}"] = "NULL"
    return tags


def _complaint(result: StepResult) -> str:
    outcome = result.outcome
    if outcome is None:
        missing = ", ".join("/".join(parent.key) for parent in result.node.upstream)
        return f"{result.slide_id}: {'/'.join(result.node.key)} was not made, because {missing} is not there"
    return (
        f"{result.slide_id}: {outcome.step} failed [{outcome.reason}] {outcome.message} {outcome.remedy or ''}".strip()
    )
