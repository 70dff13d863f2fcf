"""How near the whole chain comes to the machine's own limit: `python -m benchmarks.speed.limits SLIDE WARM_UP NETWORK ROUNDS DEVICE`.

Belongs here: the limit (nothing but forward passes, bf16 weights, channels last), and the chain in turns with it in one process.
Does not belong: the peers.

A CPU's limit is the better of two ways to use it: one stream whose operators use all cores, and one stream per core. Limits
are measured before and after each run of the chain, because a machine that is shared has no fixed speed.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from benchmarks.speed.child import MARK
from benchmarks.speed.ours import run_steps, study_session
from pathassets.engine.pipeline import usable_cores

SECONDS = 5.0
CPU_BATCH, DEVICE_BATCH = 16, 64


def intra_op(network: torch.nn.Module) -> float:
    """Tiles per second of one stream whose operators use all cores."""
    return _rate(network, 1, usable_cores())


def streams(network: torch.nn.Module) -> float:
    """Tiles per second of one stream per core, each on one thread."""
    return _rate(network, usable_cores(), 1)


def _rate(network: torch.nn.Module, n_streams: int, n_threads: int) -> float:
    counts = [0] * n_streams
    start = time.perf_counter()

    def forward(number: int) -> None:
        torch.set_num_threads(n_threads)
        images = _images(CPU_BATCH, "cpu")
        with torch.inference_mode():
            while time.perf_counter() - start < SECONDS:
                network(images)
                counts[number] += CPU_BATCH

    threads = [threading.Thread(target=forward, args=(i,)) for i in range(n_streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def one_device(network: torch.nn.Module) -> float:
    """Tiles per second of a GPU on tensors that lie in its memory."""
    device = next(network.parameters()).device
    images, count = _images(DEVICE_BATCH, device), 0
    with torch.inference_mode():
        network(images)
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            for _ in range(8):
                network(images)
            torch.cuda.synchronize(device)
            count += 8 * DEVICE_BATCH
        return count / (time.perf_counter() - start)


def _images(n: int, device: torch.device | str) -> torch.Tensor:
    return torch.rand(n, 3, 224, 224, device=device).to(torch.bfloat16).to(memory_format=torch.channels_last)


def bare_network(name: str, device: str) -> torch.nn.Module:
    """The network as fast as it goes: bf16 weights, channels last."""
    import timm

    network = timm.create_model(name, pretrained=False, num_classes=0).eval().requires_grad_(False)
    return network.to(device=device, dtype=torch.bfloat16).to(memory_format=torch.channels_last)


def chain(slide: Path, encoder: str, device: str) -> float:
    """Tiles per second from the file to Zarr: opening, tissue, tiling, embeddings."""
    with tempfile.TemporaryDirectory() as home:
        session, slide_id = study_session(Path(home), slide, encoder, device)
        session.encoder(session.study.recipes[0])
        start = time.perf_counter()
        run_steps(session, slide_id, {"slide", "tissue", "tiles", "embeddings"})
        seconds = time.perf_counter() - start
        return len(session.tables.read("tiles", slide_id, "px224")) / seconds


def main(slide: Path, warm_up: Path, name: str, rounds: int, device: str) -> None:
    """Prints the median share of the limit, with what it is made of."""
    network, encoder = bare_network(name, device), f"timm/{name}"
    ways: tuple[Callable[[torch.nn.Module], float], ...] = (intra_op, streams) if device == "cpu" else (one_device,)
    chain(warm_up, encoder, device)  # imports and first calls are not the subject
    seen, before = [], [way(network) for way in ways]
    for _ in range(rounds):
        rate, after = chain(slide, encoder, device), [way(network) for way in ways]
        limit = max((a + b) / 2 for a, b in zip(before, after, strict=True))
        seen.append({"chain": rate, "limit": limit, "share": rate / limit})
        before = after
    print(MARK + json.dumps({key: median(one[key] for one in seen) for key in seen[0]}), flush=True)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5])
