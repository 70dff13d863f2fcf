"""Where the tissue is on a picture of a slide at a few µm per pixel.

Belongs here: masks by two methods, the choice between them, the removal of ink and the proof that what is left is not dirt.
Does not belong: polygons (`pieces.py`), the colour of ink (`ink.py`), the white point (`background.py`), reading slides.

`otsu` thresholds how much a place absorbs (or shines, on a dark background); `entropy` thresholds how varied it is, and is
asked only where `otsu` finds nothing. Both work on optical densities and keep to absolute limits, so that an empty slide
stays empty and a slide without glass is not cut in two. Lengths are µm, so that the resolution of the picture matters
little between 4 and 16 µm/px. The limits were set on four scanned slides, a fluorescence scan, their copies faded to a
quarter and restained as pale IHC, and empty slides with dye, dust, noise and vignetting.

Outlines and ink are found on pixels, strip by strip; what is a property of a neighbourhood (roughness, mean density, whole
patches) on cells of 24 µm.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pathassets.core.background import UNITS, Contrast, Densities, Floats, Mask, contrast, smooth, units
from pathassets.core.cells import TINY, entropy_bits
from pathassets.core.ink import FRINGE_DENSITY, ink_pixels
from pathassets.core.morphology import closed, grown, highest, lowest, opened, shrunk
from pathassets.core.pieces import TissueMask, TissuePiece, fill_holes, mask_from_image, tissue_pieces
from pathassets.core.strips import by_strips, strips
from pathassets.recipes import TissueOptions

__all__ = ["TissueMask", "TissuePiece", "find_tissue", "mask_from_image", "tissue_pieces"]

SMOOTH_UM = 6.0
# Optical density that is tissue without further proof: glass with dye reaches 0.05.
SURE_DENSITY = 0.06
# Densities below this are never tissue; without glass to measure on, the white point is a guess and the limit higher.
LEAST_DENSITY = 0.008
LEAST_DENSITY_WITHOUT_GLASS = 0.02
# Otsu's threshold lies half way up to the strongly stained; pale parts of the same tissue begin well below.
OTSU_SHARE = 0.6
OTSU_CAP = 0.3
# Roughness as a share of density, and its least value: pale tissue is above both, dye and shadows below.
ROUGH_SHARE = 0.06
ROUGH_LEAST = 0.0016
# Pale tissue on a slide of strongly stained tissue is looked for at this distance from it, in patches at least twice
# FAR_PATCH_UM wide: the spots of printed grids are 100 µm.
FAR_UM = 100.0
FAR_PATCH_UM = 64.0
# Fat cells are 40 to 100 µm wide; at least this much of them counts as fat.
MESH_UM = 90.0
MESH_LEAST_UM = 28.0
MESH_LEAST_LINE = 0.007
MESH_CLOSE_UM = 16.0
# Mean density of fat as a share of the threshold: 0.3 to 0.5; of the rings that JPEG draws around tissue 0.15 to 0.3.
MESH_DENSITY = 0.2
# Limits of the dark-field threshold: 5 to 40 grey levels above the dark level.
LEAST_GLOW = 0.32
SURE_GLOW = 0.67
# Entropy in bits of the quantised signal around a place: 0 where flat, 2 to 4 in tissue.
LEAST_ENTROPY = 0.8
SURE_ENTROPY = 2.0
# The threshold is found to within a hundredth of a bit.
ENTROPY_STEPS = 100
DISC_UM = 24.0
BORDER_UM = 32.0
PEEL_UM = 20.0
PEEL_SHARE = 0.3
LEAST_STEP = 0.004
# Six standard deviations of the glass: its noise stays within one step.
STEP_ROUGHNESS = 7.5
GLOW_STEP = 0.04
# Steps that are told apart on either side of the local mean.
STEPS = 15
# Gaps as narrow as twice this (fat cells, splits from sectioning) do not part tissue.
CLOSE_UM = 16.0
# Strokes are wider than single dark nuclei, and have soft borders.
INK_LEAST_UM = 8.0
INK_FRINGE_UM = 32.0
INK_BORDER_UM = 8.0
INK_SLIVER_UM = 24.0
# When this share of all that is dense has ink's colour and is rough, the colour is a stain: strokes have a roughness of
# 0.02 to 0.04 of their density, stained tissue of 0.11 and more.
STAIN_SHARE = 0.05
STAIN_ROUGH_SHARE = 0.08
# Dust and shadows are grey, stains are not: chroma as a share of density.
GREY_CHROMA = 0.12


def find_tissue(rgb: NDArray[np.uint8], mpp: float, options: TissueOptions | None = None) -> TissueMask:
    """Finds the tissue on a picture of a slide.

    Args:
        rgb: uint8 (h, w, 3), the whole slide at about `options.mpp`.
        mpp: µm per pixel of `rgb`.
        options: Method; `auto` takes `otsu`, or `entropy` where `otsu` finds nothing.

    Returns:
        The mask, the method that made it, and metrics. An empty mask is a valid result.

    Raises:
        ValueError: `rgb` is not uint8 (h, w, 3), or `mpp` is not positive.
    """
    options = options or TissueOptions()
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not mpp > 0:
        raise ValueError(
            f"a picture is uint8 (h, w, 3) with a positive mpp, not {rgb.dtype} {rgb.shape} at {mpp} µm/px"
        )
    if options.method == "none" or rgb.size == 0:
        return TissueMask(np.ones(rgb.shape[:2], bool), "none", {"tissue_share": 1.0})
    scene = contrast(rgb, mpp)
    ink = np.zeros(rgb.shape[:2], bool) if scene.dark else _ink(rgb, scene)
    if options.method == "entropy":
        return _cleaned("entropy", *_by_entropy(scene), scene, ink)
    otsu = _cleaned("otsu", *_by_density(scene), scene, ink)
    if options.method == "otsu" or otsu.mask.any():
        return otsu
    # Unstained tissue: only a real patch counts.
    entropy = _cleaned("entropy", *_by_entropy(scene), scene, ink)
    return entropy if opened(entropy.mask, FAR_PATCH_UM / mpp).any() else otsu


def _cleaned(method: str, found: Mask, threshold: float, scene: Contrast, ink: Mask) -> TissueMask:
    """What a method found, without ink, ragged outlines and artefacts, with its metrics."""
    reach = int((2 * CLOSE_UM + 2 * PEEL_UM + 2 * INK_SLIVER_UM) / scene.mpp) + 8
    outlined = partial(_outlined, dark=scene.dark, mpp=scene.mpp)
    clean = by_strips(outlined, reach, np.bool_, found, ink, scene.signal)
    real = _without_artefacts(clean, scene)
    metrics = {
        "threshold": threshold,
        "tissue_share": float(real.mean()),
        "ink_share": float(ink.mean()),
        "ink_removed": _share(found & ink, found),
        "artefact_removed": _share(clean & ~real, clean),
        "glass_share": scene.glass_share,
        "white_level": scene.level,
        "dark_background": float(scene.dark),
    }
    return TissueMask(real, method, metrics)


def _outlined(found: Mask, ink: Mask, signal: Densities, dark: bool, mpp: float) -> Mask:
    """A strip of what was found without its ink, with gaps closed and outlines tidied."""
    clean = closed(found & ~ink, CLOSE_UM / mpp) & ~ink
    if not dark:
        clean = _peeled(clean, ink, signal, mpp)
    # Strokes leave slivers of their borders; tissue that lies beside ink is thicker.
    if ink.any():
        clean &= ~grown(ink, INK_SLIVER_UM / mpp) | opened(clean, INK_SLIVER_UM / 2 / mpp)
    return clean


def _share(part: Mask, whole: Mask) -> float:
    n = int(np.count_nonzero(whole))
    return int(np.count_nonzero(part)) / n if n else 0.0


def _density_threshold(signal: Densities, scene: Contrast) -> float:
    """Density (or glow) that is tissue, of the smoothed signal."""
    if scene.dark:
        return min(max(_otsu(_histogram(signal, UNITS)) / UNITS, LEAST_GLOW), SURE_GLOW)
    middle = _otsu(_histogram(signal, units(OTSU_CAP))) / UNITS
    return min(max(OTSU_SHARE * middle, _least_density(scene)), SURE_DENSITY)


def _by_density(scene: Contrast) -> tuple[Mask, float]:
    """What absorbs more than the glass; what absorbs little must also be rough (tissue is, dye and shadows are not)."""
    signal = smooth(scene.signal, SMOOTH_UM, scene.mpp)
    threshold = _density_threshold(signal, scene)
    found = signal > units(threshold)
    if scene.dark:
        return found, threshold
    if threshold < SURE_DENSITY:
        rough = _rough(scene, _everywhere(scene), 2 * scene.roughness)
        found = scene.cells.within(found, rough) | (signal > units(SURE_DENSITY))
    if threshold > _least_density(scene):
        found |= _pale(signal, found, scene)
    del signal
    return found | _mesh(scene, found, threshold), threshold


def _pale(signal: Densities, found: Mask, scene: Contrast) -> Mask:
    """Patches of pale tissue far from what was found."""
    cells, cell_um = scene.cells, scene.cells.edge * scene.mpp
    least = units(_least_density(scene))
    far = ~grown(cells.sums(found) > 0, FAR_UM / cell_um)
    patches = far & (cells.sums(lambda rows: signal[rows] > least) > 0.5 * cells.edge**2)
    if patches.any():
        patches &= _rough(scene, far, 3 * scene.roughness)
        patches = grown(opened(patches, FAR_PATCH_UM / cell_um), 1) & far
    return cells.within(signal > least, patches)


def _mesh(scene: Contrast, found: Mask, threshold: float) -> Mask:
    """Fat: a mesh of lines too thin to reach the threshold, filled where its meshes are closed, and wide as a whole.

    JPEG draws faint lines around tissue too, and along the picture's border.
    """
    mpp, cells = scene.mpp, scene.cells
    window = max(3, round(MESH_UM / mpp)) | 1
    least = units(max(threshold / 3, 3 * scene.noise, MESH_LEAST_LINE))

    def lines(signal: Densities) -> Mask:
        return np.asarray(signal - highest(lowest(signal, window), window) > least)

    net = (by_strips(lines, window, np.bool_, scene.signal) & _inside(found.shape, mpp)) | found
    net = by_strips(lambda part: closed(part, MESH_CLOSE_UM / mpp), int(2 * MESH_CLOSE_UM / mpp) + 2, np.bool_, net)
    net = fill_holes(net, MESH_UM**2 / mpp**2, thin_walls=True)
    net = by_strips(lambda part: opened(part, MESH_LEAST_UM / mpp), int(2 * MESH_LEAST_UM / mpp) + 2, np.bool_, net)
    return cells.within(net, cells.mean_around(scene.signal, ~found) > MESH_DENSITY * threshold * UNITS)


def _inside(shape: tuple[int, ...], mpp: float) -> Mask:
    """The picture without its border, where scanners and compression leave lines; all of it when it is tiny."""
    margin = math.ceil(BORDER_UM / mpp)
    if min(shape) <= 2 * margin:
        return np.ones(shape, bool)
    inside = np.zeros(shape, bool)
    inside[margin:-margin, margin:-margin] = True
    return inside


def _least_density(scene: Contrast) -> float:
    return max(LEAST_DENSITY, 3 * scene.noise) if scene.glass_share else LEAST_DENSITY_WITHOUT_GLASS


def _everywhere(scene: Contrast) -> Mask:
    return np.ones(scene.cells.shape, bool)


def _rough(scene: Contrast, where: Mask, least: float) -> Mask:
    """Cells around which the picture is as rough as tissue of its density, looking only at the cells `where`."""
    where = where & _inside(where.shape, scene.cells.edge * scene.mpp)
    density = scene.cells.mean_around(scene.signal, where)
    limit = np.maximum(ROUGH_SHARE * density, UNITS * max(least, ROUGH_LEAST))
    return np.asarray(scene.cells.roughness(scene.mean, where) > limit)


def _by_entropy(scene: Contrast) -> tuple[Mask, float]:
    """Where the signal takes many values around a place, which is also as rough as tissue, or dense."""
    where = _not_empty(scene)
    if not where.any():
        return where, SURE_ENTROPY
    bits, grains = entropy_bits(_steps(scene), scene.mpp)
    threshold = _otsu(np.bincount((bits * ENTROPY_STEPS).astype(np.intp).ravel())) / ENTROPY_STEPS
    threshold = min(max(threshold, LEAST_ENTROPY), SURE_ENTROPY)
    # A square that touches tissue with a part of it is varied already: the find is larger than the tissue all around.
    whole = grains.spread(closed(bits > threshold, 2 * DISC_UM / (grains.edge * scene.mpp)))
    return shrunk(whole, 0.6 * DISC_UM / scene.mpp) & where, threshold


def _not_empty(scene: Contrast) -> Mask:
    """Places where something absorbs (or shines) at all, and more than dye and shadows do."""
    cells, everywhere = scene.cells, _everywhere(scene)
    signal = cells.mean_around(scene.signal, everywhere)
    if scene.dark:
        return cells.spread(signal > units(LEAST_GLOW))
    rough = _rough(scene, everywhere, 2 * scene.roughness)
    where = cells.spread(rough) | (scene.signal > units(SURE_DENSITY))
    return cells.within(where, signal > units(_least_density(scene)))


def _steps(scene: Contrast) -> NDArray[np.uint8]:
    """How many steps each pixel lies above (more than `STEPS`) or below its local mean.

    The steps are too coarse to see the noise of empty places: a third of the threshold on density, or more where the
    glass is rough.
    """
    cells, signal, step = scene.cells, scene.mean, GLOW_STEP
    if scene.dark:
        signal = np.maximum(signal, units(LEAST_GLOW))
    else:
        threshold = _density_threshold(smooth(scene.signal, SMOOTH_UM, scene.mpp), scene)
        step = max(threshold / 3, STEP_ROUGHNESS * scene.roughness, LEAST_STEP)
    mean = cells.mean_around(signal, _everywhere(scene))
    out = np.empty(signal.shape, np.uint8)
    for rows in strips(signal.shape, cells.edge):
        away = (signal[rows] - cells.blended(mean, rows)) / np.float32(step * UNITS)
        out[rows] = np.clip(away + (STEPS + 0.5), 0, 2 * STEPS)
    return out


def _histogram(values: Densities, most: int) -> NDArray[np.intp]:
    """How many pixels have each value from 0 to `most`; what is above counts as `most`."""
    counts = np.zeros(most + 1, np.intp)
    for rows in strips(values.shape):
        counts += np.bincount(np.clip(values[rows], 0, most).ravel(), minlength=most + 1)
    return counts


def _otsu(counts: NDArray[np.intp]) -> float:
    """The value that parts a histogram into the two most different halves; infinite when all values are the same."""
    from skimage.filters import threshold_otsu

    seen = np.flatnonzero(counts)
    if seen.size < 2:
        return float("inf")
    return float(threshold_otsu(hist=(counts[seen], seen)))


def _ink(rgb: NDArray[np.uint8], scene: Contrast) -> Mask:
    """Strokes and blots: ink-coloured patches wider than a nucleus, with the soft borders that hang on them."""
    mpp = scene.mpp
    wide = INK_LEAST_UM / mpp
    core = by_strips(lambda part: opened(ink_pixels(part), wide), int(2 * wide) + 2, np.bool_, rgb)
    if core.any():
        core &= ~_stained(core, scene)
    if not core.any():
        return core
    fringe = INK_FRINGE_UM / mpp
    near = by_strips(partial(_with_fringe, reach=fringe), int(fringe), np.bool_, core, rgb)
    strokes = ndimage.binary_propagation(core, mask=near)
    # Mixed with glass or tissue in one pixel, ink loses its hue.
    border = INK_BORDER_UM / mpp + 0.5
    return by_strips(lambda part: grown(part, border), int(border), np.bool_, strokes)


def _with_fringe(core: Mask, rgb: NDArray[np.uint8], reach: float) -> Mask:
    """Ink, and what beside it has ink's colour though it is paler."""
    near = grown(core, reach)
    near[near] = ink_pixels(rgb[near], FRINGE_DENSITY)
    return near | core


