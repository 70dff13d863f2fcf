"""The assets `exports/<format>`: a study's results as other tools' files, kept up to date in its home.

Belongs here: the assets and their job. Does not belong: formats and what is written anew (`exports/`), when (`schedules`).
"""

import dagster as dg

from pathassets.config import ExportFormat, Study
from pathassets.defs import describe
from pathassets.defs.cohort_assets import all_results
from pathassets.defs.loggers import log_config
from pathassets.defs.slide_assets import OWNERS
from pathassets.steps.forget import EXPORTS

EXPORT_JOB = "exports"


def export_assets(study: Study) -> list[dg.AssetsDefinition]:
    """One for each format that the settings name."""
    return [export_asset(study, name) for name in dict.fromkeys(study.exports)]


def export_asset(study: Study, name: ExportFormat) -> dg.AssetsDefinition:
    """All slides in one format: files of slides of which nothing has changed stay as they are."""

    @dg.asset(
        key=export_key(name),
        deps=all_results(study),
        description=describe.with_dashboard(
            f"What `pathassets export {name}` writes, in the folder `exports/{name}`.", study.dashboard_url
        ),
        group_name="results",
        kinds={name.partition("-")[0]},
        owners=OWNERS,
        required_resource_keys={"study"},
    )
    def _export(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        from pathassets.exports.kept import keep_export

        session = context.resources.study.session(context.run_id)
        return dg.MaterializeResult(metadata=describe.export(keep_export(session, name)))

    return _export


def export_key(name: ExportFormat) -> dg.AssetKey:
    """The key of a format's asset."""
    return dg.AssetKey([EXPORTS, name.replace("-", "_")])


def is_export(key: tuple[str, ...]) -> bool:
    """Whether a key is that of an export."""
    return len(key) == 2 and key[0] == EXPORTS  # those of recipes have three parts


def export_selection(study: Study) -> dg.AssetSelection:
    """All exports of a study; none where the settings name none."""
    return dg.AssetSelection.assets(*(export_key(name) for name in study.exports))


def export_job(study: Study) -> "dg.UnresolvedAssetJobDefinition":
    """The job `exports`."""
    told = "Brings the exports that pathassets.toml names up to date."
    return dg.define_asset_job(EXPORT_JOB, selection=export_selection(study), config=log_config(), description=told)
