"""Adopted: features from elsewhere as embeddings of a slide, with all that follows from them, and tissue drawn elsewhere.

Belongs here: tiles, group and row of adopted features, what their outcome says. Does not belong: reading foreign files
(`foreign`), reading drawings (`steps/annotations.py`).

Adopted features belong to a recipe of their own, `adopted_<name>/<name>`, which is in no settings file: nothing can make them
again, so that no run tries to. Slide vectors and domains are made of them as of any others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pathassets import __version__
from pathassets.errors import ConfigError, Reason, SlideError
from pathassets.exports.files import Target
from pathassets.exports.foreign import ForeignFeatures
from pathassets.recipes import Recipe, Tiling, digest, slug
from pathassets.steps.annotations import FOLDER, annotation_path, picture_origin, read_tissue
from pathassets.steps.chain import StepResult, run_node
from pathassets.steps.embedded import recipe_part
from pathassets.steps.made_from import as_json
from pathassets.steps.nodes import Node, Step
from pathassets.steps.outcomes import Outcome, Status, record_outcome
from pathassets.steps.session import Session
from pathassets.steps.tissue import load_labels
from pathassets.store import layout
from pathassets.store.arrays import OK, UNREADABLE, EmbeddingsWriter
from pathassets.store.sharded import fits

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

CODE_VERSION = "adopted"
LOCK_SECONDS = 600.0


@dataclass(frozen=True)
class Source:
    """Where adopted features come from.

    Attributes:
        form: The format.
        sha256: Hash of the file.
        encoder: What is said to have made them.
        name: The recipe's name.
    """

    form: str
    sha256: str
    encoder: str
    name: str


def adopted_recipes(session: Session, slide_id: str | None = None) -> tuple[Recipe, ...]:
    """The recipes that adopted features of a slide, or of any, belong to."""
    rows = session.tables.scan("outcomes", slide_id).filter(
        (pl.col("code_version") == CODE_VERSION) & (pl.col("step") == str(Step.EMBEDDINGS))
    )
    options = rows.select("recipe", "options").unique("recipe", maintain_order=True).collect()["options"]
    return tuple(Recipe.model_validate(json.loads(text)["recipe"]) for text in options)


def adopt_tissue(session: Session, slide_id: str, path: Path, *, force: bool = False) -> tuple[Path, float]:
    """Takes a drawing as the slide's tissue, as it is; the next run makes the tissue, and what follows from it, of it.

    Returns:
        Where it is kept, and the share of its area that lies outside of the slide.

    Raises:
        SlideError: `mask_unreadable`, or the slide cannot be opened.
        ConfigError: `slides.csv` names another mask, or another drawing is there and may not be replaced.
    """
    row = session.slide_row(slide_id)
    if session.manifest_entry(row["path"]).get("tissue_mask"):
        raise ConfigError(
            f"slides.csv names a tissue_mask for {slide_id}, which would win", remedy="Empty that cell first."
        )
    with session.open_slide(slide_id) as slide:
        drawn = read_tissue(path, picture_origin(slide.info))
    outside = _share_outside(drawn, row["width_px"], row["height_px"])
    if outside == 1:
        raise SlideError(
            f"nothing of what is drawn in {path} lies on {slide_id}",
            reason=Reason.MASK_UNREADABLE,
            remedy="Coordinates are pixels of level 0, as QuPath exports them.",
        )
    kept = annotation_path(session.study.home, slide_id)
    Target(session.study.home, force=force).put_bytes(f"{FOLDER}/{kept.name}", path.read_bytes())
    return kept, outside


def _share_outside(drawn: BaseGeometry, width: int, height: int) -> float:
    """The share of what is drawn that lies outside of a slide of `width` x `height` px, by area."""
    from shapely.geometry import box

    inside = drawn.intersection(box(0, 0, width, height)).area
    return 1 - inside / drawn.area if inside > 0 else 1.0


def adopt_features(session: Session, slide_id: str, found: ForeignFeatures, source: Source) -> list[StepResult]:
    """Stores features as embeddings of a slide and makes slide vectors and domains of them; the same again changes nothing.

    Returns:
        What became of slide vectors and domains.

    Raises:
        ConfigError: Tiles lie beside the slide.
        SlideError: No such slide.
        StoreError: The disk is full or cannot be written.
    """
    recipe = _recipe(session, found, source)
    row = session.slide_row(slide_id)
    tiles, order = _tiles(session, slide_id, found, recipe, row)
    x = found.x[order]
    made_from = digest(CODE_VERSION, source.form, source.sha256, slide_id, recipe.tiling.digest())
    with session.root.lock(layout.slide_lock(slide_id), LOCK_SECONDS):
        nodes = _nodes(recipe)
        named = {"slide_id": slide_id, "tiling": recipe.tiling.name, "digest": made_from}
        constants = {**named, "code_version": CODE_VERSION, "pathassets_version": __version__}
        frame = tiles.with_columns(pl.lit(value, dtype=pl.String).alias(name) for name, value in constants.items())
        session.tables.write("tiles", frame, slide_id=slide_id, part=recipe.tiling.name)
        _record(session, slide_id, nodes[0], made_from, recipe, found, source)
        _write_embeddings(session, slide_id, recipe, frame, x, made_from, source)
        _record(session, slide_id, nodes[1], made_from, recipe, found, source)
        return [run_node(session, slide_id, node, {}) for node in nodes[2:]]


def _recipe(session: Session, found: ForeignFeatures, source: Source) -> Recipe:
    name, grid = slug(source.name), found.grid
    assert grid.tile_px is not None
    tiling = Tiling(
        name=f"adopted_{name}", tile_px=grid.tile_px, mpp=grid.mpp, stride_px=grid.tile_px - grid.overlap_px
    )
    study = session.study
    return Recipe(name=name, tiling=tiling, encoder=source.encoder, vectors=study.vectors, domains=study.domains)


def _nodes(recipe: Recipe) -> tuple[Node, ...]:
    """The part of a slide's chain that begins with tiles that are there."""
    tiling = recipe.tiling
    tiles = Node(Step.TILES, tiling=tiling)
    embeddings = Node(Step.EMBEDDINGS, tiling=tiling, recipe=recipe, upstream=(tiles,))
    later = (Step.SLIDE_VECTOR, Step.SPATIAL_DOMAINS)
    return tiles, embeddings, *(Node(s, tiling=tiling, recipe=recipe, upstream=(embeddings,)) for s in later)


