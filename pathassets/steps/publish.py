"""Publishing: the tables of all slides become `results.duckdb`.

Belongs here: the study's side of it. Does not belong: how the snapshot is made (`store/results.py`).
"""

from __future__ import annotations

from pathassets.steps.outcomes import known_outcomes
from pathassets.steps.session import Session
from pathassets.store.results import Published, needs_publishing, publish


def publish_results(session: Session) -> Published:
    """Brings the encoders' cards and the index of outcomes up to date and publishes the snapshot; nothing when nothing has changed."""
    from pathassets.encoders import get_card, list_cards
    from pathassets.encoders.slide import list_slide_cards

    cards = {card.name: card for card in list_cards()}
    for recipe in session.study.recipes:
        card = get_card(recipe.encoder, recipe.encoder_kwargs)
        cards.setdefault(card.name, card)
    session.tables.write("encoders", [card.to_row() for card in cards.values()], slide_id=None)
    session.tables.write("slide_encoders", [card.to_row() for card in list_slide_cards()], slide_id=None)
    known_outcomes(session, remember=True)
    return publish(session.root, session.study.home)


def is_stale(session: Session) -> bool:
    """Whether the snapshot lacks something that the tables have."""
    return needs_publishing(session.root, session.study.home)
