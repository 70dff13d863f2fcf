"""Which devices an encoder runs on.

Belongs here: turning `auto`, `cuda:1` or `cuda:0,cuda:1` into devices that are there. Does not belong: precision, models.
"""

from __future__ import annotations

import re

from pathassets.errors import EncoderError, Reason

DEVICE_NAME = re.compile(r"auto|cpu|mps|cuda(:\d+|:all)?")


def resolve_devices(names: str = "auto") -> tuple[str, ...]:
    """The devices that `names` stands for, each `cpu`, `mps` or `cuda:<index>`: one name, or several joined by commas.

    `auto` takes the first of CUDA, MPS, CPU that this machine has, and of several CUDA devices the first; `cuda:all` is
    all of them. Any other name must be there, for a run that falls back to the CPU in silence takes days instead of
    minutes. `cpu` may be named more than once: its cores are then shared out.

    Raises:
        EncoderError: `device_missing` when a device is unknown, not there or named twice, or when they are of different
            kinds: these round differently, and a slide's numbers must not depend on who was free.
    """
    devices = [device for name in names.split(",") for device in _named(name.strip())]
    if len({kind_of(device) for device in devices}) > 1:
        raise _missing(f"{names!r} names devices of different kinds", "Use devices of one kind, or only one, say cpu.")
    twice = [device for device in devices if device != "cpu" and devices.count(device) > 1]
    if twice:
        raise _missing(f"{names!r} names {twice[0]} twice", "Name each device once; only cpu may stand there again.")
    return tuple(devices)


def kind_of(device: str) -> str:
    """`cpu`, `cuda` or `mps`."""
    return device.partition(":")[0]


def _named(name: str) -> list[str]:
    import torch

    if not DEVICE_NAME.fullmatch(name):
        raise _missing(
            f"{name!r} is no device", "Use auto, cpu, cuda, cuda:0, cuda:all or mps, or several: cuda:0,cuda:1."
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "mps" and not torch.backends.mps.is_available():
        raise _missing("this machine has no MPS device", 'Use device = "auto" or "cpu".')
    return _cuda(name) if name.startswith("cuda") else [name]


def _cuda(name: str) -> list[str]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    which = name.partition(":")[2] or "0"
    indices = list(range(count)) or [0] if which == "all" else [int(which)]
    if max(indices) >= count:
        there = f"CUDA devices 0 to {count - 1}" if count else "no CUDA device that torch can use"
        fix = "Use one of these" if count else 'Use device = "auto" or "cpu", or check `nvidia-smi` and torch\'s build'
        raise _missing(f"{name} is not there: this machine has {there}", f"{fix}.")
    return [f"cuda:{index}" for index in indices]


def _missing(message: str, remedy: str) -> EncoderError:
    return EncoderError(message, reason=Reason.DEVICE_MISSING, remedy=remedy)
