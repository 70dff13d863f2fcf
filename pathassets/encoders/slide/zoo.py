"""The slide encoders by name: cards from `zoo.toml`, and those that `pathassets train-abmil` wrote into a file.

Belongs here: reading both. Does not belong: networks (`networks`), weights (`loading`). Loads no torch.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from pathassets.encoders import zoo as tile_zoo
from pathassets.encoders.registry import canonical, spelling
from pathassets.encoders.slide.card import SlideCard
from pathassets.errors import EncoderError, Reason, UnknownEncoderError
from pathassets.recipes import REDUCTIONS, Recipe, Tiling, is_file, slide_vector_name

TABLE = Path(__file__).with_name("zoo.toml")
OWN = ("like", "about", "also")
TRAINED = "abmil"
METADATA = "pathassets"
"""Name of the entry in a safetensors file's metadata that holds the card of a trained slide encoder."""


@cache
def entries() -> dict[str, dict[str, Any]]:
    """The table's entries by name, each with what it takes over from the one that it is like."""
    told = tomllib.loads(TABLE.read_text(encoding="utf-8"))["encoders"]
    return {name: _whole(name, told) for name in told}


def _whole(name: str, told: dict[str, dict[str, Any]]) -> dict[str, Any]:
    entry = told[name]
    if "like" not in entry:
        return dict(entry)
    return {**{key: value for key, value in _whole(entry["like"], told).items() if key not in OWN}, **entry}


def list_slide_cards() -> list[SlideCard]:
    """Cards of all named slide encoders, those that cannot run here too, by name."""
    return [_card(name) for name in sorted(entries())]


def get_slide_card(name: str | Path) -> SlideCard:
    """The card of a slide encoder: a name, or a file that `pathassets train-abmil` wrote.

    Raises:
        UnknownEncoderError: No slide encoder has this name; the nearest names are given.
        EncoderError: `weights_missing` or `weights_mismatch`: the file is not there, or is no such file.
    """
    if is_file(str(name)):
        return trained_card(Path(name))
    card = find_slide_card(str(name))
    if card is None:
        near = difflib.get_close_matches(str(name).lower(), [*entries(), *aliases(), *REDUCTIONS], n=3, cutoff=0.5)
        raise UnknownEncoderError(
            f"no reduction and no slide encoder is called {str(name)!r}",
            reason=Reason.ENCODER_UNKNOWN,
            remedy=(f"Did you mean {', '.join(near)}? " if near else "") + "`pathassets encoders` lists them.",
        )
    return card


def find_slide_card(name: str) -> SlideCard | None:
    """The card of a named slide encoder, however its name is written; None when there is none."""
    ours = _spellings().get(spelling(name))
    return _card(ours) if ours is not None else None


def check_recipe(recipe: Recipe) -> None:
    """Refuses a recipe whose slide encoders do not exist, cannot run or want other tiles, as far as the settings alone say so.

    Files that were trained in a study are looked into when they are used: settings are read by many who never use them.

    Raises:
        EncoderError: `encoder_unknown`, `encoder_mismatch` or `tiling_mismatch`, with what to do.
    """
    for method in recipe.vectors.encoders:
        if not is_file(method):
            card = get_slide_card(method)
            card.check_runs()
            card.check_tiles(canonical(recipe.encoder), recipe.tiling)


@cache
def aliases() -> dict[str, str]:
    """Names that other frameworks use, to ours."""
    return {other: name for name, entry in entries().items() for other in entry.get("also", [])}


@cache
def _spellings() -> dict[str, str]:
    """Names and other frameworks' names as `spelling` has them, to ours."""
    return {spelling(other): name for other, name in {**aliases(), **{name: name for name in entries()}}.items()}


@cache
def _card(name: str) -> SlideCard:
    entry, tables = entries()[name], tile_zoo.tables()
    paper, hub = tables["papers"].get(entry.get("paper")), entry.get("hub") or None
    return SlideCard(
        name=name,
        dim=entry["dim"],
        description=entry["about"],
        architecture=_architecture(entry),
        pooling=entry.get("pooling", ""),
        params_m=entry.get("params", 0.0),
        licence=entry["licence"],
        commercial_use=tables["licences"].get(entry["licence"]),
        gated=entry.get("gated", False),
        hub_id=hub,
        file=entry.get("file"),
        sha256=entry.get("sha256"),
        citation=tile_zoo.cited(paper) if paper else "",
        bibtex=tile_zoo.bibtex(entry["paper"], paper) if paper else "",
        link=entry.get("link") or f"https://huggingface.co/{hub}",
        source=entry.get("source", "TRIDENT, lazyslide-models and the authors' pages"),
        evidence=entry["evidence"],
        takes=tuple(entry["takes"]),
        dim_in=entry["dim_in"],
        tile_px=entry["tile"],
        mpp=entry["mpp"],
        uses_positions=entry.get("positions", False),
        missing=entry.get("missing", ""),
        instead=entry.get("instead", ""),
    )


def _architecture(entry: dict[str, Any]) -> str:
    arguments = [f"{key}={value}" for key, value in entry.get("kwargs", {}).items()]
    return ", ".join([entry["build"], *arguments]) if "build" in entry else ""


def trained_card(path: Path) -> SlideCard:
    """The card of a slide encoder that was trained in a study, from its file.

    Raises:
        EncoderError: `weights_missing` when the file is not there, `weights_mismatch` when it holds no such card.
    """
    told = training_record(path)
    try:
        tiling = Tiling(**told["tiling"])
        return SlideCard(
            name=slide_vector_name(str(path)),
            dim=told["dim"],
            description=f"Trained on {told['label']} of {len(told['slide_ids'])} slides; their vectors are not held out.",
            architecture=TRAINED,
            pooling="mean of the embedded tiles, weighted by gated attention",
            licence="your own",
            commercial_use=None,
            citation="Ilse 2018, arXiv:1802.04712",
            source=str(path),
            takes=(told["encoder"],),
            dim_in=told["dim_in"],
            tile_px=tiling.tile_hw[0],
            mpp=tiling.mpp,
            tiling_digest=tiling.digest(),
            tile_weights=told["weights_sha256"],
            classes=tuple(told["classes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _no_card(path, f"its card cannot be read ({error})") from error


def training_record(path: Path) -> dict[str, Any]:
    """What `pathassets train-abmil` wrote about a file's training: tiles, labels, slides, how good it was, versions.

    Raises:
        EncoderError: `weights_missing` when the file is not there, `weights_mismatch` when it says nothing of the kind.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise EncoderError(
            f"there is no slide encoder at {path}",
            reason=Reason.WEIGHTS_MISSING,
            remedy="Correct the path in `methods` of [vectors], or write it with `pathassets train-abmil`.",
        )
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(METADATA)
        found = json.loads(text) if text else None
    except (SafetensorError, OSError, ValueError) as error:
        raise _no_card(path, f"it cannot be read ({error})") from error
    if not isinstance(found, dict) or found.get("kind") != TRAINED:
        raise _no_card(path, "it holds no card")
    return found


def _no_card(path: Path, why: str) -> EncoderError:
    return EncoderError(
        f"{path} is not a slide encoder that was trained here: {why}",
        reason=Reason.WEIGHTS_MISMATCH,
        remedy="Name published weights in `weights` of [vectors], beside the name of their slide encoder.",
    )
