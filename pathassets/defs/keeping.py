"""Keeping: every night the store is compared with itself, its snapshot and Dagster's event log; once a week garbage goes.

Belongs here: the check, its job and the job that sweeps. Does not belong: what is damage (`store/verify`), what is garbage
(`store/garbage`), mending.
"""

from collections import Counter

import dagster as dg

from pathassets.defs.cohort_assets import RESULTS_KEY
from pathassets.defs.event_log import check_event_log
from pathassets.steps.consistency import check_outcomes
from pathassets.steps.session import Session
from pathassets.steps.sweep import KEEP_S, garbage, sweep
from pathassets.store.verify import Report, hush_busy, verify

VERIFY_JOB, GC_JOB = "verify", "gc"
STORE_CHECK = "store_consistent"
SHOWN = 50


def examine(session: Session, *, deep: bool = False) -> Report:
    """Every comparison there is; slides that somebody is working on are not judged."""
    report = verify(session.root, session.study.home, deep=deep)
    findings = [*report.findings, *check_outcomes(session.root, report.census)]
    if not any("slides/" in key for key in report.census.unreadable):  # what is not known cannot be compared
        findings += check_event_log(session.study, report.census)
    report.findings = hush_busy(session.root, findings)
    return report


def store_check() -> dg.AssetChecksDefinition:
    """The check `store_consistent` on the snapshot."""

    @dg.asset_check(
        asset=RESULTS_KEY,
        name=STORE_CHECK,
        description="Every row's arrays are there, whole in size and of as many rows; every file belongs to a slide; outcomes, "
        "snapshot and Dagster's event log say the same. As `pathassets verify`; `pathassets verify --deep --repair` reads "
        "every byte and mends.",
        required_resource_keys={"study"},
    )
    def _store_consistent(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        report = examine(context.resources.study.session(context.run.run_id))
        damage = [finding for finding in report.findings if not finding.harmless]
        counts = Counter(str(finding.fault) for finding in damage)
        told = ", ".join(f"{number} {fault}" for fault, number in counts.items()) or "nothing"
        numbers: dict[str, float | str] = {"table_files": report.n_files, "array_groups": report.n_groups, **counts}
        numbers |= {finding.key: f"{finding.fault}: {finding.message}. {finding.remedy}" for finding in damage[:SHOWN]}
        return dg.AssetCheckResult(passed=report.ok, description=f"damaged: {told}", metadata=numbers)

    return _store_consistent


def nightly_check() -> dg.AssetSelection:
    """The check alone: it looks at every file, which is nothing for a snapshot every five minutes."""
    return dg.AssetSelection.checks(dg.AssetCheckKey(RESULTS_KEY, STORE_CHECK))


def gc_job() -> dg.JobDefinition:
    """The job `gc`."""

    @dg.op(name="sweep", required_resource_keys={"study"})
    def _sweep(context: dg.OpExecutionContext) -> None:
        session = context.resources.study.session(context.run_id)
        gone = sweep(session, garbage(session))
        freed = sum(waste.size for waste in gone)
        context.log.info(f"{freed / 1e9:.3f} GB freed: {len(gone)} things that nobody refers to")
        context.add_output_metadata({"removed": len(gone), "freed_bytes": freed})

    @dg.job(
        name=GC_JOB, description=f"Removes what nobody refers to and nobody has touched for {KEEP_S / 86_400:.0f} days."
    )
    def _gc() -> None:
        _sweep()

    return _gc


def keeping_jobs() -> "list[dg.JobDefinition | dg.UnresolvedAssetJobDefinition]":
    """`verify` and `gc`."""
    told = "Compares the store with itself, its snapshot and the event log."
    return [dg.define_asset_job(VERIFY_JOB, selection=nightly_check(), description=told), gc_job()]


def keeping_schedules() -> list[dg.ScheduleDefinition]:
    """`verify_nightly` at 03:00, `gc_weekly` on Sundays at 03:30."""
    running = dg.DefaultScheduleStatus.RUNNING
    return [
        dg.ScheduleDefinition(
            name="verify_nightly", job_name=VERIFY_JOB, cron_schedule="0 3 * * *", default_status=running
        ),
        dg.ScheduleDefinition(name="gc_weekly", job_name=GC_JOB, cron_schedule="30 3 * * 0", default_status=running),
    ]
