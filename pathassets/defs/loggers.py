"""Where the log of a run goes besides Dagster's own record of it.

Belongs here: Dagster's side of logs as JSON. Does not belong: how a line looks (`pathassets/logs.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import dagster as dg

from pathassets.environment import check_log_format, log_format
from pathassets.logs import begin_json, to_stderr


@dg.logger({"log_level": dg.Field(str, is_required=False, default_value="INFO")}, description="One JSON object a line.")
def json_lines(context: dg.InitLoggerContext) -> logging.Logger:
    """A run's log as JSON lines on the standard error output."""
    logger = logging.Logger("dagster", level=context.logger_config["log_level"])
    logger.addHandler(to_stderr())
    return logger


def loggers() -> Mapping[str, dg.LoggerDefinition]:
    """What stands for Dagster's own console logger: nothing, unless logs are to be JSON."""
    return {"console": json_lines} if log_format() == "json" else {}


def log_config() -> dict[str, Any] | None:
    """Run configuration of a job by which its runs use `loggers`; Dagster takes its own console logger otherwise."""
    return {"loggers": {"console": {"config": {}}}} if log_format() == "json" else None


def begin_logs() -> None:
    """Makes this package's own log in a process of Dagster's JSON too, where that is asked for."""
    check_log_format()
    if log_format() == "json":
        begin_json()
