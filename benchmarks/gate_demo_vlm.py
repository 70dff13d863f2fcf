"""The accuracy gate of demo-vlm: measures the shipped weights and exits with 1 when a number is missed.

    python -m benchmarks.gate_demo_vlm [--weights FILE] [--quick]

Pictures come from seeds that training never uses. Leiden's resolution is fixed here, once for everything.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathassets.core.domains import spatial_domains
from pathassets.encoders import demo_words, load_encoder
from pathassets.recipes import DomainOptions
from pathassets.slides.synthetic import CLASSES, SyntheticTruth, synthetic_slide, synthetic_tiles

RESOLUTION = 0.2
SLIDE_SEEDS = (501, 502, 503, 504, 505, 506)
SLIDE_PX = 6720
TILE_PX = 224
PURE_TILES = 1000
SHIFTED_TILES = 500
SYNONYM_DRAWS = 20

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Number:
    """One measured number and the least it must be."""

    name: str
    value: float
    least: float | None = None

    @property
    def met(self) -> bool:
        """Whether it is large enough."""
        return self.least is None or self.value >= self.least


class Towers:
    """The network as plain functions on arrays."""

    def __init__(self, weights: Path | None = None, *, untrained: bool = False) -> None:
        self._encoder = load_encoder(
            "demo-vlm", weights=weights, random_weights=untrained, device="cpu", precision="fp32"
        )

    def images(self, tiles: NDArray[np.uint8]) -> Floats:
        """Embeddings of uint8 tiles, shape (n, 128)."""
        return self._encoder(tiles)

    def terms(self, terms: list[str]) -> Floats:
        """Embeddings of terms, averaged over the prompt templates, unit length."""
        texts = [template.format(term) for term in terms for template in self._encoder.templates]
        mean = self._encoder.embed_text(texts).reshape(len(terms), len(self._encoder.templates), -1).mean(axis=1)
        return unit(mean)


def unit(vectors: Floats) -> Floats:
    """Rows at length one."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def zero_shot(towers: Towers) -> list[Number]:
    """Zero-shot accuracy on pure tiles: plain, other stains, other resolutions, other words."""
    names = towers.terms(list(CLASSES))

    def accuracy(count: int, seed: int, **how: float) -> float:
        batch = synthetic_tiles(count, seed=seed, **how)
        return float(((unit(towers.images(batch.images)) @ names.T).argmax(1) == batch.labels).mean())

    plain = synthetic_tiles(PURE_TILES, seed=901)
    images = unit(towers.images(plain.images))
    return [
        Number("zero-shot, held-out pure tiles", float(((images @ names.T).argmax(1) == plain.labels).mean()), 0.97),
        Number("zero-shot, stain variation doubled", accuracy(PURE_TILES, 902, stain_jitter=2.0), 0.92),
        Number("zero-shot at 0.4 mpp", accuracy(SHIFTED_TILES, 903, mpp=0.4), 0.90),
        Number("zero-shot at 0.65 mpp", accuracy(SHIFTED_TILES, 904, mpp=0.65), 0.90),
        Number("zero-shot, trained synonyms", _synonyms(towers, images, plain.labels), 0.95),
    ]


def _synonyms(towers: Towers, images: Floats, labels: NDArray[np.int64]) -> float:
    """Mean accuracy when each class is called by one of its synonyms at random."""
    rng = np.random.default_rng(905)
    scores = []
    for _ in range(SYNONYM_DRAWS):
        terms = [str(rng.choice(demo_words.SYNONYMS[name][1:])) for name in CLASSES]
        scores.append(((images @ towers.terms(terms).T).argmax(1) == labels).mean())
    return float(np.mean(scores))


