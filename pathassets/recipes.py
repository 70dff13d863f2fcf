"""What a user asks for: how to find tissue, how to tile, which encoder, and the options that change numbers.

Belongs here: frozen value objects, their names and their digests. Does not belong: files, pixels, weights.
A digest covers an object's fields and the version of the algorithm it parametrises, so that two results with
the same digest are the same numbers, and any change that matters gives a new one.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import PurePath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# No double or outer underscore: `<tiling>__<recipe>` names files and groups and must read back.
NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
REDUCTIONS = ("mean", "max", "median", "std")
"""Slide vectors that need no network."""


def digest(*parts: Any) -> str:
    """Sixteen hex digits of SHA-256 over the canonical JSON of `parts` (pydantic models are dumped)."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no canonical form")


def slug(text: str) -> str:
    """`text` as a name that a path, a URL, SQL and Dagster accept: `[a-z0-9_]+`."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "x"


class Options(BaseModel):
    """A frozen group of settings; unknown names are refused so that a typo is not silently ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ResourceOptions(Options):
    """What one run of slides asks of a cluster; changes no number. None = what the cluster gives by default.

    Attributes:
        gpus: Devices.
        cpus: Cores.
        memory_gb: Memory, 10^9 bytes.
    """

    gpus: int | None = Field(default=None, ge=0, le=64)
    cpus: float | None = Field(default=None, gt=0, le=1024)
    memory_gb: float | None = Field(default=None, gt=0, le=10_000)


class TissueOptions(Options):
    """How tissue is found.

    Attributes:
        method: `auto` chooses per slide; `otsu` thresholds colourfulness and density; `entropy` looks for texture
            (dark backgrounds, unstained); `none` takes the whole slide.
        mpp: Resolution of the mask, µm per pixel.
        min_area_mm2: Smaller pieces are dropped.
        min_hole_mm2: Smaller holes are filled.
    """

    method: Literal["auto", "otsu", "entropy", "none"] = "auto"
    mpp: float = Field(default=8.0, ge=1.0, le=64.0)
    min_area_mm2: float = Field(default=0.02, ge=0)
    min_hole_mm2: float = Field(default=0.005, ge=0)


class Tiling(Options):
    """A grid of tiles over a slide, anchored at level 0's origin, so that it is the same for every tissue mask.

    `tile_px` is the tile's edge (or height x width) in pixels as the encoder sees it. Its physical size comes from at most
    one of `mpp`, `power`, `level` or `tile_um` (µm as a number, or a magnification as `"10x"`); with none of them tiles
    are cut at the slide's native resolution.

    Attributes:
        name: `[a-z0-9_]+`; the first part of asset keys. Built from the other fields when empty.
        stride_px: Step between tiles, in the tile's pixels; None = the tile itself (no overlap).
        overlap: Share of the tile shared with its neighbour, 0 to below 1; exclusive with `stride_px`.
        min_tissue: Least share of the tile's area that is tissue.
        edge: `drop` leaves out tiles that cross the slide's border; `pad` keeps them, filled with white.
    """

    name: str = ""
    tile_px: int | tuple[int, int] = 224
    mpp: float | None = Field(default=None, gt=0)
    power: float | None = Field(default=None, gt=0)
    level: int | None = Field(default=None, ge=0)
    tile_um: float | str | None = None
    stride_px: int | tuple[int, int] | None = None
    overlap: float = Field(default=0.0, ge=0, lt=1)
    min_tissue: float = Field(default=0.5, ge=0, le=1)
    edge: Literal["drop", "pad"] = "drop"

    @property
    def tile_hw(self) -> tuple[int, int]:
        """Height and width of a tile in pixels."""
        return (self.tile_px, self.tile_px) if isinstance(self.tile_px, int) else self.tile_px

    @property
    def stride_hw(self) -> tuple[int, int]:
        """Vertical and horizontal step between tiles in the tile's pixels."""
        if self.stride_px is not None:
            return (self.stride_px, self.stride_px) if isinstance(self.stride_px, int) else self.stride_px
        keep = 1 - self.overlap
        height, width = self.tile_hw
        return max(1, round(height * keep)), max(1, round(width * keep))

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name"):
            data = {**data, "name": default_tiling_name(data)}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Tiling:
        given = [n for n in ("mpp", "power", "level", "tile_um") if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(f"a tiling takes one of mpp, power, level, tile_um; got {' and '.join(given)}")
        if self.stride_px is not None and self.overlap > 0:
            raise ValueError("a tiling takes stride_px or overlap, not both")
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"tiling name {self.name!r} must be lower-case letters and digits, joined by single underscores"
            )
        if min(*self.tile_hw, *self.stride_hw) < 1:
            raise ValueError("tile_px and stride_px must be positive")
        if isinstance(self.tile_um, str) and not re.fullmatch(r"\d+(\.\d+)?x", self.tile_um):
            raise ValueError(f"tile_um is a number of µm or a magnification such as '10x', not {self.tile_um!r}")
        return self

    def digest(self) -> str:
        """Digest of all that decides which tiles there are; the name does not."""
        return digest("tiling", self.model_dump(mode="json", exclude={"name"}))


