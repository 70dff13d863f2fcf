"""The only place that turns level-0 pixels, µm, level pixels and magnifications into each other.

Belongs here: arithmetic on sizes and resolutions. Does not belong: reading pixels, choosing tissue.
Level-0 coordinates are integers, origin top left, x to the right, y down, as OpenSlide and QuPath have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pathassets.errors import Reason, SlideError
from pathassets.recipes import Tiling

# 10 µm divided by the magnification: the field's convention (20x = 0.5 µm/px, 40x = 0.25 µm/px).
UM_PER_PX_AT_1X = 10.0
MAX_UPSAMPLING = 2.0
# Scanners write 0.4990 or 0.5022 and mean 0.5: within this share a slide counts as being at the resolution asked for.
RESOLUTION_TOLERANCE = 0.05


def power_to_mpp(power: float) -> float:
    """Resolution in µm per pixel of a nominal magnification."""
    return UM_PER_PX_AT_1X / power


def mpp_to_power(mpp: float) -> float:
    """Nominal magnification of a resolution in µm per pixel."""
    return UM_PER_PX_AT_1X / mpp


def nominal_mpp(tiling: Tiling) -> float | None:
    """µm per pixel of the tiles of `tiling` as far as it says so of all slides; None where that depends on the slide."""
    if tiling.mpp is not None:
        return tiling.mpp
    if tiling.power is not None:
        return power_to_mpp(tiling.power)
    if isinstance(tiling.tile_um, str):
        return power_to_mpp(float(tiling.tile_um[:-1]))
    return tiling.tile_um / tiling.tile_hw[1] if tiling.tile_um is not None else None


@dataclass(frozen=True)
class TileSize:
    """A tiling on one slide, in numbers.

    Attributes:
        out_hw: Height and width in pixels that the encoder sees.
        size_hw: Height and width in level-0 pixels (rounded; the read rectangle).
        stride_hw: Vertical and horizontal step in level-0 pixels, exact: tile k starts at `round(k * stride)`, so that
            rounding does not add up over a slide.
        mpp: µm per pixel of the tile as the encoder sees it.
        upsampling: Above 1 when the slide is coarser than asked.
    """

    out_hw: tuple[int, int]
    size_hw: tuple[int, int]
    stride_hw: tuple[float, float]
    mpp: float
    upsampling: float


def level_downsamples(dimensions: Sequence[tuple[int, int]]) -> list[float]:
    """How many level-0 pixels one pixel of each level covers, from exact sizes (width, height) and not from rounded ratios."""
    width0, height0 = dimensions[0]
    return [(width0 / w + height0 / h) / 2 for w, h in dimensions]


def best_level(dimensions: Sequence[tuple[int, int]], downsample: float) -> int:
    """The coarsest level that is still at least as fine as `downsample` asks (1 % tolerance)."""
    fine_enough = [i for i, d in enumerate(level_downsamples(dimensions)) if d <= downsample * 1.01]
    return max(fine_enough, key=lambda i: level_downsamples(dimensions)[i]) if fine_enough else 0


def target_mpp(
    tiling: Tiling, mpp: float, objective_power: float | None, dimensions: Sequence[tuple[int, int]]
) -> float:
    """µm per pixel at which `tiling` wants its tiles on a slide with level-0 resolution `mpp`.

    Raises:
        SlideError: `level_missing` when the slide has fewer levels than the tiling asks for.
    """
    if tiling.mpp is not None:
        return tiling.mpp
    if tiling.power is not None:
        # A slide's own objective is the better yardstick: "20x" on a 40x slide is half its resolution, whatever its mpp.
        return mpp * objective_power / tiling.power if objective_power else power_to_mpp(tiling.power)
    if tiling.level is not None:
        if tiling.level >= len(dimensions):
            raise SlideError(
                f"the tiling asks for level {tiling.level}, the slide has {len(dimensions)}",
                reason=Reason.LEVEL_MISSING,
                remedy="Use mpp or power in the tiling, which every slide can answer.",
            )
        return mpp * level_downsamples(dimensions)[tiling.level]
    if isinstance(tiling.tile_um, str):
        return target_mpp(
            tiling.model_copy(update={"tile_um": None, "power": float(tiling.tile_um[:-1])}),
            mpp,
            objective_power,
            dimensions,
        )
    if tiling.tile_um is not None:
        return tiling.tile_um / tiling.tile_hw[1]
    return mpp


def tile_size(
    tiling: Tiling, mpp: float, objective_power: float | None, dimensions: Sequence[tuple[int, int]]
) -> TileSize:
    """`tiling` on a slide with level-0 resolution `mpp` (µm/px) and level sizes `dimensions` ((width, height), finest first).

    Raises:
        SlideError: `resolution_too_coarse` when tiles would be enlarged more than twice.
    """
    wanted = target_mpp(tiling, mpp, objective_power, dimensions)
    scale = wanted / mpp
    if scale < 1 / (MAX_UPSAMPLING * 1.01):
        raise SlideError(
            f"the slide has {mpp:.3g} µm/px, the tiling asks for {wanted:.3g}: tiles would be enlarged {1 / scale:.1f} times",
            reason=Reason.RESOLUTION_TOO_COARSE,
            remedy=f"Use a tiling of {mpp:.2g} µm/px or coarser for this slide, or correct its mpp in slides.csv.",
        )
    height, width = tiling.tile_hw
    stride_y, stride_x = tiling.stride_hw
    upsampling = 1 / scale if scale < 1 - RESOLUTION_TOLERANCE else 1.0
    return TileSize(
        out_hw=(height, width),
        size_hw=(max(1, round(height * scale)), max(1, round(width * scale))),
        stride_hw=(stride_y * scale, stride_x * scale),
        mpp=wanted,
        upsampling=upsampling,
    )


def area_mm2(pixels: float, mpp: float) -> float:
    """Area in mm² of `pixels` pixels at `mpp` µm per pixel."""
    return pixels * (mpp / 1000.0) ** 2
