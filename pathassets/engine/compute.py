"""Compute: batches of tiles through an encoder on one device, the next one copied while one is computed.

Belongs here: devices and their queues. Does not belong: where batches come from and where rows go.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

if TYPE_CHECKING:
    from pathassets.encoders.encoder import Encoder


@dataclass
class Pending:
    """A forward pass that has been asked for.

    Attributes:
        collect: Waits for it and gives the encoder's rows, float32 (n, width).
        seconds: By stage; complete after `collect`.
    """

    collect: Callable[[], np.ndarray]
    seconds: dict[str, float] = field(default_factory=dict)


class Device(Protocol):
    """Something that computes."""

    depth: int

    def submit(self, encoder: Encoder, tiles: np.ndarray) -> Pending:
        """Starts a forward pass on uint8 (n, h, w, 3); up to `depth` may be pending besides this one."""


class HostDevice:
    """A device that is asked and waited for: the CPU, one stream per core, or MPS."""

    depth = 0

    def submit(self, encoder: Encoder, tiles: np.ndarray) -> Pending:
        """See `Device`."""
        start = time.perf_counter()
        on_device = torch.from_numpy(tiles).to(encoder.device)
        copied = time.perf_counter()
        values = encoder.encode(on_device).cpu().numpy()
        seconds = {"transfer": copied - start, "forward": time.perf_counter() - copied}
        return Pending(lambda: values, seconds)


class CudaDevice:
    """A CUDA device with a second stream for copies, so that batch k+1 travels while batch k is computed."""

    depth = 1

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._copies = torch.cuda.Stream(self._device)

    def submit(self, encoder: Encoder, tiles: np.ndarray) -> Pending:
        """See `Device`; `tiles` must lie in pinned memory and stay untouched until `collect` returns."""
        with torch.cuda.device(self._device):
            compute = torch.cuda.current_stream()
            events = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
            with torch.cuda.stream(self._copies):
                events[0].record()
                on_device = torch.from_numpy(tiles).to(self._device, non_blocking=True)
                events[1].record()
            compute.wait_stream(self._copies)
            on_device.record_stream(compute)
            events[2].record()
            values = encoder.encode(on_device)
            on_host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            on_host.copy_(values, non_blocking=True)
            events[3].record()
        pending = Pending(lambda: np.empty(0))

        def collect() -> np.ndarray:
            events[3].synchronize()
            pending.seconds["transfer"] = events[0].elapsed_time(events[1]) / 1000
            pending.seconds["forward"] = events[2].elapsed_time(events[3]) / 1000
            return on_host.numpy()

        pending.collect = collect
        return pending


def device_for(name: str) -> Device:
    """What computes on an encoder's device."""
    return CudaDevice(name) if name.startswith("cuda") else HostDevice()


def free_cached(device: str) -> None:
    """Gives back what torch keeps for later, before a smaller batch is tried."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    elif device == "mps":
        torch.mps.empty_cache()
