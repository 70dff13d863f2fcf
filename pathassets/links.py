"""Links: addresses of one place of this software in another: runs and assets in Dagster's UI, slides in the dashboard.

Belongs here: how an address is made. Does not belong: who shows it, where the two are served (`config`).
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, urlencode, urlsplit

MAX_URL = 500


def checked_url(text: str) -> str:
    """`text` as the beginning of addresses, without the slash at its end; empty = not served.

    Raises:
        ValueError: It is no address of a web server, or holds a password, which every page would show.
    """
    url = text.strip().rstrip("/")
    if not url:
        return ""
    found = urlsplit(url)
    plain = url.isascii() and url.isprintable() and len(url) <= MAX_URL and not set(url) & set(" \"'<>\\`()[]{}|")
    if found.scheme not in ("http", "https") or not found.hostname or not plain or found.query or found.fragment:
        raise ValueError(f"{text[:80]!r} is no address such as http://127.0.0.1:3000")
    if found.username is not None or found.password is not None:
        raise ValueError("an address here may hold no name and no password")
    return url


def dagster_run(base: str, run_id: str) -> str:
    """A run in Dagster's UI."""
    return f"{base}/runs/{quote(run_id, safe='')}"


def dagster_asset(base: str, key: Sequence[str], slide_id: str | None = None) -> str:
    """An asset in Dagster's UI, or a slide's partition of it."""
    path = f"{base}/assets/{'/'.join(quote(part, safe='') for part in key)}"
    return path if slide_id is None else f"{path}?{urlencode({'view': 'partitions', 'partition': slide_id})}"


def dashboard_slide(base: str, slide_id: str, view: str | None = None) -> str:
    """A slide's page in the dashboard, seen by a recipe or a tiling."""
    path = f"{base}/slide/{quote(slide_id, safe='')}"
    return path if view is None else f"{path}?{urlencode({'view': view})}"


def dashboard_atlas(base: str, recipe: str) -> str:
    """The dashboard's page of the cohort by one recipe."""
    return f"{base}/atlas?{urlencode({'recipe': recipe})}"
