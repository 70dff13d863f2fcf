"""Which device an encoder runs on.

Belongs here: turning `auto|cuda|cuda:1|mps|cpu` into a device that is there. Does not belong: precision, models.
"""

from __future__ import annotations

import re

from pathassets.errors import EncoderError, Reason

DEVICE_NAME = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def resolve_device(name: str = "auto") -> str:
    """The device that `name` stands for: `cpu`, `mps` or `cuda:<index>`.

    `auto` takes the first of CUDA, MPS, CPU that this machine has; any other name must be there, for a run that falls
    back to the CPU in silence takes days instead of minutes.

    Raises:
        EncoderError: `device_missing` when the device is unknown or not there.
    """
    import torch

    if not DEVICE_NAME.fullmatch(name):
        raise _missing(f"{name!r} is no device", "Use auto, cpu, cuda, cuda:0 or mps.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "mps" and not torch.backends.mps.is_available():
        raise _missing("this machine has no MPS device", 'Use device = "auto" or "cpu".')
    return _cuda(name) if name.startswith("cuda") else name


def _cuda(name: str) -> str:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(name.partition(":")[2] or 0)
    if index >= count:
        there = f"CUDA devices 0 to {count - 1}" if count else "no CUDA device that torch can use"
        fix = "Use one of these" if count else 'Use device = "auto" or "cpu", or check `nvidia-smi` and torch\'s build'
        raise _missing(f"{name} is not there: this machine has {there}", f"{fix}.")
    return f"cuda:{index}"


def _missing(message: str, remedy: str) -> EncoderError:
    return EncoderError(message, reason=Reason.DEVICE_MISSING, remedy=remedy)
