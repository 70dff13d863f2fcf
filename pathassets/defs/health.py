"""Whether Dagster can be worked with: its storage, its daemon, its settings.

Belongs here: looking. Does not belong: what is said to the user about it (`cli/doctor`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import yaml
from dagster._core.instance.ref import InstanceRef

from pathassets.config import Study
from pathassets.defs.launch import NO_CAPTURE
from pathassets.errors import ConfigError
from pathassets.store.local_root import read_only_database
from pathassets.templates import DAGSTER_YAML

SQLITE = "history/runs.db"


def storage_state(study: Study) -> str:
    """Where Dagster's state lies and how many runs it has; never makes a database that is not there.

    Raises:
        ConfigError: It cannot be reached, or `dagster.yaml` is not understood.
    """
    if _is_sqlite(study) and not (study.dagster_home / SQLITE).exists():
        return "SQLite, not made yet"
    with _opened(study) as instance:
        kind = type(instance.run_storage).__name__.removesuffix("RunStorage")
        return f"{kind}, {instance.get_runs_count()} runs"


def daemon_state(study: Study) -> tuple[bool, str]:
    """Whether Dagster's daemon gives signs of life, and in words.

    Raises:
        ConfigError: Dagster's storage cannot be reached.
    """
    if _is_sqlite(study) and not (study.dagster_home / SQLITE).exists():
        return False, "has never run"
    with _opened(study) as instance:
        statuses = instance.get_daemon_statuses().values()
    beats = [status.last_heartbeat.timestamp for status in statuses if status.last_heartbeat is not None]
    if not beats:
        return False, "has never run"
    silent = sorted(status.daemon_type.lower() for status in statuses if status.required and not status.healthy)
    last = f"last sign of life {time.time() - max(beats):.0f} s ago"
    return not silent, last + (f"; silent: {', '.join(silent)}" if silent else "")


def missing_settings(study: Study) -> list[str]:
    """Settings of the template that this study's `dagster.yaml` lacks, as `section.name`."""
    given, wanted = _settings(study), yaml.safe_load(DAGSTER_YAML)
    sections = ("run_monitoring", "run_retries", "concurrency")
    return [f"{part}.{name}" for part in sections for name in wanted[part] if name not in (given.get(part) or {})]


def _settings(study: Study) -> dict[str, Any]:
    path = study.dagster_home / "dagster.yaml"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML", remedy=f"Correct it: {str(error).splitlines()[-1]}") from error
    return found if isinstance(found, dict) else {}


def _is_sqlite(study: Study) -> bool:
    return not {"storage", "run_storage"} & set(_settings(study))


@contextmanager
def _opened(study: Study) -> Iterator[dg.DagsterInstance]:
    path = study.dagster_home / "dagster.yaml"
    try:
        ref = InstanceRef.from_dir(str(study.dagster_home), overrides={"compute_logs": NO_CAPTURE})
        with dg.DagsterInstance.from_ref(ref) as instance:
            yield instance
    except Exception as error:
        said = [line for line in str(error.__cause__ or error).splitlines() if line.strip()]
        refused = read_only_database(error, study.dagster_home)
        if refused is not None:
            raise ConfigError(f"Dagster's storage: {refused.message}", remedy=refused.remedy) from error
        remedy = (
            f"See that {study.dagster_home} is whole and may be written."
            if _is_sqlite(study)
            else f"See that its server runs and that the variables which {path} names are set."
        )
        raise ConfigError(f"Dagster's storage: {(said or [type(error).__name__])[0]}", remedy=remedy) from error
