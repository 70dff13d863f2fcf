"""torchvision's classifiers as encoders: ImageNet weights, classifier stripped, global average pooling.

Belongs here: what is special about torchvision, and the names under which other frameworks have the same networks
(`resnet50_imagenet`; TIAToolbox's are the bare `resnet50`). Does not belong: timm, whose networks of the same names are
`timm/resnet50`; pathology.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathassets.encoders.card import EncoderCard
from pathassets.encoders.registry import Classifier, EncoderSpec
from pathassets.errors import EncoderError, Reason

if TYPE_CHECKING:
    import torch

SUFFIX, PREFIX = "_imagenet", "torchvision/"
FAMILIES = (
    "alexnet", "densenet", "googlenet", "inception", "mnasnet", "mobilenet", "resnet", "resnext", "shufflenet",
    "squeezenet", "vgg", "wide_resnet",
)  # fmt: skip
# A family without a size means its usual member.
SHORT = {
    "densenet": "densenet121", "inception": "inception_v3", "shufflenet": "shufflenet_v2_x1_0", "squeezenet": "squeezenet1_1",
    "mnasnet": "mnasnet1_0", "vgg": "vgg16", "mobilenet_v3": "mobilenet_v3_large",
}  # fmt: skip
# Networks that torchvision does not have, and timm does.
IN_TIMM = {"xception": "timm/legacy_xception.tf_in1k", "nasnet_large": "timm/nasnetalarge.tf_in1k"}
CLASSIFIERS = ("fc.", "classifier.", "AuxLogits.", "aux1.", "aux2.")
LICENCE = "BSD-3-Clause"


def known(name: str) -> str | None:
    """torchvision's name for what `name` means, `resnet50` for `resnet50_imagenet`; None when it is not torchvision's."""
    bare = name.removeprefix(PREFIX).removesuffix(SUFFIX)
    bare = SHORT.get(bare, bare)
    if not bare.startswith(FAMILIES):
        return None
    return bare if bare in names() else None


def is_said(name: str) -> bool:
    """Whether a name says that it is torchvision's."""
    return name.endswith(SUFFIX) or name.startswith(PREFIX)


def elsewhere(name: str) -> str | None:
    """timm's name for an ImageNet network that torchvision does not have."""
    return IN_TIMM.get(name.removesuffix(SUFFIX)) if name.endswith(SUFFIX) else None


@lru_cache(maxsize=1)
def names() -> frozenset[str]:
    """Names of torchvision's classifiers."""
    from torchvision import models

    return frozenset(name for name in models.list_models(module=models) if name.startswith(FAMILIES))


def spec(name: str, kwargs: Mapping[str, Any]) -> EncoderSpec:
    """The torchvision network `name` (as `known` gives it).

    Raises:
        EncoderError: `encoder_failed` when torchvision refuses the arguments.
    """
    _build(name, dict(kwargs), sketch=True)
    return EncoderSpec(
        card=_card(name),
        build=lambda: _build(name, dict(kwargs)),
        rename=lambda state, model: {_current(key): value for key, value in state.items()},
        heads=CLASSIFIERS,
        classifier=_classifier(name, dict(kwargs)),
    )


@lru_cache(maxsize=64)
def _card(name: str) -> EncoderCard:
    import torch
    from torchvision import models

    weights = next(iter(models.get_model_weights(name)))
    transform, network = weights.transforms(), _build(name, {}, sketch=True)
    size = int(transform.crop_size[0])
    with torch.no_grad():
        width = network(torch.zeros(1, 3, size, size, device="meta")).shape[1]
    url = str(weights.url)
    pinned = re.search(r"-([0-9a-f]{8,})\.pth$", url)
    return EncoderCard(
        name=name + SUFFIX,
        family="torchvision",
        architecture=f"torchvision.models.{name}",
        dim=int(width),
        input_px=size,
        description=f"torchvision's {name} trained on ImageNet. Knows photographs, not tissue.",
        tile_px=0,
        mpp=None,
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        interpolation=transform.interpolation.value,
        pooling="mean of the last map",
        params_m=round(sum(p.numel() for p in network.parameters()) / 1e6, 3),
        training="ImageNet, supervised",
        licence=LICENCE,
        commercial_use=True,
        url=url,
        sha256=pinned.group(1) if pinned else None,
        link="https://docs.pytorch.org/vision/stable/models.html",
        source="torchvision's weights",
    )


def _classifier(name: str, kwargs: dict[str, Any]) -> Classifier:
    from torchvision import models

    whole = _build(name, kwargs, sketch=True, n_classes=1)
    pooled = getattr(getattr(whole, "avgpool", None), "output_size", 1)
    side = pooled[0] if isinstance(pooled, tuple) else pooled
    classes = next(iter(models.get_model_weights(name))).meta["categories"]
    layer = "fc" if hasattr(whole, "fc") else "classifier"
    return Classifier((layer,), len(classes), lambda n: _build(name, kwargs, n_classes=n), side)


def _build(name: str, kwargs: dict[str, Any], *, sketch: bool = False, n_classes: int = 0) -> torch.nn.Module:
    import torch
    from torchvision import models

    if name.startswith(("inception", "googlenet")):
        # As torchvision does for its own weights: no side branches, inputs brought to the range of their training.
        kwargs = {"aux_logits": False, "transform_input": True, "init_weights": False, **kwargs}
    try:
        with torch.device("meta") if sketch else nullcontext():
            network = models.get_model(
                name, weights=None, **kwargs, **({"num_classes": n_classes} if n_classes else {})
            )
            if not n_classes:
                _strip(network)
    except (TypeError, ValueError) as error:
        raise EncoderError(
            f"torchvision cannot build {name} with {kwargs}: {error}",
            reason=Reason.ENCODER_FAILED,
            remedy="Correct `encoder_kwargs` of the recipe.",
        ) from error
    return network.eval()


def _strip(network: torch.nn.Module) -> None:
    """The vectors before the classifier, averaged over the map."""
    from torch import nn

    if hasattr(network, "fc"):
        network.fc = nn.Identity()
    else:
        # SqueezeNet classifies with a convolution, so that its pooling is part of the classifier.
        squeezed = type(network).__name__ == "SqueezeNet"
        network.classifier = nn.AdaptiveAvgPool2d(1) if squeezed else nn.Identity()
    if hasattr(network, "avgpool"):
        network.avgpool = nn.AdaptiveAvgPool2d(1)


def _current(key: str) -> str:
    """DenseNet's files are older than the names of its layers."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", key)


def cached_file(url: str, *, download: bool) -> Path | None:
    """A file of torchvision's in torch's own cache; None when it is not there.

    Args:
        url: Where it lies.
        download: Fetch it when it is not there.
    """
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file() and download:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=False)
    return path if path.is_file() else None
