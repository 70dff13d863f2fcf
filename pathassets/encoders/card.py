"""Cards: what a user must know about an encoder before running it, and what the engine must know to feed it.

Belongs here: what all cards have (`Card`), the card of a tile encoder, its pipeline in words, and its row of the table `encoders`.
Does not belong: networks, weights, torch; the cards of slide encoders (`slide/card`).
The card is the only source of an encoder's preprocessing: nobody else knows a mean, a size or an interpolation.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)

Rgb = tuple[float, float, float]
Interpolation = Literal["bilinear", "bicubic", "nearest"]
Crop = Literal["center", "squash"]
# V: built here, output and number of parameters confirmed. S: read in a named source. "": the card's own author says so.
Evidence = Literal["V", "S", ""]


@dataclass(frozen=True, kw_only=True)
class Card:
    """A network with published weights: what it is, where they lie, and what using them asks of their user.

    Attributes:
        name: How users ask for it; where a network can be pooled in several ways, the way is part of the name.
        dim: Length of the vector that it gives.
        description: One or two sentences: what it is, and what it must not be used for.
        architecture: Network, as its library calls it.
        pooling: How tokens, a feature map or tiles become one vector, in words.
        params_m: Millions of parameters of what runs here; 0 = not stated.
        licence: Of the weights.
        commercial_use: Whether the licence allows it; None = unclear.
        gated: Whether the hub asks for an agreement first.
        hub_id: Hugging Face repository of the weights; None = a local or bundled file.
        file: The weights' file name in that repository; without a `hub_id`, in this package's `encoders` folder.
        url: Where torchvision's own weights lie; looked for in torch's cache first.
        sha256: Of the file, or the beginning of it; a different file is refused. None = any is taken, its hash recorded.
        key_map: Which layout of a checkpoint is translated; empty = the network's own names.
        citation: Authors, year, DOI or arXiv id.
        bibtex: The same for a list of references.
        link: Where to read more.
        source: Where the card's numbers come from.
        evidence: How well they are confirmed: `V` built and compared, `S` read in the source, empty = the author's word.
    """

    name: str
    dim: int
    description: str
    architecture: str = ""
    pooling: str = "model"
    params_m: float = 0.0
    licence: str = "unknown"
    commercial_use: bool | None = None
    gated: bool = False
    hub_id: str | None = None
    file: str | None = None
    url: str | None = None
    sha256: str | None = None
    key_map: str = ""
    citation: str = ""
    bibtex: str = ""
    link: str = ""
    source: str = ""
    evidence: Evidence = ""

    @property
    def ships(self) -> bool:
        """Whether its weights are a part of this package."""
        return bool(self.file) and self.hub_id is None and self.url is None

    @property
    def terms(self) -> str:
        """What using the weights asks of their user, in one sentence."""
        use = {True: "commercial use allowed", False: "no commercial use", None: "commercial use unclear"}
        gate = f"; accept the terms at https://huggingface.co/{self.hub_id} first" if self.gated else ""
        return f"{self.licence} ({use[self.commercial_use]}){gate}"

    @property
    def own_weights(self) -> str:
        """How a recipe names a local file of weights."""
        return '`weights = "FILE"` in the recipe'

    @property
    def can_be_untrained(self) -> bool:
        """Whether there is a network without the weights' file."""
        return True

    def to_row(self) -> dict[str, Any]:
        """The card as plain values (tuples become lists): a row of its table."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class EncoderCard(Card):
    """A tile encoder in numbers and words; the rest is in `Card`.

    Attributes:
        input_px: Edge in pixels of the square that the network sees.
        family: `timm`, `demo`, ...: which module builds it.
        tile_px: Tile edge in pixels that its authors used; 0 = any.
        mpp: Resolution in µm per pixel that its authors used; None = not tied to one.
        mean: Subtracted from RGB in 0..1.
        std: RGB is divided by it after that.
        interpolation: Used where a tile does not have the size wanted.
        antialias: Whether a tile that is made smaller is smoothed first, as Pillow does and the authors did.
        resize: The tile's shorter edge is brought to this many pixels before the crop; 0 = `input_px`, so that
            nothing of the tile is cut off.
        crop: `center` keeps the middle square; `squash` brings both edges to `input_px` and keeps everything.
        precision: What its authors ran it in; `precision = "auto"` decides by the hardware.
        vision_language: Whether it was trained with words; only its image tower is here unless `has_text`.
        has_text: Whether it has a text tower, so that tiles can be compared with words.
        text: Its text tower in words; of an encoder trained with words that has none here, why.
        text_encoder: Of such an encoder, the one whose vectors share a space with words; empty = none here does.
        tokenizer: Files that its words are cut up by, any one of them; none = the network needs none.
        context: Tokens that the text tower reads; what a text has beyond them is left out. 0 = any number.
        logit_scale: Factor on cosines before a softmax over terms, as it was learned; None where there is no text, or
            where the weights hold it.
        templates: Prompt templates of its text tower; `{}` is the term.
        training: How it was trained: the method's name.
        n_wsis: Whole-slide images that it was trained on, as its authors say, rounded; 0 = not stated, or other images.
    """

    input_px: int
    family: str = ""
    tile_px: int = 224
    mpp: float | None = 0.5
    mean: Rgb = IMAGENET_MEAN
    std: Rgb = IMAGENET_STD
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    resize: int = 0
    crop: Crop = "center"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    vision_language: bool = False
    has_text: bool = False
    text: str = ""
    text_encoder: str = ""
    tokenizer: tuple[str, ...] = ()
    context: int = 0
    logit_scale: float | None = None
    templates: tuple[str, ...] = ()
    training: str = ""
    n_wsis: int = 0

    def __post_init__(self) -> None:
        if min(self.dim, self.input_px) < 1 or min(self.tile_px, self.resize) < 0:
            raise ValueError(f"card {self.name!r}: dim and input_px must be positive, tile_px and resize not negative")
        if 0 < self.resize < self.input_px:
            raise ValueError(f"card {self.name!r}: resize {self.resize} is smaller than the input {self.input_px}")
        if min(self.std) <= 0:
            raise ValueError(f"card {self.name!r}: std must be positive")
        if self.has_text and self.logit_scale is None and not self.tokenizer:
            raise ValueError(f"card {self.name!r}: an encoder with text needs its logit_scale, or weights that hold it")

    @property
    def can_be_untrained(self) -> bool:
        """See `Card.can_be_untrained`: a program in a file is nothing without the file."""
        return self.family != "exported"

    @property
    def resize_px(self) -> int:
        """Pixels of the tile's shorter edge before the crop."""
        return self.resize or self.input_px

    @property
    def pipeline(self) -> tuple[str, ...]:
        """What happens to a tile before the network sees it, step by step, in torchvision's words."""
        how = self.interpolation + ("" if self.antialias else ", no antialias")
        edge = self.input_px
        steps = (
            (f"Resize(({edge}, {edge}), {how})",)
            if self.crop == "squash"
            else (f"Resize({self.resize_px}, {how})", f"CenterCrop({edge})")
        )
        return (*steps, "ToTensor(0..1)", f"Normalize({_numbers(self.mean)}, {_numbers(self.std)})")


def _numbers(values: Rgb) -> str:
    return f"({', '.join(map(str, values))})"
