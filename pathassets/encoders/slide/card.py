"""SlideCard: what a user must know about a slide encoder before running it, and whose tiles it takes.

Belongs here: the card, and whether a recipe's tiles are those that it wants. Does not belong: networks, weights, torch, the
published slide encoders (`zoo`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pathassets.core.geometry import RESOLUTION_TOLERANCE, nominal_mpp
from pathassets.encoders.card import Card
from pathassets.errors import EncoderError, Reason
from pathassets.recipes import Tiling


@dataclass(frozen=True, kw_only=True)
class SlideCard(Card):
    """A slide encoder in numbers and words; the rest is in `Card`.

    Attributes:
        takes: The tile encoders whose embeddings it takes, by our names.
        dim_in: Length of those embeddings.
        tile_px: Tile edge in pixels that its authors cut; 0 = the tiling is told by `tiling_digest` alone.
        mpp: Resolution of those tiles in µm per pixel; None = the slide's own.
        uses_positions: Whether it must know where on the slide a tile lies.
        missing: Why it cannot run here; empty = it can.
        instead: What its user can do then.
        tiling_digest: The one tiling that it knows, where it was trained in a study; empty = any of the size above.
        tile_weights: Hash of the tile encoder's weights that it was trained on; empty = its authors' own.
        classes: The labels that it was trained to tell, where it can name them.
    """

    takes: tuple[str, ...]
    dim_in: int
    tile_px: int
    mpp: float | None = 0.5
    uses_positions: bool = False
    missing: str = ""
    instead: str = ""
    tiling_digest: str = ""
    tile_weights: str = ""
    classes: tuple[str, ...] = ()

    def to_row(self) -> dict[str, Any]:
        """The card as plain values: a row of the table `slide_encoders`, which holds published ones alone."""
        trained = ("tiling_digest", "tile_weights", "classes")
        return {key: value for key, value in super().to_row().items() if key not in trained}

    @property
    def own_weights(self) -> str:
        """How a recipe names a local file of weights."""
        return f'`weights = {{ "{self.name}" = "FILE" }}` in the recipe\'s [recipes.vectors]'

    @property
    def tiles(self) -> str:
        """Whose tiles it takes, in words."""
        size = f" of {self.tile_px} px at {self.mpp:g} µm/px" if self.tile_px and self.mpp else ""
        return f"{' or '.join(self.takes) or 'any encoder'}, tiles{size} side by side"

    def check_runs(self) -> None:
        """Refuses a slide encoder that is known and cannot run here.

        Raises:
            EncoderError: `encoder_unknown`, with what is missing and what can be done.
        """
        if self.missing:
            raise EncoderError(
                f"{self.name} cannot run here: {self.missing}", reason=Reason.ENCODER_UNKNOWN, remedy=self.instead
            )

    def check_tiles(self, encoder: str, tiling: Tiling, *, mpp: float | None = None) -> None:
        """Refuses tiles of another encoder or of another size: the vector would look like one and mean nothing.

        Args:
            encoder: The tile encoder, by our name.
            tiling: How tiles are cut.
            mpp: µm per pixel that they have on a slide; None = what the tiling says of all slides, if it does.

        Raises:
            EncoderError: `encoder_mismatch` or `tiling_mismatch`, with what it takes.
        """
        if encoder not in self.takes:
            raise EncoderError(
                f"{self.name} takes tiles of {' or '.join(self.takes)}, this recipe's are of {encoder}",
                reason=Reason.ENCODER_MISMATCH,
                remedy=f"Name {self.name} in [recipes.vectors] of a recipe whose encoder is {' or '.join(self.takes)}.",
            )
        wrong = self._other_tiling(tiling) if self.tiling_digest else self._other_size(tiling, mpp)
        if wrong:
            px, mpp = self.tile_px, self.mpp
            wanted = (
                f"tile_px = {px}, mpp = {mpp:g}, without overlap (--tile-px {px} --mpp {mpp:g})" if px and mpp else ""
            )
            raise EncoderError(
                f"{self.name} takes {self.tiles}; those of the tiling {tiling.name!r} {wrong}",
                reason=Reason.TILING_MISMATCH,
                remedy=f"Give its recipe a tiling of its own: {wanted or 'the one that it was trained on'}.",
            )

    def check_weights(self, sha256: str) -> None:
        """Refuses tiles of the right encoder with other weights, where it is known which ones they were.

        Raises:
            EncoderError: `encoder_mismatch`.
        """
        if self.tile_weights and sha256 != self.tile_weights:
            raise EncoderError(
                f"{self.name} was trained on tiles of other weights ({self.tile_weights[:16]}…) than this recipe's "
                f"({sha256[:16]}…)",
                reason=Reason.ENCODER_MISMATCH,
                remedy="Train it again on this recipe with `pathassets train-abmil`.",
            )

    def _other_tiling(self, tiling: Tiling) -> str:
        return "" if tiling.digest() == self.tiling_digest else "are cut otherwise than those that it was trained on"

    def _other_size(self, tiling: Tiling, mpp: float | None) -> str:
        if tiling.tile_hw != (self.tile_px, self.tile_px):
            return f"have {tiling.tile_hw[1]} x {tiling.tile_hw[0]} px"
        found = mpp if mpp is not None else nominal_mpp(tiling)
        if found is not None and self.mpp is not None and abs(found / self.mpp - 1) > RESOLUTION_TOLERANCE:
            return f"have {found:.3g} µm/px"
        if tiling.stride_hw != tiling.tile_hw:
            return f"begin every {tiling.stride_hw[1]} px"
        return ""
