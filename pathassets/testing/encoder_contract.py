"""The contract of an encoder: what any of them promises, a plug-in's too, and small copies to try it on.

Belongs here: checks of cards and encoders, which raise AssertionError. Does not belong: pytest, slides.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from pathassets.encoders.card import EncoderCard

if TYPE_CHECKING:
    from pathassets.encoders.encoder import Encoder

# Batches of another size may take another kernel: equal up to rounding of the precision computed in.
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 1e-2}
MIN_COSINE = 0.98
"""Of a tile's vectors in bf16 and in fp32; trained and untrained transformers alike lie above 0.99."""
SMALL_PATCHES = 4
SMALL_TEXT = {"width": 32, "layers": 1, "heads": 4, "vocab": 64, "context": 16, "places": 32}
SMALL_WORDS = ("mucosa", "adipose", "tissue", "of", "a", "an", "image")


def check_encoder(encoder: Encoder) -> None:
    """What every encoder promises: its card's dimension, finite numbers that follow the tile, the same twice, no matter the
    batch or precision; what is asked for besides is of its shape, and classes are probabilities.

    Args:
        encoder: A loaded encoder; text is checked where its card says that it has a text tower.

    Raises:
        AssertionError: A promise is broken.
    """
    edge = encoder.card.tile_px or encoder.card.input_px
    tiles = np.random.default_rng(0).integers(0, 256, (3, edge, edge, 3), dtype=np.uint8)
    vectors = encoder(tiles)
    assert vectors.shape == (3, encoder.card.dim), f"3 tiles gave {vectors.shape}, the card says {encoder.card.dim}"
    assert vectors.dtype == np.float32, f"embeddings are float32, not {vectors.dtype}"
    assert np.isfinite(vectors).all(), "embeddings of ordinary tiles are not finite"
    assert np.array_equal(encoder(tiles), vectors), "the same tiles gave other numbers the second time"
    assert np.ptp(vectors, axis=0).any(), "three different tiles gave one and the same vector"
    alone = np.concatenate([encoder(tile[None]) for tile in tiles])
    error = np.abs(alone - vectors).max() / np.abs(vectors).max()
    assert error <= TOLERANCE[encoder.precision], f"a tile's embedding depends on its batch: relative error {error:.2g}"
    assert encoder(tiles[:0]).shape == (0, encoder.card.dim), "no tiles must give no rows"
    _check_precision(encoder, tiles)
    _check_preprocessing(encoder, tiles)
    _check_outputs(encoder, tiles, vectors)
    if encoder.card.has_text:
        _check_text(encoder)


def check_card(card: EncoderCard) -> None:
    """What every card says: whence, under which terms, how pooled, how prepared; in values that a table can hold.

    Raises:
        AssertionError: Something is left out.
    """
    for field in ("description", "pooling", "licence", "source"):
        text = getattr(card, field)
        assert text not in ("", "unknown"), f"the card of {card.name!r} does not say its {field}"
    assert card.citation or card.link, f"the card of {card.name!r} names neither a paper nor a page"
    assert not card.gated or card.hub_id, f"the card of {card.name!r} is gated by nobody"
    assert len(card.mean) == len(card.std) == 3, f"the card of {card.name!r} has no mean and std for three colours"
    assert all(0 <= value <= 1 for value in (*card.mean, *card.std)), "mean and std are of RGB in 0..1"
    assert not card.has_text or card.templates, f"the card of {card.name!r} has text and no prompt templates"
    assert not card.has_text or card.vision_language, f"{card.name!r} has a text tower and is no vision-language model"
    json.dumps(card.to_row())


def small_copy(name: str, **kwargs: Any) -> Encoder:
    """An encoder of the same kind as `name`, untrained, with one block of a transformer and a picture of few patches.

    Foundation models do not fit into a test: this has their card, their pooling, their head and every other layer. A text tower
    is narrow as well and knows a few words (`pathassets[text]`).

    Args:
        name: A named encoder.
        **kwargs: As for `load_encoder`.
    """
    from pathassets.encoders import get_card, load_encoder

    how = {"random_weights": True, "device": "cpu", **small_kwargs(name), **kwargs}
    if not get_card(name).tokenizer or "tokenizer" in how:
        return load_encoder(name, **how)
    with TemporaryDirectory() as folder:
        encoder = load_encoder(name, **how, tokenizer=small_tokenizer(Path(folder) / "tokenizer.json", get_card(name)))
        assert encoder.logit_scale > 0  # reads the text tower while its tokenizer is there
        return encoder


