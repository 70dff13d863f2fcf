"""Commands that keep a study in order: verify, adopt, gc, forget.

Belongs here: the order of what they do, printing, exit codes. Does not belong: checks, repairs and removals themselves.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pathassets.cli.console import no_slides, print_json, print_rows, say
from pathassets.config import Study, init_home
from pathassets.errors import ConfigError
from pathassets.steps.naming import quoted
from pathassets.steps.session import Session
from pathassets.store.garbage import Waste
from pathassets.store.verify import Fault, Report

SHOWN = 20
_AGE = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*([smhdw]?)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "": 86_400}


def verify_study(study: Study, *, deep: bool, repairing: bool, as_json: bool) -> int:
    """Checks the store against itself, its snapshot and Dagster's event log; exit code 1 when something is damaged."""
    from pathassets.defs.keeping import examine

    session = Session(study)
    report = examine(session, deep=deep)
    deeds = _repair(session, report, deep) if repairing else None
    code = 0 if report.ok or (deeds is not None and all(deed["repaired"] for deed in deeds)) else 1
    if as_json:
        found = [asdict(finding) | {"harmless": finding.harmless} for finding in report.findings]
        counts = {"n_files": report.n_files, "n_groups": report.n_groups}
        print_json({"ok": code == 0, "findings": found, **counts, "deep": deep, "repairs": deeds})
        return code
    for finding in report.findings:
        say(f"{finding.fault}: {finding.key}: {finding.message}. {finding.remedy}")
    _print_verdict(report, deep)
    if not report.census.slides():
        say(no_slides(study.home))
    for deed in deeds or ():
        say(f"{'repaired' if deed['repaired'] else 'not repaired'}: {deed['key']}: {deed['done']}")
    if deeds:
        say("now `pathassets run` makes what is missing")
    return code


def _print_verdict(report: Report, deep: bool) -> None:
    damaged = Counter(finding.fault for finding in report.findings if not finding.harmless)
    left = Counter(finding.fault for finding in report.findings if finding.harmless)
    how = "every byte" if deep else "sizes and rows; --deep reads every byte"
    say(f"{report.n_files} table files and {report.n_groups} array groups checked ({how})")
    say(f"damaged: {_counted(damaged)}; left over: {_counted(left)}")


def _counted(counts: Counter[Any]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items()) or "nothing"


def _repair(session: Session, report: Report, deep: bool) -> list[dict[str, Any]]:
    """The store first; then Dagster hears what is there, and forgets what no run would correct."""
    from pathassets.defs.adopt import adopt
    from pathassets.defs.event_log import mend
    from pathassets.defs.launch import open_instance
    from pathassets.steps.repair import repair

    deeds = [asdict(deed) for deed in repair(session, report.findings, deep=deep)]
    if report.ok and not deeds and not any(finding.fault is Fault.UNTOLD for finding in report.findings):
        return deeds
    init_home(session.study.home, with_inbox=False)
    with open_instance(session.study) as instance:
        adopted = adopt(session, instance)
        deeds += [{"key": key, "done": done, "repaired": True} for key, done in mend(session, instance)]
    if adopted.n_events:
        deeds.append({"key": ".dagster", "done": f"{adopted.n_events} materialisations reported", "repaired": True})
    return deeds + [{"key": ".dagster", "done": f"left out: {why}", "repaired": False} for why in adopted.skipped]


