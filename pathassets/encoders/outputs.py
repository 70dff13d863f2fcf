"""What a network gives of a tile besides its vector, in the same forward pass: class probabilities, patch tokens.

Belongs here: asking a network for them, and the row of numbers that it then gives. Does not belong: where they are stored,
what classes are called (`class_names`).

A row is the vector, then (where they are asked for) the probabilities, then the tokens: whoever moves rows about need not know.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isqrt, prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pathassets.encoders.layers import LAST, catch, catching, is_channels_last, last_map, prefix_of
from pathassets.encoders.networks import encode_image
from pathassets.encoders.program import Program
from pathassets.errors import EncoderError, Reason

if TYPE_CHECKING:
    import numpy as np

    from pathassets.encoders.registry import Classifier, EncoderSpec

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class RowLayout:
    """What the numbers of a tile's row mean.

    Attributes:
        dim: Length of the vector, which comes first.
        n_classes: Probabilities that follow it.
        grid: Patch tokens that follow these: rows, columns, channels; row by row from the top left. None = none.
    """

    dim: int
    n_classes: int = 0
    grid: Grid | None = None

    @property
    def n_token_values(self) -> int:
        """Numbers of a tile's tokens."""
        return prod(self.grid) if self.grid is not None else 0

    def tile_bytes(self, dtype: str) -> int:
        """Bytes of a tile in a store before compression, numbers but the probabilities as `dtype`."""
        number = 2 if dtype == "float16" else 4
        return number * (self.dim + self.n_token_values) + 4 * self.n_classes

    @property
    def width(self) -> int:
        """Numbers of a row."""
        return self.dim + self.n_classes + self.n_token_values


@dataclass(frozen=True)
class Outputs:
    """What an encoder gives of n tiles.

    Attributes:
        vectors: float32 (n, dim).
        probabilities: Softmax over classes, float32 (n, classes); None where they were not asked for.
        tokens: Of patches, float32 (n, rows, columns, channels), from the top left; None where they were not asked for.
    """

    vectors: np.ndarray
    probabilities: np.ndarray | None
    tokens: np.ndarray | None

    @classmethod
    def of(cls, rows: np.ndarray, layout: RowLayout) -> Outputs:
        """Takes rows, (n, width), apart."""
        classes, tokens = layout.dim, layout.dim + layout.n_classes
        return cls(
            rows[:, :classes],
            rows[:, classes:tokens] if layout.n_classes else None,
            rows[:, tokens:].reshape(len(rows), *layout.grid) if layout.grid is not None else None,
        )


class WithClasses(nn.Module):
    """A classifying layer that gives what came in before what it makes of it: the vector, then the logits.

    Args:
        layer: It maps a vector, or a map, to logits.
        side: Edge of the map that was flattened on its way here; 1 = none was.
    """

    def __init__(self, layer: nn.Module, side: int = 1) -> None:
        super().__init__()
        self.layer, self.side = layer, side

    def forward(self, features: Tensor) -> Tensor:
        """(n, ...) to (n, dim + classes)."""
        places = features.unflatten(1, (-1, self.side, self.side)) if self.side > 1 else features
        vector = functional.adaptive_avg_pool2d(places, 1) if places.ndim == 4 else places
        return torch.cat([vector.flatten(1), self.layer(features).flatten(1)], dim=1)


class WithOutputs(nn.Module):
    """A network that gives whole rows; see `RowLayout`.

    Args:
        network: It gives vectors, followed by logits where there are classes.
        layout: What is wanted of it.
        tokens: Name of the module whose output are the tokens.
        prefix: Tokens at the beginning that stand for no place.
    """

    def __init__(self, network: nn.Module, layout: RowLayout, tokens: str = "", prefix: int = 0) -> None:
        super().__init__()
        self.network, self.layout, self.tokens, self.prefix = network, layout, tokens, prefix
        self.channels_last = is_channels_last(network)
        if layout.grid is not None:
            catch(network, [tokens])

    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised (n, 3, h, w) to float32 (n, width)."""
        if self.layout.grid is None:
            return self._with_probabilities(encode_image(self.network, images))
        with catching() as caught:
            rows = self._with_probabilities(encode_image(self.network, images))
        tokens = _on_grid(caught[self.tokens], self.prefix, channels_last=self.channels_last)
        return torch.cat([rows, tokens.flatten(1).float()], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """See `encode_image`."""
        return self.encode_image(images)

    def _with_probabilities(self, rows: Tensor) -> Tensor:
        vectors, logits = rows[:, : self.layout.dim].float(), rows[:, self.layout.dim :].float()
        return torch.cat([vectors, logits.softmax(dim=1)], dim=1) if self.layout.n_classes else vectors

    def __getattr__(self, name: str) -> Any:
        """What the network has besides, as a text tower."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)


