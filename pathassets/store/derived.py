"""Derived: arrays that later steps make from a slide's embeddings, as AnnData groups of their own.

Belongs here: writing and reading them. Does not belong: the embeddings (`arrays`), what is computed (`core`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pathassets.store import layout
from pathassets.store.groups import delete_group, is_done, mark_done, obs_frame, read_marker, write_elements
from pathassets.store.local_root import translated
from pathassets.store.root import Root

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_array, csr_matrix


def write_derived(
    root: Root,
    slide_id: str,
    digest: str,
    name: str,
    *,
    obs: pl.DataFrame,
    obsm: Mapping[str, np.ndarray] | None = None,
    obsp: Mapping[str, csr_array | csr_matrix] | None = None,
    uns: Mapping[str, Any] | None = None,
    lock_timeout: float = 600.0,
) -> str:
    """Stores arrays about a slide's tiles; a finished group with this digest is left as it is.

    Args:
        root: The store.
        slide_id: The slide.
        digest: Of everything that the numbers depend on.
        name: Name of the group.
        obs: The n tiles that went in: `tile_id` and whatever says more about them.
        obsm: Arrays with n rows, as `X_pca`, `X_umap`, `X_smoothed`, `spatial`.
        obsp: Sparse n x n matrices, as `connectivities`.
        uns: Plain values that describe the group.
        lock_timeout: Seconds to wait for another writer of the same group.

    Returns:
        Absolute address of the group: the column `uri` of `derived_arrays`.

    Raises:
        ValueError: An array has not as many rows as `obs`.
        StoreError: `disk_full`, `store_read_only`, `locked`.
    """
    obsm, obsp = dict(obsm or {}), dict(obsp or {})
    _check_rows(obs.height, {**obsm, **obsp})
    group = layout.group_key(slide_id, digest, name)
    with root.lock(layout.array_lock(slide_id, digest, name), lock_timeout):
        if not is_done(root, group):
            described = {"slide_id": slide_id, "digest": digest, **(uns or {})}
            delete_group(root, group)
            elements = {"obs": obs_frame(obs), "obsm": obsm, "obsp": obsp, "uns": described}
            write_elements(root, group, elements)
            mark_done(root, group, {"slide_id": slide_id, "digest": digest, "rows": obs.height})
    return root.address(group)


def read_derived(root: Root, uri: str | Path) -> AnnData:
    """A finished group of derived arrays.

    Raises:
        StoreError: `store_corrupt` when it is unfinished or gone.
    """
    import anndata

    group = root.key_of(uri)
    read_marker(root, group)
    with root.files(root.keys(group)) as folder, translated(f"read {root.address(group)}", reading=True):
        return anndata.read_zarr(folder / group)


def read_array(root: Root, uri: str | Path, name: str) -> np.ndarray:
    """One array of a finished group, as `obsm/X_pca` or `obs/tile_id`, without the rest.

    Raises:
        StoreError: `store_corrupt` when the group is unfinished or gone, or has no such array.
    """
    import zarr

    group = root.key_of(uri)
    read_marker(root, group)
    with translated(f"read {root.address(group)}", reading=True):
        return np.asarray(zarr.open_array(root.zarr(group), path=name, mode="r")[:])


def _check_rows(n_rows: int, arrays: Mapping[str, Any]) -> None:
    for name, array in arrays.items():
        if array.shape[0] != n_rows:
            raise ValueError(f"{name} has {array.shape[0]} rows, obs has {n_rows}")
