"""Features of inner layers: a network's activations at named layers, pooled, side by side, instead of its own vector.

Belongs here: names of layers, catching what they give, pooling it. Does not belong: the networks, loading.

    load_encoder("timm/resnet50", layers=["layer2", "layer3"], layer_pool="avg")

Without `layers` but with `layer_pool` it is the last map or the last tokens (`postconv`) that is pooled.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pathassets.encoders.networks import encode_image
from pathassets.errors import EncoderError, Reason

if TYPE_CHECKING:
    from pathassets.encoders.registry import EncoderSpec

POOLS = ("avg", "max", "none")
LAST = "postconv"
# Inner layers are not in the words' space.
WORDLESS: dict[str, Any] = {"has_text": False, "logit_scale": None, "text": "", "tokenizer": (), "context": 0}
# Names of the same places in Keras, by which other frameworks ask; the first of the torch names that exists is meant.
KERAS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"conv1_conv", ("conv1", "features.conv0", "features.0")),
    (r"conv1_bn", ("bn1", "features.norm0")),
    (r"conv1_relu", ("act1", "relu", "features.relu0", "features.1")),
    (r"pool1_pool", ("maxpool", "features.pool0")),
    (r"conv(?P<stage>\d)_block(?P<block>\d+)_out", ("layer{stage}.{block}",)),
    (r"conv(?P<stage>\d)_block(?P<block>\d+)_(?P<part>\d)_(?:conv|bn|relu)", ("layer{stage}.{block}.conv{part}",)),
    (r"avg_pool|global_average_pooling2d|post_?relu|top_activation|out_relu", (LAST,)),
)


class LayerFeatures(nn.Module):
    """A network whose vectors are those of some of its layers.

    Args:
        network: It runs whole; what its layers give is caught on the way.
        layers: Names of modules, in the order in which their features are put side by side.
        pool: `avg` or `max` over the map or the patch tokens; `none` flattens.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], pool: str) -> None:
        super().__init__()
        self.network, self.layers, self.how = network, tuple(layers), pool
        self.prefix, self.channels_last = prefix_of(network), is_channels_last(network)
        catch(network, self.layers)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised (n, 3, h, w) to (n, dim)."""
        with catching() as caught:
            encode_image(self.network, images)
        return torch.cat([self._pooled(caught[name]) for name in self.layers], dim=1)

    def _pooled(self, features: Tensor) -> Tensor:
        if features.ndim == 4 and self.channels_last:
            features = features.permute(0, 3, 1, 2)
        if self.how == "none" or features.ndim == 2:
            return features.flatten(1)
        # Patches last, in maps and in tokens, without the tokens that stand for no place.
        places = features.flatten(2) if features.ndim == 4 else features[:, self.prefix :].transpose(1, 2)
        return places.mean(dim=2) if self.how == "avg" else places.amax(dim=2)


# Each thread catches its own: one network is run by several at a time.
_caught: ContextVar[dict[str, Tensor] | None] = ContextVar("caught", default=None)


class _Catch:
    """A hook that survives copying of the network, because it holds nothing but its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        caught = _caught.get()
        if caught is not None and isinstance(output, Tensor):
            caught[self.name] = output


def catch(network: nn.Module, layers: Iterable[str]) -> None:
    """From now on, what these layers of a network give can be caught; see `catching`."""
    for name in layers:
        network.get_submodule(name).register_forward_hook(_Catch(name))


@contextmanager
def catching() -> Iterator[dict[str, Tensor]]:
    """What layers give while this thread runs a network in it, by the layer's name."""
    caught: dict[str, Tensor] = {}
    token = _caught.set(caught)
    try:
        yield caught
    finally:
        _caught.reset(token)


