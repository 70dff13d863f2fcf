"""Unpartitioned assets: a recipe's term embeddings and slide map, and the DuckDB snapshot of everything.

Belongs here: specs and metadata. Does not belong: computing anything.
"""

from datetime import timedelta

import dagster as dg

from pathassets.config import Study
from pathassets.defs import describe
from pathassets.defs.checks import cohort_result, cohort_specs
from pathassets.defs.slide_assets import OWNERS, group_of, terms_key
from pathassets.encoders import knows_words
from pathassets.recipes import Recipe
from pathassets.steps.cohort_checks import FAILED_SLIDES, MAP_CHECKS, judge_day, judge_map
from pathassets.steps.nodes import chain

RESULTS_KEY = dg.AssetKey(["results"])
# Assets of each recipe that lay out what all slides have.
MAPS = ("slide_map", "cohort_map")
# `cohort_nightly` makes them every night: one that was missed is worth a look, two are a fault.
NIGHTLY_MADE = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=26), fail_window=timedelta(hours=50))


def cohort_assets(study: Study) -> list[dg.AssetsDefinition]:
    """All unpartitioned assets of a study."""
    assets = [make(study, recipe) for recipe in study.recipes for make in (slide_map_asset, cohort_map_asset)]
    assets += [
        terms_asset(study, recipe) for recipe in study.recipes if knows_words(recipe.encoder) and recipe.text.terms
    ]
    return [*assets, results_asset(study)]


def terms_asset(study: Study, recipe: Recipe) -> dg.AssetsDefinition:
    """The vectors of a recipe's terms, and the words that its text tower cannot know."""

    @dg.asset(
        key=terms_key(recipe),
        description=describe.with_dashboard(
            "One vector for each term of pathassets.toml, the mean over the prompt templates.", study.dashboard_url
        ),
        group_name=group_of((recipe.tiling.name, recipe.name)),
        kinds={"pytorch", "parquet"},
        owners=OWNERS,
        code_version=terms_code_version(recipe),
        required_resource_keys={"study"},
        metadata=describe.columns("term_embeddings"),
    )
    def _term_embeddings(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        from pathassets.steps.terms import make_terms

        result = make_terms(context.resources.study.session(context.run_id), recipe)
        return dg.MaterializeResult(metadata=describe.terms(result), data_version=dg.DataVersion(result.digest))

    return _term_embeddings


def terms_code_version(recipe: Recipe) -> str:
    """What term embeddings depend on besides the weights."""
    return recipe.text.model_dump_json()


def slide_map_asset(study: Study, recipe: Recipe) -> dg.AssetsDefinition:
    """The slides' vectors of one recipe in two dimensions."""
    scope = (recipe.tiling.name, recipe.name)

    @dg.asset(
        key=[*scope, "slide_map"],
        deps=[dg.AssetDep([*scope, "slide_vector"], partition_mapping=dg.AllPartitionMapping())],
        description=describe.with_dashboard(
            "Every slide as a point: PCA of the slide vectors, and UMAP when there are enough slides.",
            study.dashboard_url,
        ),
        group_name=group_of(scope),
        kinds={"scikitlearn", "parquet"},
        owners=OWNERS,
        freshness_policy=NIGHTLY_MADE,
        required_resource_keys={"study"},
        metadata=describe.columns("slide_map"),
        check_specs=cohort_specs([*scope, "slide_map"], MAP_CHECKS),
    )
    def _slide_map(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        from pathassets.steps.slide_map import make_slide_map

        session = context.resources.study.session(context.run_id)
        result = make_slide_map(session, recipe)
        return dg.MaterializeResult(
            metadata=describe.slide_map(session, recipe, result),
            data_version=dg.DataVersion(result.digest),
            check_results=[cohort_result(check, verdict) for check, verdict in judge_map(session, recipe).items()],
        )

    return _slide_map


def cohort_map_asset(study: Study, recipe: Recipe) -> dg.AssetsDefinition:
    """A sample of all slides' tiles of one recipe in two dimensions, and the mosaic of their pictures."""
    scope = (recipe.tiling.name, recipe.name)
    about = "A sample of every slide's tiles laid out together (PCA, UMAP), and a mosaic: one tile's picture for each place."

    @dg.asset(
        key=[*scope, "cohort_map"],
        deps=[dg.AssetDep([*scope, "embeddings"], partition_mapping=dg.AllPartitionMapping())],
        description=describe.with_dashboard(about, study.dashboard_url),
        group_name=group_of(scope),
        kinds={"scanpy", "parquet"},
        owners=OWNERS,
        freshness_policy=NIGHTLY_MADE,
        required_resource_keys={"study"},
        metadata=describe.columns("cohort_map"),
    )
    def _cohort_map(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        from pathassets.figures.cohort_pictures import write_mosaic
        from pathassets.steps.cohort_map import make_cohort_map

        session = context.resources.study.session(context.run_id)
        result = make_cohort_map(session, recipe)
        metadata = describe.cohort_map(session, recipe, result, write_mosaic(session, recipe))
        return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(result.digest))

    return _cohort_map


def results_asset(study: Study) -> dg.AssetsDefinition:
    """The DuckDB snapshot."""

    @dg.asset(
        key=RESULTS_KEY,
        deps=all_results(study),
        description=describe.with_dashboard(
            "results.duckdb: all tables of all slides, published by rename; nobody's run ever opens it.",
            study.dashboard_url,
        ),
        group_name="results",
        kinds={"duckdb"},
        owners=OWNERS,
        pool="publish",
        freshness_policy=NIGHTLY_MADE,
        required_resource_keys={"study"},
        check_specs=cohort_specs(RESULTS_KEY.path, [FAILED_SLIDES]),
    )
    def _results(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        from pathassets.steps.publish import publish_results

        session = context.resources.study.session(context.run_id)
        result = publish_results(session)
        failed = cohort_result(FAILED_SLIDES, judge_day(session))
        return dg.MaterializeResult(metadata=describe.snapshot(result), check_results=[failed])

    return _results


def all_results(study: Study) -> list[dg.AssetDep]:
    """What the snapshot and the reports are made from: every slide's assets, and the maps of all slides."""
    slides = [dg.AssetDep(list(node.key), partition_mapping=dg.AllPartitionMapping()) for node in chain(study)]
    maps = ((*recipe_scope(recipe), name) for recipe in study.recipes for name in MAPS)
    return [*slides, *(dg.AssetDep(list(key)) for key in maps)]


def recipe_scope(recipe: Recipe) -> tuple[str, str]:
    """First two parts of a recipe's asset keys."""
    return recipe.tiling.name, recipe.name
