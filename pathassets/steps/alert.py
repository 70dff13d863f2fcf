"""Alerts: what is said of a failed run, and saying it to a web address.

Belongs here: the payload and one careful request. Does not belong: noticing that a run has failed (`defs/alerts.py`).

What leaves the machine is kept small, because the address may be anybody's: ids, steps, reason codes and remedies. No
message and no path, which hold file names and with them, in some places, names of patients. A slide id begins with a slug
of its file's name; files that are named after patients must be renamed before they come here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from pathassets.errors import ConfigError
from pathassets.steps.nodes import chain
from pathassets.steps.outcomes import load_outcome
from pathassets.steps.session import Session

TIMEOUT_SECONDS = 5.0  # a sensor's tick has 60 s and may have five runs to report
MAX_SLIDES = 50
TOLD = ("slide_id", "tiling", "recipe", "step", "reason", "remedy")


def failed_run(
    session: Session, *, run_id: str, job: str, error: str, slide_ids: Sequence[str], n_slides: int | None = None
) -> dict[str, Any]:
    """The payload for a failed run.

    Args:
        session: The study.
        run_id: Dagster's run.
        job: Its job.
        error: One line.
        slide_ids: Slides that failed in it; at most `MAX_SLIDES` are looked up.
        n_slides: Slides that failed, where that is more.
    """
    shown = list(slide_ids)[:MAX_SLIDES]
    return {
        "event": "run_failed",
        "study": session.study.name,
        "run_id": run_id,
        "job": job,
        "error": error,
        "n_slides_failed": max(n_slides or 0, len(slide_ids)),
        "slides_failed": [entry for slide_id in shown for entry in _failures(session, slide_id)],
    }


def _failures(session: Session, slide_id: str) -> list[dict[str, Any]]:
    """What the outcomes of a slide say of its failures; at least its id."""
    outcomes = [load_outcome(session, slide_id, node) for node in chain(session.study)]
    failed = [asdict(outcome) for outcome in outcomes if outcome is not None and not outcome.usable]
    return [{name: row[name] for name in TOLD} for row in failed] or [{"slide_id": slide_id}]


def check_webhook(url: str) -> str:
    """The host of an address that alerts may go to.

    Raises:
        ConfigError: It is not an http(s) address with a host. Its text is not repeated: it may hold a secret.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ConfigError("PATHASSETS_ALERT_WEBHOOK is no address", remedy="Give it as https://host/path.")
    return str(parts.hostname)


class _NoRedirect(HTTPRedirectHandler):
    """An answer that points elsewhere is not followed: what is sent was meant for one host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """See the class."""


def post(url: str, payload: Mapping[str, Any]) -> str | None:
    """Sends `payload` as JSON; what went wrong, in words that do not hold the address, or None.

    It never raises and does not try again: an alert that cannot be sent must hold up nobody.
    """
    try:
        check_webhook(url)
        body = json.dumps(payload, default=str).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "pathassets"}
        request = Request(url, data=body, headers=headers)  # noqa: S310  the scheme has been checked
        with build_opener(_NoRedirect).open(request, timeout=TIMEOUT_SECONDS):
            return None
    except HTTPError as error:
        return f"it answered {error.code}"
    except URLError as error:
        return f"it cannot be reached: {error.reason}"
    except Exception as error:  # noqa: BLE001  whatever a server or a resolver does
        return type(error).__name__