def adopt_study(study: Study, *, dry_run: bool, as_json: bool) -> int:
    """Reports to Dagster what the store has and its event log lacks; exit code 1 when something could not be."""
    from pathassets.cli.running import publish_if_stale
    from pathassets.defs.adopt import adopt, looking_at
    from pathassets.defs.launch import open_instance

    session = Session(study)
    if dry_run:
        with looking_at(study) as instance:
            adopted = adopt(session, instance, dry_run=True)
    else:
        init_home(study.home, with_inbox=False)
        with open_instance(study) as instance:
            adopted = adopt(session, instance)
    problems = [] if dry_run else publish_if_stale(study, even_if_current=not adopted.snapshot)
    events = {"/".join(key): slides for key, slides in adopted.events.items()}
    if as_json:
        print_json({"dry_run": dry_run, "partitions": adopted.partitions, "events": events,
                    "n_events": adopted.n_events, "skipped": adopted.skipped, "problems": problems})  # fmt: skip
    else:
        for key, slides in events.items():
            say(f"{key}: {f'{len(slides)} slides' if slides else 'reported'}")
        for line in (*adopted.skipped, *problems):
            say(f"left out: {line}")
        would = "would be " if dry_run else ""
        say(f"{len(adopted.partitions)} partitions and {adopted.n_events} materialisations {would}reported to Dagster")
    return 1 if adopted.skipped or problems else 0


def collect_garbage(study: Study, *, older_than: str, dry_run: bool, as_json: bool) -> int:
    """Removes what nobody refers to and nobody has touched for so long."""
    from pathassets.steps.sweep import garbage, sweep

    session, age = Session(study), seconds_of(older_than)
    found = garbage(session, age)
    gone = found if dry_run else sweep(session, found)
    freed = sum(waste.size for waste in gone)
    if as_json:
        rows = [asdict(waste) | {"removed": not dry_run and waste in gone} for waste in found]
        print_json({"dry_run": dry_run, "older_than_s": age, "freed_bytes": freed, "found": rows})
        return 0
    _print_waste(found, gone)
    verb = "would be freed" if dry_run else "freed"
    say(f"{freed / 1e9:.3f} GB {verb}: {len(gone)} things that nobody refers to, older than {older_than}")
    return 0


def _print_waste(found: Sequence[Waste], gone: Sequence[Waste]) -> None:
    rows = [
        {"what": str(w.kind), "MB": w.size / 1e6, "key": w.key, "": "" if w in gone else "in use: left"} for w in found
    ]
    if rows:
        print_rows(rows[:SHOWN], ("what", "MB", "key", ""))
    if len(rows) > SHOWN:
        say(f"and {len(rows) - SHOWN} more (--json lists them all)")


def seconds_of(age: str) -> float:
    """An age such as `7d`, `12h`, `30m` in seconds; a bare number counts days.

    Raises:
        ConfigError: It is no age.
    """
    found = _AGE.fullmatch(age.strip())
    if found is None:
        raise ConfigError(f"{quoted(age)} is not an age", remedy="Write 7d, 12h, 30m or 2w.")
    return float(found[1]) * _SECONDS[found[2]]


def forget_slide(study: Study, name: str, *, yes: bool, as_json: bool) -> int:
    """Removes a slide from the study, its file untouched; without `yes` tells what that would be."""
    from pathassets.cli.running import publish_if_stale
    from pathassets.defs.adopt import looking_at
    from pathassets.defs.event_log import forget_partition, partitions_of
    from pathassets.defs.partitions import check_idle
    from pathassets.defs.processes import tidy_dead_runs
    from pathassets.steps.forget import comes_back, forget, known_slide, what_goes

    session = Session(study)
    with looking_at(study) as instance:
        slide_id = known_slide(session, name, partitions_of(instance))
        going = what_goes(session, slide_id)
        warning = comes_back(session, slide_id)
        if yes:
            if instance is not None:
                tidy_dead_runs(instance)
                check_idle(instance, slide_id)
            forget(session, slide_id)
            forget_partition(instance, slide_id)
    problems = publish_if_stale(study) if yes else []
    if as_json:
        print_json({"slide_id": slide_id, "forgotten": yes, "removed": going, "warning": warning, "problems": problems})
        return 1 if problems else 0
    print_rows([{"what": name, **facts} for name, facts in going.items()], ("what", "files", "MB"))
    say(
        f"{slide_id} is forgotten; its file was not touched"
        if yes
        else f"nothing was removed: add --yes to forget {slide_id}"
    )
    for line in (*filter(None, [warning]), *problems):
        say(line)
    return 1 if problems else 0
