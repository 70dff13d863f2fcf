"""Features: embeddings and coordinates as TRIDENT, CLAM, Slideflow and TIAToolbox keep them.

Belongs here: those files. Does not belong: AnnData (`anndata_files`), SpatialData (`spatialdata_store`).
None of these formats has a place for tiles that could not be read; such tiles are left out.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from pathassets.core.geometry import mpp_to_power
from pathassets.exports.files import Target
from pathassets.exports.gather import SlideFeatures

CHUNK_ROWS = 256


def export_trident(features: SlideFeatures, target: Target) -> None:
    """Writes `<recipe>/<slide>.h5`: `features` (n, dim) and `coords` (n, 2), upper left corners in level-0 pixels.

    The attributes of `coords` are TRIDENT's (github.com/mahmoodlab/TRIDENT); CLAM and what follows it reads the two arrays.
    """
    import h5py

    good = features.good()

    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            for name, values in (("features", good.x), ("coords", good.corners)):
                rows = max(1, min(CHUNK_ROWS, len(values)))
                file.create_dataset(name, data=values, chunks=(rows, values.shape[1]), maxshape=(None, values.shape[1]))
            file["coords"].attrs.update(trident_attributes(good))
            file["features"].attrs.update({"name": good.slide_id, "encoder": good.row["encoder"] or ""})
            file.attrs.update({f"pathassets.{name}": value for name, value in good.provenance.items()})

    target.put(f"{features.part}/{features.slide_id}.h5", write)


def trident_attributes(features: SlideFeatures) -> dict[str, Any]:
    """What TRIDENT notes of a grid of tiles: sizes in pixels, magnifications, overlap in the tile's pixels."""
    mpp, slide_mpp = float(features.row["mpp"]), float(features.slide["mpp"])
    power = float(features.slide["objective_power"] or mpp_to_power(slide_mpp))
    height, level0 = features.tile_hw[0], features.size_px[1]
    return {
        "patch_size": height,
        "patch_size_level0": level0,
        "level0_magnification": _whole(power),
        "target_magnification": _magnification(power, power * slide_mpp / mpp, height, level0),
        "overlap": max(0, height - features.recipe.tiling.stride_hw[0]),
        "name": features.slide_id,
        "level0_width": features.slide["width_px"],
        "level0_height": features.slide["height_px"],
    }


def _magnification(power: float, nominal: float, height: int, level0: int) -> int | float:
    """The tiles' magnification, from which TRIDENT computes `patch_size_level0` back.

    The whole number next to the nominal one where that gives the same pixels on level 0, as TRIDENT has whole ones; else what
    the pixels say. A scanner's 20x at 0.499 µm/px whose tiles are not resampled is 20, not 19.96.
    """
    whole = round(nominal)
    return whole if whole and round(height * power / whole) == level0 else _whole(power * height / level0)


def export_slideflow(features: SlideFeatures, target: Target) -> None:
    """Writes a bag: `<slide>.pt`, its tiles' centres in `<slide>.index.npz`, and `bags_config.json` for all bags of a recipe.

    As in Slideflow 3 (`DatasetFeatures.to_torch`): a float32 tensor (n, dim), centres in level-0 pixels in `arr_0`.
    """
    import torch

    good = features.good()
    bag, index = io.BytesIO(), io.BytesIO()
    torch.save(torch.from_numpy(good.x), bag)
    np.savez(index, np.rint(good.centres).astype(np.int64))
    folder, slide_id = features.part, features.slide_id
    target.put_json(f"{folder}/bags_config.json", bags_config(good))  # first: bags of other weights do not mix
    target.put_bytes(f"{folder}/{slide_id}.pt", bag.getvalue())
    target.put_bytes(f"{folder}/{slide_id}.index.npz", index.getvalue())
    target.put_json(f"{folder}/{slide_id}.provenance.json", good.provenance)


def bags_config(features: SlideFeatures) -> dict[str, Any]:
    """What Slideflow keeps beside bags; nothing in it differs between slides of one recipe."""
    row = features.row
    about = {name: row[name] for name in ("recipe", "encoder", "weights_sha256", "random_weights", "precision")}
    return {
        "extractor": {"class": f"pathassets.{row['encoder']}", "kwargs": {}},
        "normalizer": None,
        "num_features": int(row["dim"]),
        "tile_px": features.tile_hw[1],
        "tile_um": _whole(round(features.tile_hw[1] * float(row["mpp"]), 3)),
        "pathassets": about,
    }


def export_tiatoolbox(features: SlideFeatures, target: Target) -> None:
    """Writes the Zarr group `<recipe>/<slide>.tiatoolbox.zarr` with `features` (n, dim) and `coordinates` (n, 4).

    As TIAToolbox 2's `DeepFeatureExtractor` writes them: left, top, right, bottom in pixels at the tiles' resolution,
    which the group's attributes name.
    """
    import zarr

    good = features.good()
    boxes = _boxes_at_resolution(good)

    def write(path: Path) -> None:
        group = zarr.create_group(path, zarr_format=3, attributes=_tiatoolbox_attributes(good))
        for name, values in (("features", good.x), ("coordinates", boxes)):
            rows = max(1, min(CHUNK_ROWS, len(values)))
            group.create_array(name, data=values, chunks=(rows, values.shape[1]))

    target.put(f"{features.part}/{features.slide_id}.tiatoolbox.zarr", write)


def _boxes_at_resolution(features: SlideFeatures) -> np.ndarray:
    scale = float(features.slide["mpp"]) / float(features.row["mpp"])
    height, width = features.tile_hw
    corners = np.rint(features.corners * scale).astype(np.int64)
    return np.hstack([corners, corners + np.array([width, height])])


def _tiatoolbox_attributes(features: SlideFeatures) -> dict[str, Any]:
    resolution = {"units": "mpp", "resolution": float(features.row["mpp"])}
    provenance = features.provenance | {"coordinates": "left, top, right, bottom in pixels at `resolution`"}
    return {"resolution": resolution, "pathassets": provenance}


def _whole(number: float) -> int | float:
    """40 instead of 40.0: what is whole is written so."""
    return round(number) if abs(number - round(number)) < 1e-6 else float(number)
