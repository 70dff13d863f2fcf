"""An encoder that is sound in fp32; in bf16 it loses everything of dark tiles: they are computed by way of large numbers."""

from __future__ import annotations

import torch
from torch import nn

from pathassets.encoders.card import EncoderCard

LARGE = 4096.0  # bf16 counts in steps of 32 there


class Fragile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        colours = images.mean((2, 3)) * self.weight
        away = torch.where(colours.mean(1, keepdim=True) < 0.5, LARGE, 0.0).to(colours.dtype)
        return (colours + away) - away + torch.tensor([1e-3, 0, 0], dtype=colours.dtype)


def card() -> EncoderCard:
    return EncoderCard(name="fragile", dim=3, input_px=64, description="For tests.", mean=(0, 0, 0), std=(1, 1, 1))


def build() -> nn.Module:
    return Fragile()
