"""Domains named after their best term.

Belongs here: the column `label` of `domains` and `domain_summary`. Does not belong: domains, scores.
Both `spatial_domains` and `text_similarity` call this when they are done: whoever comes last puts the names in, so
that a new term touches the text alone, and new domains need no new scores.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from pathassets.core.similarity import best_term_per_domain
from pathassets.recipes import Recipe
from pathassets.steps.embedded import recipe_part
from pathassets.steps.session import Session


def label_domains(session: Session, slide_id: str, recipe: Recipe) -> None:
    """Writes the best term of each domain, where domains and scores come from the same embeddings."""
    part = recipe_part(recipe)
    domains = session.tables.read("domains", slide_id, part)
    scores = session.tables.read("text_scores", slide_id, part)
    if domains is None or scores is None or domains.is_empty() or scores.is_empty():
        return
    if domains["embeddings_digest"][0] != scores["embeddings_digest"][0]:
        return
    terms = scores["term"].head(scores["term"].n_unique()).to_list()
    probability = scores["probability"].to_numpy().reshape(-1, len(terms))
    labels = pl.concat(
        [_labels(frame, probability, terms) for _, frame in domains.group_by("variant", maintain_order=True)]
    )
    summary = session.tables.read("domain_summary", slide_id, part)
    for table, frame in (("domains", domains), ("domain_summary", summary)):
        if frame is not None:
            named = frame.drop("label").join(labels, on=("variant", "domain"), how="left", maintain_order="left")
            session.tables.write(table, named.select(frame.columns), slide_id=slide_id, part=part)


def _labels(domains: pl.DataFrame, probability: np.ndarray, terms: list[str]) -> pl.DataFrame:
    """`variant`, `domain`, `label` of one variant, whose tiles are in the scores' order."""
    best = best_term_per_domain(probability, domains["domain"].to_numpy())
    return pl.DataFrame(
        {
            "variant": [domains["variant"][0]] * len(best),
            "domain": list(best),
            "label": [None if index is None else terms[index] for index in best.values()],
        },
        schema={"variant": pl.String, "domain": pl.Int64, "label": pl.String},
    )
