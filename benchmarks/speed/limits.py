"""How near the whole chain comes to the machine's own limit: `python -m benchmarks.speed.limits SLIDE WARM_UP NETWORK ROUNDS`.

Belongs here: the limit (nothing but forward passes, bf16 weights, channels last), and the chain in turns with it in one process.
Does not belong: the peers.

The limit is the better of two ways to use a CPU: one stream whose operators use all cores, and one stream per core. Both
are measured before and after each run of the chain, because a machine that is shared has no fixed speed.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import torch

from benchmarks.speed.child import MARK
from benchmarks.speed.ours import run_steps, study_session
from pathassets.engine.pipeline import usable_cores

BATCH, SECONDS = 16, 5.0


def intra_op(network: torch.nn.Module, cores: int) -> float:
    """Tiles per second of one stream whose operators use all cores."""
    torch.set_num_threads(cores)
    return _rate(network, 1)


def streams(network: torch.nn.Module, cores: int) -> float:
    """Tiles per second of one stream per core, each on one thread."""
    torch.set_num_threads(1)
    return _rate(network, cores)


def _rate(network: torch.nn.Module, n_streams: int) -> float:
    counts = [0] * n_streams
    start = time.perf_counter()

    def forward(number: int, threads: int) -> None:
        torch.set_num_threads(threads)
        images = torch.rand(BATCH, 3, 224, 224).to(torch.bfloat16).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            while time.perf_counter() - start < SECONDS:
                network(images)
                counts[number] += BATCH

    threads = [threading.Thread(target=forward, args=(i, torch.get_num_threads())) for i in range(n_streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def bare_network(name: str) -> torch.nn.Module:
    """The network as fast as it goes: bf16 weights, channels last."""
    import timm

    network = timm.create_model(name, pretrained=False, num_classes=0).eval().requires_grad_(False)
    return network.to(torch.bfloat16).to(memory_format=torch.channels_last)


def chain(slide: Path, encoder: str) -> float:
    """Tiles per second from the file to Zarr: opening, tissue, tiling, embeddings."""
    with tempfile.TemporaryDirectory() as home:
        session, slide_id = study_session(Path(home), slide, encoder)
        session.encoder(session.study.recipes[0])
        start = time.perf_counter()
        run_steps(session, slide_id, {"slide", "tissue", "tiles", "embeddings"})
        seconds = time.perf_counter() - start
        return len(session.tables.read("tiles", slide_id, "px224")) / seconds


def main(slide: Path, warm_up: Path, name: str, rounds: int) -> None:
    """Prints the median share of the limit, with what it is made of."""
    cores, network = usable_cores(), bare_network(name)

    def limits() -> tuple[float, float]:
        return intra_op(network, cores), streams(network, cores)

    chain(warm_up, f"timm/{name}")  # imports and first calls are not the subject
    seen, before = [], limits()
    for _ in range(rounds):
        rate, after = chain(slide, f"timm/{name}"), limits()
        intra, stream = ((a + b) / 2 for a, b in zip(before, after, strict=True))
        seen.append({"chain": rate, "intra_op": intra, "streams": stream, "share": rate / max(intra, stream)})
        before = after
    print(MARK + json.dumps({key: median(round_[key] for round_ in seen) for key in seen[0]}), flush=True)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