def _stained(ink: Mask, scene: Contrast) -> Mask:
    """The part of `ink` that is a stain after all: trichrome or alcian blue colours much of the tissue, and roughly."""
    coloured = by_strips(
        lambda ink, chroma, signal: ink & (chroma > 0.3 * signal), 0, np.bool_, ink, scene.chroma, scene.signal
    )
    n_dense = np.count_nonzero(scene.signal > units(SURE_DENSITY))
    if not coloured.any() or np.count_nonzero(coloured) < STAIN_SHARE * n_dense:
        return np.zeros_like(ink)
    # The soft borders of strokes are rough; only their inside is smooth.
    inner = shrunk(coloured, INK_BORDER_UM / scene.mpp)
    inner = inner if inner.any() else coloured
    cells, here = scene.cells, scene.cells.sums(inner) > 0
    rough = cells.roughness(scene.mean, inner)[here] / np.maximum(cells.mean_around(scene.mean, inner)[here], 1)
    return coloured if np.median(rough) > STAIN_ROUGH_SHARE else np.zeros_like(ink)


def _peeled(found: Mask, ink: Mask, signal: Densities, mpp: float) -> Mask:
    """Takes the blur of smoothing, closing and JPEG off the outline: pixels much paler than what they lie beside."""
    if not found.any():
        return found
    reach = max(1, round(PEEL_UM / mpp))
    beside = highest(smooth(np.where(ink, np.int16(0), signal), SMOOTH_UM, mpp), 2 * reach + 1)
    border = ~shrunk(found | ink, PEEL_UM / mpp)
    return found & ~(border & (signal < np.float32(PEEL_SHARE) * beside))


def _without_artefacts(found: Mask, scene: Contrast) -> Mask:
    """Leaves out patches that are flat (stickers, shadows, filling) or grey among coloured ones (dust, bubbles).

    What lies in the same cell or in cells side by side is one patch: closing has filled gaps of that width.
    """
    cells = scene.cells
    counts = cells.sums(found)
    labels, n = ndimage.label(counts > 0)
    if n == 0 or scene.dark:
        return found

    def per_patch(values: Floats) -> NDArray[Any]:
        return np.bincount(labels.ravel(), values.ravel(), minlength=n + 1)[1:]

    def total(values: Densities) -> NDArray[Any]:
        return per_patch(cells.sums(lambda rows: np.multiply(values[rows], found[rows], dtype=np.float32)))

    sizes, density = per_patch(counts), np.maximum(total(scene.signal), TINY)
    flat = per_patch(counts * cells.roughness(scene.mean, found)) < 0.25 * ROUGH_SHARE * density
    grey = total(scene.chroma) < GREY_CHROMA * density
    # On an unstained or greyscale slide everything is grey, and that says nothing.
    dropped = flat | (grey & (sizes[grey].sum() < 0.5 * sizes.sum()))
    return cells.within(found, np.append(False, ~dropped)[labels])
