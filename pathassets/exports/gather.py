"""Gather: all that is known of one slide's tiles under one recipe, read once, for any format.

Belongs here: reading the store, leaving out what belongs to older embeddings, provenance. Does not belong: formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pathassets import __version__
from pathassets.errors import Reason, SlideError
from pathassets.recipes import Recipe, slug
from pathassets.steps.embedded import embeddings_row, open_embeddings, recipe_part
from pathassets.steps.session import Session
from pathassets.store import layout
from pathassets.store.arrays import OK, tile_centres

_FROM_SLIDE = ("content_sha256", "width_px", "height_px", "objective_power", "mpp_origin")
_FROM_ROW = ("recipe", "encoder", "weights_sha256", "random_weights", "code_version", "tiles_digest", "tile_px", "mpp",
             "precision", "dtype", "pathassets_version")  # fmt: skip


@dataclass(frozen=True)
class SlideFeatures:
    """One slide's tiles with their embeddings and what was made from them.

    Attributes:
        slide: The slide's row of `slides`.
        row: The slide's row of `embeddings`.
        recipe: The recipe.
        tiles: One row per tile: the columns of `tiles`, `status`, `reason` and what was measured.
        x: Embeddings float32 (n, dim); NaN where the tile could not be read.
        domains: `domain` and `label` of each tile, by variant; null where it has none.
        terms: The terms of `cosine` and `probability`.
        cosine: float32 (n, terms); NaN where there is no score.
        probability: The same.
    """

    slide: Mapping[str, Any]
    row: Mapping[str, Any]
    recipe: Recipe
    tiles: pl.DataFrame
    x: NDArray[np.float32]
    domains: Mapping[str, pl.DataFrame]
    terms: tuple[str, ...]
    cosine: NDArray[np.float32]
    probability: NDArray[np.float32]

    @property
    def slide_id(self) -> str:
        """The slide; an id that could leave a folder is a ValueError."""
        return layout.checked_slide_id(str(self.slide["slide_id"]))

    @property
    def part(self) -> str:
        """Name of the recipe that is safe in a path."""
        return recipe_part(self.recipe)

    @cached_property
    def size_px(self) -> tuple[int, int]:
        """Width and height of a tile in level-0 pixels."""
        width, height = (name if name in self.tiles.columns else "size_px" for name in ("width_px", "height_px"))
        return int(self.tiles[width][0]), int(self.tiles[height][0])

    @property
    def tile_hw(self) -> tuple[int, int]:
        """Height and width of a tile in pixels as the encoder saw it."""
        return self.recipe.tiling.tile_hw

    @cached_property
    def corners(self) -> NDArray[np.int64]:
        """Upper left corners in level-0 pixels, (n, 2), x then y."""
        return self.tiles.select("x_px", "y_px").to_numpy().astype(np.int64)

    @cached_property
    def centres(self) -> NDArray[np.float64]:
        """Centres in level-0 pixels, (n, 2), x then y."""
        return tile_centres(self.tiles)

    @property
    def provenance(self) -> dict[str, Any]:
        """What the numbers came from: plain values, none empty; no path, which may tell names."""
        found = {"slide_id": self.slide_id, "slide_mpp": self.slide["mpp"], "embeddings_digest": self.row["digest"]}
        found |= {name: self.slide.get(name) for name in _FROM_SLIDE} | {name: self.row.get(name) for name in _FROM_ROW}
        found |= {
            "exported_by": f"pathassets {__version__}",
            "coordinates": "level-0 pixels, origin top left, x then y",
        }
        return {name: value for name, value in found.items() if value is not None}

    def term_columns(self) -> dict[str, str]:
        """A distinct plain name of a column for each term: terms are a user's, and may hold anything."""
        names: dict[str, str] = {}
        for term in self.terms:
            name, number = f"text_{slug(term)}", 2
            while name in names.values():
                name, number = f"text_{slug(term)}_{number}", number + 1
            names[term] = name
        return names

    def good(self) -> SlideFeatures:
        """The same without the tiles that could not be read, for formats that have no place for them.

        Raises:
            SlideError: `too_many_bad_tiles` when none is left.
        """
        ok = (self.tiles["status"] == OK).to_numpy()
        if ok.all():
            return self
        if not ok.any():
            raise SlideError(f"no tile of {self.slide_id} could be read", reason=Reason.TOO_MANY_BAD_TILES)
        mask = pl.Series(ok)
        return replace(
            self,
            tiles=self.tiles.filter(mask),
            x=self.x[ok],
            domains={variant: frame.filter(mask) for variant, frame in self.domains.items()},
            cosine=self.cosine[ok],
            probability=self.probability[ok],
        )

    def annotated_tiles(self) -> pl.DataFrame:
        """The tiles with their domains and the probabilities of the terms as further columns."""
        columns = []
        for variant, frame in self.domains.items():
            columns += [frame["domain"].cast(pl.String).alias(variant), frame["label"].alias(f"{variant}_label")]
        for index, name in enumerate(self.term_columns().values()):
            columns.append(pl.Series(name, self.probability[:, index]))
        return self.tiles.with_columns(columns)


