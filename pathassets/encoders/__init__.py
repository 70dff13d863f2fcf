"""Encoders: model cards, registry, one file per family, text towers; knows no slides.

Importing this package loads no network library: cards and hashes are asked for by every process, networks by few.
"""

from pathassets.encoders.card import EncoderCard
from pathassets.encoders.licences import check_licence
from pathassets.encoders.loading import (
    check_access,
    check_device,
    check_tokenizer,
    load_encoder,
    weights_are_here,
    words_are_here,
    words_digest,
)
from pathassets.encoders.registry import EncoderSpec, canonical, get_card, has_text, knows_words, list_cards
from pathassets.encoders.tiles import recommended_tiles, unlike_authors
from pathassets.encoders.weights import weights_digest

__all__ = [
    "EncoderCard",
    "EncoderSpec",
    "canonical",
    "check_access",
    "check_device",
    "check_licence",
    "check_tokenizer",
    "get_card",
    "has_text",
    "knows_words",
    "list_cards",
    "load_encoder",
    "recommended_tiles",
    "unlike_authors",
    "weights_are_here",
    "weights_digest",
    "words_are_here",
    "words_digest",
]
