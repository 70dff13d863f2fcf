"""Groups: what all Zarr groups of the store have in common: a done marker, hashes, AnnData's `obs`.

Belongs here: finishing, checking, opening and deleting a group. Does not belong: what it holds (`arrays`, `derived`).

A group without its marker beside it is unfinished and is not read; with it, it is never changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from pathassets.errors import Reason, StoreError
from pathassets.store import layout
from pathassets.store.root import Root
from pathassets.store.schema import VOLATILE

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
ANNDATA: dict[str, Any] = {"encoding-type": "anndata", "encoding-version": "0.1.0"}
ARRAY: dict[str, Any] = {"encoding-type": "array", "encoding-version": "0.2.0"}
MAPPING: dict[str, Any] = {"encoding-type": "dict", "encoding-version": "0.1.0"}
_NOT_IN_OBS = {*VOLATILE, "slide_id", "tiling", "digest", "code_version"}


def digest_folders(root: Root, slide_ids: Iterable[str] | None = None) -> Iterator[tuple[str, str, str]]:
    """Slide id, digest and key of every folder of array groups, of some slides or of all; folders of other names are not ours."""
    slides = root.folders("arrays") if slide_ids is None else list(slide_ids)
    for slide_id, digests in zip(slides, root.map(lambda slide: root.folders(f"arrays/{slide}"), slides), strict=True):
        for digest in digests:
            if layout.is_array_folder(slide_id, digest):
                yield slide_id, digest, f"arrays/{slide_id}/{digest}"


def is_done(root: Root, group: str) -> bool:
    """Whether a group is finished."""
    return root.exists(layout.marker_key(group))


def read_marker(root: Root, uri: str | Path) -> dict[str, Any]:
    """The done marker of a group.

    Raises:
        StoreError: `store_corrupt` when the group is unfinished, missing, or its marker is damaged.
    """
    group = root.key_of(uri)
    data = root.read_if_there(layout.marker_key(group))
    remedy = "Run again: what is missing is made, what is there stays."
    if data is None or not root.exists(group):
        raise StoreError(f"{root.address(group)} is not finished or gone", reason=Reason.STORE_CORRUPT, remedy=remedy)
    try:
        marker = json.loads(data)
        return {**marker, "files": dict(marker["files"])}
    except (ValueError, KeyError, TypeError) as error:
        message = f"the marker of {root.address(group)} is damaged: {error!r}"
        raise StoreError(message, reason=Reason.STORE_CORRUPT, remedy="Run again with --force.") from error


def mark_done(root: Root, group: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Flushes a group to the disk and writes its marker: from now on it is read and never changed.

    Args:
        root: The store.
        group: The group's key.
        facts: What the marker says besides the files' hashes.
    """
    root.settle(group)
    sizes = {entry.key.removeprefix(f"{group}/"): entry.size for entry in root.entries(group)}
    marker = {"format": FORMAT, **facts, "files": tree_hashes(root, group), "sizes": sizes}
    root.put(layout.marker_key(group), json.dumps(marker, indent=1, sort_keys=True).encode())
    return marker


def tree_hashes(root: Root, group: str) -> dict[str, str]:
    """SHA-256 of every file of a group, by its path in the group."""
    keys = root.keys(group)
    return {key.removeprefix(f"{group}/"): found for key, found in zip(keys, root.map(root.sha256, keys), strict=True)}


def delete_group(root: Root, group: str) -> None:
    """Removes a group: its marker first, so that nobody starts to read what is going away."""
    for key in (layout.marker_key(group), layout.sidecar_prefix(group), group):
        root.delete(key)


def obs_frame(obs: pl.DataFrame) -> pd.DataFrame:
    """`obs` as AnnData writes it: rows named by `tile_id`, text as categories, nothing that differs between runs."""
    frame = obs.drop([name for name in obs.columns if name in _NOT_IN_OBS]).to_pandas()
    for name in frame.columns:
        if frame[name].dtype == object or str(frame[name].dtype).startswith(("str", "string")):
            frame[name] = frame[name].astype("category")
    frame.index = obs["tile_id"].cast(pl.String).to_list()
    return frame


def write_elements(root: Root, group: str, elements: Mapping[str, Any]) -> None:
    """Writes AnnData elements (`obs`, `obsm`, `obsm/spatial`, ...) into a group, each replaced as a whole."""
    import anndata
    import zarr

    for name in elements:
        root.delete(f"{group}/{name}")
    with root.workshop(group) as folder, anndata.settings.override(auto_shard_zarr_v3=False):
        target = zarr.open_group(folder, mode="a", zarr_format=3, attributes=ANNDATA)
        for name, value in elements.items():
            parent, _, last = name.rpartition("/")
            inside = zarr.open_group(folder / parent, mode="a", zarr_format=3, attributes=MAPPING) if parent else target
            anndata.io.write_elem(inside, last, value)
