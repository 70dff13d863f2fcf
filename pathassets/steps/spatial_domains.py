"""Step `spatial_domains`: a slide's tiles grouped by what they look like, and the arrays that led there.

Belongs here: reading features, the tables `domains` and `domain_summary`, the derived arrays. Does not belong: the
clustering (`core/domains.py`), names for domains (`labels`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from pathassets.core.domains import DomainResult, DomainVariant, spatial_domains
from pathassets.core.graph import row_normalise, tile_graph
from pathassets.errors import Reason
from pathassets.recipes import Recipe
from pathassets.steps.chain import Made
from pathassets.steps.embedded import embeddings_row, lies_first, open_embeddings, recipe_of, recipe_part
from pathassets.steps.labels import label_domains
from pathassets.steps.nodes import Node
from pathassets.steps.outcomes import Status
from pathassets.steps.session import Session, made_by
from pathassets.store import layout
from pathassets.store.arrays import tile_centres
from pathassets.store.derived import write_derived
from pathassets.store.groups import delete_group

GROUP = "domains"
TABLES = ("domains", "domain_summary", "derived_arrays")


def inputs(session: Session, slide_id: str, node: Node) -> tuple[Any, ...]:
    """Nothing besides the embeddings."""
    return ()


def is_stored(session: Session, slide_id: str, node: Node) -> bool:
    """Whether the domains are there."""
    part = recipe_part(recipe_of(node))
    return all(session.tables.exists(table, slide_id, part) for table in TABLES)


def make(session: Session, slide_id: str, node: Node, result_digest: str) -> Made:
    """Clusters the tiles that count and writes tables and arrays."""
    recipe = recipe_of(node)
    part = recipe_part(recipe)
    row = embeddings_row(session, slide_id, recipe)
    if row is None:
        for table in TABLES:
            session.tables.write(table, [], slide_id=slide_id, part=part)
        return Made(Status.EMPTY, Reason.NO_TILES, "the slide has no tiles to group")
    embeddings = open_embeddings(session, row)
    tiles = embeddings.obs.filter(pl.Series(embeddings.ok))
    features = embeddings.read()[embeddings.ok]
    graph = tile_graph(tiles, recipe.domains)
    result = spatial_domains(features, graph, recipe.domains)
    named = {"slide_id": slide_id, "recipe": recipe.key, "embeddings_digest": row["digest"]}
    named |= made_by(session, node, result_digest)
    _write_arrays(session, slide_id, recipe, tiles, graph, result, named)
    session.tables.write("domains", _domain_rows(result, tiles, named), slide_id=slide_id, part=part)
    session.tables.write("domain_summary", _summary_rows(result, named), slide_id=slide_id, part=part)
    label_domains(session, slide_id, recipe)
    if result.reason is Reason.TOO_FEW_TILES:
        return Made(
            Status.FLAGGED,
            Reason.TOO_FEW_TILES,
            f"{len(tiles)} tiles are too few to group (at least {recipe.domains.min_tiles}); they are one domain",
        )
    return Made()


def _domain_rows(result: DomainResult, tiles: pl.DataFrame, named: dict[str, Any]) -> pl.DataFrame:
    frames = [
        pl.DataFrame({"tile_id": tiles["tile_id"], "domain": variant.labels}).with_columns(variant=pl.lit(name))
        for name, variant in result.variants.items()
    ]
    constants = [pl.lit(value, dtype=pl.String).alias(name) for name, value in named.items()]
    return pl.concat(frames).with_columns(*constants, label=pl.lit(None, dtype=pl.String))


def _summary_rows(result: DomainResult, named: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            **named,
            "variant": name,
            "domain": domain,
            "n_tiles": n_tiles,
            "share": n_tiles / len(variant.labels),
            "contiguity": variant.contiguity.get(domain),
            "n_pieces": variant.pieces.get(domain),
            "label": None,
        }
        for name, variant in result.variants.items()
        for domain, n_tiles in variant.sizes.items()
    ]


def _write_arrays(
    session: Session,
    slide_id: str,
    recipe: Recipe,
    tiles: pl.DataFrame,
    graph: Any,
    result: DomainResult,
    named: dict[str, Any],
) -> None:
    """One group with what analyses of one's own start from: PCA, UMAP, both graphs, smoothed features, labels."""
    obsm: dict[str, np.ndarray] = {"spatial": tile_centres(tiles), "X_umap": result.umap}
    obs = tiles
    obsp = {"spatial_connectivities": row_normalise(graph)}
    for name, variant in result.variants.items():
        suffix = "" if name == "leiden" else f"_{name}"
        obsm[f"X_pca{suffix}"] = variant.pca
        if variant.features is not None:
            obsm[f"X_{name}"] = variant.features
        if variant.neighbours is not None:
            obsp[f"connectivities{suffix}"] = _per_tile(variant)
        obs = obs.with_columns(pl.Series(name, variant.labels.astype(str)))
    name = _place(session, slide_id, recipe, str(named["digest"]))
    group = write_derived(session.root, slide_id, str(named["digest"]), name, obs=obs, obsm=obsm, obsp=obsp)
    contents = ["obs", *(f"obsm/{key}" for key in obsm), *(f"obsp/{key}" for key in obsp)]
    row = {**named, "step": "spatial_domains", "name": GROUP, "uri": group, "n_tiles": len(tiles), "contents": contents}
    session.tables.write("derived_arrays", [row], slide_id=slide_id, part=recipe_part(recipe))


def _place(session: Session, slide_id: str, recipe: Recipe, made_from: str) -> str:
    """The name under which the group is written: where it is made again by force, beside the one that is read now."""
    if not session.force:
        return GROUP
    rows = session.tables.read("derived_arrays", slide_id, recipe_part(recipe))
    again = rows is not None and not rows.is_empty() and lies_first(session, rows.row(0, named=True), made_from, GROUP)
    place = layout.group_places(slide_id, made_from, GROUP)[again]
    delete_group(session.root, place)
    return layout.group_name(place)


def _per_tile(variant: DomainVariant) -> Any:
    """The feature-space graph with a row for each tile; equal tiles share their first one's neighbours."""
    assert variant.neighbours is not None
    first = np.unique(variant.distinct, return_index=True)[1]
    graph = variant.neighbours
    if len(first) == len(variant.distinct):
        return graph
    from scipy.sparse import csr_array

    n = len(variant.distinct)
    place = csr_array((np.ones(len(first), np.float32), (first, np.arange(len(first)))), shape=(n, len(first)))
    return csr_array(place @ csr_array(graph) @ place.T)