class Asked:
    """What is asked of an encoder besides its vectors.

    Args:
        spec: The encoder.
        include_preds: Class probabilities.
        dense: Patch tokens, or the last map.

    Attributes:
        layout: Of the rows; the classes of a network that has still to be built are known once it is.

    Raises:
        EncoderError: `config_invalid` when the network cannot give them.
    """

    def __init__(self, spec: EncoderSpec, *, include_preds: bool = False, dense: bool = False) -> None:
        self.spec, self.layout = spec, RowLayout(spec.card.dim)
        if spec.layered and (include_preds or dense):
            raise _refused("`include_preds` and `dense` do not go with `layers`", "Use two recipes.")
        if include_preds and spec.classifier is None:
            raise _refused(f"{spec.card.name} has no classifier", _classes_remedy(spec))
        self._classifier = spec.classifier if include_preds else None
        if self._classifier is not None and spec.opens is not None:
            self.layout = replace(self.layout, n_classes=self._classifier.n_classes)
        self._tokens, self._prefix = "", 0
        if dense:
            self._tokens, self._prefix, grid = dense_of(spec)
            self.layout = replace(self.layout, grid=grid)

    def build(self, state: dict[str, Tensor] | None) -> nn.Module:
        """The network, untrained; with a classifier of as many classes as the weights that it will get (None = its own).

        Raises:
            EncoderError: `config_invalid` when there is no classifier in the weights.
        """
        found = self._classifier
        if found is None:
            return self.spec.build()
        n_classes = found.n_classes if state is None else _classes_in(state, found.layers)
        if not n_classes:
            message = f"these weights of {self.spec.card.name} hold no classifier ({', '.join(found.layers)})"
            raise _refused(message, "Leave out `include_preds`, or use weights with a classifier.")
        self.layout = replace(self.layout, n_classes=n_classes)
        return found.build(n_classes)

    def finished(self, network: nn.Module) -> nn.Module:
        """The network with its weights, made to give rows as `layout` says."""
        if self._classifier is not None:
            _open_end(network, self._classifier)
        network = self.spec.wrap(network)
        if self.layout.width == self.spec.card.dim:
            return network
        return WithOutputs(network, self.layout, self._tokens, self._prefix).eval()


def _open_end(network: nn.Module, classifier: Classifier) -> None:
    """Makes the classifying layers let through what comes in."""
    if isinstance(network, Program):
        network.classifies = True
    for name in classifier.layers:
        parent, _, last = name.rpartition(".")
        layer = WithClasses(network.get_submodule(name), classifier.side)
        setattr(network.get_submodule(parent), last, layer)


def dense_of(spec: EncoderSpec) -> tuple[str, int, Grid]:
    """Where an encoder's patch tokens are: name of the module, tokens before the first patch, shape of the grid.

    The last map or the last row of tokens before everything becomes one vector.

    Raises:
        EncoderError: `config_invalid` when there are none, or they do not fill a square.
    """
    if spec.opens is not None:
        raise _refused(f"{spec.card.name} is a program that gives nothing but its vectors", "Leave out `dense`.")
    with torch.device("meta"):
        sketch = spec.build().eval()
    size, prefix = spec.card.input_px, prefix_of(sketch)
    name = last_map(sketch, size)
    with catching() as caught, torch.no_grad():  # `last_map` has made all layers known
        encode_image(sketch, torch.zeros(1, 3, size, size, device="meta"))
    features = caught[name]
    if hasattr(sketch, "reroll"):  # Hiera keeps its patches in an order of its own
        raise _refused(f"patches of {spec.card.name} are in no order of rows and columns", "Leave out `dense`.")
    if features.ndim == 3 and isqrt(features.shape[1] - prefix) ** 2 != features.shape[1] - prefix:
        message = (
            f"{features.shape[1]} tokens of {spec.card.name} ({name}), {prefix} of them of no place, fill no square"
        )
        raise _refused(message, f'Leave out `dense`; `layers = ["{LAST}"]` gives their mean.')
    grid = _on_grid(features, prefix, channels_last=is_channels_last(sketch)).shape
    return name, prefix, (grid[1], grid[2], grid[3])


def _on_grid(features: Tensor, prefix: int, *, channels_last: bool) -> Tensor:
    """Tokens (n, prefix + rows * columns, channels), or a map, as (n, rows, columns, channels)."""
    if features.ndim == 4:
        return features if channels_last else features.permute(0, 2, 3, 1)
    patches = features[:, prefix:]
    return patches.unflatten(1, (isqrt(patches.shape[1]), -1))


def _classes_in(state: dict[str, Tensor], layers: Sequence[str]) -> int:
    """Rows of the classifier's last weight in a file; 0 where there is none."""
    pattern = re.compile(rf"(?:.*\.)?{re.escape(layers[0])}(?:\.(?P<place>\d+))?\.weight")
    found = [(int(match["place"] or 0), key) for key in state if (match := pattern.fullmatch(key))]
    return len(state[max(found)[1]]) if found else 0


def _classes_remedy(spec: EncoderSpec) -> str:
    own = " A program says how many: encoder_kwargs = {classes = 9}." if spec.opens is not None else ""
    return f"Leave out `include_preds`, or use a network of timm, torchvision or your own that has one.{own}"


def _refused(message: str, remedy: str) -> EncoderError:
    return EncoderError(message, reason=Reason.CONFIG_INVALID, remedy=remedy)
