"""What the environment alone says: how logs are written, and addresses that no file should hold.

Belongs here: variables that are no setting of a study. Does not belong: settings (`config.py`, which reads PATHASSETS_<FIELD>).
"""

from __future__ import annotations

import os

from pathassets.errors import ConfigError


def log_format() -> str:
    """How logs are written, from `PATHASSETS_LOG_FORMAT`: `text` (as people read them) or `json` (one object a line)."""
    return "json" if os.environ.get("PATHASSETS_LOG_FORMAT") == "json" else "text"


def check_log_format() -> None:
    """Refuses a format that nobody knows, instead of taking it for text.

    Raises:
        ConfigError: With what there is.
    """
    given = os.environ.get("PATHASSETS_LOG_FORMAT") or "text"
    if given not in ("text", "json"):
        raise ConfigError(f"PATHASSETS_LOG_FORMAT is {given!r}", remedy="Use text or json.")


def alert_webhook() -> str | None:
    """Where failed runs are reported, from `PATHASSETS_ALERT_WEBHOOK` alone: such addresses hold secrets, and files are copied."""
    return os.environ.get("PATHASSETS_ALERT_WEBHOOK") or None