def gather(session: Session, slide_id: str, recipe: Recipe) -> SlideFeatures:
    """Reads everything about one slide under one recipe.

    Raises:
        SlideError: `upstream_failed` when there are no embeddings, `no_tiles` when the slide has no tiles.
        StoreError: The arrays are damaged.
    """
    slide, row = session.slide_row(slide_id), embeddings_row(session, slide_id, recipe)
    if row is None:
        raise _without(session, slide_id, recipe)
    embeddings = open_embeddings(session, row)
    tiles = embeddings.obs
    terms, cosine, probability = _scores(session, slide_id, recipe, row["digest"], tiles)
    return SlideFeatures(
        slide=slide,
        row=row,
        recipe=recipe,
        tiles=tiles,
        x=embeddings.read(),
        domains=_domains(session, slide_id, recipe, row["digest"], tiles),
        terms=terms,
        cosine=cosine,
        probability=probability,
    )


def _without(session: Session, slide_id: str, recipe: Recipe) -> SlideError:
    if session.tables.exists("embeddings", slide_id, recipe_part(recipe)):
        return SlideError(f"{slide_id} has no tiles", reason=Reason.NO_TILES, remedy="See `pathassets outcomes`.")
    return SlideError(
        f"{slide_id} has no embeddings of {recipe.key}",
        reason=Reason.UPSTREAM_FAILED,
        remedy="`pathassets run` makes them; `pathassets outcomes` tells why they could not be made.",
    )


def _domains(
    session: Session, slide_id: str, recipe: Recipe, embeddings_digest: str, tiles: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    rows = _current(session, "domains", slide_id, recipe, embeddings_digest)
    found = {}
    for (variant,), frame in rows.group_by("variant", maintain_order=True):
        joined = tiles.select("tile_id").join(frame, on="tile_id", how="left", maintain_order="left")
        found[str(variant)] = joined.select("domain", "label")
    return found


def _scores(
    session: Session, slide_id: str, recipe: Recipe, embeddings_digest: str, tiles: pl.DataFrame
) -> tuple[tuple[str, ...], NDArray[np.float32], NDArray[np.float32]]:
    rows = _current(session, "text_scores", slide_id, recipe, embeddings_digest)
    terms = tuple(rows["term"].unique(maintain_order=True))
    cosine, probability = (np.full((len(tiles), len(terms)), np.nan, np.float32) for _ in range(2))
    for index, term in enumerate(terms):
        of = tiles.select("tile_id").join(
            rows.filter(pl.col("term") == term), on="tile_id", how="left", maintain_order="left"
        )
        cosine[:, index] = of["cosine"].fill_null(float("nan")).to_numpy()
        probability[:, index] = of["probability"].fill_null(float("nan")).to_numpy()
    return terms, cosine, probability


def _current(session: Session, table: str, slide_id: str, recipe: Recipe, embeddings_digest: str) -> pl.DataFrame:
    """A derived table's rows that were made from these embeddings: older ones speak of other numbers."""
    frame = session.tables.read(table, slide_id, recipe_part(recipe))
    if frame is None:
        from pathassets.store.schema import table_spec

        return table_spec(table).empty()
    return frame.filter(pl.col("embeddings_digest") == embeddings_digest)
