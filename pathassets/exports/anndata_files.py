"""AnnData files: a slide's tiles as `.h5ad` or Zarr, for scanpy, squidpy and whatever else reads AnnData.

Belongs here: that one object and its two files. Does not belong: the store's own groups, which AnnData opens too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathassets.exports.files import Target
from pathassets.exports.gather import SlideFeatures
from pathassets.store.groups import obs_frame

if TYPE_CHECKING:
    from anndata import AnnData


def to_anndata(features: SlideFeatures) -> AnnData:
    """A slide's tiles as AnnData.

    Returns:
        `X` float32 (tiles, features), NaN where `obs["status"]` is not `ok`; `obs` has the columns of `tiles`, a domain and
        its label per variant, and the probability of each term; `obsm["spatial"]` the centres in level-0 pixels,
        `obsm["text_cosine"]` the cosines; `uns["pathassets"]` says what made it, `uns["terms"]` which column is which term.
    """
    import pandas as pd
    from anndata import AnnData

    obsm: dict[str, Any] = {"spatial": features.centres}
    uns: dict[str, Any] = {"pathassets": features.provenance}
    if features.terms:
        obsm["text_cosine"] = features.cosine
        columns = features.term_columns()
        uns["terms"] = {"term": list(columns), "column": list(columns.values())}
    return AnnData(
        X=features.x,
        obs=obs_frame(features.annotated_tiles()),
        var=pd.DataFrame(index=[str(i) for i in range(features.x.shape[1])]),
        obsm=obsm,
        uns=uns,
    )


def export_h5ad(features: SlideFeatures, target: Target) -> None:
    """Writes `<recipe>/<slide>.h5ad`."""
    adata = to_anndata(features)

    def write(path: Path) -> None:
        adata.write_h5ad(path)

    target.put(f"{features.part}/{features.slide_id}.h5ad", write)


def export_zarr(features: SlideFeatures, target: Target) -> None:
    """Writes the Zarr folder `<recipe>/<slide>.anndata.zarr`."""
    adata = to_anndata(features)

    def write(path: Path) -> None:
        import anndata
        import zarr

        with anndata.settings.override(auto_shard_zarr_v3=False):
            anndata.io.write_elem(zarr.create_group(path, zarr_format=3), "/", adata)

    target.put(f"{features.part}/{features.slide_id}.anndata.zarr", write)