def default_tiling_name(data: dict[str, Any]) -> str:
    """`px224_mpp050`, `px256_20x`, `px512_level1`, `px299_302um`, `px224_native`: what a newcomer can read back."""
    tile = data.get("tile_px", 224)
    size = f"px{tile}" if isinstance(tile, int) else f"px{tile[0]}x{tile[1]}"
    if data.get("mpp") is not None:
        tail = f"mpp{round(float(data['mpp']) * 100):03d}"
    elif data.get("power") is not None:
        tail = f"{data['power']:g}x"
    elif data.get("level") is not None:
        tail = f"level{data['level']}"
    elif data.get("tile_um") is not None:
        um = data["tile_um"]
        tail = um if isinstance(um, str) else f"{um:g}um"
    else:
        tail = "native"
    return slug(f"{size}_{tail}")


class EmbeddingOptions(Options):
    """How tiles become vectors.

    Attributes:
        batch_size: Tiles per forward pass.
        precision: `auto` takes bf16 where the hardware is good at it.
        compile: Through `torch.compile`; where that fails, the network runs as it is and the slide is flagged.
        dtype: Type on disk.
        shard_rows: Tiles per shard file; a crash costs at most one shard.
        max_bad_tiles: The slide fails when a larger share of its tiles cannot be read.
        include_preds: Also keep the encoder's classifier and what it says of each tile (table `predictions`).
        dense: Also keep every tile's patch tokens, or the last map, of which there are many (table `patch_tokens`).
    """

    batch_size: int = Field(default=64, ge=1, le=8192)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False
    dtype: Literal["float16", "float32"] = "float16"
    shard_rows: int = Field(default=512, ge=16, le=65536)
    max_bad_tiles: float = Field(default=0.05, ge=0, le=1)
    include_preds: bool = False
    dense: bool = False

    def made_from(self) -> dict[str, Any]:
        """What of this decides which numbers there are: batch and shard size are how, not what."""
        asked = {name: True for name in ("include_preds", "dense") if getattr(self, name)}
        return {"precision": self.precision, "dtype": self.dtype, **asked}


