"""Sweeping: garbage of a study, found and removed.

Belongs here: what a study still refers to. Does not belong: what garbage is (`store/garbage`).
"""

from __future__ import annotations

from pathassets.steps.session import Session, weights_keys
from pathassets.store.census import take_census
from pathassets.store.compare import published_slides
from pathassets.store.garbage import Waste, find_waste, remove

# No run takes a week; whoever looks into a superseded result has done so by then.
KEEP_S = 7 * 86_400.0


def garbage(session: Session, older_than: float = KEEP_S) -> list[Waste]:
    """What nobody refers to and nobody has touched for so many seconds."""
    root, study = session.root, session.study
    published = published_slides(root, study.home)
    return find_waste(root, take_census(root), older_than, published, weights_keys(study))


def sweep(session: Session, found: list[Waste]) -> list[Waste]:
    """Removes garbage; gives what was removed, the rest is in use by now."""
    return [waste for waste in found if remove(session.root, waste)]
