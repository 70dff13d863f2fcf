"""SlideInfo: what a slide file says of itself, and whether its resolution can be trusted.

Belongs here: the facts of one slide, which source of the resolution wins, when it is refused. Does not belong: opening
files (`probe`), pixels (`slide`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pathassets.core.geometry import power_to_mpp
from pathassets.errors import Reason, SlideError

MppOrigin = Literal["manifest", "vendor", "tiff", "power"]

# Electron microscopes begin below, magnifying glasses above; 72 dpi is 352.8, a factor of 100 off is 0.005.
MIN_MPP = 0.05
MAX_MPP = 10.0
MAX_ANISOTROPY = 0.02


@dataclass(frozen=True)
class Facts:
    """What a reader finds in a file, before any of it is judged.

    Attributes:
        vendor: OpenSlide's vendor, or `ome`, `aperio`, `generic-tiff` by the second reader.
        level_dimensions: (width, height) of each level in px, finest first.
        downsamples: Level-0 px that one px of each level covers.
        objective_power: Magnification of the objective.
        vendor_mpp: (x, y) in µm/px as the scanner wrote it.
        tiff_mpp: (x, y) in µm/px by the resolution tags of a TIFF.
        associated_images: Names of label, macro, thumbnail.
        bounds: (x, y, width, height) in level-0 px of the part that was scanned.
    """

    vendor: str
    level_dimensions: tuple[tuple[int, int], ...]
    downsamples: tuple[float, ...]
    objective_power: float | None = None
    vendor_mpp: tuple[float, float] | None = None
    tiff_mpp: tuple[float, float] | None = None
    associated_images: tuple[str, ...] = ()
    bounds: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class SlideInfo:
    """One slide.

    Attributes:
        path: The file, absolute.
        reader: `openslide` or `tifffile`: what opened the file.
        vendor: Who wrote the file.
        width_px: Width of level 0.
        height_px: Height of level 0.
        n_levels: Number of levels.
        level_dimensions: (width, height) of each level in px, finest first.
        objective_power: Magnification of the objective, if the file says so.
        mpp: Resolution of level 0 in µm/px (the mean of x and y); None when nothing tells it.
        mpp_origin: What told it.
        mpp_x: Resolution along x in µm/px.
        mpp_y: Resolution along y in µm/px.
        associated_images: Names of label, macro, thumbnail; their pixels are never read.
        size_bytes: Size of the file (for formats of many files: of the one that names the slide).
        bounds: (x, y, width, height) in level-0 px of the part that was scanned, if the file says so.
        decoder: `jpeg` or `jpeg2000` where such tiles are decoded without OpenSlide, with equal pixels; else the same as
            `reader`.
    """

    path: Path
    reader: Literal["openslide", "tifffile"]
    vendor: str
    width_px: int
    height_px: int
    n_levels: int
    level_dimensions: tuple[tuple[int, int], ...]
    objective_power: float | None
    mpp: float | None
    mpp_origin: MppOrigin | None
    mpp_x: float | None
    mpp_y: float | None
    associated_images: tuple[str, ...]
    size_bytes: int
    bounds: tuple[int, int, int, int] | None = None
    decoder: Literal["openslide", "tifffile", "jpeg", "jpeg2000"] = "openslide"


def make_info(
    path: Path,
    reader: Literal["openslide", "tifffile"],
    facts: Facts,
    *,
    mpp: float | None,
    size_bytes: int,
    decoder: Literal["openslide", "tifffile", "jpeg", "jpeg2000"] | None = None,
) -> SlideInfo:
    """`facts` of the file at `path` as a `SlideInfo`; `mpp` is the manifest's, and wins."""
    resolution, origin = choose_mpp(facts, mpp)
    mpp_x, mpp_y = resolution or (None, None)
    width, height = facts.level_dimensions[0]
    return SlideInfo(
        path=path,
        reader=reader,
        vendor=facts.vendor,
        width_px=width,
        height_px=height,
        n_levels=len(facts.level_dimensions),
        level_dimensions=facts.level_dimensions,
        objective_power=facts.objective_power,
        mpp=None if resolution is None else (resolution[0] + resolution[1]) / 2,
        mpp_origin=origin,
        mpp_x=mpp_x,
        mpp_y=mpp_y,
        associated_images=facts.associated_images,
        size_bytes=size_bytes,
        bounds=facts.bounds,
        decoder=decoder or reader,
    )


