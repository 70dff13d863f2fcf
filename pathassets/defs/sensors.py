"""The inbox sensor: a slide file that lies still in an inbox folder becomes a partition and its chain is requested.

Belongs here: deciding which files are ready. Does not belong: registering them (`steps/register.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from pathassets.config import Study
from pathassets.defs.jobs import SLIDES_JOB
from pathassets.defs.partitions import SLIDES, batches, run_requests
from pathassets.recipes import digest
from pathassets.steps.register import files_to_register, known_slides, register
from pathassets.steps.session import Session

# A tick has 60 s; hashing a slide of 1 GB takes about 2 s.
MAX_FILES_PER_TICK = 16

Seen = dict[str, tuple[int, int]]


def inbox_sensor(study: Study) -> dg.SensorDefinition:
    """A sensor over the study's inbox folders."""

    @dg.sensor(
        name="inbox",
        job_name=SLIDES_JOB,
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Registers slides that arrive in {', '.join(study.inbox)} and requests their chain.",
    )
    def _inbox(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        session = Session(study)
        waiting: Seen = {path: (size, time) for path, (size, time) in json.loads(context.cursor or "{}").items()}
        fresh = unknown_files(session)
        ready = [Path(path) for path, stamp in fresh.items() if waiting.get(path) == stamp][:MAX_FILES_PER_TICK]
        cursor = json.dumps({path: stamp for path, stamp in fresh.items() if Path(path) not in ready})
        if not ready:
            context.update_cursor(cursor)
            return dg.SkipReason(f"{len(fresh)} new files are waited for" if fresh else "no new files")
        entered = [entry.slide_id for entry in register(session, ready)]
        keys = context.instance.get_dynamic_partitions("slides")
        new = [slide_id for slide_id in entered if slide_id not in set(keys)]
        groups = batches([*keys, *new], entered, study.slides_per_run)
        return dg.SensorResult(
            run_requests=run_requests(groups, job_name=SLIDES_JOB, run_key=digest(sorted(map(str, ready)), cursor)),
            dynamic_partitions_requests=[SLIDES.build_add_request(new)] if new else [],
            cursor=cursor,
        )

    return _inbox


def unknown_files(session: Session) -> Mapping[str, tuple[int, int]]:
    """Files of the inbox that no slide's row names as they are now: path to size and time."""
    known = {
        path: (row["size_bytes"], row["mtime_ns"])
        for row in known_slides(session).iter_rows(named=True)
        for path in (row["path"], *(row["other_paths"] or ()))
    }
    stamps = {}
    for path in files_to_register(session, []):
        try:
            stat = path.stat()
        except OSError:
            continue  # gone between listing and looking
        stamp = (stat.st_size, stat.st_mtime_ns)
        if known.get(str(path)) != stamp:
            stamps[str(path)] = stamp
    return stamps
