"""Asset checks: what Dagster is told of the checks, and of what they found for a slide.

Belongs here: specs and evaluations. Does not belong: which checks there are (`steps/checks.py`), thresholds.

None of them blocks: what must not go on is failed by its step, for that slide alone. A result that was made as asked but
deserves a look gives a warning; an error is kept for results that contradict themselves and should never be there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import dagster as dg

from pathassets.core.checks import Verdict
from pathassets.defs.partitions import SLIDES
from pathassets.steps.chain import StepResult
from pathassets.steps.checks import Check, checks_of, judge
from pathassets.steps.cohort_checks import CohortCheck
from pathassets.steps.nodes import Node
from pathassets.steps.session import Session


def check_specs(nodes: Sequence[Node]) -> list[dg.AssetCheckSpec]:
    """The checks on the assets of `nodes`, each evaluated for every slide."""
    return [
        dg.AssetCheckSpec(check.name, asset=list(node.key), description=check.description, partitions_def=SLIDES)
        for node in nodes
        for check in checks_of(node.step)
    ]


def log_checks(context: dg.AssetExecutionContext, session: Session, result: StepResult) -> None:
    """Checks a slide's result that is there, and tells Dagster what was found."""
    for evaluation in evaluations(session, result):
        context.log_event(evaluation)


def evaluations(session: Session, result: StepResult) -> Iterator[dg.AssetCheckEvaluation]:
    """What the checks find for a slide's result that is there, as Dagster has it."""
    for check, verdict in judge(session, result):
        yield dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(list(result.node.key)),
            check_name=check.name,
            passed=verdict.passed,
            description=verdict.message,
            metadata=dict(verdict.numbers),
            severity=severity_of(check),
            partition=result.slide_id,
        )


def severity_of(check: Check) -> dg.AssetCheckSeverity:
    """How bad it is when the check fails."""
    return dg.AssetCheckSeverity.ERROR if check.contradiction else dg.AssetCheckSeverity.WARN


def cohort_specs(asset: Sequence[str], checks: Sequence[CohortCheck]) -> list[dg.AssetCheckSpec]:
    """Checks on an unpartitioned asset, which is made from all slides."""
    return [dg.AssetCheckSpec(check.name, asset=list(asset), description=check.description) for check in checks]


def cohort_result(check: CohortCheck, verdict: Verdict) -> dg.AssetCheckResult:
    """What a check found in all slides together: never more than a warning, the results are as they should be."""
    return dg.AssetCheckResult(
        check_name=check.name,
        passed=verdict.passed,
        description=verdict.message,
        metadata=dict(verdict.numbers),
        severity=dg.AssetCheckSeverity.WARN,
    )