def _tiles(
    session: Session, slide_id: str, found: ForeignFeatures, recipe: Recipe, row: dict[str, Any]
) -> tuple[pl.DataFrame, np.ndarray]:
    """The tiles in grid order, and which feature belongs to each."""
    assert recipe.tiling.mpp is not None
    scale = recipe.tiling.mpp / row["mpp"]
    size = max(1, round(recipe.tiling.tile_hw[0] * scale))
    corners = np.rint(found.xy - (size / 2 if found.centred else 0)).astype(np.int64)
    if (corners < -1).any() or (corners[:, 0] >= row["width_px"]).any() or (corners[:, 1] >= row["height_px"]).any():
        raise ConfigError(
            f"tiles lie outside {slide_id} ({row['width_px']} x {row['height_px']} px)",
            remedy="Name the slide that the features were made from.",
        )
    step = recipe.tiling.stride_hw[0] * scale
    cells = np.rint((corners - corners.min(axis=0)) / step).astype(np.int64)
    order = np.lexsort((corners[:, 0], cells[:, 1]))
    corners, cells = corners[order], cells[order]
    columns = {"x_px": corners[:, 0], "y_px": corners[:, 1], "grid_col": cells[:, 0], "grid_row": cells[:, 1]}
    sizes = dict.fromkeys(("size_px", "width_px", "height_px"), np.full(len(order), size))
    frame = pl.DataFrame({"tile_id": np.arange(len(order)), **columns, **sizes})
    return frame.with_columns(_on_tissue(session, slide_id, corners + size / 2, row)), order


def _on_tissue(session: Session, slide_id: str, centres: np.ndarray, row: dict[str, Any]) -> list[pl.Series]:
    """Which piece each tile's centre lies on, as far as this study knows; the tool that cut the tiles took them for tissue."""
    found = np.full(len(centres), -1)
    if session.root.exists(layout.tissue_labels_key(slide_id)):
        labels = load_labels(session, slide_id)
        scale = np.array([labels.shape[1] / row["width_px"], labels.shape[0] / row["height_px"]])
        column, line = np.clip((centres * scale).astype(int), 0, [labels.shape[1] - 1, labels.shape[0] - 1]).T
        found = labels[line, column]
    pieces = pl.Series("tissue_id", [None if piece < 0 else int(piece) for piece in found], dtype=pl.Int64)
    return [pieces, pl.Series("tissue_share", np.ones(len(found), np.float32))]


def _write_embeddings(
    session: Session, slide_id: str, recipe: Recipe, tiles: pl.DataFrame, x: np.ndarray, made_from: str, source: Source
) -> None:
    dtype = "float16" if fits(x, "float16") else "float32"
    about = {"recipe": recipe.key, "encoder": recipe.encoder, "adopted_from": source.form, "file_sha256": source.sha256}
    writer = EmbeddingsWriter(
        session.root, slide_id, made_from, n_tiles=len(x), dim=x.shape[1], dtype=dtype, lock_timeout=LOCK_SECONDS
    )
    with writer:
        for shard in writer.missing_shards():
            rows = x[writer.rows_of(shard)]
            status = np.where(np.isfinite(rows).all(axis=1), OK, UNREADABLE)
            notes = pl.DataFrame(
                {"status": status, "reason": [None] * len(rows)}, schema_overrides={"reason": pl.String}
            )
            writer.write_shard(shard, rows, notes)
        marker = writer.finish(tiles, about)
    row = {
        "slide_id": slide_id, "recipe": recipe.key, "tiling": recipe.tiling.name, "encoder": recipe.encoder,
        "uri": writer.uri, "n_tiles": len(x), "n_bad_tiles": int(marker["n_bad"]), "dim": x.shape[1], "dtype": dtype,
        "precision": None, "tile_px": recipe.tiling.tile_hw[1], "mpp": recipe.tiling.mpp, "tiles_digest": made_from,
        "digest": made_from, "code_version": CODE_VERSION, "run_id": session.run_id, "pathassets_version": __version__,
    }  # fmt: skip
    session.tables.write("embeddings", [row], slide_id=slide_id, part=recipe_part(recipe))


def _record(
    session: Session, slide_id: str, node: Node, made_from: str, recipe: Recipe, found: ForeignFeatures, source: Source
) -> None:
    """What says that these are adopted, and from where."""
    tiling, key, step = node.names
    options = {"adopted_from": source.form, "encoder": source.encoder, "said_by_the_file": dict(found.said)}
    outcome = Outcome(
        slide_id=slide_id,
        tiling=tiling,
        recipe=key,
        step=step,
        status=str(Status.OK),
        digest=made_from,
        result_digest=made_from,
        options=as_json({**options, "recipe": recipe.model_dump(mode="json")}),
        inputs=as_json({"file_sha256": source.sha256}),
        code_version=CODE_VERSION,
    )
    record_outcome(session, node, outcome)
