"""Dagster links: where Dagster's UI shows what the dashboard speaks of.

Belongs here: which of the snapshot's results are assets that Dagster knows. Does not belong: how its addresses are made
(`pathassets/links`); asking Dagster anything: the dashboard knows its address and no more.
"""

from __future__ import annotations

from typing import Any

from dash import html

from pathassets import links
from pathassets.config import Study
from pathassets.steps.consistency import outcome_key
from pathassets.steps.nodes import chain


class Dagster:
    """Dagster's UI of a study; links are None where its address, or what they would lead to, is not known.

    Args:
        study: The settings.

    Attributes:
        url: Where it is served; empty = not known.
    """

    def __init__(self, study: Study) -> None:
        self.url = study.dagster_url
        self._keys = {"/".join(node.key) for node in chain(study)} if self.url else set()

    def asset(self, step: str, tiling: str | None, recipe: str | None, slide_id: str | None = None) -> str | None:
        """A step's asset, or a slide's partition of it; what was adopted is no asset."""
        scopes = ((tiling, recipe), (tiling, None), (None, None))  # a recipe's row of the grid shows shared steps too
        for of_tiling, of_recipe in scopes:
            key = outcome_key({"step": str(step), "tiling": of_tiling, "recipe": of_recipe})
            if key in self._keys:
                return links.dagster_asset(self.url, key.split("/"), slide_id)
        return None

    def run(self, run_id: str | None) -> str | None:
        """A run."""
        return links.dagster_run(self.url, run_id) if self.url and run_id is not None else None


def linked(text: str, address: str | None, title: str = "") -> Any:
    """`text`, as a link to another program's page where there is one."""
    return text if address is None else html.A(text, href=address, target="_blank", rel="noopener", title=title)