def with_layers(spec: EncoderSpec, layers: str | Sequence[str] | None, pool: str) -> EncoderSpec:
    """An encoder that gives features of layers instead of its own vector; its card tells their length.

    Args:
        spec: The encoder.
        layers: Names of modules; none = the last map, or the last tokens.
        pool: `avg`, `max` or `none`.

    Raises:
        EncoderError: `config_invalid` for a name or a pooling that does not exist, with the one that was meant.
    """
    if pool not in POOLS:
        raise _invalid(f"layer_pool {pool!r} is not known", f"Use one of {', '.join(POOLS)}.")
    with torch.device("meta"):
        sketch = spec.build().eval()
    wanted = [layers] if isinstance(layers, str) else list(layers or [LAST])
    size = spec.card.input_px
    names = [_module_name(sketch, layer, wanted, size, spec.card.name) for layer in wanted]
    width = _width(LayerFeatures(sketch, names, pool), size)
    card = replace(spec.card, dim=width, pooling=f"{pool} of {', '.join(names)}", **WORDLESS)
    wrap: Callable[[nn.Module], nn.Module] = lambda network: LayerFeatures(network, names, pool).eval()  # noqa: E731
    return replace(spec, card=card, wrap=wrap, layered=True, text=None)


def _module_name(network: nn.Module, layer: str, wanted: Sequence[str], size: int, encoder: str) -> str:
    if layer == LAST:
        return last_map(network, size)
    names = [name for name, _ in network.named_modules() if name]
    for candidate in (layer, f"trunk.{layer}"):
        if candidate in names:
            return candidate
    raise _unknown(layer, wanted, [name.removeprefix("trunk.") for name in names], encoder)


def last_map(network: nn.Module, size: int) -> str:
    """Name of the module whose output is the last map or the last row of tokens before everything becomes one vector."""
    catch(network, filter(None, (name for name, _ in network.named_modules())))
    with catching() as caught, torch.no_grad():
        encode_image(network, torch.zeros(1, 3, size, size, device="meta"))
    spread = [name for name, output in caught.items() if "pool" not in name and _is_spread(output)]
    if not spread:
        raise _invalid("this network has no layer whose output is a map", "Name its layers in `layers`.")
    return spread[-1]


def _is_spread(output: Tensor) -> bool:
    """Whether there are several places, and not one vector in a map's clothing."""
    return output.shape[1] > 1 if output.ndim == 3 else output.ndim == 4 and output.shape[-1] * output.shape[-2] > 1


def _width(network: LayerFeatures, size: int) -> int:
    with torch.no_grad():
        try:
            return int(network(torch.zeros(1, 3, size, size, device="meta")).shape[1])
        except KeyError as error:
            raise _invalid(
                f"layer {error.args[0]!r} gives no tensor, or is not run", "Name a layer that computes something."
            ) from error


def _unknown(layer: str, wanted: Sequence[str], names: list[str], encoder: str) -> EncoderError:
    meant = in_torch(layer, names)
    if meant is not None:
        all_meant = [in_torch(one, names) or one for one in wanted]
        return _invalid(f"{layer!r} is a name of Keras; in {encoder} it is {meant!r}", f"Write layers = {all_meant}.")
    near = difflib.get_close_matches(layer, names, n=4, cutoff=0.3)
    return _invalid(
        f"{encoder} has no layer {layer!r}",
        f"Did you mean {', '.join(near)}?" if near else f"Its first layers are {', '.join(names[:6])}.",
    )


def in_torch(layer: str, names: Sequence[str]) -> str | None:
    """The torch name of a layer that Keras calls `layer`; None when it is no such name, or the network has no such place."""
    for pattern, candidates in KERAS:
        found = re.fullmatch(pattern, layer)
        if found is None:
            continue
        # Keras counts stages from 2 (its first is the stem) and blocks from 1.
        parts = {key: int(value) - (key != "part") for key, value in found.groupdict().items()}
        options = [candidate.format(**parts) for candidate in candidates]
        return next((option for option in options if option in names or option == LAST), None)
    return None


def prefix_of(network: nn.Module) -> int:
    """Tokens of a transformer that stand for no place: class token, registers."""
    return int(getattr(_trunk(network), "num_prefix_tokens", 0) or 0)


def is_channels_last(network: nn.Module) -> bool:
    """Whether maps are (n, h, w, channels)."""
    return str(getattr(_trunk(network), "output_fmt", "")).endswith("NHWC")


def _trunk(network: nn.Module) -> nn.Module:
    return getattr(network, "trunk", network)


def _invalid(message: str, remedy: str) -> EncoderError:
    return EncoderError(message, reason=Reason.CONFIG_INVALID, remedy=remedy)
