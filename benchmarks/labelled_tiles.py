"""Do embeddings carry meaning? Nearest-neighbour accuracy on 45 labelled H&E tiles (NCT-CRC-HE, 9 classes x 5).

    python benchmarks/labelled_tiles.py [DATA]

DATA is a folder with `tiles/CLASS_i.png` and `weights/mobilenetv2_100...` (default: ../shared/data). Leave-one-out,
5 nearest neighbours by cosine, ties to the nearer class; chance is 0.111. A small set: it shows that features mean
something, not how good they are.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from pathassets import load_encoder

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MOBILENET = "mobilenetv2_100.tf_dequantised.safetensors"
NEIGHBOURS = 5


def load_tiles(folder: Path) -> tuple[np.ndarray, list[str]]:
    """Tiles (n, 224, 224, 3) and their classes."""
    paths = sorted(folder.glob("*.png"))
    tiles = [np.asarray(Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)) for path in paths]
    return np.stack(tiles), [path.stem.split("_")[0] for path in paths]


def accuracy(vectors: np.ndarray, labels: list[str]) -> float:
    """Leave-one-out accuracy of the nearest neighbours' vote."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    distance = 1 - unit @ unit.T
    np.fill_diagonal(distance, np.inf)
    right = 0
    for row, label in zip(distance, labels, strict=True):
        votes: dict[str, list[float]] = defaultdict(list)
        for index in np.argsort(row)[:NEIGHBOURS]:
            votes[labels[index]].append(row[index])
        right += min(votes, key=lambda name: (-len(votes[name]), np.mean(votes[name]))) == label
    return right / len(labels)


def main() -> None:
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA
    if not data.is_dir():
        sys.exit(f"no data in {data}")
    tiles, labels = load_tiles(data / "tiles")
    real = {"weights": data / "weights" / MOBILENET, "pad_type": "same", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    rows = {
        "mobilenetv2_100, ImageNet weights from a local file": load_encoder(
            "timm/mobilenetv2_100", device="cpu", **real
        )(tiles),
        "mobilenetv2_100, random weights": load_encoder("timm/mobilenetv2_100", random_weights=True, device="cpu")(
            tiles
        ),
        "demo-vlm": load_encoder("demo-vlm", device="cpu")(tiles),
        "mean colour": tiles.reshape(len(tiles), -1, 3).mean(axis=1),
    }
    print(f"{len(labels)} tiles, {len(set(labels))} classes; chance {1 / len(set(labels)):.3f}")
    for name, vectors in rows.items():
        print(f"{name:55} {accuracy(vectors, labels):.3f}")


if __name__ == "__main__":
    main()
