"""How much do embeddings know of real tissue? Leave-one-out nearest neighbours on 45 labelled tiles of nine classes.

    python benchmarks/labelled_tiles.py DATA      # DATA holds tiles/ and weights/

Prints accuracy for real ImageNet weights, demo-vlm, random weights and mean colour. A small set from one montage: it tells
whether features carry meaning, not how good they are for pathology.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from pathassets import load_encoder

PX = 224
RANDOM_NETWORKS = ("timm/mobilenetv2_100", "timm/resnet18", "timm/resnet50", "timm/vit_small_patch16_224")


def labelled_tiles(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (n, 224, 224, 3) and the class of each, from names such as `ADI_0.png`."""
    files = sorted(folder.glob("*.png"))
    images = [Image.open(file).convert("RGB").resize((PX, PX), Image.Resampling.BICUBIC) for file in files]
    return np.stack([np.asarray(image) for image in images]), np.array([file.stem.partition("_")[0] for file in files])


def accuracy(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Share of tiles whose nearest neighbour by cosine, after centring, is of their class."""
    centred = vectors - vectors.mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    return float((labels[cosine.argmax(axis=1)] == labels).mean())


def main(data: Path) -> None:
    logging.disable(logging.WARNING)
    tiles, labels = labelled_tiles(data / "tiles")
    half, weights = [0.5, 0.5, 0.5], data / "weights" / "mobilenetv2_100.tf_dequantised.safetensors"
    fp32 = {"device": "cpu", "precision": "fp32"}
    real = load_encoder("timm/mobilenetv2_100", weights=weights, pad_type="same", mean=half, std=half, **fp32)
    untrained = [load_encoder(name, random_weights=True, **fp32) for name in RANDOM_NETWORKS]
    print(f"{len(tiles)} tiles, {len(set(labels))} classes; chance {1 / len(set(labels)):.3f}")
    print(f"MobileNetV2, ImageNet weights  {accuracy(real(tiles), labels):.3f}")
    print(f"demo-vlm                       {accuracy(load_encoder('demo-vlm', **fp32)(tiles), labels):.3f}")
    print(
        f"random weights, {len(untrained)} networks     {np.mean([accuracy(e(tiles), labels) for e in untrained]):.3f}"
    )
    print(f"mean colour                    {accuracy(tiles.mean((1, 2)), labels):.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data"))
