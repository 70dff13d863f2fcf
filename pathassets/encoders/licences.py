"""Licences of weights: which a study allows, and telling the terms before the first use.

Belongs here: what a card says about using it. Does not belong: the cards, fetching weights.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pathassets.encoders.card import Card
from pathassets.errors import EncoderError, Reason

COMMERCIAL = "commercial"
"""Stands for every licence that allows commercial use."""

log = logging.getLogger(__name__)
_told: set[str] = set()


def check_licence(card: Card, allowed: Sequence[str]) -> None:
    """Refuses an encoder whose licence a study does not allow.

    Args:
        card: The encoder.
        allowed: Licences as cards name them (`Apache-2.0`, in any case), and `commercial`; none = all are allowed.

    Raises:
        EncoderError: `config_invalid`, with what is allowed.
    """
    wanted = {licence.casefold() for licence in allowed}
    if card.ships:
        return  # whoever has the package has agreed to them
    if not wanted or card.licence.casefold() in wanted or (COMMERCIAL in wanted and card.commercial_use is True):
        return
    raise EncoderError(
        f"{card.name} is under {card.terms}; this study allows {', '.join(allowed)} only",
        reason=Reason.CONFIG_INVALID,
        remedy=f"Take another encoder, or add {card.licence!r} to `licences` in [study].",
    )


def asks_something(card: Card) -> str:
    """What using the weights asks of their user, in words; empty for licences that allow everything."""
    if card.commercial_use is True and not card.gated:
        return ""
    return f"{card.name}: weights under {card.terms}; cite {card.citation or card.link}"


def tell_terms(card: Card) -> None:
    """Logs once in a process what using the weights asks of their user."""
    terms = asks_something(card)
    if terms and card.name not in _told:
        _told.add(card.name)
        log.warning("%s", terms)
