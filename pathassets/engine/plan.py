"""EmbedPlan: what a slide's numbers depend on besides its pixels and weights, and how a plan that fails becomes the next.

Belongs here: plans and the error that asks for another one. Does not belong: carrying them out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pathassets.encoders.device import kind_of
from pathassets.encoders.precision import Precision
from pathassets.errors import EncoderError, Reason
from pathassets.recipes import EmbeddingOptions

if TYPE_CHECKING:
    from pathassets.encoders.encoder import Encoder

# Beyond this a CPU's caches no longer hold a layer's activations: ResNet-50 takes 1.4 times longer per tile at 64.
CPU_MAX_BATCH = 16
# A shard of patch tokens is held whole until it is written, and some of them wait.
MAX_TOKEN_SHARD_BYTES = 64_000_000


@dataclass(frozen=True)
class EmbedPlan:
    """How a slide is embedded; a different plan may give numbers that differ in the last digits, hence another group.

    Attributes:
        precision: What the encoder computes in.
        dtype: Type on disk.
        batch_size: Tiles per forward pass.
        shard_rows: Tiles per shard; batches start anew in each, so that an interrupted run computes the same batches.
        device: `cpu`, `cuda` or `mps`: they do not round alike.
        compile: Compiled by torch, which rounds less often.
    """

    precision: Precision
    dtype: str
    batch_size: int
    shard_rows: int
    device: str
    compile: bool = False

    @classmethod
    def of(cls, options: EmbeddingOptions, encoder: Encoder) -> EmbedPlan:
        """The plan that the options ask for on the encoder's device."""
        device = kind_of(encoder.device)
        most = min(options.batch_size, options.shard_rows)
        batch_size = min(most, CPU_MAX_BATCH) if device == "cpu" else most
        return cls(
            precision=encoder.precision,
            dtype=options.dtype,
            batch_size=batch_size,
            shard_rows=_shard_rows(options.shard_rows, batch_size, 4 * encoder.layout.n_token_values),
            device=device,
            compile=options.compile,
        )

    def digest_parts(self) -> tuple[Any, ...]:
        """What enters the digest that names the slide's arrays."""
        eager = ("plan", self.precision, self.dtype, self.batch_size, self.shard_rows, self.device)
        return (*eager, "compiled") if self.compile else eager

    def batches(self, rows: slice) -> list[slice]:
        """The batches of one shard's rows; they depend on nothing but the slide and the plan."""
        return [
            slice(start, min(start + self.batch_size, rows.stop))
            for start in range(rows.start, rows.stop, self.batch_size)
        ]

    def with_less_memory(self) -> EmbedPlan | None:
        """Half the batch; None when a single tile does not fit."""
        return replace(self, batch_size=self.batch_size // 2) if self.batch_size > 1 else None

    def with_more_range(self) -> EmbedPlan | None:
        """fp32, for outputs that are not finite; None when they are not in fp32 either."""
        return replace(self, precision="fp32") if self.precision != "fp32" else None

    def with_wider_storage(self) -> EmbedPlan | None:
        """float32 on disk, for values that float16 cannot hold."""
        return replace(self, dtype="float32") if self.dtype == "float16" else None

    def uncompiled(self) -> EmbedPlan:
        """The network as it is, where torch cannot compile it."""
        return replace(self, compile=False)


def _shard_rows(wanted: int, batch_size: int, token_bytes: int) -> int:
    """Fewer tiles per shard, but whole batches, where their tokens would take much memory."""
    if wanted * token_bytes <= MAX_TOKEN_SHARD_BYTES:
        return wanted
    return min(wanted, max(1, MAX_TOKEN_SHARD_BYTES // (token_bytes * batch_size)) * batch_size)


class PlanError(EncoderError):
    """The plan does not hold for this slide; it starts anew under `next_plan`.

    Args:
        message: What happened.
        reason: `out_of_memory`, `non_finite`, or `encoder_failed` where torch cannot compile the network.
        next_plan: What to try.
    """

    def __init__(self, message: str, *, reason: Reason, next_plan: EmbedPlan) -> None:
        super().__init__(message, reason=reason, remedy="The slide is started anew under another plan.")
        self.next_plan = next_plan
