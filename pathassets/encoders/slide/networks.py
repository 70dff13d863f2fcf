"""Networks of the slide encoders, with untrained weights, by the entries of `zoo.toml`.

Belongs here: which class an entry means. Does not belong: the classes (`longnet`, `attention`), weights (`loading`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from pathassets.encoders.slide.attention import Abmil, Chief, Madeleine
from pathassets.encoders.slide.card import SlideCard
from pathassets.encoders.slide.longnet import LongNet
from pathassets.encoders.slide.zoo import TRAINED, entries
from pathassets.errors import EncoderError, Reason

CLASSES: dict[str, type[nn.Module]] = {"longnet": LongNet, "chief": Chief, "madeleine": Madeleine}


def build(card: SlideCard, kwargs: Mapping[str, Any]) -> nn.Module:
    """The network of a card; `kwargs` win over the table.

    Raises:
        EncoderError: `encoder_failed` when the network does not take such arguments.
    """
    if card.architecture == TRAINED:
        return Abmil(card.dim_in, card.dim, len(card.classes)).eval()
    entry = entries()[card.name]
    try:
        return CLASSES[entry["build"]](card.dim_in, **{**entry.get("kwargs", {}), **kwargs}).eval()
    except (TypeError, ValueError, RuntimeError) as error:
        raise EncoderError(
            f"{card.name} cannot be built with {dict(kwargs)}: {error}",
            reason=Reason.ENCODER_FAILED,
            remedy="Leave the arguments out.",
        ) from error
