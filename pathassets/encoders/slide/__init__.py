"""Slide encoders: the embeddings of a slide's tiles to one vector; arrays in, a vector out, knows no slides.

Importing this package loads no network library.
"""

from pathassets.encoders.slide.card import SlideCard
from pathassets.encoders.slide.loading import (
    check_slide_access,
    load_slide_encoder,
    slide_weights_are_here,
    slide_weights_digest,
)
from pathassets.encoders.slide.zoo import check_recipe, get_slide_card, list_slide_cards, training_record

__all__ = [
    "SlideCard",
    "check_recipe",
    "check_slide_access",
    "get_slide_card",
    "list_slide_cards",
    "load_slide_encoder",
    "slide_weights_are_here",
    "slide_weights_digest",
    "training_record",
]
