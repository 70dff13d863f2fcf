"""The asset `report`: HTML files about the study and each of its slides, in its home.

Belongs here: the asset and its job. Does not belong: what stands in a report (`report/`), when it is made (`schedules`).
"""

import dagster as dg

from pathassets.config import Study
from pathassets.defs import describe
from pathassets.defs.cohort_assets import all_results
from pathassets.defs.loggers import log_config
from pathassets.defs.slide_assets import OWNERS

REPORT_KEY = dg.AssetKey(["report"])
REPORT_JOB = "reports"


def report_asset(study: Study) -> dg.AssetsDefinition:
    """All reports of a study as one asset: those of which nothing has changed stay as they are."""

    @dg.asset(
        key=REPORT_KEY,
        deps=all_results(study),
        description=describe.with_dashboard(
            "One HTML file about the study and one about each slide, in the folder `reports`; they open offline.",
            study.dashboard_url,
        ),
        group_name="results",
        kinds={"html"},
        owners=OWNERS,
        required_resource_keys={"study"},
    )
    def _report(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        from pathassets.report.folder import write_reports

        session = context.resources.study.session(context.run_id)
        return dg.MaterializeResult(metadata=describe.reports(session, write_reports(session)))

    return _report


def report_job() -> "dg.UnresolvedAssetJobDefinition":
    """The job `reports`."""
    told = "Writes the reports of the study and of the slides that have changed."
    return dg.define_asset_job(
        REPORT_JOB, selection=dg.AssetSelection.assets(REPORT_KEY), config=log_config(), description=told
    )
