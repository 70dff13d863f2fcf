"""Networks: the copies of one network that run: one for each device and precision, and compiled ones.

Belongs here: placing and compiling, each once, whoever asks. Does not belong: cards, preprocessing, finding weights.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pathassets.encoders.precision import Precision, torch_dtype
from pathassets.errors import EncoderError, Reason

log = logging.getLogger(__name__)

Forward = Callable[[Tensor], Tensor]


class CompileError(EncoderError):
    """torch cannot compile the network here; it runs as it is all the same."""


class Networks:
    """The copies of one network, each made when it is first asked for.

    Args:
        master: The network in fp32 on the CPU; it is kept, for the text tower and for further copies.
    """

    def __init__(self, master: nn.Module) -> None:
        self.master = master.eval().requires_grad_(False)
        self._copies: dict[tuple[str, Precision], nn.Module] = {}
        self._compiled: dict[tuple[str, Precision, int], Compiled] = {}
        self._lock = threading.Lock()

    def forward(self, device: str, precision: Precision, compiled_for: int | None) -> Forward:
        """What turns normalised (n, 3, h, w) into (n, dim) there; compiled for batches of so many tiles, or as it is.

        Raises:
            EncoderError: `out_of_memory` when the weights do not fit on the device.
        """
        with self._lock:
            if (device, precision) not in self._copies:
                self._copies[device, precision] = self._placed(device, precision)
            network = self._copies[device, precision]
            if compiled_for is None:
                return lambda inputs: encode_image(network, inputs)
            if (device, precision, compiled_for) not in self._compiled:
                self._compiled[device, precision, compiled_for] = Compiled(network, compiled_for)
            return self._compiled[device, precision, compiled_for]

    def forget(self, device: str, precision: Precision) -> None:
        """Lets go of a copy that takes more memory than there is."""
        with self._lock:
            self._copies.pop((device, precision), None)

    def _placed(self, device: str, precision: Precision) -> nn.Module:
        """The CPU's fp32 network is the master itself."""
        if device == "cpu" and precision == "fp32":
            return self.master.to(memory_format=torch.channels_last)
        if device.startswith("cuda") and precision == "fp32":
            torch.backends.cudnn.allow_tf32 = False  # torch's default rounds fp32 convolutions to 10 bits
        try:
            network = copy.deepcopy(self.master).to(device=device, dtype=torch_dtype(precision))
        except torch.OutOfMemoryError as error:
            raise EncoderError(
                f"the network does not fit in the memory of {device}",
                reason=Reason.OUT_OF_MEMORY,
                remedy="Use a device with more free memory, or a smaller encoder.",
            ) from error
        # Channels last halves the time of bf16 convolutions and changes nothing for transformers.
        return network.to(memory_format=torch.channels_last)


class Compiled:
    """A network compiled at its first call, for batches of one size; whoever comes meanwhile waits.

    Smaller batches are filled up: there is one program then, and a tile's numbers cannot depend on which of several
    was compiled first.
    """

    def __init__(self, network: nn.Module, batch: int) -> None:
        self._batch = batch
        self._run = _compiled(network)
        self._lock = threading.Lock()
        self._ready = False
        self._problem: str | None = None

    def __call__(self, inputs: Tensor) -> Tensor:
        """Normalised (n, 3, h, w), n at most the batch size, to (n, dim).

        Raises:
            CompileError: There is no compiler, or torch does not understand the network.
        """
        filled = inputs.new_zeros(self._batch, *inputs.shape[1:]).contiguous(memory_format=torch.channels_last)
        filled[: len(inputs)] = inputs
        if not self._ready:
            self._compile(filled)
        return self._run(filled)[: len(inputs)]

    def _compile(self, inputs: Tensor) -> None:
        """The first call compiles; a failure is remembered, for finding it out takes long."""
        with self._lock:
            if self._problem is None and not self._ready:
                try:
                    self._run(inputs)
                    self._ready = True
                except Exception as error:
                    if is_out_of_memory(error):
                        raise
                    log.warning("torch.compile failed; the encoder runs without it", exc_info=error)
                    self._problem = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            if self._problem is not None:
                raise CompileError(
                    f"torch cannot compile the network here ({self._problem})",
                    reason=Reason.ENCODER_FAILED,
                    remedy="Set compile = false in [embeddings]; a C++ compiler is needed on the CPU.",
                )


def _compiled(network: nn.Module) -> Forward:
    """The whole network or nothing: a program in pieces, or one that torch drops after some recompilations, would mix numbers."""

    def run(inputs: Tensor) -> Tensor:
        return encode_image(network, inputs)

    # torch counts compilations by code object, and gives up after eight: each copy of a network has its own count.
    run.__code__ = run.__code__.replace()
    return torch.compile(run, fullgraph=True, dynamic=False)


def encode_image(network: nn.Module, inputs: Tensor) -> Tensor:
    """Normalised (n, 3, h, w) to (n, dim): a network's `encode_image` where it has one, else the network itself."""
    encode = getattr(network, "encode_image", network)
    return encode(inputs)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had no memory left; torch says so in three ways, this package in one."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or _reason(error) is Reason.OUT_OF_MEMORY:
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def _reason(error: BaseException) -> Reason | None:
    return error.reason if isinstance(error, EncoderError) else None
