"""A network of one's own in a file: TorchScript, or torch.export.

Belongs here: opening such a file, its card from what the user says. Does not belong: weights for networks that are known.

    load_encoder("exported", weights="mine.pt2", dim=512, input_px=224, mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5])

The file is the network: it takes normalised (n, 3, h, w) float32 and gives (n, dim); one with a classifier gives (n, classes)
logits after it, or nothing else, and `classes` says how many. A torch.export archive may hold pickles and
native code, which torch would run: an archive that holds more than a graph and tensors is refused.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathassets.encoders.card import EncoderCard
from pathassets.encoders.registry import Classifier, EncoderSpec
from pathassets.errors import EncoderError, Reason

if TYPE_CHECKING:
    import torch

NAME = "exported"
DEFAULT_PX = 224


def spec(kwargs: Mapping[str, Any]) -> EncoderSpec:
    """The encoder of a file; `dim` must be said, `input_px` is 224 unless it is said, `classes` are those of its classifier.

    Raises:
        EncoderError: `config_invalid` when `dim` is missing or there is another argument.
    """
    others = sorted(set(kwargs) - {"dim", "input_px", "classes"})
    if others or "dim" not in kwargs:
        raise EncoderError(
            f"{NAME!r} does not know {others[0]!r}" if others else f"{NAME!r} needs `dim`, the length of its vectors",
            reason=Reason.CONFIG_INVALID,
            remedy='encoder_kwargs = {dim = 512, input_px = 224}, beside mean, std, interpolation and `weights = "FILE"`.',
        )
    card = EncoderCard(
        name=NAME,
        family="exported",
        architecture="in the file",
        dim=int(kwargs["dim"]),
        input_px=int(kwargs.get("input_px", DEFAULT_PX)),
        tile_px=0,
        mpp=None,
        description="A network of the user's own, saved by TorchScript or torch.export.",
        pooling="the network's own",
        licence="the user's own",
        source="encoder_kwargs",
    )
    classifier = Classifier((), int(kwargs["classes"]), _no_network) if "classes" in kwargs else None
    return EncoderSpec(card=card, build=_no_network, opens=open_program, classifier=classifier)


def _no_network(*_: int) -> torch.nn.Module:
    raise EncoderError(
        f"{NAME!r} has no network of its own: the file is the network",
        reason=Reason.WEIGHTS_MISSING,
        remedy='Name the file with `weights = "FILE"`; there are no random weights for it.',
    )


def open_program(path: Path) -> torch.nn.Module:
    """The network that a file holds.

    Raises:
        EncoderError: `weights_mismatch` when the file is neither TorchScript nor a plain torch.export archive.
    """
    import torch

    from pathassets.encoders.program import Program

    try:
        archive = torch._C.PyTorchFileReader(str(path))  # the reader that torch itself opens these files with
        script = "constants.pkl" in archive.get_all_records()
        if script:
            return Program(torch.jit.load(str(path), map_location="cpu"))
        _check_exported(archive)
        exported = torch.export.load(path)
        _check_batch(exported, path)
        return Program(exported.module())
    except EncoderError:
        raise
    except Exception as error:  # torch raises whatever its readers meet
        raise _refused(
            f"{path} is neither TorchScript nor torch.export ({type(error).__name__}: {_line(error)})"
        ) from error


def _check_batch(exported: torch.export.ExportedProgram, path: Path) -> None:
    """Refuses a program that was exported for one number of images: torch fixes it unless it is told not to."""
    inputs = set(exported.graph_signature.user_inputs)
    for node in exported.graph.nodes:
        shape = getattr(node.meta.get("val"), "shape", None) if node.name in inputs else None
        if shape and isinstance(shape[0], int):
            raise EncoderError(
                f"{path} was exported for batches of {shape[0]} alone",
                reason=Reason.WEIGHTS_MISMATCH,
                remedy="Export it with `dynamic_shapes=({0: torch.export.Dim('batch')},)` and an example of two images or more.",
            )


def _check_exported(archive: Any) -> None:
    """Refuses what torch would unpickle or run: opaque objects, compiled code, tensors in pickles that hold more."""
    names = list(archive.get_all_records())
    # torch reads a file that is not laid out so in an older way, which would not be this one.
    if len(set(names)) != len(names) or not {"archive_format", "models/model.json"} <= set(names):
        raise _refused("the archive is not laid out as torch.export does it")
    for name in names:
        if name.startswith("data/aotinductor") or "opaque_obj" in name or "custom_obj" in name:
            raise _refused(f"the archive holds {name}, which torch would run")
        if name.startswith("data/sample_inputs/"):
            _check_pickle(archive.get_record(name), name)
        if name.startswith("data/") and name.endswith("_config.json"):
            folder = name.rpartition("/")[0]
            for entry in json.loads(archive.get_record(name)).get("config", {}).values():
                if entry.get("use_pickle"):
                    _check_pickle(archive.get_record(f"{folder}/{entry['path_name']}"), entry["path_name"])


def _check_pickle(data: bytes, name: str) -> None:
    import torch

    if not data:
        return
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:
        raise _refused(f"the archive's {name} holds more than tensors") from error


def _refused(message: str) -> EncoderError:
    return EncoderError(
        message,
        reason=Reason.WEIGHTS_MISMATCH,
        remedy="Save the network with torch.export.save or torch.jit.save, tensors in and out, nothing else in it.",
    )


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