def small_tokenizer(path: Path, card: EncoderCard) -> Path:
    """Writes a tokenizer of a few words for a small copy; needs `pathassets[text]`.

    Args:
        path: A file that ends in `.json`.
        card: The encoder, for the tokens around a text.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    from pathassets.encoders.text import towers
    from pathassets.encoders.zoo import encoders

    tower = encoders()[card.name].text or towers()["clip"]
    words = ["<pad>", *dict.fromkeys((*tower.begin, *tower.end)), "[UNK]", *SMALL_WORDS]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer: Any = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 (a token of text)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))
    return path


def small_kwargs(name: str) -> dict[str, Any]:
    """Arguments that make a zoo's transformer small; none for other networks, which are small enough."""
    from pathassets.encoders import zoo

    entry = zoo.encoders()[name].entry if name in zoo.encoders() else {}
    arch = str(entry.get("arch", ""))
    if not arch.startswith(("vit_", "beit3_")):
        return {}
    patch = entry.get("kwargs", {}).get("patch_size") or int(arch.partition("_patch")[2].partition("_")[0])
    small = {"depth": 1, "img_size": SMALL_PATCHES * patch}
    tower = zoo.encoders()[name].text
    if tower is None:
        return small
    kept = ("width",) if tower.head == "none" else ()  # the blocks' own vector is the text's
    return {**small, "text_kwargs": {key: size for key, size in SMALL_TEXT.items() if key not in kept}}


def _check_precision(encoder: Encoder, tiles: np.ndarray) -> None:
    reduced = encoder.at("bf16") if encoder.precision == "fp32" else encoder
    cosine = reduced.agreement(tiles).cosine
    assert cosine >= MIN_COSINE, f"in {reduced.precision} a tile's vector has cosine {cosine:.3f} to that in fp32"


def _check_preprocessing(encoder: Encoder, tiles: np.ndarray) -> None:
    """What the network sees can be turned back into the tile, and gives the tile's vector."""
    card, edge = encoder.card, encoder.card.resize_px
    exact = encoder.at("fp32")
    tile = tiles[:1, :edge, :edge] if tiles.shape[1] >= edge else np.resize(tiles[:1], (1, edge, edge, 3))
    inputs = exact.inputs(tile)
    assert inputs.shape == (1, 3, card.input_px, card.input_px), f"the network sees {inputs.shape}"
    back = (inputs[0].transpose(1, 2, 0) * np.array(card.std) + np.array(card.mean)) * 255
    top = round((edge - card.input_px) / 2) if card.crop == "center" else 0
    seen = tile[0, top : top + card.input_px, top : top + card.input_px]
    if card.crop == "center" or edge == card.input_px:
        assert np.abs(back - seen).max() < 0.01, "preprocessing does something else than the card's mean and std"
    assert np.allclose(exact(inputs, preprocess=False), exact(tile), rtol=1e-4, atol=1e-5), "inputs and tile differ"


def _check_outputs(encoder: Encoder, tiles: np.ndarray, vectors: np.ndarray) -> None:
    found, layout = encoder.outputs(tiles), encoder.layout
    assert np.array_equal(found.vectors, vectors), "with what was asked for besides, vectors are others"
    if found.probabilities is not None:
        assert found.probabilities.shape == (len(tiles), layout.n_classes), f"classes: {found.probabilities.shape}"
        assert np.abs(found.probabilities.sum(axis=1) - 1).max() < 1e-4, "probabilities of classes do not sum to one"
    if found.tokens is not None:
        assert found.tokens.shape == (len(tiles), *(layout.grid or ())), f"patch tokens: {found.tokens.shape}"
        assert np.isfinite(found.tokens).all(), "patch tokens of ordinary tiles are not finite"


def _check_text(encoder: Encoder) -> None:
    words = encoder.embed_text(["mucosa", "adipose tissue"])
    assert words.shape == (2, encoder.card.dim), f"2 texts gave {words.shape}; tiles and texts share one space"
    assert np.allclose(np.linalg.norm(words, axis=1), 1, atol=1e-3), "text embeddings have length one"
    assert encoder.logit_scale > 0, "a softmax over terms needs a scale above zero"
