"""Networks of the zoo: a trunk of timm, its tokens pooled as the entry says, perhaps a head.

Belongs here: putting trunk, pooling and head together. Does not belong: facts about single encoders (`zoo.toml`), layouts of
checkpoints (`keymaps`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from timm.layers.helpers import to_2tuple
from timm.layers.mlp import SwiGLUPacked
from torch import Tensor, nn
from torch.nn import functional

from pathassets.encoders.pooling import AttentionPool
from pathassets.encoders.timm_models import create

POOL_HEADS = 8


class TileNetwork(nn.Module):
    """Trunk, pooling, head.

    Args:
        trunk: A timm model without a classifier.
        pool: `cls`, `mean`, `cls+mean`: of the normalised tokens; `attention`: `AttentionPool` over them; else the trunk's own pooling.
        attention: The pooling layer of `attention`.
        head: What follows.
        unit: Scale vectors to length one.
        twice: Look at the picture's quarters at twice the size too; their mean vector comes second.
    """

    def __init__(
        self,
        trunk: nn.Module,
        pool: str,
        *,
        attention: nn.Module | None = None,
        head: nn.Module | None = None,
        unit: bool = False,
        twice: bool = False,
    ) -> None:
        super().__init__()
        self.trunk, self.how, self.unit, self.twice = trunk, pool, unit, twice
        self.pool = attention if attention is not None else nn.Identity()
        self.head = head if head is not None else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Normalised (n, 3, h, w) to (n, dim)."""
        closer = self._quarters(images) if self.twice else []
        vectors = self.head(torch.cat([self._pooled(images), *closer], dim=1) if closer else self._pooled(images))
        return functional.normalize(vectors.float(), dim=1).to(vectors.dtype) if self.unit else vectors

    def _quarters(self, images: Tensor) -> list[Tensor]:
        """S2's second scale (Shi 2024, arXiv:2403.13043), as MUSK's authors use it for all but zero-shot tasks."""
        edge = images.shape[-1]
        large = functional.interpolate(images.float(), size=2 * edge, mode="bicubic").to(images.dtype)
        quarters = [part for rows in large.split(edge, dim=2) for part in rows.split(edge, dim=3)]
        return [torch.stack([self._pooled(quarter) for quarter in quarters]).mean(dim=0)]

    def _pooled(self, images: Tensor) -> Tensor:
        if self.how in ("avg", "map", "layer3"):
            return self.trunk(images)
        tokens = self.trunk.forward_features(images)  # type: ignore[operator]
        if self.how == "attention":
            return self.pool(tokens)
        parts = [tokens[:, 0]] if "cls" in self.how else []
        if "mean" in self.how:
            parts.append(tokens[:, self.trunk.num_prefix_tokens :].mean(dim=1))
        return torch.cat(parts, dim=1)


def build(entry: Mapping[str, Any], overrides: Mapping[str, Any]) -> nn.Module:
    """The network of an entry of `zoo.toml` with untrained weights.

    Args:
        entry: Its lines.
        overrides: Arguments of timm's model that win over the entry's.

    Raises:
        EncoderError: `encoder_failed` when timm refuses the arguments.
    """
    arguments = {**entry.get("kwargs", {}), **_layers(entry), **overrides}
    trunk = create(entry["arch"], arguments, overrides)
    if entry["pool"] == "layer3":
        trunk.layer4 = nn.Identity()
    width, attention = int(getattr(trunk, "num_features")), None  # noqa: B009 (torch types attributes as modules)
    if entry["pool"] == "attention":
        bias = not entry.get("plain", False)
        attention = AttentionPool(entry["dim"], width, queries=entry["queries"], heads=POOL_HEADS, bias=bias)
        width = entry["dim"]
    width *= 2 if entry.get("twice") else 1
    head = _head(width, entry.get("head", []), bias=len(entry.get("head", [])) > 1)
    asked = {name: bool(entry.get(name)) for name in ("unit", "twice")}
    return TileNetwork(trunk, entry["pool"], attention=attention, head=head, **asked).eval()


def _layers(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that are classes, which a table cannot hold."""
    found: dict[str, Any] = {}
    if entry.get("swiglu"):
        found |= {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    if "eps" in entry:
        found["norm_layer"] = partial(nn.LayerNorm, eps=entry["eps"])
    if entry.get("build") == "ctranspath":
        found["embed_layer"] = ConvStem
    return found


def _head(width: int, widths: Sequence[int], *, bias: bool) -> nn.Module | None:
    if not widths:
        return None
    layers: list[nn.Module] = []
    for out in widths:
        layers += [nn.Linear(width, out, bias=bias), nn.GELU()]
        width = out
    return nn.Sequential(*layers[:-1])


class ConvStem(nn.Module):
    """CTransPath's patch embedding: two strided 3x3 convolutions and a pointwise one instead of one 4x4 (Wang 2022).

    Args:
        img_size: Edge of the picture in pixels.
        patch_size: 4.
        in_chans: Channels of the picture.
        embed_dim: Channels that come out; the convolutions have an eighth and a quarter of them.
        norm_layer: Applied over channels at the end.
        **_: What timm's Swin passes to any patch embedding.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        norm_layer: Any = nn.LayerNorm,
        **_: Any,
    ) -> None:
        super().__init__()
        if patch_size != 4:
            raise ValueError("the convolutional stem makes patches of 4 px")
        height, width = to_2tuple(img_size)
        self.grid_size = (height // patch_size, width // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        layers: list[nn.Module] = []
        for width, out in ((in_chans, embed_dim // 8), (embed_dim // 8, embed_dim // 4)):
            layers += [nn.Conv2d(width, out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        self.proj = nn.Sequential(*layers, nn.Conv2d(embed_dim // 4, embed_dim, 1))
        self.norm = norm_layer(embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) to (n, h/4, w/4, embed_dim)."""
        return self.norm(self.proj(images).permute(0, 2, 3, 1))