class PredictionOptions(Options):
    """What of a classifier's probabilities becomes rows of the table `predictions`; all of them lie beside the embeddings.

    Attributes:
        classes: Names of the classes, in the order of the network's; none = those of the weights, or `class_0`, `class_1`, ...
        top_k: The most probable classes of each tile; None = all, which more than 32 classes do not allow.
    """

    classes: tuple[str, ...] = ()
    top_k: int | None = Field(default=None, ge=1)

    @field_validator("classes", mode="after")
    @classmethod
    def _distinct(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if any(not name for name in classes) or len(set(classes)) != len(classes):
            raise ValueError("names of classes must be distinct and not empty")
        return classes


def is_file(method: str) -> bool:
    """Whether a method of slide vectors is a file that `pathassets train-abmil` wrote, and no name."""
    return method.endswith(".safetensors")


def slide_vector_name(method: str) -> str:
    """What the column `method` of `slide_vectors` calls a method: its name; of a file the name without folder and ending."""
    return PurePath(method).stem if is_file(method) else method


class VectorOptions(Options):
    """How a slide's embeddings become slide vectors.

    Attributes:
        methods: Reductions (mean, max, median, std), slide encoders by name, and files that `pathassets train-abmil` wrote. The
            first is what the slide map shows.
        weights: Local files of named slide encoders' weights; those that are not named come from the card's own source.
    """

    methods: tuple[str, ...] = ("mean",)
    weights: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> VectorOptions:
        names = [slide_vector_name(method) for method in self.methods]
        if not names or not all(names) or len(set(names)) != len(names):
            raise ValueError("vectors.methods names one method at least, and each once")
        without = sorted(set(self.weights) - set(self.methods))
        if without:
            raise ValueError(f"vectors.weights names {without[0]!r}, which vectors.methods does not")
        return self

    @property
    def reductions(self) -> tuple[str, ...]:
        """The methods that need no network."""
        return tuple(method for method in self.methods if method in REDUCTIONS)

    @property
    def encoders(self) -> tuple[str, ...]:
        """The methods that are slide encoders."""
        return tuple(method for method in self.methods if method not in REDUCTIONS)

    @property
    def first(self) -> str:
        """The first method, as the column `method` calls it."""
        return slide_vector_name(self.methods[0])

    @property
    def asked(self) -> dict[str, Any]:
        """What numbers depend on here: where a file of weights lies does not count, its hash does (elsewhere)."""
        return {"methods": [slide_vector_name(method) for method in self.methods]}


class DomainOptions(Options):
    """How tiles are grouped into spatial domains.

    `preset="tutorial"` is the setting of LazySlide's published tutorial: resolution 0.2 on the smoothed features.

    Attributes:
        variants: `leiden` clusters features as they are, `utag` clusters features smoothed over neighbours (UTAG).
        resolution: Leiden resolution.
        n_pcs: Principal components kept.
        n_neighbors: Neighbours in feature space.
        graph: `radius` joins tiles nearer than `radius_tiles` tile widths; `rings` joins `rings` rings of the grid.
        seed: For PCA, neighbours, UMAP and Leiden.
        min_tiles: Fewer tiles than this are one domain.
    """

    preset: Literal["tutorial"] | None = None
    variants: tuple[Literal["leiden", "utag"], ...] = ("leiden", "utag")
    resolution: float = Field(default=0.2, gt=0)
    n_pcs: int = Field(default=50, ge=2)
    n_neighbors: int = Field(default=15, ge=2)
    graph: Literal["radius", "rings"] = "radius"
    radius_tiles: float = Field(default=1.5, gt=0)
    rings: int = Field(default=1, ge=1)
    seed: int = 0
    min_tiles: int = 16

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("preset") == "tutorial":
            data = {"variants": ("utag",), "resolution": 0.2, **data}
        return data


class TextOptions(Options):
    """Which words tiles are compared with.

    Attributes:
        terms: What to look for.
        templates: Prompt templates, `{}` is the term; a term's vector is the mean over templates. Empty: the encoder's own.
        temperature: Softmax temperature; None = 1 / the model's own logit scale.
    """

    terms: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    temperature: float | None = Field(default=None, gt=0)

    @field_validator("terms", mode="after")
    @classmethod
    def _distinct(cls, terms: tuple[str, ...]) -> tuple[str, ...]:
        clean = tuple(t.strip() for t in terms)
        if any(not t for t in clean) or len(set(clean)) != len(clean):
            raise ValueError("text terms must be distinct and not empty")
        return clean


class Recipe(Options):
    """One tiling seen by one encoder, with the options of everything that follows from it.

    Attributes:
        name: `[a-z0-9_]+`; the second part of asset keys; the encoder's slug when empty.
        weights: A local file; None = the card's own source.
        tokenizer: A local file (or its folder) for the encoder's text tower; None = beside `weights`, or in the hub's cache.
        weights_sha256: Beginning of the hash that the weights must have (8 digits or more); empty = any.
        random_weights: Take untrained weights (for trials; every output says so).
        encoder_kwargs: Passed to timm's `create_model` (`pad_type = "same"`) and, for `mean`, `std`, `interpolation`,
            to the preprocessing.
    """

    name: str = ""
    tiling: Tiling
    encoder: str = "demo-vlm"
    weights: str | None = None
    tokenizer: str | None = None
    weights_sha256: str = Field(default="", pattern=r"^([0-9a-f]{8,64})?$")
    random_weights: bool = False
    encoder_kwargs: dict[str, Any] = Field(default_factory=dict)
    embeddings: EmbeddingOptions = EmbeddingOptions()
    predictions: PredictionOptions = PredictionOptions()
    vectors: VectorOptions = VectorOptions()
    domains: DomainOptions = DomainOptions()
    text: TextOptions = TextOptions()

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name"):
            data = {**data, "name": slug(data.get("encoder", "demo-vlm"))}
        return data

    @field_validator("name")
    @classmethod
    def _valid_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(
                f"recipe name {name!r} must be lower-case letters and digits, joined by single underscores"
            )
        return name

    @model_validator(mode="after")
    def _one_source(self) -> Recipe:
        if self.weights and self.random_weights:
            raise ValueError(
                f"recipe {self.name!r} names `weights` and asks for `random_weights`: leave out one of them"
            )
        if self.weights_sha256 and self.random_weights:
            raise ValueError(
                f"recipe {self.name!r} pins `weights_sha256` and asks for `random_weights`: leave out one of them"
            )
        return self

    @property
    def key(self) -> str:
        """`<tiling>/<recipe>`: the column `recipe` of every table, and the prefix of the asset keys."""
        return f"{self.tiling.name}/{self.name}"
