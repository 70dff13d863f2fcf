"""Jobs: which assets run together.

Belongs here: selections. Does not belong: when they run (`sensors`, `schedules`).
"""

from __future__ import annotations

import dagster as dg
from dagster._core.storage.tags import PRIORITY_TAG

from pathassets.config import Study
from pathassets.defs.cohort_assets import RESULTS_KEY
from pathassets.defs.demands import demand_tags
from pathassets.defs.export_assets import export_job, export_selection
from pathassets.defs.keeping import nightly_check
from pathassets.defs.loggers import log_config
from pathassets.defs.partitions import QUICK, SLIDES
from pathassets.defs.report_asset import REPORT_KEY, report_job
from pathassets.steps.nodes import chain

SLIDES_JOB = "slides"
COHORT_JOB = "cohort"
RESULTS_JOB = "publish"


def jobs(study: Study) -> list[dg.UnresolvedAssetJobDefinition]:
    """`slides`: a batch of slides through their chain; `cohort`: what needs all slides; `publish`: the snapshot; files for others:
    `reports`, `exports`."""
    slide_keys = [dg.AssetKey(list(node.key)) for node in chain(study)]
    slides = dg.AssetSelection.assets(*slide_keys)
    files = dg.AssetSelection.assets(REPORT_KEY) | export_selection(study)
    results = dg.AssetSelection.assets(RESULTS_KEY) - nightly_check()
    return [
        dg.define_asset_job(
            SLIDES_JOB,
            selection=slides,
            partitions_def=SLIDES,
            tags=demand_tags(study.resources),
            config=log_config(),
            description="A batch of slides through every recipe.",
        ),
        dg.define_asset_job(
            COHORT_JOB,
            selection=dg.AssetSelection.all() - slides - files - nightly_check(),
            config=log_config(),
            description="Term embeddings, maps of slides and of tiles, and then the snapshot.",
        ),
        report_job(),
        *([export_job(study)] if study.exports else []),
        dg.define_asset_job(
            RESULTS_JOB,
            selection=results,
            tags={PRIORITY_TAG: str(QUICK)},
            config=log_config(),
            description="Publishes results.duckdb.",
        ),
    ]
