"""What a slide of 100,000 tiles takes in each slide encoder: seconds, memory, beside the machine's own matrix products.

    python -m benchmarks.slide_encoders [TILES ...]      # default: 1,000 10,000 100,000

Embeddings are noise on a square grid and weights are random: neither changes the work. The limit is the floating-point
operations of the network's linear layers at the rate of one large fp32 matrix product, taken just before; attention comes on top.
Memory is the peak of a process of its own above what it held with the network loaded and the embeddings made.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import resource
import sys
import time

import numpy as np
import torch
from torch import nn

from pathassets.encoders.slide import get_slide_card, load_slide_encoder

ENCODERS = ("gigapath-slide", "gigapath-flash-slide", "chief", "madeleine")
SIDE = 4096  # of the matrix product: as large as keeps all cores at work


def flops_per_second() -> float:
    """Of an fp32 matrix product on all cores; the best of five."""
    a, b, seconds = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE), []
    for _ in range(5):
        begun = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - begun)
    return 2 * SIDE**3 / min(seconds)


def measure(name: str, tiles: int) -> dict[str, float]:
    """One vector of one slide: seconds, peak GB, share of the limit."""
    logging.disable(logging.WARNING)
    encoder = load_slide_encoder(name, random_weights=True, device="cpu")
    dim = get_slide_card(name).dim_in
    side = int(np.ceil(np.sqrt(tiles)))
    cells = np.stack([np.arange(tiles) % side, np.arange(tiles) // side], axis=1)
    features = np.random.default_rng(0).standard_normal((tiles, dim), dtype=np.float32)
    network: nn.Module = encoder._network
    weights = sum(layer.weight.numel() for layer in network.modules() if isinstance(layer, nn.Linear))
    limit = 2 * weights * tiles / flops_per_second()
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    vector = encoder(features, cells * 256, 256.0)
    seconds = time.perf_counter() - begun
    if not np.isfinite(vector).all():
        sys.exit(f"{name}: not all numbers are finite")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held
    return {"seconds": seconds, "gb": peak / 2**20, "input_gb": features.nbytes / 2**30, "of_limit": limit / seconds}


def main(counts: list[int]) -> None:
    """Each encoder and number of tiles in a process of its own, so that one's peak is not another's."""
    for name in ENCODERS:
        for tiles in counts:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                seen = pool.apply(measure, (name, tiles))
            print(
                json.dumps({"encoder": name, "tiles": tiles, **{k: round(v, 3) for k, v in seen.items()}}), flush=True
            )


if __name__ == "__main__":
    main([int(text.replace(",", "")) for text in sys.argv[1:]] or [1_000, 10_000, 100_000])
