"""docs/encoders.md, written from the cards: `python -m pathassets.encoders.page docs/encoders.md`.

Belongs here: that page. Does not belong: facts about encoders.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pathassets.encoders import zoo
from pathassets.encoders.card import EncoderCard
from pathassets.encoders.demo_vlm import card as demo_card
from pathassets.encoders.slide import SlideCard, list_slide_cards

HEAD = """# Encoders

Written from the cards by `python -m pathassets.encoders.page docs/encoders.md`; `pathassets encoders` says which weights are on this
machine, and `pathassets encoders NAME` shows one card with its pipeline and BibTeX.

`confirmed`: V = the network was built here, and the length of its vectors and its number of parameters are those that its sources
state; S = read in the source of its authors or of another framework. **No published weights could be fetched where this was written:
shapes and names are confirmed, the numbers that trained weights give are not.** `layout` is the layout of the published checkpoint
that is translated (`encoders/keymaps.py`). Which encoders read words, and what they need for it: [Words](#words).

Tiles are what the authors cut (`tile px @ µm/px`): `run --encoder NAME` takes them, and so does a recipe without `tiling` in
settings without `[tilings]`. `--tile-px`, `--mpp` and a tiling of your own win; `run`, `run --dry-run` and `doctor` say so where a
network then sees something else.
Names are taken however they are written: `UNI2-h`, `Hibou_B`, `MahmoodLab/UNI2-h`, Slideflow's, TRIDENT's and TIAToolbox's.

The same weights pooled in another way are another encoder, and the name says so: `h0-mini` is the class token and the mean patch token
side by side, `h0-mini/cls` the class token alone.

Also by name: any timm model (`timm/vit_small_patch16_224`, `timm/resnet50.tv_in1k`), torchvision's ImageNet networks
(`resnet50_imagenet`, or `resnet50` as in TIAToolbox), a network of your own in a file (`exported`) or trained with DINOv2
(`dinov2`), see [adding-things.md](adding-things.md).

`licences = ["Apache-2.0", "MIT"]` or `["commercial"]` in `[study]` of `pathassets.toml` refuses all other weights. A recipe's
`weights_sha256 = "..."` (the first 8 digits, or more) refuses every other file. What a licence asks is said before the work.
"""
TABLE = (
    "name",
    "length",
    "input px",
    "tile px @ µm/px",
    "parameters, M",
    "trained with",
    "slides",
    "licence",
    "confirmed",
)
PIPELINES = "\n## Preprocessing, pooling, weights\n\n"
COLUMNS = ("name", "network", "pooling", "pipeline", "layout", "weights")
TERMS = "\n## Terms and papers\n\n"
WORDS = """
## Words

Encoders that were trained with words. The text tower is in the same file as the image tower; the tokenizer is looked for
beside the file that `weights` names, then in the hub's cache, or is named: `tokenizer = "FILE"` in the recipe. It is never
fetched, its hash is part of what text scores are made from, and one with other numbers of tokens is refused.
`pip install 'pathassets[text]'` brings the libraries: tokenizers or sentencepiece to cut words up, transformers for the
towers of BERT. Texts beyond `tokens` are cut off. A term's vector is the mean over the prompts (`templates` in `[text]`
wins); the factor before the softmax is the one in the weights. Where words cannot be read, terms of your own fail
`text_similarity` with the reason and the remedy, and the default ones leave it flagged, without scores.

`confirmed` is of the text tower: V = its size is the one that its sources state, and its numbers are those of
transformers, open_clip or a second writing of its authors' formulas, on random weights; S = read in their source.

"""

SLIDES = """
## Slide encoders

A slide encoder turns the embeddings of a slide's tiles into one vector. It is named beside the reductions, in the recipe whose tiles it
takes, and refuses tiles of another encoder or another tiling when the settings are read:

```toml
[tilings.px256_mpp050]
tile_px = 256
mpp = 0.5

[[recipes]]
encoder = "gigapath"
weights = "/data/weights/pytorch_model.bin"
tiling = "px256_mpp050"

[recipes.vectors]
methods = ["mean", "gigapath-slide"]
weights = { "gigapath-slide" = "/data/weights/slide_encoder.pth" }
```

`pathassets run SLIDES --encoder gigapath --weights FILE --slide-encoder gigapath-slide --slide-weights FILE --tile-px 256 --mpp 0.5`
writes that and does both stages. Tiles are kept: another slide encoder later needs no pixel. The vectors stand in `slide_vectors`,
under the encoder's name in `method`, with the weights' hash; `explain` names it too. In Python:
`load_slide_encoder("chief", weights=FILE)(features)`, from `pathassets.encoders.slide`; `attention(features)` says each tile's share.

