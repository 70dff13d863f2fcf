"""Synthetic slides on disk: an OpenSlide-readable pyramid, drawn band by band, and its truth.

Belongs here: the file, its levels, the saved truth. Does not belong: what is drawn.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pathassets.slides.synthetic.artefacts import Artefacts, mask, place_artefacts
from pathassets.slides.synthetic.layout import slide_scene
from pathassets.slides.synthetic.noise import Floats, sample_linear
from pathassets.slides.synthetic.optics import HALO_PX, develop, exposure
from pathassets.slides.synthetic.scene import BACKGROUND, CELL_PX, CLASSES, Scene
from pathassets.slides.synthetic.stain import Stain, sample_stain
from pathassets.slides.synthetic.tissue import render
from pathassets.slides.synthetic.window import CENTRE

if TYPE_CHECKING:
    import tifffile

TILE_PX = 256
_BLOCK_PX = 512
_LEVEL_STEP = 4
_BLUR_UNITS = 3.2


@dataclass(frozen=True)
class SyntheticTruth:
    """What a synthetic slide shows, known because it was drawn.

    Attributes:
        labels: Class (index into `CLASSES`) of each cell, uint8, shape (rows, columns).
        downsample: Level-0 pixels per cell.
        tissue: Where the class is not background, bool.
        fold: Where the tissue lies double, bool.
        pen: Where there is ink, bool.
        blur: Where the slide is out of focus, bool.
        mpp: Resolution of level 0, µm per px.
    """

    labels: NDArray[np.uint8]
    downsample: int
    tissue: NDArray[np.bool_]
    fold: NDArray[np.bool_]
    pen: NDArray[np.bool_]
    blur: NDArray[np.bool_]
    mpp: float

    def save(self, path: str | Path) -> None:
        """Writes a compressed `.npz`, whole or not at all."""
        partial = Path(f"{path}.partial")
        arrays = {name: getattr(self, name) for name in self.__dataclass_fields__}
        with partial.open("wb") as file:
            np.savez_compressed(file, classes=np.array(CLASSES), **arrays)
        os.replace(partial, path)

    @staticmethod
    def load(path: str | Path) -> SyntheticTruth:
        """Reads what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            masks = {name: arrays[name] for name in ("labels", "tissue", "fold", "pen", "blur")}
            return SyntheticTruth(downsample=int(arrays["downsample"]), mpp=float(arrays["mpp"]), **masks)

    def shares(self, x: int, y: int, width: int, height: int) -> Floats:
        """Area share of each class in a level-0 rectangle, shape (10,); cells cut by the border count whole."""
        step = self.downsample
        cells = self.labels[y // step : -(-(y + height) // step), x // step : -(-(x + width) // step)]
        counts = np.bincount(cells.ravel(), minlength=len(CLASSES))
        return (counts / max(cells.size, 1)).astype(np.float32)


def synthetic_slide(
    path: str | Path,
    *,
    seed: int,
    width_px: int = 5000,
    height_px: int = 5000,
    mpp: float = 0.5,
    stain_jitter: float = 1.0,
    artefacts: tuple[str, ...] = (),
    jpeg_quality: int = 85,
    save_truth: bool = False,
) -> SyntheticTruth:
    """Draws a whole slide of procedural H&E and writes it as a tiled pyramidal JPEG TIFF that OpenSlide reads.

    Args:
        path: File to write; its folder must exist. It appears whole or not at all.
        seed: The same seed, sizes and options give the same pixels.
        width_px: Width of level 0.
        height_px: Height of level 0.
        mpp: Resolution of level 0, µm per px; cells are drawn at their true size.
        stain_jitter: Spread of the stain: 0 the mean stain, 1 ordinary laboratories, 2 twice that.
        artefacts: Any of "blur", "folds", "pen", "jpeg".
        jpeg_quality: 1-100; the artefact "jpeg" lowers it to 25 at most.
        save_truth: Also write the truth beside the slide, as `<name>.truth.npz`.

    Returns:
        The truth.
    """
    scene = slide_scene(width_px, height_px, seed=seed, mpp=mpp)
    stain = sample_stain(np.random.default_rng([seed, 2]), stain_jitter)
    flaws = place_artefacts(scene, tuple(artefacts))
    picture = _Picture(scene, stain, flaws, width_px, height_px)
    _write(Path(path), picture, mpp, min(jpeg_quality, 25) if "jpeg" in artefacts else jpeg_quality)
    tissue = scene.labels != BACKGROUND
    truth = SyntheticTruth(scene.labels, CELL_PX, tissue, mask(flaws.fold), mask(flaws.pen), mask(flaws.blur), mpp)
    if save_truth:
        truth.save(Path(path).with_suffix(".truth.npz"))
    return truth


@dataclass(frozen=True)
class _Picture:
    scene: Scene
    stain: Stain
    flaws: Artefacts
    width: int
    height: int

    def bands(self) -> Iterator[NDArray[np.uint8]]:
        """Level 0 from top to bottom, each band `_BLOCK_PX` rows high and whole blocks wide."""
        for y in range(0, self.height, _BLOCK_PX):
            yield np.concatenate([self.block(y, x) for x in range(0, self.width, _BLOCK_PX)], axis=1)

    def block(self, y: int, x: int) -> NDArray[np.uint8]:
        """One block of pixels; white beyond the slide."""
        window = (y - HALO_PX, x - HALO_PX, _BLOCK_PX + 2 * HALO_PX, _BLOCK_PX + 2 * HALO_PX)
        light = self._light(window)[HALO_PX:-HALO_PX, HALO_PX:-HALO_PX]
        inner = (y, x, _BLOCK_PX, _BLOCK_PX)
        if _cells(self.flaws.pen, inner).any():
            ink = np.float32(0.85) * sample_linear(self.flaws.pen, inner, CELL_PX, CENTRE)[..., None]
            light = light * (1 - ink * (1 - self.flaws.ink))
        return develop(light, self.stain, y, x)

    def _light(self, window: tuple[int, int, int, int]) -> Floats:
        amounts = render(self.scene, window)
        if _cells(self.flaws.fold, window).any():
            fold = sample_linear(self.flaws.fold, window, CELL_PX, CENTRE)
            # A second layer, shifted: the tissue that was folded over is not the tissue below it.
            amounts += fold * (0.35 * np.roll(amounts, (0, 11), (1, 2)) + 0.45 * amounts)
        sigma = self.stain.blur_px * self.scene.scale
        sharp = exposure(amounts, self.stain, sigma)
        if not _cells(self.flaws.blur, window).any():
            return sharp
        share = sample_linear(self.flaws.blur, window, CELL_PX, CENTRE)[..., None]
        return sharp + (exposure(amounts, self.stain, _BLUR_UNITS * self.scene.scale) - sharp) * share


def _cells(coarse: Floats, window: tuple[int, int, int, int]) -> Floats:
    """The coarse cells that a window's bilinear samples come from."""
    y, x, height, width = window
    rows = slice(max(y // CELL_PX - 1, 0), (y + height) // CELL_PX + 2)
    return coarse[rows, max(x // CELL_PX - 1, 0) : (x + width) // CELL_PX + 2]


class _Levels:
    """Splits bands into tiles of level 0 and gathers the smaller levels on the way."""

    def __init__(self, picture: _Picture) -> None:
        self._picture = picture
        self._small: list[NDArray[np.uint8]] = []

    def tiles(self) -> Iterator[NDArray[np.uint8]]:
        """Level 0 in TIFF order."""
        rows, columns = -(-self._picture.height // TILE_PX), -(-self._picture.width // TILE_PX)
        row = 0
        for band in self._picture.bands():
            self._small.append(_shrink(band, _LEVEL_STEP))
            for top in range(0, _BLOCK_PX, TILE_PX):
                if row < rows:
                    for k in range(columns):
                        yield np.ascontiguousarray(band[top : top + TILE_PX, k * TILE_PX : (k + 1) * TILE_PX])
                row += 1

    def smaller(self) -> Iterator[NDArray[np.uint8]]:
        """The further levels, after `tiles` is used up: at least two, down to about one tile."""
        level = np.concatenate(self._small)
        width, height = self._picture.width, self._picture.height
        count = 0
        while count < 2 or max(width, height) > 4 * TILE_PX:
            width, height = max(width // _LEVEL_STEP, 1), max(height // _LEVEL_STEP, 1)
            yield np.ascontiguousarray(level[:height, :width])
            level = _shrink(level, _LEVEL_STEP)
            count += 1


def _shrink(image: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Box average; rows and columns that do not fill a box are padded by their last."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % step), (0, -width % step), (0, 0)), mode="edge")
    boxes = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step, 3)
    return ((boxes.sum(axis=(1, 3), dtype=np.uint32) + step * step // 2) // (step * step)).astype(np.uint8)


def _write(path: Path, picture: _Picture, mpp: float, quality: int) -> None:
    import tifffile

    partial = path.with_name(path.name + ".partial")
    levels = _Levels(picture)
    try:
        with tifffile.TiffWriter(partial, bigtiff=False) as tiff:
            _write_level(tiff, levels.tiles(), (picture.height, picture.width), mpp, quality, first=True)
            for small in levels.smaller():
                actual = mpp * picture.width / small.shape[1]
                _write_level(tiff, small, small.shape[:2], actual, quality, first=False)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write_level(
    tiff: tifffile.TiffWriter,
    data: NDArray[np.uint8] | Iterator[NDArray[np.uint8]],
    shape: tuple[int, ...],
    mpp: float,
    quality: int,
    *,
    first: bool,
) -> None:
    tiff.write(
        data,
        shape=(shape[0], shape[1], 3),
        dtype=np.uint8,
        tile=(TILE_PX, TILE_PX),
        photometric="rgb",
        subsampling=(2, 2),
        compression="jpeg",
        compressionargs={"level": quality},
        resolution=(1e4 / mpp, 1e4 / mpp),
        resolutionunit="CENTIMETER",
        subfiletype=0 if first else 1,
        description="Synthetic H&E, drawn by pathassets" if first else None,
        metadata=None,
        software=False,
        maxworkers=1,
    )
