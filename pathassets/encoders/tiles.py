"""The tiles that an encoder's authors cut: what is taken where nobody says otherwise, and whether a tiling is far from them.

Belongs here: cards against tilings of tile encoders. Does not belong: slide encoders, which refuse other tiles (`slide/card`).
"""

from __future__ import annotations

from pathassets.core.geometry import RESOLUTION_TOLERANCE, nominal_mpp
from pathassets.encoders.registry import named_card
from pathassets.recipes import Tiling


def recommended_tiles(name: str) -> tuple[int, float] | None:
    """Tile edge in px and µm per px; None where an encoder is not tied to any. Answered without torch."""
    card = named_card(name)
    return (card.tile_px, card.mpp) if card is not None and card.tile_px and card.mpp else None


def unlike_authors(name: str, tiling: Tiling) -> str | None:
    """How a tiling differs from what the encoder's authors cut, in words; None where it does not, or nobody can tell.

    What counts is what the network sees: µm per pixel, and the edge of the field of view in µm.
    """
    authors, mpp = recommended_tiles(name), nominal_mpp(tiling)
    if authors is None or mpp is None:
        return None
    edge, authors_edge = max(tiling.tile_hw) * mpp, authors[0] * authors[1]
    if _near(mpp, authors[1]) and _near(edge, authors_edge):
        return None
    return (
        f"{name} was made for tiles of {authors[0]} px at {authors[1]:g} µm/px ({authors_edge:g} µm); "
        f"those of {tiling.name} have {max(tiling.tile_hw)} px at {mpp:g} ({edge:g} µm)"
    )


def _near(found: float, wanted: float) -> bool:
    return abs(found / wanted - 1) <= RESOLUTION_TOLERANCE
