"""Digests: what a few hex digits that stand in some row, folder or log mean.

Belongs here: looking through all rows and array groups for a digest. Does not belong: computing digests (`recipes`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pathassets.steps.consistency import outcome_key
from pathassets.steps.session import Session
from pathassets.store.census import readable
from pathassets.store.groups import digest_folders
from pathassets.store.root import Root

# Column, and what a value in it is.
_OUTCOME_COLUMNS = {
    "digest": "what the asset was made from",
    "result_digest": "the asset's result",
    "code_version": "the version of algorithm and options",
}
_OTHER_COLUMNS = (
    ("slides", "content_sha256", "content of the slide's file"),
    ("embeddings", "weights_sha256", "the encoder's weights"),
    ("slide_vectors", "weights_sha256", "a slide encoder's weights"),
    ("term_embeddings", "digest", "the recipe's term embeddings"),
    ("slide_map", "digest", "the recipe's slide map"),
    ("cohort_map", "digest", "the recipe's cohort map"),
)
_STEP_OF = {"slides": "slide"}


@dataclass(frozen=True)
class Meaning:
    """One thing that a digest is.

    Attributes:
        digest: In full.
        what: In words.
        slide_id: The slide; None where it belongs to none, or to several.
        asset: The asset's key; None where it belongs to none.
        slides: How many slides share it.
        key: The array group's key in the store.
    """

    digest: str
    what: str
    slide_id: str | None = None
    asset: str | None = None
    slides: int = 1
    key: str | None = None


def find_digest(session: Session, prefix: str) -> list[Meaning]:
    """Everything whose digest begins with `prefix`; what cannot be read is passed over."""
    found: dict[tuple[str, str, str | None], set[str]] = {}
    for digest, what, slide_id, asset in _candidates(session):
        if digest is not None and digest.startswith(prefix):
            found.setdefault((digest, what, asset), set()).add(slide_id or "")
    meanings = [
        Meaning(digest, what, (next(iter(slides)) or None) if len(slides) == 1 else None, asset, len(slides))
        for (digest, what, asset), slides in found.items()
    ]
    return sorted([*meanings, *_groups(session.root, prefix)], key=lambda meaning: (meaning.digest, meaning.what))


def _candidates(session: Session) -> Iterator[tuple[str | None, str, str | None, str | None]]:
    for row in readable(session.tables, "outcomes").iter_rows(named=True):
        for column, what in _OUTCOME_COLUMNS.items():
            yield row[column], what, row["slide_id"], outcome_key(row)
    for table, column, what in _OTHER_COLUMNS:
        frame = readable(session.tables, table)
        for row in frame.select({"slide_id", "recipe", column} & set(frame.columns)).iter_rows(named=True):
            slide_id = row.get("slide_id") if table not in ("slide_map", "cohort_map") else None
            asset = "/".join(filter(None, (row.get("recipe"), _STEP_OF.get(table, table))))
            yield row[column], what, slide_id, asset


def _groups(root: Root, prefix: str) -> Iterator[Meaning]:
    for slide_id, digest, folder in digest_folders(root):
        if digest.startswith(prefix):
            for name in root.folders(folder):
                if name.endswith(".zarr"):
                    yield Meaning(digest, "an array group", slide_id, key=f"{folder}/{name}")
