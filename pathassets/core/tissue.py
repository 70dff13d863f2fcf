"""Where the tissue is on a picture of a slide at a few µm per pixel.

Belongs here: masks by two methods, the choice between them, the removal of ink and the proof that what is left is not dirt.
Does not belong: polygons (`pieces.py`), the colour of ink (`ink.py`), the white point (`background.py`), reading slides.

`otsu` thresholds how much a place absorbs (or shines, on a dark background); `entropy` thresholds how varied it is. Both
work on floating-point optical densities, so that no product wraps around, and both keep to absolute limits, so that an
empty slide stays empty and a slide without glass is not cut in two. Lengths are µm, so that the resolution of the picture
matters little between 4 and 16 µm/px. The limits were set on four scanned slides, a fluorescence scan, their copies
faded to a quarter and restained as pale IHC, and empty slides with dye, dust, noise and vignetting.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pathassets.core.background import Contrast, Floats, Mask, contrast, local_mean, roughness, smooth
from pathassets.core.ink import FRINGE_DENSITY, ink_pixels
from pathassets.core.morphology import closed, grown, opened, shrunk
from pathassets.core.pieces import TissueMask, TissuePiece, fill_holes, mask_from_image, tissue_pieces
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
# Roughness as a share of density, and its least value: pale tissue is above both, dye and shadows below (see `roughness`).
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
# Entropy in bits of the quantised signal within a disc: 0 where flat, 2 to 4 in tissue.
LEAST_ENTROPY = 0.8
SURE_ENTROPY = 2.0
DISC_UM = 24.0
BORDER_UM = 32.0
PEEL_UM = 20.0
PEEL_SHARE = 0.3
LEAST_STEP = 0.004
# Six standard deviations of the glass: its noise stays within one step.
STEP_ROUGHNESS = 7.5
GLOW_STEP = 0.04
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
    ink = np.zeros(rgb.shape[:2], bool) if scene.dark else _ink(rgb, scene, mpp)
    dense, threshold = _by_density(scene, mpp)
    if options.method == "otsu":
        return _cleaned("otsu", dense, threshold, scene, ink, mpp)
    varied, bits = _by_entropy(scene, threshold, mpp)
    entropy = _cleaned("entropy", varied, bits, scene, ink, mpp)
    return (
        entropy
        if options.method == "entropy"
        else _chosen(_cleaned("otsu", dense, threshold, scene, ink, mpp), entropy, mpp)
    )


def _chosen(otsu: TissueMask, entropy: TissueMask, mpp: float) -> TissueMask:
    """`otsu` follows borders more exactly; `entropy` speaks only when it alone finds a real patch (unstained tissue)."""
    union = int(np.count_nonzero(otsu.mask | entropy.mask))
    agreement = int(np.count_nonzero(otsu.mask & entropy.mask)) / union if union else 1.0
    alone = not otsu.mask.any() and opened(entropy.mask, FAR_PATCH_UM / mpp).any()
    best = entropy if alone else otsu
    return TissueMask(best.mask, best.method, {**best.metrics, "agreement": agreement})


def _cleaned(method: str, found: Mask, threshold: float, scene: Contrast, ink: Mask, mpp: float) -> TissueMask:
    """What a method found, without ink, ragged outlines and artefacts, with its metrics."""
    clean = _peeled(closed(found & ~ink, CLOSE_UM / mpp) & ~ink, ink, scene, mpp)
    # Strokes leave slivers of their borders; tissue that lies beside ink is thicker.
    clean &= ~grown(ink, INK_SLIVER_UM / mpp) | opened(clean, INK_SLIVER_UM / 2 / mpp)
    real = _without_artefacts(clean, scene, mpp)
    metrics = {
        "threshold": threshold,
        "tissue_share": float(real.mean()),
        "ink_share": float(ink.mean()),
        "ink_removed": _share(found & ink, found),
        "artefact_removed": _share(clean & ~real, clean),
        "glass_share": float(scene.glass.mean()),
        "white_level": scene.level,
        "dark_background": float(scene.dark),
    }
    return TissueMask(real, method, metrics)


def _share(part: Mask, whole: Mask) -> float:
    n = int(np.count_nonzero(whole))
    return int(np.count_nonzero(part)) / n if n else 0.0


def _by_density(scene: Contrast, mpp: float) -> tuple[Mask, float]:
    """What absorbs more than the glass; what absorbs little must also be rough (tissue is, dye and shadows are not)."""
    signal = smooth(scene.signal, SMOOTH_UM, mpp)
    if scene.dark:
        threshold = min(max(_otsu(signal), LEAST_GLOW), SURE_GLOW)
        return signal > threshold, threshold
    least = _least_density(scene)
    threshold = min(max(OTSU_SHARE * _otsu(np.minimum(signal, OTSU_CAP)), least), SURE_DENSITY)
    found = signal > threshold
    if threshold < SURE_DENSITY:
        found &= (signal > SURE_DENSITY) | _rough(scene, np.ones_like(found), 2 * scene.roughness, mpp)
    far = ~grown(found, FAR_UM / mpp)
    pale = (signal > least) & far
    if threshold > least and pale.any():
        pale &= _rough(scene, far, 3 * scene.roughness, mpp)
        found |= opened(pale, FAR_PATCH_UM / mpp)
    return found | _mesh(scene, found, threshold, mpp), threshold


def _mesh(scene: Contrast, found: Mask, threshold: float, mpp: float) -> Mask:
    """Fat: a mesh of lines too thin to reach the threshold, filled where its meshes are closed, and wide as a whole.

    JPEG draws faint lines around tissue too, and along the picture's border.
    """
    window = max(3, round(MESH_UM / mpp))
    lines = scene.signal - ndimage.grey_opening(scene.signal, size=window)
    net = lines > max(threshold / 3, 3 * scene.noise, MESH_LEAST_LINE)
    net = closed((net & _inside(net.shape, mpp)) | found, MESH_CLOSE_UM / mpp)
    filled = opened(fill_holes(net, MESH_UM**2 / mpp**2, thin_walls=True), MESH_LEAST_UM / mpp)
    between = ~found
    density = local_mean(np.where(between, scene.signal, 0), mpp) / np.maximum(
        local_mean(between.astype(np.float32), mpp), 1e-6
    )
    return filled & (density > MESH_DENSITY * threshold)


def _inside(shape: tuple[int, ...], mpp: float) -> Mask:
    """The picture without its border, where scanners and compression leave lines; all of it when it is tiny."""
    margin = max(1, round(BORDER_UM / mpp))
    if min(shape) <= 2 * margin:
        return np.ones(shape, bool)
    inside = np.zeros(shape, bool)
    inside[margin:-margin, margin:-margin] = True
    return inside


def _least_density(scene: Contrast) -> float:
    return max(LEAST_DENSITY, 3 * scene.noise) if scene.glass.any() else LEAST_DENSITY_WITHOUT_GLASS


def _rough(scene: Contrast, where: Mask, least: float, mpp: float) -> Mask:
    """Where the picture is as rough as tissue of its density, looking only at the pixels `where`."""
    where = where & _inside(where.shape, mpp)
    weight = local_mean(where.astype(np.float32), mpp) + np.float32(1e-6)
    density = local_mean(np.where(where, scene.signal, 0), mpp) / weight
    limit = np.maximum(ROUGH_SHARE * density, max(least, ROUGH_LEAST))
    return np.asarray(roughness(scene.mean, where, mpp) > limit)


def _by_entropy(scene: Contrast, density: float, mpp: float) -> tuple[Mask, float]:
    """Where the signal takes many values within a disc.

    Slow changes are taken away first, and the steps are too coarse to see the noise of empty places: a third of the
    threshold on `density`, or more where the glass is rough.
    """
    from skimage.filters.rank import entropy
    from skimage.morphology import disk

    if scene.dark:
        step, signal, least = GLOW_STEP, np.maximum(scene.signal, LEAST_GLOW), LEAST_GLOW
    else:
        step = max(density / 3, STEP_ROUGHNESS * scene.roughness, LEAST_STEP)
        signal, least = scene.mean, _least_density(scene)
    levels = np.clip((signal - local_mean(signal, mpp)) / step + 128.5, 0, 255).astype(np.uint8)
    bits = entropy(levels, disk(max(2, round(DISC_UM / mpp)))).astype(np.float32)
    threshold = min(max(_otsu(bits), LEAST_ENTROPY), SURE_ENTROPY)
    # A disc that touches tissue with a part of it is varied already: the find is larger than the tissue all around.
    whole = closed(bits > threshold, 2 * DISC_UM / mpp)
    inner = shrunk(whole, 0.6 * DISC_UM / mpp)
    if not scene.dark:
        inner &= _rough(scene, np.ones_like(inner), 2 * scene.roughness, mpp) | (scene.signal > SURE_DENSITY)
    return inner & (smooth(scene.signal, DISC_UM, mpp) > least), threshold


def _otsu(values: Floats) -> float:
    from skimage.filters import threshold_otsu

    return float(threshold_otsu(values)) if values.max() > values.min() else float("inf")


def _ink(rgb: NDArray[np.uint8], scene: Contrast, mpp: float) -> Mask:
    """Strokes and blots: ink-coloured patches wider than a nucleus, with the soft borders that hang on them."""
    core = opened(ink_pixels(rgb), INK_LEAST_UM / mpp)
    core &= ~_stained(core, scene, mpp)
    if not core.any():
        return core
    near = grown(core, INK_FRINGE_UM / mpp)
    near[near] = ink_pixels(rgb[near], FRINGE_DENSITY)
    strokes = ndimage.binary_propagation(core, mask=core | near)
    # Mixed with glass or tissue in one pixel, ink loses its hue.
    return grown(strokes, INK_BORDER_UM / mpp + 0.5)


def _stained(ink: Mask, scene: Contrast, mpp: float) -> Mask:
    """The part of `ink` that is a stain after all: trichrome or alcian blue colours much of the tissue, and roughly."""
    coloured = ink & (scene.chroma > 0.3 * scene.signal)
    dense = scene.signal > SURE_DENSITY
    if not coloured.any() or np.count_nonzero(coloured) < STAIN_SHARE * np.count_nonzero(dense):
        return np.zeros_like(ink)
    # The soft borders of strokes are rough; only their inside is smooth.
    inner = shrunk(coloured, INK_BORDER_UM / mpp)
    inner = inner if inner.any() else coloured
    rough = roughness(scene.mean, inner, mpp)[inner] / np.maximum(scene.mean[inner], 1e-6)
    return coloured if np.median(rough) > STAIN_ROUGH_SHARE else np.zeros_like(ink)


def _peeled(found: Mask, ink: Mask, scene: Contrast, mpp: float) -> Mask:
    """Takes the blur of smoothing, closing and JPEG off the outline: pixels much paler than what they lie beside."""
    if scene.dark or not found.any():
        return found
    reach = max(1, round(PEEL_UM / mpp))
    beside = ndimage.maximum_filter(smooth(np.where(ink, 0, scene.signal), SMOOTH_UM, mpp), size=2 * reach + 1)
    border = ~shrunk(found | ink, PEEL_UM / mpp)
    return found & ~(border & (scene.signal < PEEL_SHARE * beside))


def _without_artefacts(found: Mask, scene: Contrast, mpp: float) -> Mask:
    """Leaves out patches that are flat (stickers, shadows, filling) or grey among coloured ones (dust, bubbles)."""
    labels, n = ndimage.label(found)
    if n == 0 or scene.dark:
        return found
    index = np.arange(1, n + 1)
    density = np.maximum(ndimage.mean(scene.signal, labels, index), 1e-6)
    flat = ndimage.mean(roughness(scene.mean, found, mpp), labels, index) < 0.25 * ROUGH_SHARE * density
    grey = ndimage.mean(scene.chroma, labels, index) < GREY_CHROMA * density
    sizes = np.bincount(labels.ravel(), minlength=n + 1)[1:]
    # On an unstained or greyscale slide everything is grey, and that says nothing.
    dropped = flat | (grey & (sizes[grey].sum() < 0.5 * sizes.sum()))
    return np.asarray(np.append(False, ~dropped)[labels])
