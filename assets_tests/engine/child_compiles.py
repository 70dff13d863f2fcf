"""A process that embeds three fake slides, two of them compiled, and tells how it went, as JSON."""

from __future__ import annotations

import json

import numpy as np
import torch
from support.streams import SIZE, FakeSlide, Memory, grid, plan_of
from torch import nn

from pathassets.encoders.card import EncoderCard
from pathassets.encoders.encoder import Encoder
from pathassets.engine import Job, Settings, embed_slides

N = 37


class Small(nn.Module):
    """A layer of each kind that is fused when compiled."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 4, stride=4), nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, images):
        return self.head(nn.functional.gelu(self.norm(self.conv(images))).mean((2, 3)))


def main() -> None:
    card = EncoderCard(name="small", dim=5, input_px=32, description="")
    devices = ("cpu", "cpu")
    encoder = Encoder(card, Small(), device="cpu", precision="fp32", weights_sha256="random-small", devices=devices)
    ended, writers = {}, {}

    def job(k, compiled):
        def open_writer(plan):
            writers[k] = Memory(N, 5, plan.shard_rows)
            return writers[k]

        return Job(str(k), FakeSlide(), grid(N), SIZE, encoder, plan_of(compile=compiled), open_writer)

    jobs = [job(k, compiled) for k, compiled in enumerate((True, True, False))]
    embed_slides(jobs, lambda f: ended.update({int(f.job.name): f}), settings=Settings(workers=2, streams=2))
    values = [writers[k].values for k in range(3)]
    told = {
        "compiled": [ended[k].result.plan.compile for k in range(3)],
        "programs": torch._dynamo.utils.counters["stats"].get("unique_graphs", 0) if any_compiled(ended) else 0,
        "equal": bool(np.array_equal(values[0], values[1])),
        "largest_difference": float(np.abs(values[0] - values[2]).max()),
        "cosine": ended[0].result.agreement.cosine,
    }
    print(json.dumps(told))


def any_compiled(ended) -> bool:
    return any(f.result.plan.compile for f in ended.values())


if __name__ == "__main__":
    main()