def choose_mpp(facts: Facts, manifest: float | None) -> tuple[tuple[float, float] | None, MppOrigin | None]:
    """The resolution (x, y) in µm/px and its origin: manifest, else vendor, else TIFF tags, else objective power.

    Resolution tags of 72 or 300 dpi are what programs write that know nothing: where the objective is known, tags that
    cannot be a microscope's give way to it.
    """
    if manifest is not None:
        return (manifest, manifest), "manifest"
    if facts.vendor_mpp is not None:
        return facts.vendor_mpp, "vendor"
    if facts.tiff_mpp is not None and (facts.objective_power is None or all(map(is_plausible, facts.tiff_mpp))):
        return facts.tiff_mpp, "tiff"
    if facts.objective_power is not None:
        mpp = power_to_mpp(facts.objective_power)
        return (mpp, mpp), "power"
    return None, None


def positive(value: object) -> float | None:
    """`value` as a number above zero; None when it is anything else."""
    try:
        number = float(str(value).strip())
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def is_plausible(mpp: float) -> bool:
    """Whether a light microscope's slide can have this resolution (µm/px)."""
    return MIN_MPP <= mpp <= MAX_MPP


def check_mpp(info: SlideInfo) -> None:
    """Refuses a slide whose resolution cannot be trusted, before any work is spent on it.

    Raises:
        SlideError: `mpp_missing`, `mpp_implausible` (outside 0.05-10 µm/px) or `mpp_anisotropic` (x and y differ by
            more than 2 %); the remedy holds the line to add to `slides.csv`.
    """
    if info.mpp is None or info.mpp_x is None or info.mpp_y is None:
        raise SlideError(
            f"{info.path.name}: nothing in the file tells its resolution (no mpp, no resolution tags, no objective power)",
            reason=Reason.MPP_MISSING,
            remedy=manifest_remedy(info.path),
        )
    if not (is_plausible(info.mpp_x) and is_plausible(info.mpp_y)):
        raise SlideError(
            f"{info.path.name}: a resolution of {info.mpp:.4g} µm/px (from {_ORIGINS[info.mpp_origin]}) cannot be right: "
            f"slides have {MIN_MPP:g} to {MAX_MPP:g}",
            reason=Reason.MPP_IMPLAUSIBLE,
            remedy=manifest_remedy(info.path),
        )
    if abs(info.mpp_x - info.mpp_y) > MAX_ANISOTROPY * min(info.mpp_x, info.mpp_y):
        raise SlideError(
            f"{info.path.name}: its pixels are not square ({info.mpp_x:.4g} x {info.mpp_y:.4g} µm, "
            f"from {_ORIGINS[info.mpp_origin]})",
            reason=Reason.MPP_ANISOTROPIC,
            remedy=f"Scan it again, or treat its pixels as square: {manifest_remedy(info.path)}",
        )


_ORIGINS: dict[MppOrigin | None, str] = {
    "manifest": "slides.csv",
    "vendor": "the scanner's own metadata",
    "tiff": "the TIFF resolution tags",
    "power": "the objective power",
    None: "nowhere",
}


def manifest_line(path: Path, mpp: float) -> str:
    """The line of `slides.csv` that gives the file at `path` the resolution `mpp`."""
    quoted = str(path).replace('"', '""')
    return f'"{quoted}",{mpp:g}'


def manifest_remedy(path: Path) -> str:
    """What to write into `slides.csv`, literally; 0.25 and 0.5 µm/px are what 40x and 20x scans have."""
    return (
        "Say its true µm per pixel in slides.csv in the study's folder (about 0.25 for a 40x scan, 0.5 for 20x):\n"
        f"path,mpp\n{manifest_line(path, 0.25)}"
    )
