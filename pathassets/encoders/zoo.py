"""The pathology encoders: cards and networks from `zoo.toml`, where each is told once.

Belongs here: reading that table, cards from its entries. Does not belong: networks (`zoo_networks`), layouts of checkpoints
(`keymaps`), single encoders: a new one is an entry of the table. Loads no torch.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pathassets.encoders.card import EncoderCard, Interpolation, Rgb
from pathassets.encoders.text.spec import TowerSpec, towers

if TYPE_CHECKING:
    import torch

TABLE = Path(__file__).with_name("zoo.toml")
UNUSED = "unused:"
"""Before the names of a checkpoint's tensors that an image encoder has no place for."""
# Where the lines of an entry were read; what an entry has from elsewhere, it says itself.
SOURCES = {
    "V": "the paper, TRIDENT and lazyslide-models; the network built here with that length and size",
    "S": "the paper, TRIDENT and lazyslide-models",
}
# These name one entry, or are said of it alone: an entry that is `like` another does not take them over.
OWN = ("like", "about", "also", "source")
POOLING = {
    "cls": "class token",
    "mean": "mean of the patch tokens",
    "cls+mean": "class token, then the mean of the patch tokens",
    "attention": "attention pooling with a learned query",
    "layer3": "mean of the third stage's map",
    "avg": "mean of the last map",
    "map": "the network's own attention pooling",
}


@dataclass(frozen=True)
class ZooEncoder:
    """An entry of the table, as a family that the registry knows.

    Attributes:
        name: How users ask for it.
        entry: Its lines, with those of the entries that it is like.
        tables: Norms, licences and papers that entries refer to.
    """

    name: str
    entry: Mapping[str, Any]
    tables: Mapping[str, Any] = field(repr=False)

    def card(self) -> EncoderCard:
        """Its card."""
        return self._card

    @cached_property
    def _card(self) -> EncoderCard:
        entry, norm = self.entry, self.tables["norms"][self.entry.get("norm", "imagenet")]
        paper, hub, licence = self.tables["papers"][entry["paper"]], entry.get("hub"), entry["licence"]
        return EncoderCard(
            name=self.name,
            dim=entry["dim"],
            input_px=entry.get("px", 224),
            description=entry["about"],
            family="zoo",
            architecture=self.architecture,
            tile_px=entry.get("tile", 224),
            mpp=entry.get("mpp", 0.5) or None,
            mean=cast(Rgb, tuple(norm["mean"])),
            std=cast(Rgb, tuple(norm["std"])),
            interpolation=cast(Interpolation, entry.get("interp", "bilinear")),
            resize=entry.get("resize", 0),
            crop=entry.get("crop", "center"),
            pooling=self._pooling,
            precision=entry.get("precision", "fp32"),
            params_m=entry["params"],
            vision_language=entry.get("vl", False),
            **self._words(),
            training=entry["training"],
            n_wsis=entry.get("wsis", 0),
            licence=licence,
            commercial_use=entry.get("commercial", self.tables["licences"].get(licence)),
            gated=entry.get("gated", False),
            hub_id=hub,
            file=entry.get("file"),
            key_map=entry.get("keys", "timm"),
            citation=cited(paper),
            bibtex=bibtex(entry["paper"], paper),
            link=entry.get("link") or f"https://huggingface.co/{hub}",
            source=entry.get("source") or SOURCES[entry.get("evidence", "V")],
            evidence=entry.get("evidence", "V"),
        )

    @property
    def architecture(self) -> str:
        """The timm model and the arguments that make it this one."""
        arguments = [f"{key}={value}" for key, value in self.entry.get("kwargs", {}).items()]
        swiglu = ["SwiGLU"] if self.entry.get("swiglu") else []
        stem = ["convolutional stem"] if self.entry.get("build") == "ctranspath" else []
        return ", ".join([self.entry["arch"], *arguments, *swiglu, *stem])

    @property
    def _pooling(self) -> str:
        head, unit = self.entry.get("head", []), ", scaled to length 1" if self.entry.get("unit") else ""
        layers = (
            f"a linear layer to {head[0]}" if len(head) == 1 else f"{len(head)} layers to {head[-1]}" if head else ""
        )
        twice = "then the mean of the same for its quarters at twice the size" if self.entry.get("twice") else ""
        return ", ".join(filter(None, (POOLING[self.entry["pool"]], twice, layers))) + unit

    @property
    def text(self) -> TowerSpec | None:
        """Its text tower; None where there is none here."""
        named = self.entry.get("text")
        return towers()[named] if isinstance(named, str) else None

    def _words(self) -> dict[str, Any]:
        """What the card says of words; an entry without a tower says why, and which other entry has one."""
        tower, why = self.text, self.entry.get("text", {})
        if tower is None:
            return {"text": why.get("why", ""), "text_encoder": why.get("instead", "")}
        facts = {"text": tower.in_words, "tokenizer": tower.files, "context": tower.context}
        return {"has_text": True, "templates": tower.templates, **facts}

    def build(self, **kwargs: Any) -> torch.nn.Module:
        """The network with untrained weights; `kwargs` go to timm and win over the table."""
        from pathassets.encoders import zoo_networks

        return zoo_networks.build(self.entry, kwargs)

    def rename(self, state: dict[str, torch.Tensor], model: torch.nn.Module) -> dict[str, torch.Tensor]:
        """A published checkpoint's tensors under the network's names."""
        from pathassets.encoders import keymaps

        return keymaps.translate(state, model, self.entry.get("keys", "timm"))


@cache
def encoders() -> dict[str, ZooEncoder]:
    """All entries of the table, by name."""
    told = tables()
    return {name: ZooEncoder(name, _whole(name, told["encoders"]), told) for name in told["encoders"]}


@cache
def aliases() -> dict[str, str]:
    """Names that other frameworks use, to ours."""
    entries = tables()["encoders"]
    return {other: name for name, entry in entries.items() for other in entry.get("also", [])}


def not_here() -> dict[str, str]:
    """Encoders that are known and cannot be built, with the reason."""
    return dict(tables()["not_here"])


@cache
def tables() -> dict[str, Any]:
    """The whole file: encoders, and the norms, licences and papers that they refer to."""
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def _whole(name: str, entries: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with what it takes over from the one that it is like."""
    entry = dict(entries[name])
    if "like" not in entry:
        return entry
    taken = {key: value for key, value in _whole(entry["like"], entries).items() if key not in OWN}
    return {**taken, **entry}


def cited(paper: Mapping[str, Any]) -> str:
    """A paper in one line: first author, year, and where it is."""
    first = str(paper["author"]).partition(" and ")[0].partition(",")[0].strip("{}")
    return f"{first} {paper['year']}, {_where(paper)}"


def _where(paper: Mapping[str, Any]) -> str:
    if "doi" in paper:
        return f"doi:{paper['doi']}"
    return f"arXiv:{paper['arxiv']}" if "arxiv" in paper else str(paper["url"])


def bibtex(key: str, paper: Mapping[str, Any]) -> str:
    """A paper as an entry of a BibTeX file."""
    fields = {"author": paper["author"], "title": f"{{{paper['title']}}}", "year": paper["year"]}
    fields |= {name: paper[name] for name in ("doi", "url") if name in paper}
    if "arxiv" in paper:
        fields |= {"eprint": paper["arxiv"], "archiveprefix": "arXiv"}
    kind = "misc" if "doi" not in paper else "article"
    return f"@{kind}{{{key}, " + ", ".join(f"{name} = {{{value}}}" for name, value in fields.items()) + "}"