All compute in fp32; V = compared with the authors' own code under shared random weights
([decision 0008](decisions/0008-slide-encoders.md)).

"""
SLIDE_COLUMNS = (
    "name",
    "takes",
    "length",
    "network",
    "pooling",
    "parameters, M",
    "licence",
    "weights",
    "paper",
    "confirmed",
)
TRAINING = """

### Trained on your own labels

`pathassets train-abmil LABEL --home study` learns a column of `slides.csv` from a recipe's embeddings (ABMIL: gated attention
over tiles) and writes `models/LABEL.safetensors`, which a recipe names among its `methods`. It prints the AUROC of held-out
patients (column `patient`, else each slide counts as one) with its 95 % interval, and with `--json` each slide's held-out
probabilities. No setting is chosen by looking at them: channels are standardized over the training slides, each slide is seen
20 times, one a step, rare labels weighted up. Fewer patients of a label than folds are refused (`too_few_slides`); below
20 of each take the number as a hint. The file's metadata says tile encoder and its weights' hash, tiling, labels, slides, a hash
over the embeddings' digests, and versions; other tiles are refused. The vectors of slides that it was trained on are not held
out. `load_slide_encoder(FILE)` gives `probabilities(features)` and `attention(features)`.
"""
REFUSED = """

Known, with a card, and not runnable here; the recipe is refused, with what can be done:

"""


def render() -> str:
    """The page."""
    cards = [demo_card(), *(encoder.card() for encoder in zoo.encoders().values())]
    first = _table(TABLE, [_facts(card) for card in cards])
    second = _table(COLUMNS, [_making(card) for card in cards])
    terms = _table(("name", "terms", "paper", "known elsewhere as"), [_terms(card) for card in cards])
    words = _table(
        ("name", "text tower", "tokenizer", "tokens", "prompts", "confirmed"), list(map(_words, _speaking(cards)))
    )
    return "\n".join([HEAD, first, WORDS + words, PIPELINES + second, TERMS + terms, _not_here(), _slides()])


def _facts(card: EncoderCard) -> list[str]:
    tile = str(card.tile_px or "any") + (f" @ {card.mpp}" if card.mpp else "")
    size, slides = f"{card.params_m:g}", f"{card.n_wsis:,}" if card.n_wsis else ""
    words = " (with words)" if card.vision_language else ""
    return [
        f"`{card.name}`", str(card.dim), str(card.input_px), tile, size, card.training + words, slides, card.licence,
        card.evidence,
    ]  # fmt: skip


def _making(card: EncoderCard) -> list[str]:
    weights = " / ".join(filter(None, (card.hub_id, card.file))) or "a local file"
    return [f"`{card.name}`", card.architecture, card.pooling, " → ".join(card.pipeline), card.key_map, weights]


def _speaking(cards: Sequence[EncoderCard]) -> list[EncoderCard]:
    return [card for card in cards if card.vision_language]


def _words(card: EncoderCard) -> list[str]:
    if not card.has_text:
        return [f"`{card.name}`", f"none: {card.text}; take `{card.text_encoder}`", "", "", "", ""]
    tower = zoo.encoders()[card.name].text if card.name in zoo.encoders() else None
    files = " or ".join(f"`{file}`" for file in card.tokenizer) or "none"
    prompts = ", ".join(f'"{template}"' for template in card.templates)
    return [f"`{card.name}`", card.text, files, str(card.context or "any"), prompts, tower.evidence if tower else ""]


def _terms(card: EncoderCard) -> list[str]:
    others = ", ".join(f"`{other}`" for other, ours in zoo.aliases().items() if ours == card.name)
    return [f"`{card.name}`", card.terms, card.citation, others]


def _not_here() -> str:
    lines = [f"- `{name}`: {why}" for name, why in zoo.not_here().items()]
    return "\n".join(["\n## Known, not built\n", *lines, ""])


def _slides() -> str:
    cards = list_slide_cards()
    running = _table(SLIDE_COLUMNS, [_slide_facts(card) for card in cards if not card.missing])
    refused = [f"- `{card.name}` ({card.tiles}): {card.missing}. {card.instead}" for card in cards if card.missing]
    return "\n".join([SLIDES + running + REFUSED + "\n".join(refused) + TRAINING, ""])


def _slide_facts(card: SlideCard) -> list[str]:
    weights = " / ".join(filter(None, (card.hub_id, card.file))) or f"a local file, from {card.link}"
    return [
        f"`{card.name}`", card.tiles, str(card.dim), card.architecture, card.pooling, f"{card.params_m:g}", card.terms, weights,
        card.citation, card.evidence,
    ]  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main() -> None:
    """Writes the page to the path that is given."""
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
