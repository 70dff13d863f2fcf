"""demo-vlm: the small vision-language model that ships with the package, so that everything runs offline.

Belongs here: its card, how it is built, where its weights lie. Does not belong: its layers (`demo_network`), its
words (`demo_words`), its training (the folder `training` of the repository).

It knows procedural images only (`pathassets.slides.synthetic`) and supports no biological conclusion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pathassets.encoders import demo_words
from pathassets.encoders.card import HALF, EncoderCard

if TYPE_CHECKING:
    from pathassets.encoders.demo_network import DemoVlm

WEIGHTS_FILE = "weights/demo_vlm.safetensors"
"""The weights that ship with the package, beside this file."""

LOGIT_SCALE = 12.0
"""Fixed in training, not learned: cosines between an image and unlike words then give soft probabilities."""


def card() -> EncoderCard:
    """The card of demo-vlm."""
    return EncoderCard(
        name="demo-vlm",
        dim=128,
        input_px=224,
        description=(
            "A tiny vision-language model trained by this project on its own procedural H&E. It knows procedural "
            "images only: use it for demonstrations and tests, never for biological conclusions."
        ),
        family="demo",
        architecture="depthwise convolutions over optical density",
        tile_px=224,
        mpp=0.5,
        mean=HALF,
        std=HALF,
        interpolation="bilinear",
        crop="squash",
        pooling="mean and standard deviation of the feature map, then a linear projection",
        precision="fp32",
        params_m=0.49,
        vision_language=True,
        has_text=True,
        text="a weighted bag of n-grams of words, two layers",
        logit_scale=LOGIT_SCALE,
        templates=demo_words.TEMPLATES,
        training="contrastive, on procedural tissue",
        licence="as pathassets (own work, no third-party data)",
        commercial_use=True,
        gated=False,
        file=WEIGHTS_FILE,
        citation="pathassets, procedural demonstration encoder",
        source="training/train_demo_vlm.py; accuracy: benchmarks/gate_demo_vlm.py",
    )


def build() -> DemoVlm:
    """The network with untrained weights; `load_encoder("demo-vlm")` gives it its weights."""
    from pathassets.encoders.demo_network import DemoVlm

    return DemoVlm()