@dataclass(frozen=True)
class SlideTiles:
    """The tissue tiles of one slide, as a pipeline sees them: on a grid, pure or not."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def slide_tiles(seed: int, folder: Path) -> SlideTiles:
    """Writes a slide, reads its grid of tiles back with OpenSlide; truth is the majority class of a tile's tissue."""
    import openslide

    path = folder / f"{seed}.tiff"
    truth: SyntheticTruth = synthetic_slide(path, seed=seed, width_px=SLIDE_PX, height_px=SLIDE_PX)
    images, labels = [], []
    with openslide.OpenSlide(path) as slide:
        for y in range(0, SLIDE_PX - TILE_PX + 1, TILE_PX):
            for x in range(0, SLIDE_PX - TILE_PX + 1, TILE_PX):
                shares = truth.shares(x, y, TILE_PX, TILE_PX)
                if shares[0] < 0.5:
                    images.append(np.asarray(slide.read_region((x, y), 0, (TILE_PX, TILE_PX)).convert("RGB")))
                    labels.append(int(shares[1:].argmax()) + 1)
    return SlideTiles(np.stack(images), np.array(labels))


def leiden_ari(features: Floats, labels: NDArray[np.int64]) -> float:
    """Adjusted Rand index of the product's own domains (scale, PCA, neighbours, Leiden) against truth."""
    from scipy.sparse import csr_array
    from sklearn.metrics import adjusted_rand_score

    options = DomainOptions(variants=("leiden",), resolution=RESOLUTION, n_pcs=50, n_neighbors=15, seed=0)
    nobody = csr_array((len(features), len(features)), dtype=np.float32)
    found = spatial_domains(features, nobody, options, with_umap=False).variants["leiden"]
    return float(adjusted_rand_score(labels, found.labels))


def macro_auc(scores: Floats, labels: NDArray[np.int64]) -> float:
    """Mean over classes of the area under the curve of a term's cosine against "this tile's class"."""
    from sklearn.metrics import roc_auc_score

    present = [k for k in range(1, len(CLASSES)) if (labels == k).any()]
    return float(np.mean([roc_auc_score(labels == k, scores[:, k]) for k in present]))


def slides(towers: Towers, untrained: Towers) -> list[Number]:
    """Domains and text similarity on whole slides of different stains."""
    with tempfile.TemporaryDirectory() as folder:
        all_tiles = [slide_tiles(seed, Path(folder)) for seed in SLIDE_SEEDS]
    features = [towers.images(tiles.images) for tiles in all_tiles]
    labels = np.concatenate([tiles.labels for tiles in all_tiles])
    each = [leiden_ari(f, tiles.labels) for f, tiles in zip(features, all_tiles, strict=True)]
    pooled = leiden_ari(np.concatenate(features), labels)
    baseline = leiden_ari(np.concatenate([untrained.images(tiles.images) for tiles in all_tiles]), labels)
    terms = towers.terms(list(CLASSES))
    auc = [macro_auc(unit(f) @ terms.T, tiles.labels) for f, tiles in zip(features, all_tiles, strict=True)]
    return [
        Number(f"domains, ARI of slide {seed}", ari) for seed, ari in zip(SLIDE_SEEDS, each, strict=True)
    ] + [
        Number("domains, median ARI of six slides", float(np.median(each)), 0.80),
        Number("domains, ARI of all slides pooled", pooled),
        Number("domains, the same, untrained network", baseline),
        Number("domains, pooled: trained minus untrained", pooled - baseline, 0.10),
        Number("text similarity, mean of six macro AUCs", float(np.mean(auc)), 0.97),
        Number("text similarity, macro AUC of all tiles", macro_auc(unit(np.concatenate(features)) @ terms.T, labels), 0.97),
    ]  # fmt: skip


def main() -> int:
    """Prints the table; 0 when every number is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="other weights than those of the package")
    parser.add_argument("--quick", action="store_true", help="single tiles only, no slides")
    options = parser.parse_args()
    towers = Towers(options.weights)
    numbers = zero_shot(towers)
    if not options.quick:
        numbers += slides(towers, Towers(untrained=True))
    for number in numbers:
        wanted = "" if number.least is None else f">= {number.least:.2f}  {'met' if number.met else 'MISSED'}"
        print(f"{number.name:<44}{number.value:>8.3f}  {wanted}")
    return 0 if all(number.met for number in numbers) else 1


if __name__ == "__main__":
    sys.exit(main())
