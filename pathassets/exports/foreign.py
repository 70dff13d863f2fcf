"""Foreign: features that TRIDENT, CLAM or Slideflow computed, read and checked.

Belongs here: those files, as far as they are taken in. Does not belong: what becomes of them (`adopted`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathassets.core.geometry import power_to_mpp
from pathassets.errors import ConfigError, Reason

MAX_INFLATION, MIN_CLAIM = 64, 1_000_000
_NEEDED = "Say --tile-px and --mpp: the tile's edge in pixels and its µm per pixel as the encoder saw it."


@dataclass(frozen=True)
class Grid:
    """How the tiles of a file were cut; None = the file does not say.

    Attributes:
        tile_px: Edge in pixels as the encoder saw it.
        mpp: µm per pixel there.
        overlap_px: Pixels shared with the neighbour, as the encoder saw them.
    """

    tile_px: int | None = None
    mpp: float | None = None
    overlap_px: int = 0


@dataclass(frozen=True)
class ForeignFeatures:
    """Features of one slide from elsewhere.

    Attributes:
        x: float32 (n, dim).
        xy: Level-0 pixels (n, 2): upper left corners, or centres.
        centred: Whether `xy` are centres.
        grid: How the tiles were cut.
        said: What else the file says, for provenance.
    """

    x: NDArray[np.float32]
    xy: NDArray[np.float64]
    centred: bool
    grid: Grid
    said: Mapping[str, Any]

    def with_grid(self, tile_px: int | None, mpp: float | None) -> ForeignFeatures:
        """The same where a user knows better, or more, than the file.

        Raises:
            ConfigError: Nobody says how large tiles are.
        """
        grid = replace(self.grid, tile_px=tile_px or self.grid.tile_px, mpp=mpp or self.grid.mpp)
        if grid.tile_px is None or grid.mpp is None:
            raise ConfigError("the file does not say how its tiles were cut", remedy=_NEEDED)
        if not 0 <= grid.overlap_px < grid.tile_px or grid.mpp <= 0:
            raise ConfigError("the file says something impossible of its tiles", remedy=_NEEDED)
        return replace(self, grid=grid)


def read_trident(path: Path, slide_mpp: float) -> ForeignFeatures:
    """TRIDENT's or CLAM's HDF5: `features` (n, dim) and `coords` (n, 2), upper left corners in level-0 pixels.

    Raises:
        ConfigError: It is no such file.
    """
    import h5py

    with _understood(path), h5py.File(path, "r") as file:
        x, xy = (_dataset(file, name, path) for name in ("features", "coords"))
        said = {name: _plain(value) for name, value in file["coords"].attrs.items()}
        return ForeignFeatures(*_checked(x, xy), False, _trident_grid(said, slide_mpp), said)


def _dataset(file: Any, name: str, path: Path) -> NDArray[Any]:
    """An array that lies in this very file, and of which there is as much as it says."""
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or file[name].is_virtual or file[name].external:
        raise ValueError(f"{name} is not in the file itself")
    _check_claim(file[name].size * file[name].dtype.itemsize, path)
    return np.asarray(file[name][:])


def _check_claim(n_bytes: int, path: Path) -> None:
    """Features hardly compress: a small file that says it holds gigabytes would fill the memory with nothing."""
    if n_bytes > MAX_INFLATION * path.stat().st_size + MIN_CLAIM:
        raise ValueError(f"it says that it holds {n_bytes / 1e6:,.0f} MB, which is more than it can")


def _trident_grid(said: Mapping[str, Any], slide_mpp: float) -> Grid:
    edge, level0 = said.get("patch_size"), said.get("patch_size_level0")
    if not edge or not level0:
        return Grid()
    overlap = said.get("overlap", 0)
    return Grid(int(edge), slide_mpp * float(level0) / float(edge), int(overlap) if overlap else 0)


def read_slideflow(path: Path, slide_mpp: float) -> ForeignFeatures:
    """A bag of Slideflow: `<slide>.pt`, `<slide>.index.npz` and `bags_config.json` beside it; positions are centres.

    Raises:
        ConfigError: They are no such files.
    """
    import torch

    index, config = path.with_suffix(".index.npz"), path.with_name("bags_config.json")
    with _understood(path):
        tensor = torch.load(path, map_location="cpu", weights_only=True)
        _check_claim(tensor.numel() * tensor.element_size(), path)
        x = tensor.numpy()
    with _understood(index), np.load(index, allow_pickle=False) as places:
        _check_claim(sum(entry.file_size for entry in places.zip.infolist()), index)
        xy = places["arr_0"]
    said: dict[str, Any] = {}
    if config.is_file():
        with _understood(config):
            said = dict(json.loads(config.read_text(encoding="utf-8")))
    with _understood(config):
        grid = _slideflow_grid(said)
    with _understood(path):
        return ForeignFeatures(*_checked(x, xy), True, grid, said)


def _slideflow_grid(said: Mapping[str, Any]) -> Grid:
    """`tile_um` is a number of µm, or a magnification such as `20x`."""
    edge, um = said.get("tile_px"), said.get("tile_um")
    if not edge or not um:
        return Grid()
    mpp = power_to_mpp(float(um[:-1])) if isinstance(um, str) and um.endswith("x") else float(um) / float(edge)
    return Grid(int(edge), mpp)


def _checked(x: Any, xy: Any) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    features, places = np.asarray(x), np.asarray(xy)
    if features.ndim != 2 or places.shape != (len(features), 2) or not features.size:
        raise ValueError(
            f"features of shape {features.shape} and places of shape {places.shape} do not belong together"
        )
    if features.dtype.kind != "f" or places.dtype.kind not in "iuf" or not np.isfinite(places).all():
        raise ValueError("features or places are no numbers")
    return features.astype(np.float32), places.astype(np.float64)


def _plain(value: Any) -> Any:
    """An attribute of HDF5 as JSON has it."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    """Libraries say what they like of a file that is not theirs."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        reason = Reason.FILE_MISSING if isinstance(error, FileNotFoundError) else Reason.FILE_UNREADABLE
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{path} holds no features that can be taken in: {first}", reason=reason, remedy="Check the file."
        ) from error
