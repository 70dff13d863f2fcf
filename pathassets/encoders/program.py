"""A program that was compiled or exported elsewhere, as a torch module.

Belongs here: living with what such programs cannot do. Does not belong: reading files (`exported`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, jit, nn


class Program(nn.Module):
    """Computes in the precision that it was exported in, whatever is asked of it.

    Args:
        program: TorchScript, or the module of an exported program.
    """

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program.eval() if isinstance(program, jit.ScriptModule) else program
        self.classifies = False

    def forward(self, images: Tensor) -> Tensor:
        """Normalised (n, 3, h, w) to (n, dim); where it `classifies`, to (n, dim + classes).

        Vectors and logits are a program's first and second result; logits alone are taken for both.
        """
        given = self.program(images.float().contiguous())
        results = (given, given) if isinstance(given, Tensor) else tuple(given)
        return torch.cat(results[:2], dim=1) if self.classifies else results[0]

    def train(self, mode: bool = True) -> Program:
        """An exported program has one mode, and says so with an exception."""
        self.training = mode
        return self

    def to(self, *args: Any, **kwargs: Any) -> Program:
        """Follows to a device; types and layouts of memory are part of the program."""
        if "device" in kwargs:
            self.program.to(device=kwargs["device"])
        return self
